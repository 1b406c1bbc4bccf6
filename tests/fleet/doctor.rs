//! `fleet doctor` on a Mosquitto as it comes, and on one that is set for the fleet.

use std::collections::BTreeMap;

use fleet_shared::session::{QoS, Subscription};
use fleet_tests::{Acknowledge, Client, Mosquitto, Program, Setup, options};
use serde_json::Value;

use crate::site::LONG;

/// The exit code, the whole answer, and of each check the status and what was found.
async fn examined(broker: &Mosquitto) -> (i32, Value, BTreeMap<String, (String, String)>) {
    let program = Program::new("fleet").arg("doctor").flag("--output", "json");
    let program = program.env("MQTT_URL", broker.url());
    let (code, answer) = program.output(LONG + LONG).await;
    let answer: Value = serde_json::from_str(&answer)
        .unwrap_or_else(|error| panic!("`{answer}` is no answer: {error}"));
    let text = |check: &Value, key: &str| check[key].as_str().unwrap().to_owned();
    let checks = answer["checks"].as_array().unwrap().iter();
    let checks = checks
        .map(|check| {
            (
                text(check, "check"),
                (text(check, "status"), text(check, "found")),
            )
        })
        .collect();
    (code, answer, checks)
}

#[actix::test]
async fn doctor_finds_the_limits_of_a_mosquitto_as_it_comes() {
    let lines = ["max_inflight_messages 20", "max_queued_messages 1000"];
    let broker = Mosquitto::with(Setup {
        lines: lines.map(str::to_owned).into(),
        ..Setup::default()
    })
    .await;
    let (code, answer, checks) = examined(&broker).await;
    assert_eq!(
        (code, &answer["holds"]),
        (1, &Value::Bool(false)),
        "{answer:#}"
    );
    let status = |check: &str| checks[check].0.as_str();
    assert_eq!(status("persistent session"), "fail", "{answer:#}");
    // A subscriber's own receive maximum counts more than max_inflight_messages with MQTT 5.
    assert_eq!(status("receive maximum"), "ok", "{answer:#}");
    let found = &checks["receive maximum"].1;
    assert!(found.contains("20 from a publisher"), "{answer:#}");
    let mut all = answer["checks"].as_array().unwrap().iter();
    let session = all
        .find(|check| check["check"] == "persistent session")
        .unwrap();
    assert_eq!(session["mosquitto"], "max_queued_messages 0");
    for check in [
        "MQTT 5",
        "QoS 2",
        "retained messages",
        "shared subscription",
        "last will",
    ] {
        assert_eq!(status(check), "ok", "{answer:#}");
    }
}

#[actix::test]
async fn mosquitto_that_is_set_for_the_fleet_is_well_and_nothing_is_left_on_it() {
    let broker = Mosquitto::start().await;
    // Sees all that is published, and afterwards all that is retained.
    let everything = |name: &str| {
        let mut options = options(broker.addr(), name);
        options.subscriptions = vec![Subscription::new("#", QoS::AtMostOnce)];
        options
    };
    let (code, answer, checks) = examined(&broker).await;
    assert_eq!(
        (code, &answer["holds"]),
        (0, &Value::Bool(true)),
        "{answer:#}"
    );
    assert_eq!(checks.len(), 12, "{answer:#}");
    let well = |name: &str| checks[name].0 == "ok";
    // It gives to members in turns, so a topic has no member of its own and no order among several.
    let shared = &checks["shared subscription"].1;
    assert!(shared.contains("spread over members"), "{answer:#}");
    // Without accounts everybody may publish for everybody.
    assert_eq!(checks["ACL"].0, "warn");
    assert!(
        checks
            .keys()
            .filter(|name| *name != "ACL")
            .all(|name| well(name)),
        "{answer:#}"
    );
    let after = Client::connected(everything("after"), Acknowledge::AtOnce).await;
    let fence = fleet_shared::session::Publish::new("fence", "test", Vec::<u8>::new());
    after.session.publish(fence).await.unwrap();
    after.received_at_least(1, LONG).await;
    let left = after.received();
    assert_eq!(left.len(), 1, "retained: {left:?}");
}

#[actix::test]
async fn broker_that_is_not_there_is_said_at_once() {
    let port = fleet_tests::free_port();
    let program = Program::new("fleet").arg("doctor");
    let program = program.flag("--mqtt-url", format!("mqtt://127.0.0.1:{port}"));
    let (code, answer) = program.output(LONG).await;
    assert_eq!(code, 1);
    assert!(answer.starts_with("FAIL  MQTT 5"), "{answer}");
}
