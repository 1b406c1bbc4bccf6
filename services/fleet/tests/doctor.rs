//! The embedded broker keeps what the fleet relies on.

use std::process::Command;

use fleet::broker::EmbeddedBroker;

#[test]
fn embedded_broker_is_fit_for_the_fleet() {
    let dir = tempfile::tempdir().unwrap();
    let broker = EmbeddedBroker::start("127.0.0.1:0".parse().unwrap(), dir.path()).unwrap();
    let url = format!("mqtt://{}", broker.local_addr());
    let output = Command::new(env!("CARGO_BIN_EXE_fleet"))
        .args(["doctor", "--mqtt-url", &url, "--output", "json"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    let failing: Vec<_> = answer["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["status"] == "fail")
        .collect();
    assert!(failing.is_empty(), "{failing:#?}");
}
