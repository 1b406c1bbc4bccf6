//! A `fleet up` on free ports, and other commands beside it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

pub(super) const LIMIT: Duration = Duration::from_secs(60);

pub(super) fn fleet() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleet"));
    // It would name another store than that of the data folder.
    command.env_remove("DATABASE_URL");
    command.env_remove("FLEET_DATA_DIR");
    command.env_remove("KAFKA_BROKERS");
    command
}

/// A running `fleet up` on free ports; killed when dropped.
pub(super) struct Up {
    child: Child,
    lines: Receiver<Value>,
    folder: tempfile::TempDir,
    pub(super) port: u16,
    /// The URL of API and dashboard.
    pub(super) http: String,
    /// The URL of probes and metrics.
    pub(super) admin: String,
}

impl Up {
    pub(super) fn start(arguments: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), arguments)
    }

    /// In the folder of an earlier run.
    pub(super) fn start_in(folder: tempfile::TempDir, arguments: &[&str]) -> Self {
        let mut child = fleet()
            .args(["up", "--mqtt-addr", "127.0.0.1:0"])
            .args(["--http-addr", "127.0.0.1:0"])
            .args(["--admin-addr", "127.0.0.1:0"])
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
            http: String::new(),
            admin: String::new(),
        };
        let started = up.wait_for("the first line", |line| line["event"] == "started");
        let url = started["listening"].as_str().unwrap();
        up.port = url
            .strip_prefix("mqtt://127.0.0.1:")
            .unwrap()
            .parse()
            .unwrap();
        up.http = started["http"].as_str().unwrap().to_owned();
        up.admin = started["admin"].as_str().unwrap().to_owned();
        up
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the process is gone, and gives the last line.
    pub(super) fn ended(&mut self) -> Value {
        let ended = self.wait_for("last line", |line| line["event"] == "ended");
        self.child.wait().unwrap();
        ended
    }

    /// Ends it as a crash does (SIGKILL), and gives its folder.
    pub(super) fn kill(mut self) -> tempfile::TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }

    pub(super) fn data(&self) -> PathBuf {
        self.folder.path().join("new/data")
    }

    /// The URL of the broker.
    pub(super) fn broker(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// The first line that passes; panics with the last one seen when none does in time.
    pub(super) fn wait_for(&self, what: &str, passes: impl Fn(&Value) -> bool) -> Value {
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

    pub(super) fn publish(&self, payload: &str) {
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
    pub(super) fn command(&self, arguments: &[&str]) -> Output {
        on(&self.data(), arguments)
    }

    /// Sends a signal and gives the exit code, the last line and the data folder.
    pub(super) fn stop(mut self, signal: &str) -> (Option<i32>, Value, tempfile::TempDir) {
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

pub(super) fn on(data: &Path, arguments: &[&str]) -> Output {
    fleet()
        .args(arguments)
        .arg("--data-dir")
        .arg(data)
        .output()
        .unwrap()
}

pub(super) fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}
