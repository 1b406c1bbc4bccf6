//! One trace from a reading to the notification that it caused, as a real OpenTelemetry Collector sees it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use fleet_shared::session::{Properties, Publish, QoS, Subscription};
use fleet_shared::telemetry::TraceContext;
use fleet_tests::{
    Acknowledge, Client, CollectedSpan, Collector, Process, Program, Receiver, eventually, options,
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::site::{LONG, Site};

/// Readings that the replicas share; each of them gets some.
const READINGS: u64 = 40;

const RULES: &str = "
groups:
  - name: test
    rules:
      - alert: TemperatureHigh
        type: temperature
        when: value > 30
        clear: value < 29
        severity: critical
";

const SERVER: u64 = 2;
const CLIENT: u64 = 3;
const PRODUCER: u64 = 4;
const CONSUMER: u64 = 5;

/// The same program with a collector for its spans.
fn traced(program: Program, collector: &Collector) -> Program {
    program
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
        .env("OTEL_BSP_SCHEDULE_DELAY", 100)
}

/// The context of reading `number`, as a device that traces would send it.
fn context(number: u64) -> TraceContext {
    let parent = format!(
        "00-{:032x}-{:016x}-01",
        0xfeed_0000_u64 + number,
        0xbee + number
    );
    TraceContext::parse(&parent, Some("test=yes")).unwrap()
}

fn reading(sensor: &str, value: f64, at: Timestamp) -> Publish {
    let reading = json!({
        "sensor_id": sensor, "type": "temperature", "value": value, "unit": "celsius",
        "location": "lab", "timestamp": at,
    });
    let label = "sensors/{location}/temperature";
    Publish::new("sensors/lab/temperature", label, reading.to_string())
}

/// What the collector has, once it is `enough`: it decides on each trace by itself.
async fn collected(
    collector: &Collector,
    what: &str,
    enough: impl Fn(&[CollectedSpan]) -> bool,
) -> Vec<CollectedSpan> {
    eventually(LONG, what, async || {
        let spans = collector.spans();
        if enough(&spans) {
            Ok(spans)
        } else {
            Err(spans)
        }
    })
    .await
}

/// A message as ingest took it.
fn is_intake(span: &CollectedSpan) -> bool {
    span.service == "ingest" && span.kind == CONSUMER
}

fn of_trace(spans: &[CollectedSpan], trace_id: &str) -> Vec<CollectedSpan> {
    let spans = spans.iter().filter(|span| span.trace_id == trace_id);
    spans.cloned().collect()
}

fn one<'a>(spans: &'a [CollectedSpan], service: &str, name: &str) -> &'a CollectedSpan {
    let mut found = spans
        .iter()
        .filter(|span| span.service == service && span.name == name);
    let span = found
        .next()
        .unwrap_or_else(|| panic!("no `{name}` of {service} in {spans:#?}"));
    assert!(
        found.next().is_none(),
        "`{name}` of {service} is there twice: {spans:#?}"
    );
    span
}

async fn stopped(processes: &mut [Process]) {
    for process in processes.iter() {
        process.terminate();
    }
    for process in processes {
        assert_eq!(process.exit(LONG).await, 0);
    }
}

#[actix::test]
async fn one_trace_leads_from_a_reading_through_two_replicas_to_the_webhook_it_caused() {
    let Some(collector) = Collector::start().await else {
        return;
    };
    let site = Site::on_sqlite().await;
    let rules = site.path("rules.yaml");
    std::fs::write(&rules, RULES).unwrap();
    let receiver = Receiver::start().await;
    let routes = site.path("routes.yaml");
    let hook = format!(
        "receivers:\n  - {{ name: hook, webhook_configs: [{{ url: '{}' }}] }}\n\
         route: {{ receiver: hook, group_wait: 0s, group_interval: 1s, group_by: ['...'] }}\n",
        receiver.url("/hook")
    );
    std::fs::write(&routes, hook).unwrap();
    let alerting = Program::service("alerting")
        .env("MQTT_URL", site.broker.url())
        .env("DATABASE_URL", &site.database_url)
        .flag("--mqtt-client-id", "alerting-0")
        .flag("--rules", rules.display())
        .flag("--routes", routes.display());
    let mut services = [
        traced(site.ingest("ingest-0"), &collector).start(),
        traced(site.ingest("ingest-1"), &collector).start(),
        traced(alerting, &collector).start(),
    ];
    for service in &mut services {
        service.ready(LONG).await;
    }
    let mut listener = options(site.broker.addr(), "listener");
    listener.subscriptions = vec![Subscription::new("alerts/#", QoS::ExactlyOnce)];
    let client = Client::connected(listener, Acknowledge::AtOnce).await;

    let start = Timestamp::now();
    for number in 0..READINGS {
        // One of them crosses the threshold.
        let value = if number == READINGS / 2 { 35.0 } else { 21.0 };
        let at = start - Duration::from_millis(number);
        let publish = reading(&format!("sensor-{number}"), value, at);
        let publish = publish.trace(Some(&context(number)));
        client.session.publish(publish).await.unwrap();
    }
    let broken = Publish::new("sensors/lab/temperature", "t", "no reading");
    let broken = broken.trace(Some(&context(READINGS)));
    client.session.publish(broken).await.unwrap();
    eventually(LONG, "the alert is told", async || {
        client.received().first().cloned().ok_or("nothing came")
    })
    .await;
    let alert = client.received().remove(0);
    let posted = eventually(LONG, "somebody is notified", async || {
        receiver
            .posted("/hook")
            .first()
            .cloned()
            .ok_or("nothing came")
    })
    .await;
    stopped(&mut services).await;

    // The reading that crossed: who did what for it, and because of what.
    let cause = context(READINGS / 2);
    let all = collected(
        &collector,
        "every reading, linked, and the alert",
        |spans| {
            let links = |span: &CollectedSpan| match span.name.as_str() {
                "commit readings" => span.links.len(),
                _ => 0,
            };
            spans.iter().map(links).sum::<usize>() as u64 > READINGS
                && spans.iter().filter(|span| is_intake(span)).count() as u64 > READINGS
                && spans
                    .iter()
                    .any(|span| span.name.starts_with("send alerts/"))
                && spans.iter().any(|span| span.name == "notify webhook")
        },
    )
    .await;
    let spans = of_trace(&all, &cause.trace_id());
    let stored = one(&spans, "ingest", "process sensors/{location}/temperature");
    let evaluated = one(&spans, "alerting", "process sensors/{location}/temperature");
    let told = one(&spans, "alerting", "send alerts/{severity}/{sensor_id}");
    let notified = one(&spans, "alerting", "notify webhook");
    for (span, parent, kind) in [
        (stored, cause.span_id(), CONSUMER),
        (evaluated, cause.span_id(), CONSUMER),
        (told, evaluated.span_id.clone(), PRODUCER),
        (notified, evaluated.span_id.clone(), CLIENT),
    ] {
        assert_eq!((&span.parent_id, span.kind), (&parent, kind), "{span:#?}");
        assert!(!span.failed, "{span:#?}");
    }
    assert_eq!(stored.attribute("fleet.outcome").as_deref(), Some("stored"));
    assert_eq!(evaluated.attribute("fleet.changes").as_deref(), Some("1"));
    assert_eq!(told.attribute("messaging.system").as_deref(), Some("mqtt"));

    // The webhook names the attempt, so what its receiver does is in the trace as well.
    let webhook = TraceContext::parse(posted.header("traceparent"), None).unwrap();
    assert_eq!(webhook.trace_id(), cause.trace_id());
    assert_eq!(webhook.span_id(), notified.span_id);

    // What was published carries the context on, with what the device added to it.
    let properties = alert.properties.expect("an alert of a trace carries it");
    let carried = properties.user("traceparent").unwrap();
    let carried = TraceContext::parse(carried, properties.user("tracestate")).unwrap();
    assert_eq!(carried.trace_id(), cause.trace_id());
    assert_eq!(carried.span_id(), told.span_id);
    assert_eq!(carried.tracestate().as_deref(), Some("test=yes"));

    // Each transaction is a trace of its own, linked both ways with the readings in it.
    let commits: Vec<_> = all
        .iter()
        .filter(|span| span.name == "commit readings")
        .collect();
    let commit = commits.iter().find(|commit| {
        let here = (stored.trace_id.clone(), stored.span_id.clone());
        commit.links.contains(&here)
    });
    let commit = commit.expect("the transaction of the reading is linked to it");
    assert_eq!((commit.kind, commit.parent_id.as_str()), (CLIENT, ""));
    assert_eq!(
        commit.attribute("db.system.name").as_deref(),
        Some("sqlite")
    );
    let there = (commit.trace_id.clone(), commit.span_id.clone());
    assert_eq!(stored.links, [there]);

    // Both replicas took part, each reading once, and the one that is none says why it failed.
    let processed: Vec<_> = all.iter().filter(|span| is_intake(span)).collect();
    assert_eq!(processed.len() as u64, READINGS + 1);
    let replicas: BTreeSet<_> = processed
        .iter()
        .filter_map(|span| span.attribute("messaging.client.id"))
        .collect();
    assert_eq!(
        replicas,
        BTreeSet::from(["ingest-0".into(), "ingest-1".into()])
    );
    let linked: usize = commits.iter().map(|commit| commit.links.len()).sum();
    assert_eq!(linked as u64, READINGS + 1);
    let refused = processed.iter().filter(|span| span.failed);
    let refused: Vec<_> = refused
        .map(|span| (span.trace_id.clone(), span.attribute("error.type")))
        .collect();
    let malformed = Some("malformed".to_owned());
    assert_eq!(refused, [(context(READINGS).trace_id(), malformed)]);
}

#[actix::test]
async fn trace_begins_at_the_device_and_goes_through_http_to_a_command() {
    let Some(collector) = Collector::start().await else {
        return;
    };
    let site = Site::on_sqlite().await;
    let http = SocketAddr::from(([127, 0, 0, 1], fleet_tests::free_port()));
    let tracker = Program::service("status-tracker")
        .env("MQTT_URL", site.broker.url())
        .env("DATABASE_URL", &site.database_url)
        .env("HTTP_ADDR", http)
        .env("API_TOKEN", "secret");
    let mut ingest = traced(site.ingest("ingest-0"), &collector).start();
    ingest.ready(LONG).await;
    let mut tracker = traced(tracker, &collector).start();
    tracker.ready(LONG).await;
    let devices = site.device_sim().flag("--devices", 2).flag("--rate", 20);
    let mut devices = traced(devices, &collector).start();
    devices.ready(LONG).await;
    let mut listener = options(site.broker.addr(), "listener");
    listener.subscriptions = vec![Subscription::new("devices/+/commands/#", QoS::AtLeastOnce)];
    let client = Client::connected(listener, Acknowledge::AtOnce).await;
    site.stored_at_least(10).await;

    let caller = context(7);
    let device = eventually(LONG, "the tracker knows a device", async || {
        let (_, body) = fleet_tests::get(http, "/api/v1/devices")
            .await
            .map_err(|error| error.to_string())?;
        let body: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
        let device = body["items"].as_array().and_then(|all| {
            all.iter()
                .find(|it| it["online"] == true)
                .and_then(|it| it["device_id"].as_str())
        });
        device.map(str::to_owned).ok_or(body.to_string())
    })
    .await;
    let traceparent = caller.traceparent();
    let path = format!("/api/v1/devices/{device}/commands/ping");
    let headers = [
        ("Authorization", "Bearer secret"),
        ("traceparent", traceparent.as_str()),
    ];
    let asked = post(http, &path, &headers).await;
    let command = eventually(LONG, "the command is published", async || {
        client.received().first().cloned().ok_or("nothing came")
    })
    .await;
    // Whoever is first to answer for the device, it or we: the request is over then.
    let mut properties = command.properties.expect("a command has properties");
    let answer = properties.response_topic.take().unwrap();
    let answer = Publish::new(answer, "t", "{}").properties(Properties {
        correlation_data: properties.correlation_data.take(),
        ..Properties::default()
    });
    client.session.publish(answer).await.unwrap();
    let answer = asked.await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200"),
        "{answer}"
    );
    stopped(&mut [devices, ingest, tracker]).await;

    let all = collected(&collector, "request, command and readings", |spans| {
        let stored: Vec<_> = spans.iter().filter(|span| is_intake(span)).collect();
        of_trace(spans, &caller.trace_id()).len() >= 2
            && stored.len() >= 10
            && stored
                .iter()
                .all(|span| spans.iter().any(|it| it.span_id == span.parent_id))
    })
    .await;
    let spans = of_trace(&all, &caller.trace_id());
    let route = "POST /api/v1/devices/{id}/commands/{name}";
    let asked = one(&spans, "status-tracker", route);
    assert_eq!((asked.kind, &asked.parent_id), (SERVER, &caller.span_id()));
    let sent = one(
        &spans,
        "status-tracker",
        "send devices/{device_id}/commands/{command}",
    );
    assert_eq!((sent.kind, &sent.parent_id), (PRODUCER, &asked.span_id));
    let carried = TraceContext::parse(properties.user("traceparent").unwrap(), None).unwrap();
    assert_eq!(
        (carried.trace_id(), carried.span_id()),
        (caller.trace_id(), sent.span_id.clone())
    );

    // A device's reading: its own span is the root, that of ingest below it.
    for span in all.iter().filter(|span| is_intake(span)) {
        let root = all.iter().find(|it| it.span_id == span.parent_id);
        let root = root.unwrap_or_else(|| panic!("the parent is missing: {span:#?}"));
        assert_eq!((root.service.as_str(), root.kind), ("device-sim", PRODUCER));
        assert_eq!(
            (&root.trace_id, root.parent_id.as_str()),
            (&span.trace_id, "")
        );
        assert!(
            root.name.starts_with("send sensors/{location}/"),
            "{root:#?}"
        );
    }
}

/// Posts an empty object; the answer comes on the task.
async fn post(addr: SocketAddr, path: &str, headers: &[(&str, &str)]) -> JoinHandle<String> {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let request = format!("POST {path} HTTP/1.0\r\n{headers}Content-Length: 2\r\n\r\n{{}}");
    stream.write_all(request.as_bytes()).await.unwrap();
    actix::spawn(async move {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    })
}

#[actix::test]
async fn collector_that_is_away_or_hangs_holds_nothing_up() {
    let site = Site::on_sqlite().await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hanging = format!("http://{}", silent.local_addr().unwrap());
    for endpoint in ["http://127.0.0.1:1".to_owned(), hanging] {
        let mut ingest = site
            .ingest("ingest-0")
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)
            .env("OTEL_BSP_SCHEDULE_DELAY", 50)
            .env("OTEL_BSP_MAX_QUEUE_SIZE", 20)
            .flag("--drain-timeout", "6s")
            .start();
        ingest.ready(LONG).await;
        let client = Client::connected(options(site.broker.addr(), "a"), Acknowledge::AtOnce).await;
        let start = Timestamp::now();
        client
            .publish_numbers(0..500, |number| {
                let at = start - Duration::from_millis(number);
                reading("sensor", 20.0, at).trace(Some(&context(number)))
            })
            .await;
        let lost = eventually(LONG, "all are stored, and spans are counted", async || {
            let metrics = ingest.metrics().await.map_err(|error| error.to_string())?;
            let stored = metrics.sum("ingest_readings_total", &[("outcome", "stored")]);
            let lost = metrics.sum("trace_spans_total", &[("outcome", "dropped")])
                + metrics.sum("trace_spans_total", &[("outcome", "failed")]);
            if stored >= 500.0 && lost > 0.0 {
                Ok(lost)
            } else {
                Err(format!("{stored} stored, {lost} spans lost"))
            }
        })
        .await;
        assert!(lost <= 1_001.0, "{lost} spans of 500 readings");
        ingest.terminate();
        assert_eq!(ingest.exit(Duration::from_secs(15)).await, 0, "{endpoint}");
    }
}
