//! `fleet up` as a process: the main job from a device to a row, a refusal, a stop.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

fn fleet() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleet"));
    // It would name another store than that of the data folder.
    command.env_remove("DATABASE_URL");
    command
}

/// A running `fleet up` on free ports; killed when dropped.
struct Up {
    child: Child,
    lines: Receiver<Value>,
    folder: tempfile::TempDir,
    port: u16,
}

impl Up {
    fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = fleet()
            .args(["up", "--mqtt-addr", "127.0.0.1:0", "--admin-addr", "off"])
            .args(["--summary-interval", "100ms", "--data-dir"])
            .arg(folder.path().join("new/data"))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines() {
                let parsed = serde_json::from_str(&line.unwrap()).unwrap();
                if sender.send(parsed).is_err() {
                    return;
                }
            }
        });
        let mut up = Self {
            child,
            lines,
            folder,
            port: 0,
        };
        let started = up.wait_for("the first line", |line| line["event"] == "started");
        let url = started["listening"].as_str().unwrap();
        up.port = url
            .strip_prefix("mqtt://127.0.0.1:")
            .unwrap()
            .parse()
            .unwrap();
        up
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("new/data")
    }

    /// The first line that passes; panics with the last one seen when none does in time.
    fn wait_for(&self, what: &str, passes: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + LIMIT;
        let mut last = Value::Null;
        while let Ok(line) = self
            .lines
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            if passes(&line) {
                return line;
            }
            last = line;
        }
        panic!("no {what} within {LIMIT:?}; last: {last}");
    }

    fn publish(&self, payload: &str) {
        let status = Command::new("mosquitto_pub")
            .args([
                "-p",
                &self.port.to_string(),
                "-q",
                "1",
                "-t",
                "sensors/attic/temperature",
                "-m",
                payload,
            ])
            .status()
            .unwrap_or_else(|error| panic!("mosquitto_pub: {error}; install mosquitto-clients"));
        assert!(status.success());
    }

    /// Runs a command on the data folder.
    fn command(&self, arguments: &[&str]) -> Output {
        on(&self.data(), arguments)
    }

    /// Sends a signal and gives the exit code, the last line and the data folder.
    fn stop(mut self, signal: &str) -> (Option<i32>, Value, tempfile::TempDir) {
        let sent = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
        let ended = self.wait_for("last line", |line| line["event"] == "ended");
        let code = self.child.wait().unwrap().code();
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap());
        (code, ended, folder)
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn on(data: &Path, arguments: &[&str]) -> Output {
    fleet()
        .args(arguments)
        .arg("--data-dir")
        .arg(data)
        .output()
        .unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn reading(value: f64) -> String {
    format!(
        r#"{{"sensor_id":"mine","type":"temperature","value":{value},"unit":"celsius","location":"attic","timestamp":"2026-01-02T03:04:05Z"}}"#
    )
}

#[test]
fn a_stranger_s_reading_is_a_row_and_its_rubbish_a_dead_letter() {
    let up = Up::start(&["--devices", "5", "--seed", "1"]);
    up.wait_for("stored readings of 5 devices", |line| {
        line["devices_connected"] == 5 && line["readings_stored"].as_u64() >= Some(5)
    });
    up.publish(&reading(21.5));
    up.publish(&reading(21.5));
    up.publish("not a reading");
    let line = up.wait_for("duplicate and dead letter", |line| {
        line["duplicates"] == 1 && line["dead_letters"] == 1
    });
    assert_eq!(line["conflicts"], 0);
    assert!(
        line["ingest"]
            .as_array()
            .unwrap()
            .iter()
            .all(|count| count.as_u64() > Some(0)),
        "{line}"
    );

    let listed = up.command(&["dead-letters", "list", "--output", "json"]);
    let letter = json(&listed);
    assert_eq!(
        (&letter["reason"], &letter["payload"]),
        (&"malformed".into(), &"not a reading".into())
    );

    let (code, ended, folder) = up.stop("-INT");
    assert_eq!(code, Some(0));
    assert_eq!(ended["published"], ended["acknowledged"]);
    let proof = on(
        &folder.path().join("new/data"),
        &["verify", "--output", "json"],
    );
    assert_eq!(proof.status.code(), Some(0), "{proof:?}");
    assert_eq!(json(&proof)["acknowledged"], ended["acknowledged"]);
}

#[test]
fn a_bounded_run_ends_by_itself_and_a_second_adds_to_the_first() {
    let up = Up::start(&["--duration", "2s", "--ingest", "3"]);
    let first = up.wait_for("end", |line| line["event"] == "ended");
    let again = fleet()
        .args([
            "up",
            "--mqtt-addr",
            "127.0.0.1:0",
            "--admin-addr",
            "off",
            "--duration",
            "2s",
            "--data-dir",
        ])
        .arg(up.data())
        .output()
        .unwrap();
    assert_eq!(again.status.code(), Some(0), "{again:?}");
    let proof = json(&up.command(&["verify", "--output", "json"]));
    assert!(
        proof["acknowledged"].as_u64() > first["acknowledged"].as_u64(),
        "{first} {proof}"
    );
    assert_eq!(
        (&proof["missing"], &proof["duplicates"]),
        (&0.into(), &0.into()),
        "{proof}"
    );
}

#[test]
fn replayed_dead_letters_are_stored_once_or_come_back() {
    let up = Up::start(&["--devices", "1"]);
    let url = format!("mqtt://127.0.0.1:{}", up.port);
    up.publish(&reading(1.0));
    up.publish(&reading(2.0));
    up.publish("not a reading");
    up.wait_for("two dead letters", |line| {
        line["conflicts"] == 1 && line["dead_letters"] == 1
    });

    let replay = |which: &[&str]| {
        let arguments = [
            &[
                "dead-letters",
                "replay",
                "--output",
                "json",
                "--mqtt-url",
                &url,
            ][..],
            which,
        ]
        .concat();
        let output = up.command(&arguments);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        json(&output)["replayed"].as_u64().unwrap()
    };
    assert_eq!(replay(&["--reason", "conflict"]), 1);
    up.wait_for("the conflict once more", |line| {
        line["conflicts"] == 2 && line["dead_letters"] == 1
    });
    let letter = json(&up.command(&[
        "dead-letters",
        "list",
        "--reason",
        "malformed",
        "--output",
        "json",
    ]));
    assert_eq!(replay(&["--id", letter["id"].as_str().unwrap()]), 1);
    up.wait_for("the rubbish once more", |line| line["dead_letters"] == 2);
    assert_eq!(replay(&["--all"]), 2);
    up.wait_for("both once more", |line| {
        line["conflicts"] == 3 && line["dead_letters"] == 3
    });
    let listed = up.command(&["dead-letters", "list", "--output", "json"]);
    assert_eq!(String::from_utf8(listed.stdout).unwrap().lines().count(), 2);
    assert_eq!(up.command(&["verify"]).status.code(), Some(0));
}

#[test]
fn a_taken_port_is_one_line_that_names_the_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    for (flags, named) in [
        (["--mqtt-addr", &addr, "--admin-addr", "off"], "--mqtt-addr"),
        (
            ["--mqtt-addr", "127.0.0.1:0", "--admin-addr", &addr],
            "--admin-addr",
        ),
    ] {
        let output = on(folder.path(), &[&["up"][..], &flags].concat());
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(named) && error.contains(&addr), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}
