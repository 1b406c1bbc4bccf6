//! What a stored reading costs ingest, on SQLite and PostgreSQL, beside what the store alone takes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Parser;
use fleet_bench::{
    Feed, Line, Packets, Report, measured, own_cpu, publish, reading, stop, tell, watched,
};
use fleet_shared::config::DatabaseUrl;
use fleet_store::{Batch, NewReading, OpenOptions};
use fleet_tests::{Mosquitto, Postgres, Program, TempDir};
use jiff::Timestamp;

/// Feeds ingest from a stub broker and measures the process; then writes the same readings to the
/// same kind of store without anything else.
#[derive(Parser)]
#[command(name = "bench-ingest", version)]
struct Args {
    /// Readings a run.
    #[arg(long, default_value_t = 400_000)]
    readings: u64,
    /// Unacknowledged readings at most.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000])]
    window: Vec<u16>,
    /// Readings a second of the run through Mosquitto.
    #[arg(long, default_value_t = 10_000)]
    rate: u64,
    /// Seconds of it.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// The Go program of `make bench-compare`, to be measured too.
    #[arg(long, value_name = "FILE")]
    paho: Option<PathBuf>,
    /// Write the figures as JSON too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[actix::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut report = Report::new();
    let start = Timestamp::now() - Duration::from_secs(86_400);

    for window in &args.window {
        let dir = TempDir::new()?;
        let url = format!("sqlite://{}", dir.path().join("fleet.db").display());
        report.push(intake("SQLite", &url, &args, *window, start).await?);
    }
    let dir = TempDir::new()?;
    let url = format!("sqlite://{}", dir.path().join("fleet.db").display());
    report.push(raw("SQLite", &url, args.readings, start).await?);

    for window in &args.window {
        let postgres = Postgres::start().await;
        report.push(intake("PostgreSQL", &postgres.url(), &args, *window, start).await?);
    }
    let postgres = Postgres::start().await;
    report.push(raw("PostgreSQL", &postgres.url(), args.readings, start).await?);
    report.push(steady(&args, start).await?);
    if let Some(paho) = &args.paho {
        for window in &args.window {
            report.push(peer(paho, args.readings, *window, start).await?);
        }
    }

    tell(args.json.as_deref(), &report, &report.table())
}

/// Ingest as a process of its own, from socket to committed row.
async fn intake(
    store: &str,
    url: &str,
    args: &Args,
    window: u16,
    start: Timestamp,
) -> anyhow::Result<Line> {
    let (feed, packets) = (Feed::listen()?, Packets::new(0..args.readings, start));
    let mut process = Program::service("ingest")
        .flag("--mqtt-url", format!("mqtt://{}", feed.addr()))
        .flag("--mqtt-receive-maximum", window)
        .flag("--database-url", url)
        .start();
    let feeding = move || {
        let mut consumer = feed.consumer()?;
        Ok((consumer.feed(&packets, u64::from(window), None)?, consumer))
    };
    let (fed, _connected) = watched(&mut process, feeding).await?;
    let line = Line::new(
        format!("ingest to {store}, window {window}"),
        fed.readings,
        fed.took,
        process.cpu(),
        Some(process.resident_bytes()),
    );
    stop(&mut process).await?;
    let stored = count(url).await?;
    ensure!(
        stored == args.readings,
        "{stored} of {} readings are stored",
        args.readings
    );
    Ok(line)
}

/// Ingest as a process of its own, behind a Mosquitto that is given a fixed rate.
async fn steady(args: &Args, start: Timestamp) -> anyhow::Result<Line> {
    const WARM_UP: Duration = Duration::from_secs(3);
    let (broker, postgres) = (Mosquitto::start().await, Postgres::start().await);
    let mut process = Program::service("ingest")
        .flag("--mqtt-url", broker.url())
        .flag("--database-url", postgres.url())
        .start();
    process.ready(Duration::from_secs(30)).await;
    let (addr, rate) = (format!("127.0.0.1:{}", broker.port()), args.rate);
    let early = watched(&mut process, {
        let addr = addr.clone();
        move || publish(&addr, 0, rate, WARM_UP, start)
    })
    .await?;
    let (cpu, began, time) = (
        process.cpu(),
        Instant::now(),
        Duration::from_secs(args.seconds),
    );
    let publishing = move || publish(&addr, early, rate, time, start);
    let sent = watched(&mut process, publishing).await?;
    let (cpu, took) = (process.cpu() - cpu, began.elapsed());
    let line = Line::new(
        format!("ingest to PostgreSQL through Mosquitto at {rate}/s"),
        sent,
        took,
        cpu,
        Some(process.resident_bytes()),
    );
    // What is published last is stored a moment later.
    let deadline = Instant::now() + Duration::from_secs(20);
    while count(&postgres.url()).await? < early + sent {
        ensure!(Instant::now() < deadline, "not all readings are stored");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stop(&mut process).await?;
    Ok(line)
}

/// A service in Go that does the same: batches, each reading once, acknowledged after the commit.
async fn peer(paho: &Path, readings: u64, window: u16, start: Timestamp) -> anyhow::Result<Line> {
    let postgres = Postgres::start().await;
    let command = |addr: SocketAddr| {
        let mut command = Command::new(paho);
        command.args(["-broker", &addr.to_string()]);
        command.args(["-database", &postgres.url()]);
        command.args(["-window", &window.to_string()]);
        command
    };
    let what = format!("Paho and pgx for Go to PostgreSQL, window {window}");
    let line = measured(what, command, &Packets::new(0..readings, start), window)?;
    let count = "SELECT count(*) FROM peer_readings";
    let stored = postgres.number(count).await?;
    ensure!(
        u64::try_from(stored) == Ok(readings),
        "it stored {stored} of {readings} readings"
    );
    Ok(line)
}

async fn count(url: &str) -> anyhow::Result<u64> {
    let store = fleet_store::open(&database(url)?, OpenOptions::reader("bench")).await?;
    Ok(store.count_readings().await?)
}

/// The store alone, in this process: one writer, batches of the size that ingest makes.
async fn raw(store: &str, url: &str, readings: u64, start: Timestamp) -> anyhow::Result<Line> {
    const BATCH: u64 = 2_000;
    let open = fleet_store::open(&database(url)?, OpenOptions::writer("bench")).await?;
    let batches: Vec<_> = (0..readings.div_ceil(BATCH))
        .map(|batch| {
            let numbers = batch * BATCH..readings.min((batch + 1) * BATCH);
            Arc::new(Batch {
                readings: numbers
                    .map(|n| NewReading {
                        reading: reading(n, start),
                        received_at: start,
                    })
                    .collect(),
                dead_letters: Vec::new(),
            })
        })
        .collect();
    let (cpu, started) = (own_cpu()?, Instant::now());
    for batch in batches {
        open.write_batch(batch).await?;
    }
    let (took, cpu) = (started.elapsed(), own_cpu()? - cpu);
    open.close().await?;
    let what = format!("{store} alone, batches of {BATCH}");
    Ok(Line::new(what, readings, took, cpu, None))
}

fn database(url: &str) -> anyhow::Result<DatabaseUrl> {
    url.parse()
        .map_err(|error| anyhow::anyhow!("{url}: {error}"))
}
