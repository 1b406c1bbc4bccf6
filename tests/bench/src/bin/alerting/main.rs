//! What alerting costs: the engine alone with few and many rules, and the whole way from a reading
//! published to its alert received.

mod engine;
mod load;
mod round_trip;

use std::path::PathBuf;

use clap::Parser;
use fleet::broker::EmbeddedBroker;
use fleet_bench::{Report, tell};
use fleet_tests::{Mosquitto, TempDir};
use serde::Serialize;

use crate::engine::Evaluated;
use crate::round_trip::RoundTrip;

/// Measures alerting. Nothing else should run on the machine meanwhile.
#[derive(Parser)]
#[command(name = "bench-alerting", version)]
struct Args {
    /// Readings for each run of the engine.
    #[arg(long, default_value_t = 2_000_000)]
    readings: u64,
    /// Seconds of each run over a broker.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Leave out the engine, or the brokers.
    #[arg(long, value_delimiter = ',')]
    skip: Vec<Part>,
    /// Write the figures as JSON too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a plot of cost and memory by the number of rules.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Measures one number of rules in this process and prints JSON: memory is that of a process.
    #[arg(long, hide = true)]
    one: Option<String>,
}

/// A part of the measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The engine alone.
    Engine,
    /// Mosquitto at 10,000 readings/s.
    Mosquitto,
    /// The embedded broker at 1,000 and 10,000 readings/s.
    Embedded,
}

/// Everything that was measured.
#[derive(Serialize)]
struct Measured {
    #[serde(flatten)]
    report: Report,
    engine: Vec<Evaluated>,
    round_trips: Vec<RoundTrip>,
}

#[expect(clippy::print_stdout, reason = "the report is the result")]
#[actix::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(one) = &args.one {
        println!(
            "{}",
            serde_json::to_string(&engine::run(one, args.readings)?)?
        );
        return Ok(());
    }
    let mut measured = Measured {
        report: Report::new(),
        engine: Vec::new(),
        round_trips: Vec::new(),
    };
    if !args.skip.contains(&Part::Engine) {
        measured.engine = engine::all(args.readings)?;
    }
    if !args.skip.contains(&Part::Mosquitto) {
        let broker = Mosquitto::start().await;
        let run = round_trip::run("Mosquitto", broker.url(), 10_000, args.seconds).await?;
        measured.round_trips.push(run);
    }
    if !args.skip.contains(&Part::Embedded) {
        for rate in [1_000, 10_000] {
            let dir = TempDir::new()?;
            let broker = EmbeddedBroker::start(([127, 0, 0, 1], 0).into(), dir.path())?;
            let url = format!("mqtt://{}", broker.local_addr());
            let run = round_trip::run("embedded broker", url, rate, args.seconds).await;
            broker.stop(std::time::Duration::from_secs(5));
            measured.round_trips.push(run?);
        }
    }
    if let Some(file) = &args.plot {
        std::fs::write(file, engine::plot(&measured.engine))?;
    }
    let table = format!(
        "{}

{}{}",
        measured.report.machine,
        engine::table(&measured.engine),
        round_trip::table(&measured.round_trips)
    );
    tell(args.json.as_deref(), &measured, &table)
}
