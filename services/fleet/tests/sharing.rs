//! Groups of alerting share the work at a broker that keeps a topic on one member of a shared
//! subscription: the embedded one does so when it is told to.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleet::broker::{BrokerOptions, EmbeddedBroker, SharedStrategy};
use fleet_shared::session::{BrokerAddr, Publish, QoS, Subscription};
use fleet_tests::{Acknowledge, Client, Process, Program, eventually, options};
use serde_json::{Value, json};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);
const SENSORS: usize = 24;
const RULES: &str = "
groups:
  - name: test
    rules:
      - { alert: High, type: temperature, when: value > 30, severity: critical }
";

struct Scene {
    _broker: EmbeddedBroker,
    url: String,
    client: Client,
    dir: TempDir,
}

impl Scene {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sharing = BrokerOptions {
            sharing: SharedStrategy::HashTopic,
            ..BrokerOptions::default()
        };
        let anywhere = "127.0.0.1:0".parse().unwrap();
        let broker = EmbeddedBroker::start_with(anywhere, dir.path(), sharing).unwrap();
        let url = format!("mqtt://{}", broker.local_addr());
        let addr = broker.local_addr();
        let mut listener = options(
            BrokerAddr {
                host: addr.ip().to_string(),
                port: addr.port(),
                tls: false,
            },
            "listener",
        );
        listener.subscriptions = vec![Subscription::new("alerts/#", QoS::ExactlyOnce)];
        let client = Client::connected(listener, Acknowledge::AtOnce).await;
        std::fs::write(dir.path().join("rules.yaml"), RULES).unwrap();
        Self {
            _broker: broker,
            url,
            client,
            dir,
        }
    }

    async fn group(&self, name: &str) -> Process {
        let database = self.dir.path().join("fleet.db");
        let mut process = Program::service("alerting")
            .env("MQTT_URL", &self.url)
            .env("DATABASE_URL", format!("sqlite://{}", database.display()))
            .flag("--mqtt-client-id", format!("alerting-{name}"))
            .flag("--group", name)
            .flag("--filter", "$share/alerting/sensors/#")
            .flag("--lease", "2s")
            .flag("--rules", self.dir.path().join("rules.yaml").display())
            .start();
        process.ready(PATIENCE).await;
        process
    }

    /// One reading of each sensor, each of which has a topic of its own.
    async fn round(&self, second: usize, value: f64) {
        for sensor in 0..SENSORS {
            let reading = json!({
                "sensor_id": format!("s{sensor}"), "type": "temperature", "value": value,
                "unit": "celsius", "location": format!("room-{sensor}"),
                "timestamp": format!("2025-10-09T08:00:{second:02}Z"),
            });
            let topic = format!("sensors/room-{sensor}/temperature");
            let publish =
                Publish::new(topic, "sensors/{location}/temperature", reading.to_string());
            self.client.session.publish(publish).await.unwrap();
        }
    }

    /// What was told of each sensor, in order.
    fn told(&self) -> BTreeMap<String, Vec<String>> {
        let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for message in self.client.received() {
            let alert: Value = serde_json::from_slice(&message.payload).unwrap();
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            told.entry(text(&alert["sensor_id"]))
                .or_default()
                .push(text(&alert["metadata"]["state"]));
        }
        told
    }

    /// Waits until exactly this was told of every sensor.
    async fn all_told(&self, states: &[&str]) {
        eventually(
            PATIENCE,
            &format!("{states:?} of all is told"),
            async || {
                let told = self.told();
                match told.len() == SENSORS && told.values().all(|of| of.len() >= states.len()) {
                    true => Ok(()),
                    false => Err(told),
                }
            },
        )
        .await;
        for (sensor, told) in self.told() {
            assert_eq!(told, states, "{sensor}");
        }
    }
}

async fn fired(process: &Process) -> f64 {
    let metrics = process.metrics().await.unwrap();
    metrics.sum("alerting_alerts_total", &[("state", "firing")])
}

#[actix::test]
async fn groups_share_by_the_hash_of_the_topic_and_take_over_without_a_second_notification() {
    let scene = Scene::new().await;
    let one = scene.group("one").await;
    let mut two = scene.group("two").await;
    scene.round(0, 20.0).await;
    scene.round(1, 31.0).await;
    scene.all_told(&["firing"]).await;
    let shares = [fired(&one).await, fired(&two).await];
    assert_eq!(shares[0] + shares[1], SENSORS as f64);
    assert!(shares.iter().all(|share| *share > 0.0), "{shares:?}");
    // Still firing: whoever gets it tells nobody.
    scene.round(2, 32.0).await;
    two.kill();
    // The broker gives what was two's to one; part of it may wait for two's session.
    scene.round(3, 33.0).await;
    scene.round(4, 20.0).await;
    let _two = scene.group("two").await;
    scene.round(5, 19.0).await;
    scene.all_told(&["firing", "resolved"]).await;
    let ids: BTreeSet<String> = scene
        .client
        .received()
        .iter()
        .map(|message| {
            let alert: Value = serde_json::from_slice(&message.payload).unwrap();
            alert["alert_id"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(ids.len(), SENSORS, "one episode a sensor");
}
