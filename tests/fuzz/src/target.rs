//! What is fed.

use std::fmt;
use std::path::Path;

use alerting::{Routes, RuleSet};
use bridge::CommandRecord;
use device_sim::replay::Table;
use fleet::access::{Accounts, Action, Passwords, covers};
use fleet::certs::Facts;
use fleet_shared::config::{DatabaseUrl, MqttUrl, duration};
use fleet_shared::model::{AlertMessage, Limits, SensorReading, StatusMessage, TelemetryMessage};
use fleet_shared::session::Message;
use fleet_shared::topic::{FleetTopic, Template, TopicFilter, TopicName, Trie, matches};
use ingest::{Mappings, Rules};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Takes an input.
pub(crate) type Feed = Box<dyn Fn(&[u8]) + Send + Sync>;

/// Something that reads what others wrote.
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// Valid inputs.
    pub seeds: Vec<Vec<u8>>,
    /// Words that mean something to it.
    pub words: &'static [&'static str],
    /// Takes an input, and panics if that shows a defect.
    pub feed: Feed,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({})", self.name)
    }
}

const READING: &str = r#"{"sensor_id":"temp-001","type":"temperature","value":21.5,"unit":"celsius","location":"kitchen","timestamp":"2026-01-02T03:04:05.678Z","battery_percent":87,"quality":"good"}"#;
const STATUS: &str = r#"{"device_id":"sensor-001","online":true,"last_seen":"2026-01-02T03:04:05Z","firmware_version":"1.2.3","signal_strength":-42,"uptime_seconds":61,"session_id":"019a0000-0000-7000-8000-000000000001"}"#;
const WILL: &str = r#"{"device_id":"sensor-001","online":false,"timestamp":"2026-01-02T03:04:05Z","reason":"unexpected_disconnect"}"#;
const ALERT: &str = r#"{"alert_id":"a","severity":"critical","message":"hot","sensor_id":"temp-001","timestamp":"2026-01-02T03:04:05Z","metadata":{"rule":"hot","value":"31","state":"firing"}}"#;
const FIELDS: &[&str] = &[
    "\"sensor_id\"",
    "\"value\":",
    "null",
    "true",
    "\"timestamp\":",
    "\"2026-01-02T03:04:05+25:00\"",
    "\"\"",
    "\"quality\":\"fair\"",
    "-1e308",
    ",",
    "}",
    "]",
];
const RULES: &str = "groups:\n  - name: g\n    rules:\n      - alert: Hot\n        type: temperature\n        when: value > 30 && avg('5m') > 28.0\n        clear: value < 29\n        for: 10s\n        severity: critical\n        message: '{{ sensor_id }} at {{ value | round(1) }}'\n        labels: {team: a}\n      - alert: Gone\n        topic: devices/+/status\n        when: '!online'\n        severity: warning\n";
const MAPPINGS: [&str; 3] = [
    include_str!("../../../services/ingest/mappings/tasmota.toml"),
    include_str!("../../../services/ingest/mappings/zigbee2mqtt.toml"),
    include_str!("../../../services/ingest/mappings/shelly.toml"),
];
const ROUTES: &str = "receivers:\n  - name: a\n    webhook: {url: \"https://example.org/hook\"}\nroute:\n  receiver: a\n  group_by: [rule]\n  routes:\n    - receiver: a\n      matchers: [\"severity=critical\"]\n";
const BRIDGE: &str = include_str!("../../../services/bridge/routes/default.yaml");
const ACCOUNTS: &str = "services:\n  ingest: {subscribe: [\"$share/ingest/tele/+/SENSOR\"]}\ndevices:\n  sensor-001: {locations: [kitchen, \"barn/#\"]}\n";
const CSV: &str = "\"\",\"date\",\"Temperature\",\"Humidity\"\n\"1\",\"2015-02-04 17:51:00\",23.18,27.272\n\"2\",\"2015-02-04 17:51:59\",23.15,NA\n";
const LEDGER: &str = "{\"sensor_id\":\"temp-001\",\"type\":\"temperature\",\"timestamp\":\"2026-01-02T03:04:05.678Z\",\"value\":21.5,\"qos\":1,\"acknowledged_at\":\"2026-01-02T03:04:05.700Z\"}\n";

/// Every target.
#[must_use]
#[expect(
    clippy::missing_panics_doc,
    reason = "what ships with the programs loads"
)]
pub fn targets() -> Vec<Target> {
    let ready = ["tasmota", "zigbee2mqtt", "shelly"].map(str::to_owned);
    let rules = Rules {
        limits: Limits::default(),
        max_clock_skew: std::time::Duration::from_secs(3_600),
        mappings: std::sync::Arc::new(Mappings::load(&ready).expect("they ship with ingest")),
    };
    let bridge_routes = bridge::Routes::parse(BRIDGE, "bridge").expect("they ship with the bridge");
    vec![
        target("packets", &packets(), &["\u{0}\u{4}MQTT", "\u{7f}"], |input| {
            // Also in two pieces, as a socket gives them.
            let whole = fleet_shared::session::read_packets(input, 1024 * 1024);
            for cut in [1, input.len() / 2] {
                let pieces = fleet_shared::session::read_packets(&input[..cut.min(input.len())], 1024 * 1024);
                if let (Ok(whole), Ok(pieces)) = (&whole, &pieces) {
                    assert!(pieces <= whole, "less is more");
                }
            }
        }),
        target("payloads", &[READING, STATUS, WILL, ALERT].map(str::as_bytes), FIELDS, payloads),
        target(
            "ingest",
            &[
                &b"sensors/kitchen/temperature\n"[..],
                b"tele/plug/SENSOR\n{\"Time\":\"2026-01-02T03:04:05\",\"AM2301\":{\"Temperature\":21.5,\"Humidity\":40},\"TempUnit\":\"C\"}",
                b"zigbee2mqtt/lamp\n{\"temperature\":21.5,\"humidity\":40,\"battery\":90,\"linkquality\":80}",
                b"shellies/shellyht-1/sensor/temperature\n21.5",
                READING_ON_ITS_TOPIC.as_bytes(),
            ],
            FIELDS,
            move |input| {
                let (topic, payload) = line(input);
                let Ok(topic) = std::str::from_utf8(topic) else { return };
                if TopicName::parse(topic).is_ok()
                    && let Err(rejection) = ingest::decode(topic, payload, now(), &rules)
                {
                    assert!(rejection.detail.len() < 4_096, "a reason is short");
                }
            },
        ),
        target("topics", &[&b"sensors/+/temperature\nsensors/kitchen/temperature"[..], b"a/#\na/b/c", b"$share/g/a/+\na/b", b"#\n$SYS/x"], &["/", "+", "#", "$", "//", "a"], topics),
        target("templates", &[&b"tele/{device}/SENSOR\ntele/plug/SENSOR"[..], b"a/{x}/{y...}\na/b/c/d"], &["{", "}", "/", "...", "+", "{x}"], |input| {
            let text = String::from_utf8_lossy(input);
            let (template, topic) = text.split_once('\n').unwrap_or((&text, ""));
            if let Ok(template) = Template::parse(template) {
                let Some(values) = template.extract(topic) else { return };
                let values: Vec<_> = values.iter().collect();
                if let Ok(again) = template.format(&values) {
                    assert_eq!(again, topic, "{template:?}");
                }
            }
        }),
        target("rules", &[RULES.as_bytes()], &["alert:", "when:", "value", "avg('5m')", "for:", "absent:", "{{ ", " }}", "topic:", "|", "severity: info", " && ", " + value", "matches", "size("], |input| {
            let text = String::from_utf8_lossy(input);
            match RuleSet::parse(&text) {
                Ok(rules) => {
                    let mut found = Vec::new();
                    rules.matching("sensors/kitchen/temperature", &mut found);
                }
                Err(errors) => assert!(!errors.is_empty()),
            }
        }),
        target("routes", &[ROUTES], &["receiver:", "routes:", "matchers:", "=~", "group_by:", "webhook:", "continue: true", "5m", "{{ "], |input| {
            if let Err(errors) = Routes::parse(&String::from_utf8_lossy(input)) {
                assert!(!errors.is_empty());
            }
        }),
        target("bridge-routes", &[BRIDGE.as_bytes()], &["- filter: ", "topic: ", "key: ", "\"{/", "{2}", "{2...}", "headers:", "create: true", "partitions: 0", "commands:", "$share/g/"], |input| {
            match bridge::Routes::parse(&String::from_utf8_lossy(input), "bridge") {
                Ok(routes) => drop(bridge::routed(&routes, &message("sensors/kitchen/temperature", READING.as_bytes()), 1 << 20)),
                Err(errors) => assert!(!errors.is_empty()),
            }
        }),
        target("bridge-records", &[READING_ON_ITS_TOPIC.as_bytes(), b"devices/sensor-001/status\n", b"alerts/critical/t\n{\"sensor_id\":\"t\"}"], FIELDS, move |input| {
            let (topic, payload) = line(input);
            let Ok(topic) = std::str::from_utf8(topic) else { return };
            if TopicName::parse(topic).is_err() {
                return;
            }
            if let Some(Ok((kafka, key, size))) = bridge::routed(&bridge_routes, &message(topic, payload), 64 * 1_024) {
                assert!(!kafka.is_empty() && !key.is_empty() && size <= 64 * 1_024);
            }
        }),
        target("bridge-commands", &[&b"sensor-001\n\n\n\n{\"command\":\"reboot\",\"correlation_id\":\"c-1\"}"[..], b"\n\n\n\n{\"device_id\":\"d\",\"command\":\"set\",\"payload\":{\"a\":[1,null]}}", b"sensor-001\nidentify\nc-2\n00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n\xff\xfe"], &["\"device_id\":", "\"command\":", "\"correlation_id\":", "\"payload\":", "/", "+", "#", "\\u0000", "\n"], |input| {
            // Key and headers are a line each, and absent where that is empty.
            let mut rest = input;
            let mut next = || {
                let (first, behind) = line(rest);
                rest = behind;
                Some(first).filter(|bytes| !bytes.is_empty())
            };
            let [key, command, correlation_id, traceparent] = std::array::from_fn(|_| next());
            let record = CommandRecord { key, value: rest, partition: 0, offset: 7, command, correlation_id, traceparent };
            if let Ok(publish) = bridge::command(&record, "bridge-0") {
                let topic = TopicName::parse(publish.topic.to_string()).expect("a topic that a broker takes");
                assert!(topic.as_str().starts_with("devices/") && topic.levels().count() == 4, "{topic:?}");
            }
        }),
        file_target("mapping", &MAPPINGS, &["[[mapping]]", "topic = ", "{device}", "/", "value = ", "type = ", "\"", "unit = ", "= [", "*"], "toml", |path| {
            drop(Mappings::load(&[path.display().to_string()]));
        }),
        target("accounts", &[ACCOUNTS.as_bytes()], &["services:", "devices:", "role:", "publish:", "locations:", "/#", "$share/"], |input| {
            if let Ok(accounts) = Accounts::parse(&String::from_utf8_lossy(input)) {
                // What every broker is told is one thing: lines stay lines, strings stay strings.
                let rules = fleet::access::authorization(&accounts);
                for line in rules.lines().skip(1) {
                    assert!(line.ends_with("}.") && line.matches('"').count().is_multiple_of(2), "{line}");
                }
                for line in fleet::access::acl_file(&accounts).lines().skip(1) {
                    assert!(line.is_empty() || line.starts_with("user ") || line.starts_with("topic "), "{line}");
                }
                let mut passwords = Passwords::default();
                let few = accounts.iter().count() < 5;
                if few {
                    passwords.complete(&accounts, |_| false);
                }
                let json = fleet::access::dynamic_security(&accounts, &passwords);
                serde_json::from_str::<serde_json::Value>(&json).expect("JSON");
                for account in accounts.iter() {
                    assert!(!account.may(Action::Publish, "\u{0}") && !account.may(Action::Subscribe, "a/#/b"));
                }
            }
        }),
        file_target("passwords", &[b"account,password,salt\ningest,abc,AAAA\n"], &[",", "\n", "=="], "csv", |path| {
            drop(Passwords::open(path));
        }),
        file_target("certificates", &[fleet_tests::Authority::new("x").certificate().as_bytes()], &["-----BEGIN CERTIFICATE-----\n", "-----END CERTIFICATE-----", "MII", "="], "pem", |path| {
            drop(Facts::of(path));
        }),
        file_target("ledger", &[LEDGER.as_bytes()], FIELDS, "jsonl", |path| {
            if let Ok(lines) = device_sim::ledger::read_lines(path) {
                lines.take_while(Result::is_ok).for_each(drop);
            }
            if let Ok(entries) = device_sim::ledger::read(path) {
                entries.take_while(Result::is_ok).for_each(drop);
            }
        }),
        target("replay", &[CSV.as_bytes()], &["date", ",", "\n", "NA", "24:00:00", "2015-02-29 00:00:00", ";"], |input| {
            drop(Table::read(input, None, None, &TimeZone::UTC));
        }),
        target("settings", &[&b"5m"[..], b"1h30m", b"mqtts://user:pw@broker:8883", b"postgres://u:p@h:5432/d?sslmode=require", b"sqlite://data/fleet.db"], &["://", "@", ":", "%", "[::1]", "ms", "?", "%00"], |input| {
            let text = String::from_utf8_lossy(input);
            drop(duration(&text));
            drop(text.parse::<MqttUrl>());
            drop(text.parse::<DatabaseUrl>());
        }),
    ]
}

const READING_ON_ITS_TOPIC: &str = concat!(
    "sensors/kitchen/temperature\n",
    r#"{"sensor_id":"temp-001","type":"temperature","value":21.5,"unit":"celsius","location":"kitchen","timestamp":"2026-01-02T03:04:05Z"}"#
);

/// The first line, and what is behind it.
fn line(input: &[u8]) -> (&[u8], &[u8]) {
    let at = input.iter().position(|byte| *byte == b'\n');
    at.map_or((input, &[][..]), |at| (&input[..at], &input[at + 1..]))
}

fn message(topic: &str, payload: &[u8]) -> Message {
    Message::new(topic.to_owned(), payload.to_vec())
}

fn now() -> Timestamp {
    Timestamp::from_second(1_767_323_045).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn target(
    name: &'static str,
    seeds: &[impl AsRef<[u8]>],
    words: &'static [&'static str],
    feed: impl Fn(&[u8]) + Send + Sync + 'static,
) -> Target {
    Target {
        name,
        seeds: seeds.iter().map(|seed| seed.as_ref().to_vec()).collect(),
        words,
        feed: Box::new(feed),
    }
}

/// A target that reads files.
fn file_target(
    name: &'static str,
    seeds: &[impl AsRef<[u8]>],
    words: &'static [&'static str],
    end: &str,
    feed: impl Fn(&Path) + Send + Sync + 'static,
) -> Target {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join(format!("{name}.{end}"));
    target(name, seeds, words, move |input| {
        std::fs::write(&path, input).expect("the temporary folder is writable");
        feed(&path);
        // The folder lives as long as the target.
        debug_assert!(dir.path().is_dir());
    })
}

/// PUBLISH of each QoS, CONNACK with properties, SUBACK, acknowledgements, DISCONNECT with a reason.
fn packets() -> [Vec<u8>; 8] {
    [
        b"\x30\x09\x00\x03a/b\x00hi!".to_vec(),
        b"\x32\x0a\x00\x03a/b\x00\x07\x00hi".to_vec(),
        b"\x34\x15\x00\x03a/b\x00\x07\x0a\x26\x00\x01k\x00\x01v\x01\x01\x00{\"a\":1}".to_vec(),
        b"\x20\x0b\x00\x00\x08\x21\x00\x14\x27\x00\x10\x00\x00".to_vec(),
        b"\x90\x05\x00\x01\x00\x01\x87".to_vec(),
        b"\x40\x02\x00\x07\x50\x03\x00\x08\x97\x62\x02\x00\x08\x70\x02\x00\x08".to_vec(),
        b"\xe0\x07\x8e\x05\x1f\x00\x02no".to_vec(),
        b"\xd0\x00\xb0\x04\x00\x01\x00\x11".to_vec(),
    ]
}

fn payloads(input: &[u8]) {
    let limits = Limits::default();
    if let Ok(reading) = SensorReading::parse(input, &limits) {
        let text = serde_json::to_vec(&reading).expect("a reading is JSON");
        let again = SensorReading::parse(&text, &limits).expect("what we write we read");
        assert_eq!(again, reading);
        if let Ok(topic) = TopicName::parse(reading.topic()) {
            assert!(matches("sensors/#", topic.as_str()));
        }
    }
    if let Ok(alert) = AlertMessage::parse(input, &limits) {
        let text = serde_json::to_vec(&alert).expect("an alert is JSON");
        assert_eq!(AlertMessage::parse(&text, &limits).expect("ours"), alert);
    }
    drop(StatusMessage::parse("sensor-001", input));
    drop(TelemetryMessage::parse("sensor-001", input));
}

fn topics(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (filter, topic) = text.split_once('\n').unwrap_or((&text, "a"));
    let parsed = FleetTopic::parse(topic);
    if let Some(parsed) = parsed
        && TopicName::parse(topic).is_ok()
    {
        assert!(!parsed.template().is_empty());
    }
    let (Ok(filter), Ok(topic)) = (TopicFilter::parse(filter), TopicName::parse(topic)) else {
        return;
    };
    // Three ways to the same answer.
    let says = filter.matches(&topic);
    assert_eq!(
        says,
        matches(filter.filter(), topic.as_str()),
        "{filter:?} {topic:?}"
    );
    let mut trie = Trie::new();
    if trie.insert(&filter, ()).is_ok() {
        let mut found = false;
        trie.for_each_match(topic.as_str(), |()| found = true);
        assert_eq!(says, found, "{filter:?} {topic:?}");
    }
    // A topic without wildcards is a filter that only it is covered by.
    assert_eq!(
        covers(filter.filter(), topic.as_str()),
        says,
        "{filter:?} {topic:?}"
    );
}
