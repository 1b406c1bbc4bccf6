//! `fleet doctor` on brokers with accounts: what an operator may do is enough, and what an account
//! may not do is told as such.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_tests::Program;
use secrecy::ExposeSecret as _;
use serde_json::Value;

use crate::cells::accounts;
use crate::scene::Trust;

/// Every check runs into its own limit at worst.
const LONG: Duration = Duration::from_secs(150);

/// The exit code, and of each check the status and what was found.
async fn examined(trust: &Trust, port: u16, account: &str) -> (i32, BTreeMap<String, [String; 2]>) {
    let password = trust.passwords.get(account).unwrap().secret();
    let program = Program::new("fleet")
        .arg("doctor")
        .flag("--output", "json")
        .env("MQTT_URL", format!("mqtts://localhost:{port}"))
        .env("MQTT_CA_FILE", trust.certs("ca.crt").display())
        .env("MQTT_USERNAME", account)
        .env("MQTT_PASSWORD", password.expose_secret());
    let (code, answer) = program.output(LONG).await;
    let answer: Value = serde_json::from_str(&answer)
        .unwrap_or_else(|error| panic!("`{answer}` is no answer: {error}"));
    let text = |check: &Value, key: &str| check[key].as_str().unwrap().to_owned();
    let checks = answer["checks"].as_array().unwrap().iter();
    let checks = checks.map(|check| {
        let told = [text(check, "status"), text(check, "found")];
        (text(check, "check"), told)
    });
    (code, checks.collect())
}

#[actix::test]
async fn an_operator_s_account_is_enough_for_two_doctors_at_once() {
    let trust = Trust::of(accounts());
    let mosquitto = trust.mosquitto(false).await;
    let embedded = trust.embedded();
    let embedded = embedded.local_addr().port();
    let answers = tokio::join!(
        examined(&trust, mosquitto.port(), "operator"),
        examined(&trust, embedded, "operator"),
        examined(&trust, embedded, "operator"),
    );
    for (code, checks) in [answers.0, answers.1, answers.2] {
        assert_eq!(code, 0, "{checks:#?}");
        // Those of the shared subscriptions and that of the ACL are what accounts are about.
        for check in ["shared subscription", "dead member", "ACL"] {
            assert_eq!(checks[check][0], "ok", "{checks:#?}");
        }
    }
}

#[actix::test]
async fn nothing_is_told_lost_where_a_subscription_was_refused() {
    let trust = Trust::of(accounts());
    let broker = trust.mosquitto(false).await;
    let (code, checks) = examined(&trust, broker.port(), "viewer").await;
    assert_eq!(code, 1, "{checks:#?}");
    let refused = |check: &str, status: &str| {
        let [told, found] = &checks[check];
        assert_eq!(told, status, "{checks:#?}");
        assert!(
            found.contains("refused") && found.contains("0x87"),
            "{checks:#?}"
        );
    };
    refused("shared subscription", "fail");
    refused("dead member", "skip");
    refused("persistent session", "fail");
    assert!(
        checks.values().all(|[_, found]| !found.contains("lost")),
        "{checks:#?}"
    );
}
