//! `fleet up` as a process: the main job from a device to a row, a refusal, a stop.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod examples;
mod kafka;
mod operator;
mod running;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use running::{Up, fleet, json, on};

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
    let mut up = Up::start(&["--duration", "2s", "--ingest", "3"]);
    let first = up.ended();
    let again = fleet()
        .args([
            "up",
            "--mqtt-addr",
            "127.0.0.1:0",
            "--http-addr",
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
fn every_address_with_port_0_is_printed_and_answers() {
    let up = Up::start(&["--devices", "1"]);
    let ports = [&up.broker(), &up.http, &up.admin].map(|url| {
        let (_, port) = url.rsplit_once(':').unwrap();
        port.parse::<u16>().unwrap()
    });
    for port in ports {
        assert_ne!(port, 0);
        TcpStream::connect(("127.0.0.1", port)).unwrap();
    }
    let mut ready = TcpStream::connect(("127.0.0.1", ports[2])).unwrap();
    ready.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    ready.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
}

#[test]
fn a_data_folder_has_one_run_until_that_ends_also_by_a_crash() {
    let up = Up::start(&["--devices", "1"]);
    let free = "127.0.0.1:0";
    let second = up.command(&[
        "up",
        "--mqtt-addr",
        free,
        "--http-addr",
        free,
        "--admin-addr",
        "off",
    ]);
    let error = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(2), "{error}");
    let folder = up.data().display().to_string();
    let pid = format!("process {}", up.pid());
    for part in [&*folder, &pid, "--data-dir"] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(second.stdout.is_empty(), "{:?}", second.stdout);
    // Others may look at the folder meanwhile.
    assert_eq!(up.command(&["dead-letters", "list"]).status.code(), Some(0));
    let again = Up::start_in(up.kill(), &["--devices", "1"]);
    let (code, _, _) = again.stop("-INT");
    assert_eq!(code, Some(0));
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
    for named in ["--mqtt-addr", "--http-addr", "--admin-addr"] {
        let mut arguments = vec!["up"];
        for flag in ["--mqtt-addr", "--http-addr", "--admin-addr"] {
            let free = "127.0.0.1:0";
            arguments.extend([flag, if flag == named { &addr } else { free }]);
        }
        let output = on(folder.path(), &arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(named) && error.contains(&addr), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}
