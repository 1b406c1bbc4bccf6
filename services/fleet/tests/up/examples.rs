//! The examples of `--help`, done as they stand there.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Instant;

use serde_json::Value;

use super::running::{LIMIT, Up, fleet};

/// The lines below `Examples:` of a command's help.
fn examples(command: &str) -> Vec<String> {
    let help = fleet().args([command, "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let (_, examples) = help.split_once("\nExamples:\n").unwrap();
    let examples: Vec<_> = examples
        .lines()
        .map(|line| line.trim().to_owned())
        .collect();
    assert!(examples.len() >= 3, "{examples:?}");
    examples
}

/// Runs a line as a person's shell would, in a folder of theirs.
fn in_a_shell(up: &Up, folder: &Path, line: &str) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_fleet"));
    let output = Command::new("sh")
        .args(["-c", &format!("PATH=\"$PROGRAMS:$PATH\"\n{line}")])
        .current_dir(folder)
        .env("PROGRAMS", program.parent().unwrap())
        .env("MQTT_URL", up.broker())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{line}: {output:?}");
    output
}

/// The configuration that the device says is in force.
fn reported(up: &Up, folder: &Path) -> Value {
    let topic = "devices/sensor-001/config/reported";
    let line = format!("fleet tail {topic} --count 1 --for 10s --output json");
    let seen = in_a_shell(up, folder, &line);
    let seen: Value = serde_json::from_slice(&seen.stdout).unwrap();
    serde_json::from_str(seen["payload"].as_str().unwrap()).unwrap()
}

#[test]
fn examples_of_request_are_answered_by_a_device() {
    let up = Up::start(&["--devices", "1"]);
    up.wait_for("the device", |line| line["devices_connected"] == 1);
    let folder = tempfile::tempdir().unwrap();
    for example in examples("request") {
        let output = in_a_shell(&up, folder.path(), &example);
        let answer = String::from_utf8(output.stdout).unwrap();
        assert!(!answer.contains("error"), "{example}: {answer}");
    }
}

#[test]
fn examples_of_publish_are_taken_by_broker_and_device() {
    let up = Up::start(&["--devices", "1"]);
    up.wait_for("the device", |line| line["devices_connected"] == 1);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("hall.jpg"), [0xff, 0xd8, 0xff]).unwrap();
    let reading = |number: u32| {
        format!(
            "{{\"sensor_id\":\"mine\",\"type\":\"temperature\",\"value\":{number},\"unit\":\"celsius\",\
             \"location\":\"lab\",\"timestamp\":\"2026-01-02T03:04:0{number}Z\"}}\n"
        )
    };
    let readings: String = (1..=3).map(reading).collect();
    std::fs::write(folder.path().join("readings.jsonl"), readings).unwrap();
    let mut obeyed = false;
    for example in examples("publish") {
        in_a_shell(&up, folder.path(), &example);
        let Some((_, configuration)) = example.split_once("devices/sensor-001/config '") else {
            continue;
        };
        let (wanted, _) = configuration.split_once('\'').unwrap();
        let wanted: Value = serde_json::from_str(wanted).unwrap();
        let deadline = Instant::now() + LIMIT;
        loop {
            let told = reported(&up, folder.path());
            assert!(told.get("refused").is_none(), "{example}: {told}");
            let mut wanted = wanted.as_object().unwrap().iter();
            if wanted.all(|(key, value)| told[key] == *value) {
                break;
            }
            assert!(Instant::now() < deadline, "{example}: {told}");
        }
        obeyed = true;
    }
    assert!(obeyed, "no example configures a device");
    // What is refused after all examples is the first that is.
    up.publish("not a reading");
    up.wait_for("a dead letter", |line| {
        line["dead_letters"].as_u64() > Some(0)
    });
    let listed = up.command(&["dead-letters", "list", "--output", "json"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(listed.lines().count(), 1, "{listed}");
}
