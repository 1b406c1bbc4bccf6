//! The embedded broker keeps what the fleet relies on, and the doctor tells its strategies apart.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::process::Command;

use fleet::broker::{BrokerOptions, EmbeddedBroker, SharedStrategy};

/// What the doctor found of shared subscriptions, on a broker that fails in nothing.
fn sharing(sharing: SharedStrategy) -> String {
    let dir = tempfile::tempdir().unwrap();
    let options = BrokerOptions {
        sharing,
        ..BrokerOptions::default()
    };
    let anywhere = "127.0.0.1:0".parse().unwrap();
    let broker = EmbeddedBroker::start_with(anywhere, dir.path(), options).unwrap();
    let url = format!("mqtt://{}", broker.local_addr());
    let output = Command::new(env!("CARGO_BIN_EXE_fleet"))
        .args(["doctor", "--mqtt-url", &url, "--output", "json"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    let checks = answer["checks"].as_array().unwrap();
    let wrong = |check: &&serde_json::Value| check["status"] == "fail" || check["status"] == "skip";
    let wrong: Vec<_> = checks.iter().filter(wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let mut found = checks
        .iter()
        .filter(|check| check["check"] == "shared subscription");
    found.next().unwrap()["found"].as_str().unwrap().to_owned()
}

#[test]
fn embedded_broker_is_fit_for_the_fleet_and_spreads_a_topic() {
    let found = sharing(SharedStrategy::RoundRobin);
    assert!(found.contains("a topic is spread over members"), "{found}");
}

#[test]
fn a_broker_that_keeps_a_topic_on_one_member_is_told_from_one_that_spreads() {
    let found = sharing(SharedStrategy::HashTopic);
    assert!(found.contains("a topic stays with one member"), "{found}");
}
