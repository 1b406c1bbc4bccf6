//! Whether the cost of a reading stays flat: with more sessions, with more rows, and over time.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use fleet_bench::{Consumer, Feed, Packets, Panel, Report, plot, stop, tell, watched};
use fleet_tests::{Postgres, Process, Program};
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;

/// Unacknowledged readings at most, of all sessions.
const WINDOW: u64 = 10_000;
/// Readings that are encoded at once, and over which a cost is taken.
const ROUND: u64 = 500_000;
/// Time between two looks at the memory.
const LOOK: Duration = Duration::from_secs(10);

/// Feeds ingest, which stores in PostgreSQL, from a stub broker. Nothing else should run on the
/// machine meanwhile.
#[derive(Parser)]
#[command(name = "bench-growth", version)]
struct Args {
    /// Numbers of MQTT sessions of one ingest.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4, 8])]
    sessions: Vec<usize>,
    /// Rows that the store is filled to.
    #[arg(long, default_value_t = 20_000_000)]
    rows: u64,
    /// How long memory is watched.
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// Readings a second meanwhile.
    #[arg(long, default_value_t = 2_000)]
    rate: u64,
    /// Parts to leave out.
    #[arg(long, value_delimiter = ',')]
    skip: Vec<Part>,
    /// Write plots `growth-sessions.svg`, `growth-rows.svg` and `growth-memory.svg` to this folder.
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
    /// Write the figures as JSON too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A part of the measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// CPU a reading by the number of sessions.
    Sessions,
    /// CPU a reading by the rows that are there.
    Rows,
    /// Memory over time.
    Memory,
}

/// What was measured: pairs of a position and a value.
#[derive(Serialize)]
struct Growth {
    machine: String,
    version: &'static str,
    /// Sessions, and CPU seconds per million readings.
    sessions: Vec<(f64, f64)>,
    /// Rows, and CPU seconds per million readings since the point before.
    rows: Vec<(f64, f64)>,
    /// Minutes, and resident MiB.
    memory: Vec<(f64, f64)>,
}

#[actix::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let report = Report::new();
    let mut growth = Growth {
        machine: report.machine,
        version: report.version,
        sessions: Vec::new(),
        rows: Vec::new(),
        memory: Vec::new(),
    };
    if !args.skip.contains(&Part::Sessions) {
        for &sessions in &args.sessions {
            growth
                .sessions
                .push((sessions as f64, by_sessions(sessions).await?));
        }
        let label = |sessions: f64, cost: f64| format!("{sessions}: {cost:.2}");
        save(
            &args,
            "sessions",
            "CPU s per million readings, by the number of MQTT sessions",
            &growth.sessions,
            label,
        )?;
    }
    if !args.skip.contains(&Part::Rows) {
        growth.rows = by_rows(args.rows).await?;
        let label = |rows: f64, cost: f64| {
            let round = [5e5, 5e6, 1e7, 1.5e7, 2e7].contains(&rows);
            if round {
                format!("{} million: {cost:.2}", rows / 1e6)
            } else {
                String::new()
            }
        };
        save(
            &args,
            "rows",
            "CPU s per million readings, by the rows in PostgreSQL",
            &growth.rows,
            label,
        )?;
    }
    if !args.skip.contains(&Part::Memory) {
        growth.memory = over_time(args.rate, args.minutes).await?;
        let label = |minutes: f64, mib: f64| {
            let tenth = (minutes * 6.0).round() as u64;
            if tenth.is_multiple_of(30) {
                format!("{minutes:.0} min: {mib:.1}")
            } else {
                String::new()
            }
        };
        let title = format!(
            "Resident MiB of ingest over time, at {} readings/s",
            args.rate
        );
        save(&args, "memory", &title, &growth.memory, label)?;
    }
    tell(args.json.as_deref(), &growth, &table(&growth))
}

fn table(growth: &Growth) -> String {
    let mut text = format!("{}\n", growth.machine);
    for (heading, points) in [
        ("sessions, CPU s/M", &growth.sessions),
        ("rows, CPU s/M", &growth.rows),
        ("minutes, MiB", &growth.memory),
    ] {
        if !points.is_empty() {
            text.push_str(&format!("\n{heading}\n"));
        }
        for (at, value) in points {
            text.push_str(&format!("{at:>12.1} {value:>8.2}\n"));
        }
    }
    text
}

fn save(
    args: &Args,
    name: &str,
    title: &str,
    points: &[(f64, f64)],
    label: fn(f64, f64) -> String,
) -> anyhow::Result<()> {
    let Some(folder) = &args.plots else {
        return Ok(());
    };
    let panel = Panel {
        title,
        points,
        decades: false,
        label,
    };
    std::fs::write(folder.join(format!("growth-{name}.svg")), plot(&[panel]))?;
    Ok(())
}

/// An ingest with its sessions connected.
async fn ingest(postgres: &Postgres, sessions: usize) -> anyhow::Result<(Process, Vec<Consumer>)> {
    let feed = Feed::listen()?;
    let mut process = Program::service("ingest")
        .flag("--mqtt-url", format!("mqtt://{}", feed.addr()))
        .flag("--mqtt-receive-maximum", WINDOW)
        .flag("--sessions", sessions)
        .flag("--database-url", postgres.url())
        .start();
    let connecting = move || (0..sessions).map(|_| feed.consumer()).collect();
    let consumers = watched(&mut process, connecting).await?;
    Ok((process, consumers))
}

/// Feeds each consumer its share of the readings; the CPU seconds that a million of them take.
async fn round(
    process: &mut Process,
    mut consumers: Vec<Consumer>,
    packets: Packets,
) -> anyhow::Result<(f64, Vec<Consumer>)> {
    let window = WINDOW / consumers.len() as u64;
    let hands = packets.dealt(consumers.len());
    let before = process.cpu();
    let feeding = move || {
        let fed = std::thread::scope(|scope| {
            let threads: Vec<_> = consumers
                .iter_mut()
                .zip(&hands)
                .map(|(consumer, hand)| scope.spawn(move || consumer.feed(hand, window, None)))
                .collect();
            threads
                .into_iter()
                .map(|thread| {
                    thread
                        .join()
                        .unwrap_or_else(|_| Err(std::io::Error::other("a feeder panicked")))
                })
                .map(|fed| fed.map(|fed| fed.readings))
                .sum::<std::io::Result<u64>>()
        })?;
        Ok((fed, consumers))
    };
    let (fed, consumers) = watched(process, feeding).await?;
    let cost = (process.cpu() - before).as_secs_f64() * 1e6 / fed as f64;
    Ok((cost, consumers))
}

/// The middle of three runs.
async fn by_sessions(sessions: usize) -> anyhow::Result<f64> {
    let mut costs = Vec::new();
    for _ in 0..3 {
        let postgres = Postgres::start().await;
        let (mut process, consumers) = ingest(&postgres, sessions).await?;
        let packets = Packets::new(0..ROUND, yesterday());
        let (cost, _connected) = round(&mut process, consumers, packets).await?;
        costs.push(cost);
        stop(&mut process).await?;
    }
    costs.sort_by(f64::total_cmp);
    Ok(costs[1])
}

/// One ingest, until so many rows are there.
#[expect(clippy::print_stderr, reason = "whoever waits wants to see it go on")]
async fn by_rows(rows: u64) -> anyhow::Result<Vec<(f64, f64)>> {
    let postgres = Postgres::start().await;
    let (mut process, mut consumers) = ingest(&postgres, 1).await?;
    let (start, mut points) = (yesterday(), Vec::new());
    // The first 10,000 are a point of their own.
    let mut at = 0;
    while at < rows {
        let next = if at == 0 {
            10_000
        } else {
            (at / ROUND + 1) * ROUND
        };
        let next = next.min(rows);
        let packets = Packets::new(at..next, start);
        let (cost, connected) = round(&mut process, consumers, packets).await?;
        consumers = connected;
        at = next;
        points.push((at as f64, cost));
        eprintln!("{at} of {rows} rows, {cost:.2} CPU s/M");
    }
    stop(&mut process).await?;
    Ok(points)
}

/// One ingest at a fixed rate, looked at every ten seconds.
async fn over_time(rate: u64, minutes: u64) -> anyhow::Result<Vec<(f64, f64)>> {
    let postgres = Postgres::start().await;
    let (mut process, mut consumers) = ingest(&postgres, 1).await?;
    let (start, began, mut points) = (yesterday(), Instant::now(), Vec::new());
    let round = rate * LOOK.as_secs();
    let mut at = 0;
    while began.elapsed() < Duration::from_secs(minutes * 60) {
        let packets = Packets::new(at..at + round, start);
        let feeding = move || {
            for consumer in &mut consumers {
                consumer.feed(&packets, WINDOW, Some(rate))?;
            }
            Ok(consumers)
        };
        consumers = watched(&mut process, feeding).await?;
        at += round;
        points.push((
            began.elapsed().as_secs_f64() / 60.0,
            process.resident_bytes() as f64 / 1_048_576.0,
        ));
    }
    stop(&mut process).await?;
    Ok(points)
}

fn yesterday() -> Timestamp {
    Timestamp::now() - Duration::from_secs(86_400)
}
