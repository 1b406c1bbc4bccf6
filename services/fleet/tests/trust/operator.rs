//! What an operator reads who is not let in: one line, at once, with what to do.

use std::time::Duration;

use fleet::certs::Authority;
use fleet_tests::Program;
use jiff::Timestamp;
use secrecy::ExposeSecret as _;

use crate::cells::accounts;
use crate::scene::{SOON, Trust};

#[actix::test]
async fn a_refusal_that_no_attempt_mends_ends_every_command_at_once() {
    let trust = Trust::of(accounts());
    let embedded = trust.embedded();
    let mosquitto = trust.mosquitto(false).await;
    let day = Duration::from_secs(86_400);
    let strange = trust.dir.path().join("strange");
    Authority::open(&strange, day, day, false, Timestamp::now()).unwrap();
    let recording = trust.write(
        "day.jsonl",
        "{\"recording\":1,\"broker\":\"mqtt://b:1883\",\"filters\":[\"#\"],\"at\":\"2026-01-02T03:04:05Z\"}\n\
         {\"at\":\"2026-01-02T03:04:05Z\",\"topic\":\"sensors/lab/temperature\",\"payload\":\"1\",\"qos\":1}\n",
    );
    let recording = recording.display().to_string();
    let recorded = trust.dir.path().join("new.jsonl").display().to_string();
    let commands = [
        &["tail"][..],
        &["publish", "sensors/lab/temperature", "1"],
        &["request", "sensor-001", "ping"],
        &["probe"],
        &["record", "sensors/#", "-o", &recorded],
        &["replay", &recording],
    ];
    let right = trust.passwords.get("operator").unwrap().secret();
    let right = right.expose_secret();
    let (ours, theirs) = (trust.certs("ca.crt"), strange.join("ca.crt"));
    for port in [embedded.local_addr().port(), mosquitto.port()] {
        for arguments in commands {
            let attempt = async |settings: &[(&str, &str)], reason: &str, remedy: &str| {
                let program = arguments.iter().fold(Program::new("fleet"), Program::arg);
                let program = program
                    .env("MQTT_URL", format!("mqtts://localhost:{port}"))
                    .env("MQTT_CA_FILE", ours.display())
                    // An attempt more, or a wait for one, would take longer than the test does.
                    .env("MQTT_CONNECT_TIMEOUT", "10m");
                let set = |program: Program, (key, value): &(&str, &str)| program.env(key, value);
                let mut process = settings.iter().fold(program, set).start();
                let code = process.exit(SOON).await;
                let error = process.stderr();
                assert_eq!(code, 1, "{arguments:?}: {error}");
                assert_eq!(error.lines().count(), 1, "{arguments:?}: {error}");
                assert!(error.starts_with("error: "), "{arguments:?}: {error}");
                assert!(error.contains(reason), "{arguments:?}: {error}");
                assert!(error.contains(remedy), "{arguments:?}: {error}");
            };
            let account = ("MQTT_USERNAME", "operator");
            attempt(
                &[account, ("MQTT_PASSWORD", "guessed")],
                // Mosquitto says for a wrong password what others say for a forbidden thing.
                "0x8",
                "MQTT_USERNAME",
            )
            .await;
            attempt(&[], "0x87", "MQTT_PASSWORD_FILE").await;
            let theirs = theirs.display().to_string();
            let strange = ("MQTT_CA_FILE", theirs.as_str());
            let password = ("MQTT_PASSWORD", right);
            attempt(&[account, password, strange], "TLS failed", "MQTT_CA_FILE").await;
        }
    }
}
