//! The bridge between a real Mosquitto and a real Kafka.

mod raw;
mod tls;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use fleet_shared::session::{Properties, Publish, QoS, Subscription};
use fleet_tests::{
    Acknowledge, Client, Kafka, Mosquitto, Process, Program, Record, TempDir, eventually, options,
};

use crate::site::LONG;
use raw::Raw;

/// Sensors that take turns.
const SENSORS: u64 = 500;

/// A broker, a Kafka, and a place for routes.
struct Yard {
    broker: Mosquitto,
    kafka: Kafka,
    dir: TempDir,
}

impl Yard {
    async fn new() -> Self {
        Self::with(Kafka::start().await).await
    }

    async fn with(kafka: Kafka) -> Self {
        Self {
            broker: Mosquitto::start().await,
            kafka,
            dir: TempDir::with_prefix("bridge-").unwrap(),
        }
    }

    fn bridge(&self, client_id: &str) -> Program {
        Program::service("bridge")
            .env("MQTT_URL", self.broker.url())
            .env("MQTT_CLIENT_ID", client_id)
            .env("MQTT_MAX_RECONNECT_DELAY", "1s")
            .env("KAFKA_BROKERS", self.kafka.brokers())
    }

    /// A bridge with routes of its own.
    fn routed(&self, client_id: &str, routes: &str) -> Program {
        let file = self.dir.path().join("routes.yaml");
        std::fs::write(&file, routes).unwrap();
        self.bridge(client_id).flag("--routes", file.display())
    }

    async fn client(&self, name: &str, subscriptions: Vec<Subscription>) -> Client {
        let mut options = options(self.broker.addr(), name);
        options.subscriptions = subscriptions;
        Client::connected(options, Acknowledge::AtOnce).await
    }

    /// Waits until a topic has that many records.
    async fn arrived(&self, topic: &str, count: u64) {
        let what = format!("{count} records are in {topic}");
        eventually(LONG, &what, async || match self.kafka.count(topic) {
            Some(found) if found >= count => Ok(()),
            found => Err(found),
        })
        .await;
    }
}

/// Reading `n`: the sensors take turns, and each counts its own in its value.
fn reading(n: u64) -> Publish {
    let (sensor, turn) = (n % SENSORS, n / SENSORS);
    let payload = format!(
        r#"{{"sensor_id":"s-{sensor}","type":"temperature","value":{turn},"unit":"celsius","location":"hall","timestamp":"2026-01-02T03:04:05Z"}}"#
    );
    Publish::new("sensors/hall/temperature", "test", payload.into_bytes()).expect_subscriber()
}

/// Sensor and turn of a record.
fn turn(record: &Record) -> (String, u64) {
    let value: serde_json::Value = serde_json::from_slice(record.value.as_ref().unwrap()).unwrap();
    let sensor = value["sensor_id"].as_str().unwrap().to_owned();
    (sensor, value["value"].as_u64().unwrap())
}

/// Every one of `total` readings is there at least once, and once by its id; the first of each came
/// in the order of its sensor, all in one partition. Gives how many records there are in all.
fn assert_whole(records: &[Record], total: u64) -> usize {
    let mut ids = HashSet::new();
    let mut next = HashMap::<String, u64>::new();
    let mut partitions = HashMap::<String, i32>::new();
    for record in records {
        let (sensor, turn) = turn(record);
        assert_eq!(record.key.as_deref(), Some(sensor.as_str()));
        let partition = *partitions.entry(sensor.clone()).or_insert(record.partition);
        assert_eq!(record.partition, partition, "{sensor} is in two partitions");
        if ids.insert(record.header("message-id").unwrap().to_owned()) {
            let expected = next.entry(sensor.clone()).or_default();
            assert_eq!(turn, *expected, "{sensor} is out of order or misses one");
            *expected += 1;
        }
    }
    assert_eq!(ids.len() as u64, total);
    records.len()
}

/// How many readings the kills are survived with; `make test-bridge` asks for 500,000.
#[expect(
    clippy::disallowed_methods,
    reason = "the size of this test, not a setting of a program"
)]
fn readings() -> u64 {
    let asked = std::env::var("BRIDGE_READINGS").ok();
    asked.map_or(100_000, |count| count.parse().unwrap())
}

#[actix::test]
async fn five_kills_and_a_restart_of_kafka_lose_no_reading_and_no_order() {
    let total = readings();
    let mut yard = Yard::new().await;
    let mut bridge = yard.bridge("bridge-0").start();
    bridge.ready(LONG).await;
    let publisher = yard.client("publisher", Vec::new()).await;
    let started = Instant::now();
    // A tenth of the readings between two faults, so that each meets the bridge at work.
    for part in 0..10 {
        let numbers = total / 10 * part..total / 10 * (part + 1);
        let before = yard.kafka.count("sensors.readings").unwrap_or_default();
        let publishing = publisher.publish_numbers(numbers.clone(), reading);
        let fault = async {
            if part % 2 == 0 {
                let moved = before + (total / 10) / 4;
                eventually(LONG, "records flow", async || {
                    match yard.kafka.count("sensors.readings") {
                        Some(found) if found >= moved => Ok(()),
                        found => Err(found),
                    }
                })
                .await;
                bridge.kill();
                bridge = yard.bridge("bridge-0").start();
            }
        };
        futures_util::future::join(publishing, fault).await;
        if part == 5 {
            yard.kafka.terminate().await;
            yard.kafka.start_again().await;
        }
    }
    let done = async || {
        let count = yard.kafka.count("sensors.readings").unwrap_or_default();
        if count < total {
            return Err(usize::try_from(count).unwrap());
        }
        let records = yard.kafka.records("sensors.readings");
        let ids: HashSet<_> = records
            .iter()
            .map(|r| r.header("message-id").unwrap())
            .collect();
        if ids.len() as u64 == total {
            Ok(())
        } else {
            Err(ids.len())
        }
    };
    eventually(LONG + LONG, "every reading is in Kafka", done).await;
    let records = yard.kafka.records("sensors.readings");
    let all = assert_whole(&records, total);
    println!(
        "{total} readings, {} records more than needed, {:?}",
        all as u64 - total,
        started.elapsed()
    );
    bridge.ready(LONG).await;
    bridge.terminate();
    assert_eq!(bridge.exit(LONG).await, 0);
}

/// How long Kafka stands still; `make test-bridge` asks for a minute.
#[expect(
    clippy::disallowed_methods,
    reason = "the length of this test, not a setting of a program"
)]
fn still() -> Duration {
    let asked = std::env::var("BRIDGE_STILL_SECONDS").ok();
    Duration::from_secs(asked.map_or(15, |seconds| seconds.parse().unwrap()))
}

#[actix::test]
async fn kafka_that_stands_still_costs_no_memory_and_no_reading() {
    const GROWTH_MAX: u64 = 64 * 1024 * 1024;
    const TOTAL: u64 = 100_000;
    let yard = Yard::new().await;
    let mut bridge = yard
        .bridge("bridge-0")
        .env("MQTT_KEEP_ALIVE", "10s")
        .start();
    bridge.ready(LONG).await;
    let publisher = yard.client("publisher", Vec::new()).await;
    publisher.publish_numbers(0..TOTAL / 2, reading).await;
    yard.arrived("sensors.readings", TOTAL / 2).await;
    let before = bridge.resident_bytes();
    yard.kafka.pause();
    let paused = Instant::now();
    publisher.publish_numbers(TOTAL / 2..TOTAL, reading).await;
    let mut most = 0;
    eventually(still() + LONG, "the time passes", async || {
        assert!(bridge.is_running(), "the bridge has ended");
        most = most.max(bridge.resident_bytes());
        let metrics = bridge.metrics().await.unwrap();
        assert!(metrics.sum("bridge_in_flight_messages", &[]) <= 30_000.0);
        if paused.elapsed() > still() {
            Ok(())
        } else {
            Err(paused.elapsed())
        }
    })
    .await;
    assert_eq!(bridge.admin("/livez").await.unwrap().0, 200);
    assert_eq!(bridge.admin("/readyz").await.unwrap().0, 503);
    yard.kafka.resume();
    bridge.ready(LONG).await;
    let grown = most.saturating_sub(before);
    println!("{} KiB more than {} KiB", grown / 1024, before / 1024);
    assert!(grown < GROWTH_MAX, "{grown} bytes more than {before}");
    yard.arrived("sensors.readings", TOTAL).await;
    assert_whole(&yard.kafka.records("sensors.readings"), TOTAL);
}

#[actix::test]
async fn a_first_start_without_kafka_subscribes_and_loses_no_reading() {
    const TOTAL: u64 = 20_000;
    let mut yard = Yard::new().await;
    yard.kafka.terminate().await;
    let mut bridge = yard.bridge("bridge-0").start();
    let publisher = yard.client("publisher", Vec::new()).await;
    for half in [0..TOTAL / 2, TOTAL / 2..TOTAL] {
        eventually(LONG, "it says what it waits for", async || {
            let (status, reasons) = bridge.admin("/readyz").await.map_err(|e| e.to_string())?;
            let log = bridge.stderr();
            let subscribed = reasons.contains("mqtt") && !reasons.contains("starting");
            if status == 503 && subscribed && log.contains("Kafka does not answer") {
                Ok(())
            } else {
                Err(format!("{status} {reasons} {log}"))
            }
        })
        .await;
        let metrics = bridge.metrics().await.unwrap();
        assert_eq!(metrics.sum("bridge_records_total", &[]), 0.0);
        publisher.publish_numbers(half, reading).await;
        bridge.kill();
        bridge = yard.bridge("bridge-0").start();
    }
    yard.kafka.start_again().await;
    bridge.ready(LONG).await;
    yard.arrived("sensors.readings", TOTAL).await;
    assert_whole(&yard.kafka.records("sensors.readings"), TOTAL);
    bridge.terminate();
    assert_eq!(bridge.exit(LONG).await, 0);
}

/// Answers commands as a device does.
async fn device(yard: &Yard, id: &str) -> Client {
    let commands = Subscription::new(format!("devices/{id}/commands/+"), QoS::AtLeastOnce);
    yard.client("device", vec![commands]).await
}

#[actix::test]
async fn command_from_kafka_reaches_a_device_and_its_answer_comes_back() {
    let yard = Yard::new().await;
    let mut bridge = yard.bridge("bridge-0").start();
    bridge.ready(LONG).await;
    let device = device(&yard, "d-1").await;
    yard.kafka.put(
        "devices.commands",
        Some("d-1"),
        r#"{"command":"ping","correlation_id":"c-1","payload":{"n":1}}"#,
    );
    yard.kafka
        .put("devices.commands", Some("d-1"), "no command");
    device.received_at_least(1, LONG).await;
    let request = device.received().remove(0);
    assert_eq!(request.topic, "devices/d-1/commands/ping");
    assert_eq!(request.payload, br#"{"n":1}"#);
    let properties = request.properties.unwrap();
    assert_eq!(properties.correlation_data.as_deref(), Some(&b"c-1"[..]));
    let answer = Publish::new(properties.response_topic.unwrap(), "test", &b"pong"[..]).properties(
        Properties {
            correlation_data: properties.correlation_data,
            ..Properties::default()
        },
    );
    device.session.publish(answer).await.unwrap();
    yard.arrived("devices.responses", 1).await;
    let answer = yard.kafka.records("devices.responses").remove(0);
    assert_eq!(answer.key.as_deref(), Some("d-1"));
    assert_eq!(answer.value.as_deref(), Some(&b"pong"[..]));
    assert_eq!(answer.header("command"), Some("ping"));
    assert_eq!(answer.header("correlation-id"), Some("c-1"));
    yard.arrived("devices.commands.dead-letter", 1).await;
    let letter = yard.kafka.records("devices.commands.dead-letter").remove(0);
    assert_eq!(letter.value.as_deref(), Some(&b"no command"[..]));
    assert_eq!(letter.header("reason"), Some("malformed"));
    eventually(LONG, "both offsets are committed", async || {
        let committed = yard.kafka.committed("bridge", "devices.commands", 3);
        match committed.iter().flatten().sum::<i64>() {
            2 => Ok(()),
            _ => Err(committed),
        }
    })
    .await;
    // Whatever is killed meanwhile, a command comes at least once, and what is committed not again.
    bridge.kill();
    yard.kafka
        .put("devices.commands", Some("d-1"), r#"{"command":"reboot"}"#);
    // A member that was killed is missed after that time.
    let quick = ("--kafka-setting", "session.timeout.ms=6000");
    let mut two = ["bridge-0", "bridge-1"].map(|id| yard.bridge(id).flag(quick.0, quick.1).start());
    for bridge in &mut two {
        bridge.ready(LONG).await;
    }
    device.received_at_least(2, LONG).await;
    for n in 0..200 {
        let key = format!("d-{n}");
        yard.kafka
            .put("devices.commands", Some(&key), r#"{"command":"ping"}"#);
        if n == 100 {
            two[0].kill();
        }
    }
    let all = async || {
        let metrics = two[1].metrics().await.map_err(|error| error.to_string())?;
        let passed = metrics.sum(
            "bridge_records_total",
            &[("direction", "kafka_to_mqtt"), ("outcome", "delivered")],
        );
        let committed = yard.kafka.committed("bridge", "devices.commands", 3);
        match committed.iter().flatten().sum::<i64>() {
            203 => Ok(()),
            _ => Err(format!("{passed} passed, {committed:?} committed")),
        }
    };
    eventually(LONG, "every command is passed on and committed", all).await;
    let received = device.received();
    let topics: Vec<_> = received.iter().map(|r| r.topic.as_str()).collect();
    assert_eq!(topics[1], "devices/d-1/commands/reboot", "{topics:?}");
    two[1].terminate();
    assert_eq!(two[1].exit(LONG).await, 0);
}

#[actix::test]
async fn a_record_that_is_no_command_harms_only_itself() {
    const LETTERS: &str = "devices.commands.dead-letter";
    let yard = Yard::new().await;
    let mut bridge = yard
        .bridge("bridge-0")
        .flag("--record-max", 800_000)
        .start();
    bridge.ready(LONG).await;
    let device = device(&yard, "d-1").await;
    // It is there.
    yard.arrived("devices.commands", 0).await;
    let put = |value: &[u8], headers: &[(&[u8], &[u8])]| {
        let key = &b"d-1"[..];
        let record = Raw {
            key,
            value,
            headers,
        };
        raw::put(&yard.kafka.brokers(), "devices.commands", record);
    };
    put(br#"{"command":"ping"}"#, &[(b"\xff\xfe", b"x")]);
    let named: &[(&[u8], &[u8])] = &[(b"\xff\xfe", b"x"), (b"command", b"identify")];
    put(b"as it is", named);
    device.received_at_least(2, LONG).await;
    let topics = device.received().into_iter().map(|command| command.topic);
    let expected = ["ping", "identify"].map(|name| format!("devices/d-1/commands/{name}"));
    assert_eq!(topics.collect::<Vec<_>>(), expected);
    // More than the producer takes, more than it takes with an error that repeats it, a large command
    // with a property that MQTT cannot carry, and what fits.
    let broken = vec![b'x'; 1_020_000];
    let text = format!("\"{}\"", "y".repeat(600_000));
    let command = format!(
        r#"{{"command":"ping","payload":"{}"}}"#,
        "z".repeat(900_000)
    );
    put(&broken, &[]);
    put(text.as_bytes(), &[]);
    put(command.as_bytes(), &[(b"traceparent", &[b't'; 70_000])]);
    put(b"[]", &[]);
    put(br#"{"command":"reboot"}"#, &[]);
    device.received_at_least(3, LONG).await;
    yard.arrived(LETTERS, 4).await;
    let mut letters = yard.kafka.records(LETTERS);
    letters.sort_by_key(|letter| letter.header("offset").map(str::to_owned));
    let shown = letters.iter().map(|letter| {
        assert!(letter.header("detail").unwrap().len() < 600);
        let header = |name| letter.header(name).unwrap_or("-");
        let size = letter.value.as_ref().unwrap().len();
        (
            header("offset"),
            header("reason"),
            size,
            header("shortened"),
        )
    });
    let expected = [
        ("2", "malformed", 16_384, "true"),
        ("3", "malformed", 600_002, "-"),
        ("4", "broker_refused", 16_384, "true"),
        ("5", "malformed", 2, "-"),
    ];
    assert_eq!(shown.collect::<Vec<_>>(), expected);
    eventually(LONG, "all offsets are committed", async || {
        match yard.kafka.committed("bridge", "devices.commands", 1)[0] {
            Some(7) => Ok(()),
            committed => Err(committed),
        }
    })
    .await;
    bridge.terminate();
    assert_eq!(bridge.exit(LONG).await, 0);
}

#[actix::test]
async fn a_dead_letter_that_does_not_fit_its_topic_is_cut_or_given_up() {
    const LETTERS: &str = "devices.commands.dead-letter";
    let yard = Yard::new().await;
    // The headers alone take some hundred bytes; those of the second do not fit.
    yard.kafka
        .create(LETTERS, 1, &[("max.message.bytes", "400")])
        .await;
    let mut bridge = yard
        .bridge("bridge-0")
        .flag("--compression", "none")
        .start();
    bridge.ready(LONG).await;
    let device = device(&yard, "d-1").await;
    for value in ["x".repeat(20_000), format!("\"{}\"", "y".repeat(300))] {
        yard.kafka.put("devices.commands", Some("d-1"), &value);
    }
    yard.kafka
        .put("devices.commands", Some("d-1"), r#"{"command":"ping"}"#);
    device.received_at_least(1, LONG).await;
    yard.arrived(LETTERS, 1).await;
    let letter = yard.kafka.records(LETTERS).remove(0);
    assert_eq!(letter.header("shortened"), Some("true"));
    assert_eq!(letter.value.as_deref(), Some(&b""[..]));
    assert_eq!(letter.key, None);
    eventually(LONG, "all offsets are committed", async || {
        let committed = yard.kafka.committed("bridge", "devices.commands", 3);
        match committed.iter().flatten().sum::<i64>() {
            3 => Ok(()),
            _ => Err(committed),
        }
    })
    .await;
    let log = bridge.stderr();
    assert!(log.contains("even an empty dead letter too large"), "{log}");
    bridge.terminate();
    assert_eq!(bridge.exit(LONG).await, 0);
}

#[actix::test]
async fn a_simulated_device_answers_a_command_from_kafka() {
    let yard = Yard::new().await;
    let mut bridge = yard.bridge("bridge-0").start();
    bridge.ready(LONG).await;
    let mut sim = Program::service("device-sim")
        .env("MQTT_URL", yard.broker.url())
        .flag("--devices", 2)
        .flag("--rate", 2)
        .start();
    sim.ready(LONG).await;
    // Its readings and its birth are in Kafka, by then it is there.
    yard.arrived("devices.status", 2).await;
    yard.arrived("sensors.readings", 2).await;
    let status = yard.kafka.records("devices.status").remove(0);
    let device = status.key.unwrap();
    let command = r#"{"command":"ping","correlation_id":"c-7"}"#;
    yard.kafka.put("devices.commands", Some(&device), command);
    yard.arrived("devices.responses", 1).await;
    let answer = yard.kafka.records("devices.responses").remove(0);
    assert_eq!(answer.key.as_deref(), Some(device.as_str()));
    assert_eq!(answer.header("correlation-id"), Some("c-7"));
    let value: serde_json::Value = serde_json::from_slice(&answer.value.unwrap()).unwrap();
    assert_eq!(value["pong"], true, "{value}");
    sim.terminate();
    assert_eq!(sim.exit(LONG).await, 0);
    let (code, actors) = bridge.admin("/debug/actors").await.unwrap();
    assert_eq!(code, 200);
    assert!(
        actors.contains("messages_at_kafka") && actors.contains("bridge-0-out"),
        "{actors}"
    );
    bridge.terminate();
    assert_eq!(bridge.exit(LONG).await, 0);
}

const SMALL: &str = r#"
routes:
  - filter: small/#
    topic: small
    key: "{/k}"
    headers: {room: "{2}"}
  - filter: "{group}/raw/+/+"
    topic: raw.{3}
  - filter: devices/+/status
    topic: devices.status
    key: "{2}"
    create: true
    partitions: 1
    compact: true
    shared: false
"#;

#[actix::test]
async fn bad_message_harms_only_itself() {
    let yard = Yard::new().await;
    yard.kafka
        .create("small", 1, &[("max.message.bytes", "4000")])
        .await;
    yard.kafka.create("raw.there", 1, &[]).await;
    let routes = SMALL.replace("{group}", "$share/others");
    let letters = Subscription::new("fleet/dead-letter/bridge", QoS::AtLeastOnce);
    let client = yard.client("client", vec![letters]).await;
    // Retained before the bridge is there, which a subscription that is not shared brings.
    let status = Publish::new("devices/d-1/status", "test", &b"{}"[..]).retain(true);
    client.session.publish(status).await.unwrap();
    let mut bridge = yard
        .routed("bridge-0", &routes)
        .flag("--record-max", 50_000)
        // A batch that holds good and bad ones, and no compression that makes the bad one fit.
        .flag("--linger", "100ms")
        .flag("--compression", "none")
        // How long a topic that was not found may still be on its way.
        .flag("--kafka-setting", "topic.metadata.propagation.max.ms=2000")
        .start();
    bridge.ready(LONG).await;
    let large = |size: usize| format!(r#"{{"k":"x","v":"{}"}}"#, "y".repeat(size));
    let mut expected = BTreeMap::new();
    let mut publishes = Vec::new();
    for n in 0..20 {
        publishes.push(("small/a".to_owned(), format!(r#"{{"k":"k-{n}"}}"#)));
        // Fits the bridge's limit and not the topic's.
        if n % 5 == 0 {
            publishes.push(("small/b".to_owned(), large(10_000 + n)));
            *expected.entry("too_large").or_insert(0) += 1;
        }
    }
    publishes.push(("small/c".to_owned(), large(60_000)));
    *expected.entry("too_large").or_default() += 1;
    for (topic, reason) in [
        ("raw/x/not here!", "invalid_topic"),
        ("raw/x/missing", "unknown_topic"),
    ] {
        publishes.push((topic.to_owned(), "x".to_owned()));
        expected.insert(reason, 1);
    }
    publishes.push(("raw/x/there".to_owned(), "x".to_owned()));
    for (topic, payload) in publishes {
        let publish = Publish::new(topic, "test", payload.into_bytes());
        let properties = Properties {
            user: vec![("traceparent".into(), "00-t".into())],
            ..Properties::default()
        };
        client
            .session
            .publish(publish.properties(properties))
            .await
            .unwrap();
    }
    yard.arrived("small", 20).await;
    let records = yard.kafka.records("small");
    let keys: HashSet<_> = records.iter().filter_map(|r| r.key.clone()).collect();
    assert_eq!((records.len(), keys.len()), (20, 20));
    let first = &records[0];
    let shown = |name| first.header(name).unwrap_or("-");
    assert_eq!(
        [
            "room",
            "mqtt.topic",
            "mqtt.qos",
            "mqtt.retain",
            "traceparent"
        ]
        .map(shown),
        ["a", "small/a", "1", "false", "00-t"]
    );
    client
        .received_at_least(expected.values().sum(), LONG)
        .await;
    let mut reasons = BTreeMap::new();
    for letter in client.received() {
        let properties = letter.properties.unwrap();
        *reasons
            .entry(properties.user("reason").unwrap().to_owned())
            .or_insert(0) += 1;
    }
    let wanted: BTreeMap<_, _> = expected
        .iter()
        .map(|(k, v)| ((*k).to_owned(), *v))
        .collect();
    assert_eq!(reasons, wanted);
    yard.arrived("raw.there", 1).await;
    yard.arrived("devices.status", 1).await;
    let status = yard.kafka.records("devices.status").remove(0);
    assert_eq!(status.key.as_deref(), Some("d-1"));
    assert_eq!(status.header("mqtt.retain"), Some("true"));
    let metrics = bridge.metrics().await.unwrap();
    let lettered = metrics.sum("bridge_records_total", &[("outcome", "dead_letter")]);
    assert_eq!(lettered, 7.0);
    bridge.terminate();
    assert_eq!(bridge.exit(LONG).await, 0);
}

#[actix::test]
async fn settings_that_cannot_be_used_are_said_in_one_line() {
    let dir = TempDir::with_prefix("bridge-").unwrap();
    let routes = dir.path().join("routes.yaml");
    std::fs::write(&routes, "routes:\n  - filter: a/#/b\n    topic: a\n").unwrap();
    let mut said = String::new();
    let path = routes.display().to_string();
    for args in [
        &["--kafka-brokers", "k", "--routes", &path][..],
        &["--kafka-brokers", "k", "--kafka-ca-file", "no/such/ca.crt"],
        &[
            "--kafka-brokers",
            "k",
            "--kafka-setting",
            "ssl.endpoint.identification.algorithm=none",
        ],
        &["--kafka-brokers", "k", "--kafka-setting", "acks=1"],
        &["--kafka-brokers", "k", "--kafka-setting", "no.such=1"],
        &["--kafka-brokers", ""],
        &["--kafka-brokers", "k:9092,not a host:::"],
        &[],
    ] {
        let program = args
            .iter()
            .fold(Program::new("bridge"), |p, arg| p.arg(arg));
        let mut process: Process = program.env("ADMIN_ADDR", "off").start();
        assert_eq!(process.exit(LONG).await, 2, "{args:?}");
        let line = process.stderr().replace(&path, "routes.yaml");
        assert_eq!(
            line.trim_end()
                .lines()
                .filter(|l| l.starts_with("error"))
                .count(),
            1,
            "{line}"
        );
        writeln!(
            said,
            "{}",
            line.lines().find(|l| l.starts_with("error")).unwrap()
        )
        .unwrap();
    }
    for expected in [
        "`routes.yaml`: line 2, column 13: `#` must be the last level",
        "KAFKA_CA_FILE is `no/such/ca.crt`",
        "always checked",
        "rest on it",
        "no.such",
        "--kafka-brokers",
        "--kafka-brokers (KAFKA_BROKERS) is ``: write HOST",
        "--kafka-brokers (KAFKA_BROKERS) is `not a host:::`: write HOST",
    ] {
        assert!(said.contains(expected), "`{expected}` is not in:\n{said}");
    }
}
