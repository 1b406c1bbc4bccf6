//! What a stored reading costs ingest, on SQLite and PostgreSQL, beside what the store alone takes.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use fleet_bench::{Fed, Feed, Line, Report, reading};
use fleet_shared::config::DatabaseUrl;
use fleet_store::{Batch, NewReading, OpenOptions};
use fleet_tests::{Postgres, Process, Program, TempDir};
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
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[expect(clippy::print_stdout, reason = "the report is the result")]
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

    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{}", report.table());
    }
    Ok(())
}

/// Ingest as a process of its own, from socket to committed row.
async fn intake(
    store: &str,
    url: &str,
    args: &Args,
    window: u16,
    start: Timestamp,
) -> anyhow::Result<Line> {
    let feed = Feed::new(args.readings, start)?;
    let broker = format!("mqtt://{}", feed.addr()?);
    let mut process = Program::service("ingest")
        .flag("--mqtt-url", &broker)
        .flag("--mqtt-receive-maximum", window)
        .flag("--database-url", url)
        .start();
    let feeding = thread::spawn(move || feed.run(u64::from(window), None, || {}));
    let fed = joined(feeding, &mut process).await?;
    let line = Line::new(
        format!("ingest to {store}, window {window}"),
        fed.readings,
        fed.took,
        process.cpu(),
        Some(process.resident_bytes()),
    );
    process.terminate();
    ensure!(
        process.exit(Duration::from_secs(20)).await == 0,
        "ingest did not stop in time"
    );
    let stored = fleet_store::open(&database(url)?, OpenOptions::reader("bench"))
        .await?
        .count_readings()
        .await?;
    ensure!(
        stored == args.readings,
        "{stored} of {} readings are stored",
        args.readings
    );
    Ok(line)
}

async fn joined(
    feeding: thread::JoinHandle<std::io::Result<Fed>>,
    process: &mut Process,
) -> anyhow::Result<Fed> {
    while !feeding.is_finished() {
        ensure!(process.is_running(), "ingest ended: {}", process.stderr());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let fed = feeding
        .join()
        .map_err(|_| anyhow::anyhow!("the feeder panicked"))?;
    fed.context("feeding ingest")
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

/// CPU time of this process so far, all threads.
fn own_cpu() -> anyhow::Result<Duration> {
    fleet_tests::cpu_time(std::process::id()).context("reading /proc")
}
