//! TLS to Kafka: who is who is checked on both sides, and new certificates are taken up at work.

use std::path::PathBuf;

use fleet_shared::session::{QoS, Subscription};
use fleet_tests::{ACCOUNT, Authority, Issued, Kafka, Process, Program, eventually};

use super::{Yard, assert_whole, reading};
use crate::site::LONG;

impl Yard {
    /// A file for the bridge, of which each test has its own folder.
    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        // Whole at once, as Kubernetes and `fleet certs` do it.
        let draft = path.with_extension("draft");
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(&draft, &path).unwrap();
        path
    }

    /// A bridge that trusts `ca` and is `identity`, in files that begin with `id`.
    fn secured(&self, id: &str, ca: &str, identity: Option<&Issued>) -> Program {
        let mut program = self
            .bridge(id)
            .env("KAFKA_BROKERS", self.kafka.tls_brokers())
            .env(
                "KAFKA_CA_FILE",
                self.file(&format!("{id}-ca"), ca).display(),
            );
        if let Some(identity) = identity {
            let (cert, key) = self.identity(id, identity);
            program = program
                .env("KAFKA_CERT_FILE", cert.display())
                .env("KAFKA_KEY_FILE", key.display());
        }
        program
    }

    fn identity(&self, id: &str, identity: &Issued) -> (PathBuf, PathBuf) {
        let cert = self.file(&format!("{id}-cert"), &identity.certificate);
        (cert, self.file(&format!("{id}-key"), &identity.key))
    }
}

/// Waits until a process that runs says that on readiness.
async fn unready(bridge: &mut Process, expected: &str) {
    let what = format!("it is not ready, for `{expected}`");
    eventually(LONG, &what, async || {
        assert!(bridge.is_running(), "it waits, and does not end");
        match bridge.admin("/readyz").await {
            Ok((503, said)) if said.contains(expected) => Ok(()),
            other => Err(other.map_err(|error| error.to_string())),
        }
    })
    .await;
}

#[actix::test]
async fn what_is_wrong_with_certificates_is_said_and_can_be_mended_without_a_restart() {
    let [ours, foreign] = ["ours", "foreign"].map(Authority::new);
    let server = ours.issue("localhost");
    let kafka = Kafka::secure(&server, &ours.certificate()).await;
    let yard = Yard::with(kafka).await;
    let (ca, bridge) = (ours.certificate(), ours.issue("bridge"));
    let by_address = yard.kafka.tls_brokers().replace("localhost", "127.0.0.1");
    let cases = [
        (
            yard.secured("b-foreign", &foreign.certificate(), Some(&bridge)),
            "name that authority's file in KAFKA_CA_FILE",
        ),
        (
            yard.secured("b-name", &ca, Some(&bridge))
                .env("KAFKA_BROKERS", by_address),
            "is not for the name `127.0.0.1`",
        ),
        (
            yard.secured("b-nobody", &ca, None),
            "it asks for a client certificate; set KAFKA_CERT_FILE",
        ),
        (
            yard.secured("b-stranger", &ca, Some(&foreign.issue("bridge"))),
            "it does not trust our client certificate",
        ),
        (
            yard.secured("b-expired", &ca, Some(&ours.issue_expired("bridge"))),
            "our client certificate has expired; renew KAFKA_CERT_FILE",
        ),
        (
            yard.secured("b-plain", &ca, Some(&bridge))
                .env("KAFKA_BROKERS", yard.kafka.brokers()),
            "it may not speak TLS on this port",
        ),
    ];
    let mut started: Vec<_> = cases
        .into_iter()
        .map(|(program, expected)| (program.start(), expected))
        .collect();
    for (bridge, expected) in &mut started {
        unready(bridge, expected).await;
    }
    // The files of two are mended.
    yard.file("b-foreign-ca", &ca);
    yard.identity("b-expired", &bridge);
    for (bridge, expected) in &mut started {
        if expected.contains("KAFKA_CA_FILE") || expected.contains("expired") {
            bridge.ready(LONG).await;
            bridge.terminate();
            assert_eq!(bridge.exit(LONG).await, 0);
        }
    }
    drop(started);

    let mut yard = yard;
    yard.kafka
        .identify(&ours.issue_expired("localhost"), &ours.certificate());
    yard.kafka.terminate().await;
    yard.kafka.start_again().await;
    let mut waits = yard.secured("b-late", &ca, Some(&bridge)).start();
    unready(&mut waits, "its certificate has expired").await;
}

/// A password is taken up like a certificate, and is in nothing that the bridge says.
#[actix::test]
async fn a_wrong_password_is_said_and_can_be_mended_without_a_restart() {
    let ours = Authority::new("ours");
    let ca = ours.certificate();
    let kafka = Kafka::secure(&ours.issue("localhost"), &ca).await;
    let yard = Yard::with(kafka).await;
    let (user, password) = ACCOUNT;
    let mut bridges = ["PLAIN", "SCRAM-SHA-512"].map(|mechanism| {
        let wrong = yard.file(&format!("{mechanism}-password"), "not-it\n");
        yard.secured(mechanism, &ca, None)
            .env("KAFKA_BROKERS", yard.kafka.sasl_brokers())
            .env("KAFKA_USERNAME", user)
            .env("KAFKA_PASSWORD_FILE", wrong.display())
            .flag("--kafka-setting", format!("sasl.mechanism={mechanism}"))
            .start()
    });
    for bridge in &mut bridges {
        unready(bridge, "Kafka refuses our credentials").await;
    }
    for mechanism in ["PLAIN", "SCRAM-SHA-512"] {
        yard.file(&format!("{mechanism}-password"), password);
    }
    for mut bridge in bridges {
        bridge.ready(LONG).await;
        bridge.terminate();
        assert_eq!(bridge.exit(LONG).await, 0);
        let said = bridge.stdout() + &bridge.stderr();
        assert!(!said.contains(password) && !said.contains("not-it"));
    }
}

/// How often the bridge has made its clients anew.
async fn renewals(bridge: &Process) -> u64 {
    let Ok((200, actors)) = bridge.admin("/debug/actors").await else {
        return 0;
    };
    let actors: serde_json::Value = serde_json::from_str(&actors).unwrap();
    let found = find(&actors, "kafka_clients_renewed");
    found.unwrap_or_else(|| panic!("it tells of its clients: {actors}"))
}

fn find(value: &serde_json::Value, key: &str) -> Option<u64> {
    match value {
        serde_json::Value::Object(fields) => fields
            .get(key)
            .and_then(serde_json::Value::as_u64)
            .or_else(|| fields.values().find_map(|value| find(value, key))),
        serde_json::Value::Array(values) => values.iter().find_map(|value| find(value, key)),
        _ => None,
    }
}

async fn renewed(bridge: &Process, times: u64) {
    let what = format!("{times} times new clients");
    eventually(LONG, &what, async || match renewals(bridge).await {
        // Three files do not change at once, so that there may be one more.
        found if found >= times => Ok(()),
        found => Err(found),
    })
    .await;
}

/// Certificates are replaced twice while readings flow: first as it should be, with an overlap in
/// which both authorities are trusted; then as it should not, when Kafka has turned its back on the
/// old ones and records for it are under way.
#[actix::test]
async fn certificates_replaced_under_load_lose_no_reading_and_no_command() {
    const PART: u64 = 20_000;
    let [old, new, other] = ["old", "new", "other"].map(Authority::new);
    let both = format!("{}{}", old.certificate(), new.certificate());
    let kafka = Kafka::secure(&old.issue("localhost"), &both).await;
    let mut yard = Yard::with(kafka).await;
    let mut bridge = yard
        .secured("bridge-0", &old.certificate(), Some(&old.issue("bridge")))
        .start();
    bridge.ready(LONG).await;
    let commands = Subscription::new("devices/d-1/commands/+", QoS::AtLeastOnce);
    let device = yard.client("device", vec![commands]).await;
    let command = |yard: &Yard, name: &str| {
        let value = format!(r#"{{"command":"{name}"}}"#);
        yard.kafka.put("devices.commands", Some("d-1"), &value);
    };
    let publisher = yard.client("publisher", Vec::new()).await;

    // With an overlap.
    let change = async {
        yard.identity("bridge-0", &new.issue("bridge"));
        yard.file("bridge-0-ca", &both);
        command(&yard, "one");
        renewed(&bridge, 1).await;
        command(&yard, "two");
    };
    futures_util::future::join(publisher.publish_numbers(0..PART, reading), change).await;
    yard.arrived("sensors.readings", PART).await;
    let all = assert_whole(&yard.kafka.records("sensors.readings"), PART);
    assert_eq!(
        all as u64, PART,
        "nothing comes twice where Kafka can answer"
    );
    // The old authority is dropped: who comes in now has a new certificate.
    yard.kafka
        .identify(&new.issue("localhost"), &new.certificate());
    yard.kafka.terminate().await;
    yard.kafka.start_again().await;
    publisher.publish_numbers(PART..2 * PART, reading).await;
    yard.arrived("sensors.readings", 2 * PART).await;
    bridge.ready(LONG).await;

    // Without one, while records wait in the bridge.
    yard.kafka
        .identify(&other.issue("localhost"), &other.certificate());
    yard.kafka.terminate().await;
    publisher.publish_numbers(2 * PART..3 * PART, reading).await;
    yard.kafka.start_again().await;
    unready(&mut bridge, "name that authority's file in KAFKA_CA_FILE").await;
    let before = renewals(&bridge).await;
    yard.identity("bridge-0", &other.issue("bridge"));
    yard.file("bridge-0-ca", &other.certificate());
    command(&yard, "three");
    renewed(&bridge, before + 1).await;
    yard.arrived("sensors.readings", 3 * PART).await;
    let all = assert_whole(&yard.kafka.records("sensors.readings"), 3 * PART);
    println!("{} records more than needed", all as u64 - 3 * PART);
    bridge.ready(LONG).await;

    device.received_at_least(3, LONG).await;
    let topics: Vec<_> = device.received().into_iter().map(|r| r.topic).collect();
    for name in ["one", "two", "three"] {
        let expected = format!("devices/d-1/commands/{name}");
        assert!(topics.contains(&expected), "{topics:?}");
    }
    bridge.terminate();
    assert_eq!(bridge.exit(LONG).await, 0);
}
