//! Alerts with a real broker: one crossing is one `firing` and one `resolved`, whatever dies.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet_shared::session::{Publish, QoS, Subscription};
use fleet_tests::{Acknowledge, Client, Mosquitto, Process, Program, TempDir, eventually, options};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);

const RULES: &str = "
groups:
  - name: test
    rules:
      - alert: TemperatureHigh
        type: temperature
        when: value > 30
        clear: value < 29
        severity: critical
      - alert: DeviceOffline
        topic: devices/+/status
        when: '!online'
        severity: warning
";

/// A broker, somebody who listens to alerts, and what processes of alerting need.
struct Scene {
    broker: Mosquitto,
    client: Client,
    dir: TempDir,
    second: std::cell::Cell<i64>,
}

impl Scene {
    async fn new() -> Self {
        let broker = Mosquitto::start().await;
        let mut options = options(broker.addr(), "listener");
        options.subscriptions = vec![Subscription::new("alerts/#", QoS::ExactlyOnce)];
        let client = Client::connected(options, Acknowledge::AtOnce).await;
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("rules.yaml"), RULES).unwrap();
        Self {
            broker,
            client,
            dir,
            second: std::cell::Cell::new(0),
        }
    }

    fn rules(&self) -> PathBuf {
        self.dir.path().join("rules.yaml")
    }

    fn program(&self, id: &str) -> Program {
        let database = self.dir.path().join("fleet.db");
        Program::service("alerting")
            .env("MQTT_URL", self.broker.url())
            .env("DATABASE_URL", format!("sqlite://{}", database.display()))
            .flag("--mqtt-client-id", id)
            .flag("--lease", "2s")
            .flag("--rules", self.rules().display())
    }

    async fn start(&self, id: &str) -> Process {
        let mut process = self.program(id).start();
        process.ready(PATIENCE).await;
        process
    }

    /// Publishes a reading, each dated a second after the one before.
    async fn reading(&self, sensor: &str, value: f64) {
        let second = self.second.replace(self.second.get() + 1);
        let at = 1_760_000_000 + second;
        let reading = json!({
            "sensor_id": sensor, "type": "temperature", "value": value, "unit": "celsius",
            "location": "lab", "timestamp": timestamp(at),
        });
        let publish = Publish::new(
            "sensors/lab/temperature",
            "sensors/{location}/temperature",
            reading.to_string(),
        );
        self.client.session.publish(publish).await.unwrap();
    }

    /// `state sensor` of every alert so far, in order.
    fn alerts(&self) -> Vec<String> {
        let tell = |alert: &fleet_tests::Received| {
            let alert: Value = serde_json::from_slice(&alert.payload).unwrap();
            let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
            format!(
                "{} {}",
                text(&alert["metadata"]["state"]),
                text(&alert["sensor_id"])
            )
        };
        self.client.received().iter().map(tell).collect()
    }

    /// The number of different alert ids so far.
    fn episodes(&self) -> usize {
        let id = |alert: &fleet_tests::Received| {
            let alert: Value = serde_json::from_slice(&alert.payload).unwrap();
            alert["alert_id"].as_str().unwrap_or("?").to_owned()
        };
        let received = self.client.received();
        let ids: std::collections::HashSet<String> = received.iter().map(id).collect();
        ids.len()
    }

    async fn told(&self, alert: &str) {
        eventually(PATIENCE, &format!("`{alert}` is told"), async || {
            let alerts = self.alerts();
            if alerts.iter().any(|told| told == alert) {
                Ok(())
            } else {
                Err(alerts)
            }
        })
        .await;
    }

    /// Waits until everything published before has been worked through, by an alert of a sensor that
    /// only serves for this.
    async fn barrier(&self) {
        let sensor = format!("barrier-{}", self.second.get());
        self.reading(&sensor, 99.0).await;
        self.told(&format!("firing {sensor}")).await;
    }

    fn alerts_of(&self, sensor: &str) -> Vec<String> {
        let mut alerts = self.alerts();
        alerts.retain(|alert| alert.ends_with(sensor));
        alerts
    }
}

fn timestamp(second: i64) -> String {
    // 1,760,000,000 is 2025-10-09T08:53:20Z; the tests stay within its hour.
    let of_day = second - 1_759_968_000;
    format!(
        "2025-10-09T{:02}:{:02}:{:02}Z",
        of_day / 3_600,
        of_day / 60 % 60,
        of_day % 60
    )
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

#[actix::test]
async fn one_crossing_is_one_firing_and_one_resolved() {
    let scene = Scene::new().await;
    let mut process = scene.start("alerting-a").await;
    for value in [22.0, 31.0, 35.0, 29.5, 31.0, 28.0, 22.0] {
        scene.reading("s1", value).await;
    }
    scene.barrier().await;
    assert_eq!(scene.alerts_of("s1"), ["firing s1", "resolved s1"]);
    let first = &scene.client.received()[0];
    assert_eq!(first.topic, "alerts/critical/s1");
    assert_eq!(first.qos, QoS::ExactlyOnce);
    process.terminate();
    assert_eq!(process.exit(PATIENCE).await, 0);
}

#[actix::test]
async fn a_kill_between_any_two_steps_neither_doubles_nor_loses_an_alert() {
    for point in [
        "received",
        "persisted",
        "publishing",
        "acknowledged",
        "published",
        "noted",
    ] {
        let scene = Scene::new().await;
        for value in [31.0, 22.0] {
            let mut process = scene
                .program("alerting-a")
                .flag("--fault-point", point)
                .start();
            process.ready(PATIENCE).await;
            scene.reading("s1", value).await;
            assert_eq!(process.exit(PATIENCE).await, 137, "{point}");
            let mut process = scene.start("alerting-a").await;
            scene.barrier().await;
            process.terminate();
            assert_eq!(process.exit(PATIENCE).await, 0, "{point}");
        }
        assert_eq!(
            scene.alerts_of("s1"),
            ["firing s1", "resolved s1"],
            "{point}"
        );
        // That of s1 and one for each barrier.
        assert_eq!(scene.episodes(), 3, "{point}");
    }
}

#[actix::test]
async fn a_standby_takes_over_without_a_second_notification() {
    let scene = Scene::new().await;
    let mut first = scene.start("alerting-a").await;
    let second = scene.start("alerting-b").await;
    scene.reading("s1", 31.0).await;
    scene.told("firing s1").await;
    first.kill();
    // Nobody is active now; the broker keeps these for whoever will be.
    scene.reading("s1", 33.0).await;
    scene.reading("s2", 31.0).await;
    scene.reading("s1", 22.0).await;
    scene.barrier().await;
    assert_eq!(scene.alerts_of("s1"), ["firing s1", "resolved s1"]);
    assert_eq!(scene.alerts_of("s2"), ["firing s2"]);
    let metrics = second.metrics().await.unwrap();
    assert_eq!(metrics.sum("alerting_active", &[]), 1.0);
}

#[actix::test]
async fn a_bad_file_is_refused_and_a_good_one_taken() {
    let scene = Scene::new().await;
    let process = scene.start("alerting-a").await;
    write(&scene.rules(), "groups: nonsense");
    let reloads = async |outcome: &str| {
        eventually(PATIENCE, &format!("a file is {outcome}"), async || {
            let metrics = process.metrics().await.map_err(|error| error.to_string())?;
            match metrics.sum("alerting_reloads_total", &[("outcome", outcome)]) {
                1.0 => Ok(()),
                other => Err(other.to_string()),
            }
        })
        .await;
    };
    reloads("refused").await;
    scene.reading("s1", 31.0).await;
    scene.told("firing s1").await;
    write(&scene.rules(), &RULES.replace("value > 30", "value > 60"));
    reloads("taken").await;
    scene.reading("s2", 50.0).await;
    scene.barrier().await;
    assert_eq!(scene.alerts_of("s2"), [""; 0]);
}
