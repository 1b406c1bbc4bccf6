//! What the services export is what dashboards and rules ask for, and as much whatever the fleet's size.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use fleet_shared::session::Publish;
use fleet_tests::{Acknowledge, Client, Process, Program, TempDir, eventually, options};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::site::{LONG, Site};

/// Labels that Prometheus adds itself.
const ADDED: [&str; 2] = ["job", "instance"];

/// Metrics that need more than these tests start, such as a receiver to notify: the contract names them.
const ELSEWHERE: [&str; 2] = ["alerting_notifications_total", "bridge_records_total"];

/// Words of PromQL that look like names.
const WORDS: [&str; 8] = [
    "by", "without", "on", "ignoring", "and", "or", "unless", "bool",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../k8s/observability")
}

/// Every query with the place it stands in, ranges of Grafana replaced by five minutes.
fn queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    let boards = std::fs::read_dir(folder().join("dashboards")).unwrap();
    for board in boards.map(|entry| entry.unwrap().path()) {
        let name = board.file_name().unwrap().display().to_string();
        let board: Value = serde_json::from_slice(&std::fs::read(&board).unwrap()).unwrap();
        for panel in board["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap() {
                let query = target["expr"].as_str().unwrap();
                let place = format!("{name}: {}", panel["title"]);
                queries.push((place, query.replace("$__rate_interval", "5m")));
            }
        }
    }
    assert!(queries.len() > 40, "the dashboards are read: {queries:#?}");
    for rule in rules() {
        let name = rule["record"].as_str().or(rule["alert"].as_str()).unwrap();
        let query = rule["expr"].as_str().unwrap().to_owned();
        queries.push((format!("rule {name}"), query));
    }
    queries
}

fn rules() -> Vec<Value> {
    let text = std::fs::read_to_string(folder().join("prometheus-rules.yaml")).unwrap();
    let rules: Value = serde_saphyr::from_str(&text).unwrap();
    let groups = rules["groups"].as_array().unwrap();
    let rules = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap());
    rules.cloned().collect()
}

/// What a query names: metrics with the labels they are selected by, and the labels it groups by.
#[derive(Debug, Default, PartialEq)]
struct Named {
    metrics: Vec<(String, Vec<String>)>,
    grouping: Vec<String>,
}

impl Named {
    fn of(query: &str) -> Self {
        let mut named = Self::default();
        let mut rest = query;
        let mut grouping = false;
        while let Some(first) = rest.chars().next() {
            if first == '"' {
                let end = rest[1..].find('"').unwrap();
                rest = &rest[end + 2..];
            } else if first == '[' {
                rest = &rest[rest.find(']').unwrap() + 1..];
            } else if first.is_ascii_alphabetic() || first == '_' {
                let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
                let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
                let name = &rest[..end];
                rest = rest[end..].trim_start();
                if grouping {
                    named.grouping.push(name.to_owned());
                } else if WORDS.contains(&name) {
                    grouping = rest.starts_with('(') && !matches!(name, "and" | "or" | "unless");
                } else if rest.starts_with('(') || rest.starts_with("by ") {
                    // A function or an aggregation.
                } else {
                    let (labels, after) = selectors(rest);
                    named.metrics.push((name.to_owned(), labels));
                    rest = after;
                }
            } else if first.is_ascii_digit() {
                rest = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.');
            } else {
                grouping &= first != ')';
                rest = &rest[first.len_utf8()..];
            }
        }
        named
    }
}

/// The labels in the braces that `text` begins with, and what follows.
fn selectors(text: &str) -> (Vec<String>, &str) {
    let Some(inside) = text.strip_prefix('{') else {
        return (Vec::new(), text);
    };
    let (inside, after) = inside.split_once('}').unwrap();
    let label = |part: &str| part.split(['=', '!']).next().unwrap().trim().to_owned();
    (inside.split("\",").map(label).collect(), after)
}

#[test]
fn names_in_a_query_are_found() {
    let query = r#"histogram_quantile(0.5, sum by (le) (rate(a_bucket{x="1", y!~"b|c"}[5m]))) > 1e3 and max(b) by (job)"#;
    let named = Named::of(query);
    let metric = |name: &str, labels: &[&str]| {
        (
            name.to_owned(),
            labels.iter().map(|it| (*it).to_owned()).collect(),
        )
    };
    assert_eq!(
        named.metrics,
        [metric("a_bucket", &["x", "y"]), metric("b", &[])]
    );
    assert_eq!(named.grouping, ["le", "job"]);
}

/// Every series of a scrape, without its value: name and labels.
fn series(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()))
        .collect()
}

/// The labels of each metric in these series.
fn labels(series: &BTreeSet<String>) -> BTreeMap<String, BTreeSet<String>> {
    let mut all = BTreeMap::<String, BTreeSet<String>>::new();
    for one in series {
        let (name, rest) = one.split_once('{').unwrap_or((one, ""));
        let names = rest
            .trim_end_matches('}')
            .split("\",")
            .filter_map(|part| Some(part.split_once('=')?.0.to_owned()));
        all.entry(name.to_owned()).or_default().extend(names);
    }
    all
}

fn promtool(args: &[&str], input: &str) -> String {
    let mut child = Command::new("promtool")
        .args(args)
        .current_dir(folder())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this test needs promtool: `apt-get install prometheus`, or run `make test`");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let feeding = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    feeding.join().unwrap().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "promtool {args:?}: {said}");
    said
}

#[test]
fn rules_are_valid_and_fire_when_they_should() {
    promtool(&["check", "rules", "prometheus-rules.yaml"], "");
    promtool(&["test", "rules", "prometheus-rules-test.yaml"], "");
}

#[test]
fn every_query_of_the_dashboards_is_valid() {
    let rules: Vec<_> = (0..)
        .zip(queries())
        .map(|(number, (_, query)): (u32, _)| json!({"record": format!("query_{number}"), "expr": query}))
        .collect();
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("rules.yaml");
    // JSON is YAML.
    let groups = json!({"groups": [{"name": "dashboards", "rules": rules}]});
    std::fs::write(&file, groups.to_string()).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()], "");
}

/// The services that export metrics, on a broker and a store.
struct Services {
    site: Site,
    ingest: Process,
    alerting: Process,
    tracker: Process,
}

impl Services {
    async fn start() -> Self {
        let site = Site::on_sqlite().await;
        let program = |name: &str| {
            Program::service(name)
                .env("MQTT_URL", site.broker.url())
                .env("DATABASE_URL", &site.database_url)
                .env("HTTP_ADDR", "127.0.0.1:0")
                // Spans go nowhere; they are counted all the same.
                .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
                .env("OTEL_TRACES_SAMPLER", "always_off")
        };
        let mut ingest = program("ingest").start();
        ingest.ready(LONG).await;
        let mut alerting = program("alerting").start();
        let mut tracker = program("status-tracker").start();
        alerting.ready(LONG).await;
        tracker.ready(LONG).await;
        Self {
            ingest,
            alerting,
            tracker,
            site,
        }
    }

    async fn scraped(&self) -> BTreeMap<&'static str, String> {
        let mut all = BTreeMap::new();
        for (name, process) in [
            ("ingest", &self.ingest),
            ("alerting", &self.alerting),
            ("status-tracker", &self.tracker),
        ] {
            let (status, text) = process.admin("/metrics").await.unwrap();
            assert_eq!(status, 200, "{name}");
            all.insert(name, text);
        }
        all
    }
}

#[actix::test]
async fn every_metric_and_label_that_dashboards_and_rules_name_is_exported() {
    let services = Services::start().await;
    let devices = services.site.device_sim();
    let devices = devices.flag("--devices", 3).flag("--rate", 30);
    let mut devices = devices
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        .start();
    devices.ready(LONG).await;
    services.site.stored_at_least(30).await;
    let mut scraped = services.scraped().await;
    scraped.insert("device-sim", devices.admin("/metrics").await.unwrap().1);

    let mut exported = BTreeMap::<String, BTreeSet<String>>::new();
    for (name, text) in &scraped {
        promtool(&["check", "metrics"], text);
        let found = labels(&series(text));
        for (metric, labels) in [
            ("fleet_build_info", ["service", "version"].as_slice()),
            ("mqtt_connection_status", &[]),
            ("mqtt_messages_published_total", &["qos", "topic"]),
            ("trace_spans_total", &["outcome"]),
            ("process_resident_memory_bytes", &[]),
        ] {
            let wanted: BTreeSet<_> = labels.iter().map(|it| (*it).to_owned()).collect();
            assert_eq!(found.get(metric), Some(&wanted), "{metric} of {name}");
        }
        for (metric, labels) in found {
            exported.entry(metric).or_default().extend(labels);
        }
    }
    let recorded: BTreeMap<String, BTreeSet<String>> = rules()
        .iter()
        .filter_map(|rule| {
            let grouping = Named::of(rule["expr"].as_str().unwrap()).grouping;
            Some((
                rule["record"].as_str()?.to_owned(),
                grouping.into_iter().collect(),
            ))
        })
        .collect();
    let contract = folder().join("../../docs/contract.md");
    let contract = std::fs::read_to_string(contract).unwrap();
    for (place, query) in queries() {
        let named = Named::of(&query);
        assert!(!named.metrics.is_empty(), "{place}: {query}");
        let mut known: BTreeSet<&str> = ADDED.into();
        for (metric, selected) in &named.metrics {
            if ELSEWHERE.contains(&metric.as_str()) {
                assert!(contract.contains(metric), "{place}: `{metric}`");
                known.extend(["channel", "outcome", "direction"]);
                continue;
            }
            let labels = exported.get(metric).or_else(|| recorded.get(metric));
            let labels = labels.unwrap_or_else(|| panic!("{place}: nobody exports `{metric}`"));
            known.extend(labels.iter().map(String::as_str));
            for label in selected {
                let is_known = labels.contains(label) || ADDED.contains(&label.as_str());
                assert!(is_known, "{place}: `{metric}` has no label `{label}`");
            }
        }
        for label in &named.grouping {
            assert!(
                known.contains(label.as_str()),
                "{place}: no metric has the label `{label}`"
            );
        }
    }
}

/// What one device says: its status, a reading of every outcome, and nonsense.
fn messages(device: u32, at: Timestamp) -> Vec<Publish> {
    let id = format!("device-{device}");
    let status = json!({
        "device_id": id, "online": true, "last_seen": at, "firmware_version": "1.0.0",
        "signal_strength": -50, "uptime_seconds": 1,
    });
    let reading = |kind: &str, value: f64| {
        json!({"sensor_id": format!("{id}-{kind}"), "type": kind, "value": value, "unit": "u",
            "location": format!("room-{device}"), "timestamp": at})
        .to_string()
    };
    let on = |kind: &str, payload: String| {
        Publish::new(format!("sensors/room-{device}/{kind}"), "t", payload)
    };
    vec![
        Publish::new(format!("devices/{id}/status"), "t", status.to_string()).retain(true),
        on("temperature", reading("temperature", 21.0)),
        on("temperature", reading("temperature", 21.0)),
        on("temperature", reading("temperature", 22.0)),
        on(
            &format!("kind-{device}"),
            reading(&format!("kind-{device}"), 1.0),
        ),
        on("temperature", format!("nonsense of {device}")),
    ]
}

#[actix::test]
async fn ten_thousand_devices_have_as_many_series_as_one() {
    const DEVICES: u32 = 10_000;
    let services = Services::start().await;
    let mut sender = options(services.site.broker.addr(), "devices");
    sender.outbox_max = 20_000;
    let client = Client::connected(sender, Acknowledge::AtOnce).await;
    let at = Timestamp::now() - Duration::from_secs(60);
    let one: Vec<Publish> = messages(0, at);
    let each = one.len() as u64;
    client
        .publish_numbers(0..each, |number| one[number as usize].clone())
        .await;
    settled(&services, each - 1, 1).await;
    let before = services.scraped().await;
    client
        .publish_numbers(each..each * u64::from(DEVICES), |number| {
            let device = (number / each) as u32;
            messages(device, at).swap_remove((number % each) as usize)
        })
        .await;
    settled(&services, (each - 1) * u64::from(DEVICES), DEVICES).await;
    for (name, text) in services.scraped().await {
        let (one, many) = (series(&before[name]), series(&text));
        let new: Vec<_> = many.difference(&one).collect();
        assert!(
            new.is_empty(),
            "{name} has series only with many devices: {new:#?}"
        );
        assert_eq!(one.len(), many.len(), "{name}");
        assert!(many.len() < 500, "{name} has {} series", many.len());
    }
}

/// Waits until all readings are durable and all devices known.
async fn settled(services: &Services, messages: u64, devices: u32) {
    eventually(LONG, "everything is taken", async || {
        let text = |error: std::io::Error| error.to_string();
        let ingest = services.ingest.metrics().await.map_err(text)?;
        let taken = ingest.sum("ingest_readings_total", &[]);
        // A report goes out now and then, and has a series of its own.
        let report = ("topic", "fleet/services/{service}/{instance}/report");
        let reported = ingest.sum("mqtt_messages_published_total", &[report]);
        let tracker = services.tracker.metrics().await.map_err(text)?;
        let known = tracker.sum("status_devices", &[]);
        let alerting = services.alerting.metrics().await.map_err(text)?;
        let evaluated = alerting.sum("alerting_sensors", &[]);
        let all = taken >= messages as f64
            && reported > 0.0
            && known >= f64::from(devices)
            && evaluated >= f64::from(devices);
        let state = format!("{taken} messages, {known} devices, {evaluated} sensors");
        if all { Ok(()) } else { Err(state) }
    })
    .await;
}

#[actix::test]
async fn simulator_of_many_devices_has_as_many_series_as_of_one() {
    let site = Site::on_sqlite().await;
    let mut found = Vec::new();
    for devices in [1, 1_000] {
        let sim = site.device_sim().flag("--devices", devices);
        let mut sim = sim.flag("--profile", "load").flag("--rate", 500).start();
        sim.ready(LONG).await;
        let text = eventually(LONG, "it publishes", async || {
            let metrics = sim.metrics().await.map_err(|error| error.to_string())?;
            let done = metrics.sum("sim_publishes_total", &[("outcome", "acknowledged")]);
            let (_, text) = sim
                .admin("/metrics")
                .await
                .map_err(|error| error.to_string())?;
            if done > 100.0 {
                Ok(text)
            } else {
                Err(format!("{done} publishes"))
            }
        })
        .await;
        found.push(series(&text));
        sim.terminate();
        assert_eq!(sim.exit(LONG).await, 0);
    }
    assert_eq!(found[0], found[1]);
}
