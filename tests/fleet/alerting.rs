//! Alerts with a real broker: one crossing is one `firing` and one `resolved`, whatever dies.

mod share;

use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet_shared::model::SensorReading;
use fleet_shared::session::{Properties, Publish, QoS, Subscription};
use fleet_store::{Batch, NewReading, OpenOptions};
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
        Self::on(Mosquitto::start().await).await
    }

    async fn on(broker: Mosquitto) -> Self {
        let mut options = options(broker.addr(), "listener");
        options.subscriptions = vec![
            Subscription::new("alerts/#", QoS::ExactlyOnce),
            Subscription::new("responses/#", QoS::AtLeastOnce),
            Subscription::new("fleet/dead-letter/alerting", QoS::AtLeastOnce),
        ];
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
        self.reading_in("lab", sensor, value).await;
    }

    async fn reading_in(&self, place: &str, sensor: &str, value: f64) {
        let second = self.second.replace(self.second.get() + 1);
        self.reading_from(place, sensor, value, &timestamp(1_760_000_000 + second))
            .await;
    }

    async fn reading_at(&self, sensor: &str, value: f64, timestamp: &str) {
        self.reading_from("lab", sensor, value, timestamp).await;
    }

    async fn reading_from(&self, place: &str, sensor: &str, value: f64, timestamp: &str) {
        let reading = json!({
            "sensor_id": sensor, "type": "temperature", "value": value, "unit": "celsius",
            "location": place, "timestamp": timestamp,
        });
        let publish = Publish::new(
            format!("sensors/{place}/temperature"),
            "sensors/{location}/temperature",
            reading.to_string(),
        );
        self.client.session.publish(publish).await.unwrap();
    }

    /// Asks the active process, and gives the answer once it is there.
    async fn request(&self, name: &str, payload: Value) -> Value {
        let id = format!("{name}-{}", self.second.replace(self.second.get() + 1));
        let properties = Properties {
            response_topic: Some(format!("responses/test/{id}").into()),
            correlation_data: Some(id.clone().into_bytes().into()),
            ..Properties::default()
        };
        let publish = Publish::new(
            format!("fleet/alerting/requests/{name}"),
            "fleet/alerting/requests/{name}",
            payload.to_string(),
        );
        let publish = publish.properties(properties);
        self.client.session.publish(publish).await.unwrap();
        let answers = self.answers(&id).await;
        assert_eq!(answers.len(), 1, "one process answers");
        let properties = answers[0].properties.as_ref().unwrap();
        assert_eq!(properties.correlation_data.as_deref(), Some(id.as_bytes()));
        serde_json::from_slice(&answers[0].payload).unwrap()
    }

    async fn answers(&self, id: &str) -> Vec<fleet_tests::Received> {
        eventually(PATIENCE, &format!("{id} is answered"), async || {
            let mut received = self.client.received();
            received.retain(|message| message.topic == format!("responses/test/{id}"));
            match received.is_empty() {
                true => Err("no answer"),
                false => Ok(received),
            }
        })
        .await
    }

    /// Every alert received so far.
    fn received(&self) -> Vec<fleet_tests::Received> {
        let mut received = self.client.received();
        received.retain(|message| message.topic.starts_with("alerts/"));
        received
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
        self.received().iter().map(tell).collect()
    }

    /// The number of different alert ids so far.
    fn episodes(&self) -> usize {
        let id = |alert: &fleet_tests::Received| {
            let alert: Value = serde_json::from_slice(&alert.payload).unwrap();
            alert["alert_id"].as_str().unwrap_or("?").to_owned()
        };
        let received = self.received();
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
        self.barrier_in("lab").await;
    }

    async fn barrier_in(&self, place: &str) {
        let sensor = format!("barrier-{}", self.second.get());
        self.reading_in(place, &sensor, 99.0).await;
        self.told(&format!("firing {sensor}")).await;
    }

    /// Waits until everything published is noted as such: a process that forgets its session at the
    /// broker would otherwise publish it again.
    async fn settled(&self) {
        let file = self.dir.path().join("fleet.db");
        eventually(PATIENCE, "everything published is noted", async || {
            let database = rusqlite::Connection::open(&file).map_err(|error| error.to_string())?;
            let left = database
                .query_row(
                    "SELECT count(*) FROM alert_outbox WHERE channel = 'mqtt' AND done_at IS NULL",
                    [],
                    |row| row.get::<_, i64>(0),
                )
                .map_err(|error| error.to_string())?;
            if left == 0 {
                Ok(())
            } else {
                Err(format!("{left} are not"))
            }
        })
        .await;
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
    let first = &scene.received()[0];
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
async fn what_one_device_or_one_request_says_stops_nobody() {
    let scene = Scene::new().await;
    let mut active = scene.start("alerting-a").await;
    let status = async |payload: &str| {
        let topic = "devices/d1/status";
        let publish = Publish::new(topic, "devices/{device_id}/status", payload.to_owned());
        scene.client.session.publish(publish).await.unwrap();
    };
    // The last microsecond that there is, after which none comes.
    status(r#"{"online":false,"timestamp":"9999-12-30T22:00:00.999999Z"}"#).await;
    scene.told("firing d1").await;
    status(r#"{"online":true,"timestamp":"2025-10-09T08:53:20Z"}"#).await;
    status(r#"{"online":false,"timestamp":"9999-12-30T22:00:00.999999Z"}"#).await;

    let span = json!({"from": "2025-10-09T08:00:00Z", "to": "2025-10-09T09:00:00Z"});
    let chain = format!("value{} > 1.0", " + 1.0".repeat(10_000));
    let lists = format!(
        "{{% set a=[1] %}}{}{{{{ a }}}}",
        "{% set a=a+a %}".repeat(60)
    );
    for rule in [
        json!({"alert": "A", "severity": "info", "when": chain}),
        json!({"alert": "A", "severity": "info", "when": "value > 1", "message": lists}),
    ] {
        let rules = json!({"groups": [{"name": "g", "rules": [rule]}]});
        let mut request = span.clone();
        request["rules"] = json!(rules.to_string());
        let refused = scene.request("backtest", request).await;
        assert_eq!(refused["error"]["code"], "invalid_rules", "{refused}");
    }
    scene.barrier().await;
    assert!(active.is_running(), "{}", active.stderr());
    // What it has stored of that is no trap for the next one either.
    active.kill();
    let mut next = scene.start("alerting-b").await;
    scene.barrier().await;
    assert!(next.is_running(), "{}", next.stderr());
}

#[actix::test]
async fn lights_follow_motion_that_nobody_says_the_end_of() {
    let scene = Scene::new().await;
    let shipped = include_str!("../../services/alerting/rules/automations.yaml");
    // Two minutes are long for a test; the rules are else what ships.
    let rules = shipped.replace("resolve_after: 2m", "resolve_after: 1s");
    assert_ne!(rules, shipped);
    write(&scene.rules(), &rules);
    let _active = scene.start("alerting-a").await;
    let mut options = options(scene.broker.addr(), "lamp");
    options.subscriptions = vec![Subscription::new("lights/#", QoS::AtLeastOnce)];
    let lamp = Client::connected(options, Acknowledge::AtOnce).await;
    for turn in 1..=2 {
        let motion = json!({
            "sensor_id": "motion-1", "type": "motion", "value": 1, "unit": "boolean",
            "location": "hall", "timestamp": timestamp(1_760_000_000 + 60 * turn),
        });
        let publish = Publish::new("sensors/hall/motion", "test", motion.to_string());
        scene.client.session.publish(publish).await.unwrap();
        eventually(PATIENCE, "the light went on and off", async || {
            let said: Vec<_> = lamp
                .received()
                .iter()
                .map(|it| it.payload.clone())
                .collect();
            let expected = [&b"on"[..], b"off"].repeat(usize::try_from(turn).unwrap());
            if said == expected { Ok(()) } else { Err(said) }
        })
        .await;
    }
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

#[actix::test]
async fn a_hangup_makes_the_file_be_read_again() {
    let scene = Scene::new().await;
    let process = scene.start("alerting-a").await;
    process.hang_up();
    eventually(PATIENCE, "the file is read again", async || {
        let metrics = process.metrics().await.map_err(|error| error.to_string())?;
        match metrics.sum("alerting_reloads_total", &[("outcome", "taken")]) {
            1.0 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
}

/// Stores a temperature in the lab for each instant, as ingest does.
async fn store(scene: &Scene, sensor: &str, readings: Vec<(jiff::Timestamp, f64)>) {
    let file = scene.dir.path().join("fleet.db");
    let url = format!("sqlite://{}", file.display()).parse().unwrap();
    let store = fleet_store::open(&url, OpenOptions::writer("test"))
        .await
        .unwrap();
    let readings = readings.into_iter().map(|(timestamp, value)| {
        let reading = SensorReading {
            sensor_id: sensor.to_owned(),
            kind: "temperature".to_owned(),
            value,
            unit: "celsius".to_owned(),
            location: "lab".to_owned(),
            timestamp,
            battery_percent: None,
            quality: None,
        };
        NewReading {
            received_at: reading.timestamp,
            reading,
        }
    });
    let batch = Batch {
        readings: readings.collect(),
        dead_letters: Vec::new(),
    };
    store.write_batch(batch.into()).await.unwrap();
    store.close().await.unwrap();
}

/// A rule that looks back an hour need not watch for an hour again after a kill: the store has what was
/// evaluated. Where it has not, the rule says nothing rather than something wrong.
#[actix::test]
async fn rules_that_look_back_go_on_after_a_kill() {
    let scene = Scene::new().await;
    let rule =
        "groups: [{ name: g, rules: [{ alert: Mean, when: \"avg('1h') > 50\", severity: info }] }]";
    std::fs::write(scene.rules(), rule).unwrap();
    let mut active = scene.start("alerting-a").await;
    let now = jiff::Timestamp::now();
    let past: Vec<_> = (1_i64..70)
        .rev()
        .map(|minute| (now - jiff::SignedDuration::from_mins(minute), 49.0))
        .collect();
    for sensor in ["s1", "s2", "s3"] {
        for (at, value) in &past {
            scene.reading_at(sensor, *value, &at.to_string()).await;
        }
    }
    store(&scene, "s1", past.clone()).await;
    store(&scene, "s2", past.clone()).await;
    // Ingest is behind with this one.
    store(&scene, "s3", past[..60].to_vec()).await;
    eventually(PATIENCE, "all are evaluated", async || {
        let metrics = active.metrics().await.map_err(|error| error.to_string())?;
        match metrics.sum("alerting_evaluations_total", &[]) {
            all if all >= 3.0 * past.len() as f64 => Ok(()),
            some => Err(some.to_string()),
        }
    })
    .await;
    active.kill();
    let active = scene.start("alerting-a").await;
    eventually(PATIENCE, "the store is read", async || {
        let told = active.stdout() + &active.stderr();
        if told.contains("rules look back on what the store has") {
            Ok(())
        } else {
            Err(told)
        }
    })
    .await;
    // The mean of sixty times 49 and once 149 is above 50; that with once 100 is not; and that of
    // one reading alone would be.
    for (sensor, value) in [("s3", 5_000.0), ("s2", 100.0), ("s1", 149.0)] {
        scene.reading_at(sensor, value, &now.to_string()).await;
    }
    scene.told("firing s1").await;
    let soon = now + jiff::SignedDuration::from_secs(1);
    scene.reading_at("s1", 0.0, &soon.to_string()).await;
    scene.told("resolved s1").await;
    assert_eq!(scene.alerts_of("s2"), [""; 0]);
    assert_eq!(scene.alerts_of("s3"), [""; 0]);
}

#[actix::test]
async fn the_active_process_answers_requests() {
    let scene = Scene::new().await;
    // A reading every minute, of which the fourth and fifth are too hot.
    let begin: jiff::Timestamp = "2025-10-09T08:00:00Z".parse().unwrap();
    let readings = (0_i64..10).map(|minute| {
        let value = if (3..5).contains(&minute) { 31.5 } else { 20.0 };
        (begin + jiff::SignedDuration::from_mins(minute), value)
    });
    store(&scene, "old", readings.collect()).await;
    let _active = scene.start("alerting-a").await;
    let _standby = scene.start("alerting-b").await;
    scene.reading("s1", 31.0).await;
    scene.told("firing s1").await;

    let rules = scene.request("rules", Value::Null).await;
    assert_eq!(rules["source"], scene.rules().display().to_string());
    assert!(rules["loaded_at"].is_string(), "{rules}");
    assert_eq!(
        rules["rules"][0],
        json!({
            "name": "TemperatureHigh", "group": "test", "severity": "critical", "topic": "sensors/#",
            "type": "temperature", "when": "value > 30", "clear": "value < 29", "for": null,
            "keep_firing_for": null, "absent": null, "resolve_after": null, "labels": {}, "firing": 1, "pending": 0,
            "message": "{{ rule }}: {{ sensor_id }} is at {{ value }} {{ unit }}",
        })
    );

    let span = json!({"from": "2025-10-09T08:00:00Z", "to": "2025-10-09T09:00:00Z"});
    let report = scene.request("backtest", span.clone()).await;
    assert_eq!(
        (&report["readings"], &report["truncated"]),
        (&json!(10), &json!(false))
    );
    let hot = &report["rules"][0];
    assert_eq!(
        (&hot["rule"], &hot["firing_seconds"]),
        (&json!("TemperatureHigh"), &json!(120.0))
    );
    let episode = &hot["episodes"][0];
    assert_eq!(episode["fired_at"], "2025-10-09T08:03:00Z");
    assert_eq!(episode["resolved_at"], "2025-10-09T08:05:00Z");
    assert_eq!(
        (&episode["value"], &episode["sensor_id"]),
        (&json!(31.5), &json!("old"))
    );

    let mut cooler = span.clone();
    cooler["rules"] = json!(RULES.replace("value > 30", "value > 60"));
    let report = scene.request("backtest", cooler).await;
    assert_eq!(report["rules"][0]["episodes"], json!([]));
    let mut wrong = span.clone();
    wrong["rules"] = json!(RULES.replace("value > 30", "valu > 30"));
    let refused = scene.request("backtest", wrong).await;
    assert_eq!(refused["error"]["code"], "invalid_rules");
    let detail = refused["error"]["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("7:15 there is no variable `valu`"),
        "{detail}"
    );
    for (name, payload, code) in [
        (
            "backtest",
            json!({"from": "2025-10-09T08:00:00Z"}),
            "invalid_request",
        ),
        (
            "backtest",
            json!({"from": "2025-10-09T08:00:00Z", "to": "2025-10-09T08:00:00Z"}),
            "invalid_request",
        ),
        ("nonsense", Value::Null, "unknown_request"),
    ] {
        let refused = scene.request(name, payload).await;
        assert_eq!(refused["error"]["code"], code, "{refused}");
    }

    // A peer without MQTT 5, which has no properties.
    let enveloped = json!({
        "correlation_id": "42", "response_topic": "responses/test/enveloped", "payload": null,
    });
    let publish = Publish::new(
        "fleet/alerting/requests/rules",
        "fleet/alerting/requests/{name}",
        enveloped.to_string(),
    );
    scene.client.session.publish(publish).await.unwrap();
    let answers = scene.answers("enveloped").await;
    let answer: Value = serde_json::from_slice(&answers[0].payload).unwrap();
    assert_eq!(answer["correlation_id"], "42");
    assert_eq!(answer["payload"]["rules"].as_array().map(Vec::len), Some(2));
    // Requests are no business of the alerts.
    scene.barrier().await;
    assert_eq!(scene.alerts_of("s1"), ["firing s1"]);
}

/// A rule with an automation on `topic`.
fn automation(topic: &str) -> String {
    format!(
        "{RULES}      - alert: Light
        type: temperature
        when: value > 30
        severity: info
        publish: [{{ topic: \"{topic}\", payload: on }}]
"
    )
}

#[actix::test]
async fn what_no_broker_takes_becomes_a_dead_letter_and_holds_up_nothing() {
    let scene = Scene::new().await;
    write(&scene.rules(), &automation("lights/\\u0001/set"));
    let process = scene.start("alerting-a").await;
    scene.reading("s1", 31.0).await;
    scene.told("firing s1").await;
    let letter = eventually(PATIENCE, "there is a dead letter", async || {
        let mut received = scene.client.received();
        received.retain(|message| message.topic == "fleet/dead-letter/alerting");
        received.pop().ok_or("there is none")
    })
    .await;
    let properties = letter.properties.unwrap();
    assert_eq!(properties.user("reason"), Some("invalid"));
    assert_eq!(properties.user("topic"), Some("lights/\u{fffd}/set"));
    assert_eq!(letter.payload, b"on");
    scene.barrier().await;
    scene.settled().await;
    let metrics = process.metrics().await.unwrap();
    let given_up = [("channel", "mqtt"), ("outcome", "given_up")];
    // That of s1 and that of the barrier.
    assert_eq!(metrics.sum("alerting_notifications_total", &given_up), 2.0);
}

#[actix::test]
async fn what_the_broker_refuses_is_tried_again_and_holds_up_nothing() {
    let dir = TempDir::new().unwrap();
    let broker = Mosquitto::refusing(dir.path(), "publishClientSend", "lights/#").await;
    let scene = Scene::on(broker).await;
    write(&scene.rules(), &automation("lights/set"));
    let _process = scene.start("alerting-a").await;
    scene.reading("s1", 31.0).await;
    scene.told("firing s1").await;
    let file = scene.dir.path().join("fleet.db");
    eventually(PATIENCE, "it was tried twice", async || {
        let database = rusqlite::Connection::open(&file).map_err(|error| error.to_string())?;
        let query = "SELECT max(attempts), max(error) FROM alert_outbox WHERE done_at IS NULL AND attempts > 0";
        let row = database.query_row(query, [], |row| {
            Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<String>>(1)?))
        });
        match row.map_err(|error| error.to_string())? {
            (Some(2..), Some(error)) if error.contains("not authorized") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    scene.barrier().await;
}

#[actix::test]
async fn a_reading_older_than_the_last_evaluated_changes_nothing_also_after_a_kill() {
    let scene = Scene::new().await;
    let mut process = scene.start("alerting-a").await;
    for value in [20.0, 21.0] {
        // Not fired, and nothing changed by it.
        scene.reading("s1", value).await;
    }
    for value in [31.0, 32.0] {
        // Fired, and nothing changed by the second.
        scene.reading("s2", value).await;
    }
    scene.told("firing s2").await;
    let journal = scene.dir.path().join("fleet.db");
    eventually(PATIENCE, "all four are noted", async || {
        let database = rusqlite::Connection::open(&journal).map_err(|error| error.to_string())?;
        let query = "SELECT group_concat(body) FROM alert_marks";
        let noted = database.query_row(query, [], |row| row.get::<_, Option<String>>(0));
        let noted = noted
            .map_err(|error| error.to_string())?
            .unwrap_or_default();
        // The second and fourth reading, in nanoseconds.
        match ["1760000001000000000", "1760000003000000000"]
            .iter()
            .all(|at| noted.contains(at))
        {
            true => Ok(()),
            false => Err(noted),
        }
    })
    .await;
    process.kill();
    let mut process = scene.start("alerting-a").await;
    // Between the first and second of each.
    scene.reading_at("s1", 40.0, "2025-10-09T08:53:20.5Z").await;
    scene.reading_at("s2", 10.0, "2025-10-09T08:53:22.5Z").await;
    scene.second.set(60);
    scene.barrier().await;
    assert_eq!(scene.alerts_of("s1"), [""; 0]);
    assert_eq!(scene.alerts_of("s2"), ["firing s2"]);
    process.terminate();
    assert_eq!(process.exit(PATIENCE).await, 0);
}
