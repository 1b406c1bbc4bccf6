//! Commands to devices and their configuration, on a real broker.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::time::Duration;

use device_sim::{Output, Scenario, simulate};
use fleet_shared::service::{Host, StopHandle};
use fleet_shared::session::{Options, Properties, Publish, QoS, Subscription};
use fleet_shared::telemetry::Metrics;
use fleet_tests::{Acknowledge, Client, Mosquitto, Received, eventually, options};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(30);
/// Readings of these devices come too seldom to be seen.
const SELDOM: f64 = 0.000_1;

/// Devices and somebody who talks to them.
struct Bench {
    broker: Mosquitto,
    client: Client,
    metrics: Metrics,
    _stop: StopHandle,
}

impl Bench {
    /// Starts devices `sensor-001` and on and waits until the first `online`.
    async fn start(devices: u32) -> Self {
        let broker = Mosquitto::start().await;
        Self::on(broker, devices).await
    }

    async fn on(broker: Mosquitto, devices: u32) -> Self {
        let mut operator = options(broker.addr(), "operator");
        operator.subscriptions = vec![
            Subscription::new("devices/#", QoS::AtLeastOnce),
            Subscription::new("sensors/#", QoS::AtLeastOnce),
            Subscription::new("responses/#", QoS::AtLeastOnce),
        ];
        let client = Client::connected(operator, Acknowledge::AtOnce).await;
        let scenario = Scenario {
            devices,
            rate: Some(SELDOM * f64::from(devices)),
            seed: Some(1),
            output: Output::Nothing,
            ..Scenario::default()
        };
        let (host, stop) = Host::embedded("device-sim");
        let metrics = host.metrics().clone();
        let options = Options::new(broker.addr(), "not-used");
        actix::spawn(async move { simulate(scenario, options, host).await.map(drop) });
        let bench = Self {
            broker,
            client,
            metrics,
            _stop: stop,
        };
        for number in 1..=devices {
            bench.births(&format!("sensor-{number:03}"), 1).await;
        }
        bench
    }

    async fn publish(&self, topic: &str, payload: &str, properties: Properties, retain: bool) {
        let publish = Publish::new(topic.to_owned(), "test", payload.as_bytes().to_vec());
        let publish = publish.properties(properties).retain(retain);
        self.client.session.publish(publish).await.unwrap();
    }

    /// Asks as a peer with MQTT 5 does, and waits for the answer.
    async fn ask(&self, command: &str, id: &str, arguments: &str) -> Value {
        let topic = format!("responses/operator/{id}");
        let before = self.seen(&topic).len();
        let properties = Properties {
            response_topic: Some(topic.clone().into()),
            correlation_data: Some(id.as_bytes().to_vec().into()),
            ..Properties::default()
        };
        let command = format!("devices/sensor-001/commands/{command}");
        self.publish(&command, arguments, properties, false).await;
        let answer = self.nth(&topic, before).await;
        let properties = answer.properties.unwrap();
        assert_eq!(&properties.correlation_data.unwrap()[..], id.as_bytes());
        serde_json::from_slice(&answer.payload).unwrap()
    }

    fn seen(&self, topic: &str) -> Vec<Received> {
        let mut received = self.client.received();
        received.retain(|message| message.topic == topic);
        received
    }

    async fn nth(&self, topic: &str, index: usize) -> Received {
        eventually(LONG, &format!("message {index} on {topic}"), async || {
            let seen = self.seen(topic);
            seen.get(index).cloned().ok_or(seen.len())
        })
        .await
    }

    /// The statuses of a device, once it has said that it is online so often.
    async fn births(&self, id: &str, count: usize) -> Vec<Value> {
        let topic = format!("devices/{id}/status");
        eventually(LONG, &format!("{count} births of {id}"), async || {
            let status = |message: &Received| serde_json::from_slice(&message.payload).unwrap();
            let statuses: Vec<Value> = self.seen(&topic).iter().map(status).collect();
            let births = statuses.iter().filter(|status| status["online"] == true);
            if births.count() >= count {
                Ok(statuses)
            } else {
                Err(statuses)
            }
        })
        .await
    }

    /// Waits until the last report of the configuration is this.
    async fn reported(&self, wanted: Value) {
        eventually(LONG, &format!("{wanted} is reported"), async || {
            let last = self.seen("devices/sensor-001/config/reported").pop();
            let last = last.map(|it| serde_json::from_slice::<Value>(&it.payload).unwrap());
            if last.as_ref() == Some(&wanted) {
                Ok(())
            } else {
                Err(last)
            }
        })
        .await;
    }

    /// Waits until so many more readings of the device's thermometer have come.
    async fn readings(&self, more: usize) {
        let count = || {
            let received = self.client.received();
            let own = received.iter().filter(|message| {
                message.topic.starts_with("sensors/")
                    && String::from_utf8_lossy(&message.payload).contains("\"temp-sensor-001\"")
            });
            own.count()
        };
        let before = count();
        eventually(LONG, &format!("{more} more readings"), async || {
            let come = count() - before;
            if come >= more { Ok(()) } else { Err(come) }
        })
        .await;
    }
}

#[actix::test]
async fn a_device_answers_and_refuses_requests() {
    let bench = Bench::start(1).await;
    let pong = bench.ask("ping", "1", "{}").await;
    assert_eq!(pong["pong"], true);
    assert!(pong["uptime_seconds"].is_u64());
    let identity = bench.ask("identify", "2", "").await;
    assert_eq!(identity["device_id"], "sensor-001");
    let birth = &bench.births("sensor-001", 1).await[0];
    assert_eq!(identity["session_id"], birth["session_id"]);
    assert_eq!(identity["firmware_version"], birth["firmware_version"]);
    let unknown = bench.ask("dance", "3", "{}").await;
    assert_eq!(unknown["error"]["code"], "unknown_command");
    for (id, arguments) in [("4", "{}"), ("5", r#"{"interval_ms":1}"#), ("6", "fast")] {
        let refused = bench.ask("set-interval", id, arguments).await;
        assert_eq!(refused["error"]["code"], "bad_argument", "{refused}");
    }
    let set = bench
        .ask("set-interval", "7", r#"{"interval_ms":100}"#)
        .await;
    assert_eq!(set, json!({"interval_ms": 100}));
    bench.reported(json!({"interval_ms": 100})).await;
    bench.readings(5).await;
}

#[actix::test]
async fn a_peer_without_mqtt_5_is_answered_in_the_envelope() {
    let bench = Bench::start(1).await;
    let topic = "responses/old/1";
    let envelope = json!({"correlation_id": "1", "response_topic": topic, "payload": {}});
    let command = "devices/sensor-001/commands/ping";
    let none = Properties::default();
    bench
        .publish(command, &envelope.to_string(), none, false)
        .await;
    let answer: Value = serde_json::from_slice(&bench.nth(topic, 0).await.payload).unwrap();
    assert_eq!(answer["correlation_id"], "1");
    assert_eq!(answer["payload"]["pong"], true);
}

#[actix::test]
async fn a_reboot_ends_the_connection_and_is_done_once_though_asked_twice() {
    let bench = Bench::start(1).await;
    let answer = json!({"rebooting": true, "delay_ms": 0});
    let arguments = r#"{"delay_ms":0}"#;
    assert_eq!(bench.ask("reboot", "same", arguments).await, answer);
    let statuses = bench.births("sensor-001", 2).await;
    // The same request again, as after a connection that broke before it was acknowledged.
    assert_eq!(bench.ask("reboot", "same", arguments).await, answer);
    assert_eq!(bench.ask("ping", "1", "{}").await["pong"], true);
    let online: Vec<_> = statuses.iter().map(|it| it["online"] == true).collect();
    assert_eq!(online, [true, false, true]);
    assert_eq!(statuses[0]["session_id"], statuses[1]["session_id"]);
    assert!(statuses[1]["session_id"].as_str() < statuses[2]["session_id"].as_str());
    assert_eq!(statuses[2]["uptime_seconds"], 0);
    assert_eq!(bench.births("sensor-001", 2).await.len(), 3);

    assert_eq!(bench.ask("reboot", "other", arguments).await, answer);
    bench.births("sensor-001", 3).await;
}

#[actix::test]
async fn a_device_is_as_configured_and_says_so() {
    let broker = Mosquitto::start().await;
    let config = "devices/sensor-001/config";
    // It was configured before it was there, and an earlier run has left an old report.
    let before = Client::connected(options(broker.addr(), "before"), Acknowledge::AtOnce).await;
    for (topic, payload) in [
        (config, r#"{"interval_ms":100,"color":"red"}"#),
        (
            "devices/sensor-001/config/reported",
            r#"{"interval_ms":7777}"#,
        ),
        (
            "devices/sensor-002/config/reported",
            r#"{"interval_ms":7777}"#,
        ),
    ] {
        let publish = Publish::new(topic, "test", payload.as_bytes().to_vec()).retain(true);
        before.session.publish(publish).await.unwrap();
    }
    let bench = Bench::on(broker, 2).await;
    let refused = json!({"color": "there are interval_ms and status_interval_ms"});
    bench
        .reported(json!({"interval_ms": 100, "refused": refused}))
        .await;
    bench.readings(5).await;
    let other = eventually(LONG, "the other's old report is corrected", async || {
        let seen = bench.seen("devices/sensor-002/config/reported").pop();
        match seen {
            Some(report) if report.payload == b"{}" => Ok(report),
            other => Err(other),
        }
    });
    other.await;

    let (plain, retain) = (Properties::default(), true);
    let slower = r#"{"status_interval_ms":100}"#;
    bench.publish(config, slower, plain.clone(), retain).await;
    bench.reported(json!({"status_interval_ms": 100})).await;
    bench.births("sensor-001", 5).await;
    bench.publish(config, "", plain, retain).await;
    bench.reported(json!({})).await;

    // Whoever comes later is told the same.
    let mut late = options(bench.broker.addr(), "late");
    late.subscriptions = vec![Subscription::new(
        "devices/sensor-001/config/#",
        QoS::AtLeastOnce,
    )];
    let late = Client::connected(late, Acknowledge::AtOnce).await;
    late.received_at_least(1, LONG).await;
    let received = late.received();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].topic, "devices/sensor-001/config/reported");
    assert_eq!(received[0].payload, b"{}");
}

#[actix::test]
async fn a_device_tells_its_telemetry_with_its_status_and_that_is_no_reading() {
    let bench = Bench::start(1).await;
    let often = r#"{"status_interval_ms":100}"#;
    bench
        .publish(
            "devices/sensor-001/config",
            often,
            Properties::default(),
            true,
        )
        .await;
    let topic = "devices/sensor-001/telemetry";
    let said = bench.nth(topic, 10).await;
    assert_eq!((said.qos, said.retain), (QoS::AtMostOnce, false));
    let telemetry: Value = serde_json::from_slice(&said.payload).unwrap();
    assert_eq!(telemetry["device_id"], "sensor-001");
    let battery = telemetry["battery_percent"].as_u64().unwrap();
    assert!((80..=100).contains(&battery), "{telemetry}");
    // It belongs to a status: both say the same of the same moment.
    let statuses = bench.births("sensor-001", 1).await;
    let status = statuses
        .iter()
        .find(|status| status["last_seen"] == telemetry["timestamp"]);
    for field in ["signal_strength", "uptime_seconds"] {
        assert_eq!(status.unwrap()[field], telemetry[field], "{telemetry}");
    }
    let series = bench.metrics.encode();
    assert!(
        series.contains(
            r#"mqtt_messages_published_total{qos="0",topic="devices/{device_id}/telemetry"}"#
        ),
        "{series}"
    );
    // Two of its sensors have spoken once, if at all: ten more would be counted if they were readings.
    let readings = ["0", "1", "2"].map(|it| format!("sim_publish_latency_seconds_count {it}\n"));
    assert!(readings.iter().any(|it| series.contains(it)), "{series}");
}

#[actix::test]
async fn what_devices_receive_is_counted_in_a_bounded_number_of_series() {
    let bench = Bench::start(3).await;
    for number in 1..=3 {
        let id = format!("sensor-{number:03}");
        for topic in [
            format!("devices/{id}/commands/ping"),
            format!("devices/{id}/config"),
        ] {
            bench
                .publish(&topic, "{}", Properties::default(), false)
                .await;
        }
    }
    let wanted = [
        r#"mqtt_messages_received_total{topic="devices/{device_id}/commands/{command}"} 3"#,
        r#"sim_requests_total{command="ping",outcome="done"} 3"#,
    ];
    let series = eventually(LONG, "all requests are counted", async || {
        let series = bench.metrics.encode();
        if wanted.iter().all(|line| series.contains(line)) {
            Ok(series)
        } else {
            Err(series)
        }
    })
    .await;
    let received = series
        .lines()
        .filter(|line| line.starts_with("mqtt_messages_received_total{"));
    assert_eq!(received.count(), 2, "{series}");
}
