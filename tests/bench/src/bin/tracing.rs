//! What tracing costs ingest and device-sim: CPU a message with it off, and on at one in a hundred.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use fleet_bench::{Feed, Line, Report, SpanSink, Swallow};
use fleet_tests::{Postgres, Process, Program};
use jiff::Timestamp;

/// One reading in so many is traced.
const ONE_IN: u64 = 100;

/// Measures both programs several times in turns, off and on, and shows the medians.
#[derive(Parser)]
#[command(name = "bench-tracing", version)]
struct Args {
    /// Readings a run of ingest.
    #[arg(long, default_value_t = 400_000)]
    readings: u64,
    /// Readings a second of device-sim.
    #[arg(long, default_value_t = 15_000)]
    rate: u64,
    /// Seconds a run of device-sim.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Runs of each.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// How a program traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tracing {
    Off,
    /// The sender has decided, for one in a hundred.
    ByParent,
    /// The program decides, for one in a hundred.
    ByRatio,
}

impl Tracing {
    fn settle(self, program: Program, sink: &SpanSink) -> Program {
        let sampler = match self {
            Self::Off => return program,
            Self::ByParent => "parentbased_always_off",
            Self::ByRatio => "parentbased_traceidratio",
        };
        program
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", sink.url())
            .env("OTEL_TRACES_SAMPLER", sampler)
            .env("OTEL_TRACES_SAMPLER_ARG", 1.0 / ONE_IN as f64)
    }
}

#[expect(clippy::print_stdout, reason = "the report is the result")]
#[actix::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let sink = SpanSink::start()?;
    let mut report = Report::new();
    let postgres = Postgres::start().await;
    let mut days = 0;
    let mut lines: Vec<Vec<Line>> = vec![Vec::new(); 5];
    // In turns, so that what else the machine does falls on all alike.
    for _ in 0..args.runs {
        for (place, tracing) in [Tracing::Off, Tracing::ByParent, Tracing::ByRatio]
            .into_iter()
            .enumerate()
        {
            days += 1;
            let start = Timestamp::now() - Duration::from_secs(days * 86_400);
            lines[place].push(ingest(&args, tracing, &sink, &postgres, start).await?);
        }
        for (place, tracing) in [Tracing::Off, Tracing::ByRatio].into_iter().enumerate() {
            lines[3 + place].push(devices(&args, tracing, &sink).await?);
        }
    }
    for line in lines {
        report.push(median(line)?);
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    println!("{}", report.table());
    let cpu = |at: usize| report.lines[at].cpu_seconds_per_million;
    for (on, off) in [(1, 0), (2, 0), (4, 3)] {
        let more = (cpu(on) / cpu(off) - 1.0) * 100.0;
        println!("{}: {more:+.1} % CPU", report.lines[on].what);
    }
    Ok(())
}

fn median(mut lines: Vec<Line>) -> anyhow::Result<Line> {
    lines.sort_by(|a, b| {
        a.cpu_seconds_per_million
            .total_cmp(&b.cpu_seconds_per_million)
    });
    let middle = lines.len() / 2;
    lines.into_iter().nth(middle).context("no run was made")
}

/// Ingest to PostgreSQL, where its own share is the smallest and spans weigh the most.
async fn ingest(
    args: &Args,
    tracing: Tracing,
    sink: &SpanSink,
    postgres: &Postgres,
    start: Timestamp,
) -> anyhow::Result<Line> {
    let traced = |number: u64| {
        let is_traced = tracing == Tracing::ByParent && number.is_multiple_of(ONE_IN);
        is_traced.then(|| format!("00-{:032x}-{:016x}-01", number + 1, number + 1))
    };
    let feed = Feed::with_context(args.readings, start, traced)?;
    let program = Program::service("ingest")
        .flag("--mqtt-url", format!("mqtt://{}", feed.addr()?))
        .flag("--mqtt-receive-maximum", 10_000)
        .flag("--database-url", postgres.url());
    sink.taken();
    let mut process = tracing.settle(program, sink).start();
    let feeding = thread::spawn(move || feed.run(10_000, None, || {}));
    while !feeding.is_finished() {
        ensure!(process.is_running(), "ingest ended: {}", process.stderr());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let fed = feeding
        .join()
        .map_err(|_| anyhow::anyhow!("the feeder panicked"))??;
    let spans = spans(&process).await?;
    let (cpu, resident) = (process.cpu(), process.resident_bytes());
    stop(&mut process).await?;
    expected(tracing, spans, args.readings, sink)?;
    let what = format!("ingest, tracing {}", told(tracing));
    Ok(Line::new(what, fed.readings, fed.took, cpu, Some(resident)))
}

/// The simulator, publishing to a broker that only acknowledges.
async fn devices(args: &Args, tracing: Tracing, sink: &SpanSink) -> anyhow::Result<Line> {
    let broker = Swallow::start()?;
    let program = Program::service("device-sim")
        .flag("--mqtt-url", format!("mqtt://{}", broker.addr()))
        .flag("--profile", "load")
        .flag("--devices", 50)
        .flag("--connect-rate", 1_000)
        .flag("--rate", args.rate)
        .flag("--duration", format!("{}s", args.seconds));
    sink.taken();
    let mut process = tracing.settle(program, sink).start();
    process.ready(Duration::from_secs(30)).await;
    let (started, cpu) = (Instant::now(), process.cpu());
    let published = async |process: &Process| -> anyhow::Result<u64> {
        let labels = [("outcome", "acknowledged")];
        let metrics = process.metrics().await?;
        Ok(metrics.sum("sim_publishes_total", &labels) as u64)
    };
    let before = published(&process).await?;
    // Up to shortly before its end, which is measured too little to matter.
    tokio::time::sleep(Duration::from_secs(args.seconds) * 3 / 4).await;
    let (count, cpu) = (published(&process).await? - before, process.cpu() - cpu);
    let (took, resident) = (started.elapsed(), process.resident_bytes());
    let spans = spans(&process).await?;
    stop(&mut process).await?;
    expected(tracing, spans, count, sink)?;
    let what = format!("device-sim, tracing {}", told(tracing));
    Ok(Line::new(what, count, took, cpu, Some(resident)))
}

fn told(tracing: Tracing) -> &'static str {
    match tracing {
        Tracing::Off => "off",
        Tracing::ByParent => "on, 1 % by the devices' choice",
        Tracing::ByRatio => "on, 1 % by its own choice",
    }
}

/// Spans that the process has exported.
async fn spans(process: &Process) -> anyhow::Result<u64> {
    let metrics = process.metrics().await?;
    let lost = metrics.sum("trace_spans_total", &[("outcome", "failed")])
        + metrics.sum("trace_spans_total", &[("outcome", "dropped")]);
    ensure!(lost == 0.0, "{lost} spans were lost");
    Ok(metrics.sum("trace_spans_total", &[("outcome", "exported")]) as u64)
}

/// A measurement of tracing that traced nothing would be worth nothing.
fn expected(tracing: Tracing, spans: u64, messages: u64, sink: &SpanSink) -> anyhow::Result<()> {
    let bytes = sink.taken();
    if tracing == Tracing::Off {
        ensure!(spans == 0 && bytes == 0, "{spans} spans with tracing off");
        return Ok(());
    }
    // The last batch may still wait when the process is asked.
    let least = messages / ONE_IN / 4;
    ensure!(
        spans >= least && bytes > 0,
        "{spans} spans of {messages} messages, {bytes} bytes"
    );
    Ok(())
}

async fn stop(process: &mut Process) -> anyhow::Result<()> {
    process.terminate();
    let code = process.exit(Duration::from_secs(20)).await;
    ensure!(code == 0, "it ended with {code}: {}", process.stderr());
    Ok(())
}
