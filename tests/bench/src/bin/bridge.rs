//! What a record costs the bridge, on a real Kafka, beside a plain loop around librdkafka's producer.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use fleet_bench::{Feed, Line, Packets, Report, payload, tell, watched};
use fleet_tests::{Kafka, Program, TempDir};
use jiff::Timestamp;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

/// Feeds the bridge from a stub broker and measures the process; then produces the same readings from
/// a loop in this one, with the same settings, without and with the bridge's headers.
#[derive(Parser)]
#[command(name = "bench-bridge", version)]
struct Args {
    /// Readings a run.
    #[arg(long, default_value_t = 400_000)]
    readings: u64,
    /// Unacknowledged readings at most.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000])]
    window: Vec<u16>,
    /// Write the figures as JSON too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

const ROUTES: &str = "routes: [{filter: sensors/#, topic: readings, key: '{/sensor_id}'}]";

#[actix::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut report = Report::new();
    let start = Timestamp::now() - Duration::from_secs(86_400);
    let kafka = Kafka::start().await;
    kafka.create("readings", 6, &[]).await;
    // The first run warms Kafka up and is not told.
    bridge(&kafka, args.readings / 4, 10_000, start).await?;
    for window in &args.window {
        report.push(bridge(&kafka, args.readings, *window, start).await?);
    }
    for headers in [true, false] {
        report.push(plain(&kafka, args.readings, headers, start)?);
    }
    tell(args.json.as_deref(), &report, &report.table())
}

/// The bridge as a process of its own, from socket to delivery report.
async fn bridge(
    kafka: &Kafka,
    readings: u64,
    window: u16,
    start: Timestamp,
) -> anyhow::Result<Line> {
    let dir = TempDir::new()?;
    let routes = dir.path().join("routes.yaml");
    std::fs::write(&routes, ROUTES)?;
    let before = kafka.count("readings").context("Kafka does not answer")?;
    let (feed, packets) = (Feed::listen()?, Packets::new(0..readings, start));
    let mut process = Program::service("bridge")
        .flag("--mqtt-url", format!("mqtt://{}", feed.addr()))
        .flag("--mqtt-receive-maximum", window)
        .flag("--kafka-brokers", kafka.brokers())
        .flag("--routes", routes.display())
        .start();
    let feeding = move || feed.consumer()?.feed(&packets, u64::from(window), None);
    let fed = watched(&mut process, feeding).await?;
    let line = Line::new(
        format!("bridge to Kafka, window {window}"),
        fed.readings,
        fed.took,
        process.cpu(),
        Some(process.resident_bytes()),
    );
    let after = kafka.count("readings").context("Kafka does not answer")?;
    ensure!(
        after - before == readings,
        "{} of {readings} records are there",
        after - before
    );
    Ok(line)
}

/// Counts delivery reports.
struct Delivered(Arc<AtomicU64>);

impl ClientContext for Delivered {}

impl ProducerContext for Delivered {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        self.0
            .fetch_add(u64::from(result.is_ok()), Ordering::Relaxed);
    }
}

/// A loop that does nothing but produce, with the bridge's settings.
fn plain(kafka: &Kafka, readings: u64, headers: bool, start: Timestamp) -> anyhow::Result<Line> {
    let records: Vec<_> = (0..readings).map(|n| payload(n, start)).collect();
    let keys: Vec<_> = (0..1_000)
        .map(|sensor| format!("temp-sensor-{sensor:04}"))
        .collect();
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", kafka.brokers())
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "5")
        .set("compression.type", "zstd")
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.messages", "10000");
    let count = Arc::<AtomicU64>::default();
    let producer: ThreadedProducer<Delivered> =
        ThreadedProducer::from_config_and_context(&config, Delivered(count.clone()))?;
    let (cpu, started) = (own_cpu()?, Instant::now());
    for (n, (topic, payload)) in records.iter().enumerate() {
        loop {
            let mut record = BaseRecord::<str, [u8], ()>::to("readings")
                .key(&keys[n % keys.len()])
                .payload(payload);
            if headers {
                record = record.headers(bridge_headers(topic));
            }
            match producer.send(record) {
                Ok(()) => break,
                Err((error, _))
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) =>
                {
                    pause();
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }
    producer.flush(Duration::from_secs(60))?;
    let (took, cpu) = (started.elapsed(), own_cpu()? - cpu);
    let delivered = count.load(Ordering::Relaxed);
    ensure!(
        delivered == readings,
        "{delivered} of {readings} records are there"
    );
    let what = if headers {
        "plain producer loop, with the same headers"
    } else {
        "plain producer loop, key and payload"
    };
    Ok(Line::new(what, readings, took, cpu, None))
}

fn bridge_headers(topic: &str) -> OwnedHeaders {
    [
        ("mqtt.topic", topic),
        ("mqtt.qos", "1"),
        ("mqtt.retain", "false"),
        ("message-id", "b4fac80953350b3c335453db8baea723"),
    ]
    .into_iter()
    .fold(OwnedHeaders::new(), |all, (key, value)| {
        all.insert(Header {
            key,
            value: Some(value),
        })
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "a loop on its own thread waits for room"
)]
fn pause() {
    thread::sleep(Duration::from_millis(1));
}

/// CPU time of this process so far, all threads.
fn own_cpu() -> anyhow::Result<Duration> {
    fleet_tests::cpu_time(std::process::id()).context("reading /proc")
}
