//! What tracing costs ingest and device-sim: CPU a message with it off, and on at one in a hundred.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use fleet_bench::{Feed, Line, Packets, Report, SpanSink, Swallow, stop, tell, watched};
use fleet_tests::{Postgres, Process, Program};
use jiff::Timestamp;

/// One reading in so many is traced.
const ONE_IN: u64 = 100;

/// Measures both programs several times in turns, without and with tracing: of ingest the sums, of
/// device-sim the medians.
#[derive(Parser)]
#[command(name = "bench-tracing", version)]
struct Args {
    /// Readings a round of ingest.
    #[arg(long, default_value_t = 200_000)]
    readings: u64,
    /// Readings a second of ingest: as fast as it goes, the size of batches differs more from run to
    /// run than tracing costs.
    #[arg(long, default_value_t = 40_000)]
    ingest_rate: u64,
    /// Readings a second of device-sim.
    #[arg(long, default_value_t = 15_000)]
    rate: u64,
    /// Seconds a run of device-sim.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Rounds and runs of each.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Write the figures as JSON too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
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

#[actix::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let sink = SpanSink::start()?;
    let mut report = Report::new();
    for line in ingest(&args, &sink).await? {
        report.push(line);
    }
    let mut lines: Vec<Vec<Line>> = vec![Vec::new(); 2];
    // In turns, so that what else the machine does falls on all alike.
    for _ in 0..args.runs {
        for (place, tracing) in [Tracing::Off, Tracing::ByRatio].into_iter().enumerate() {
            lines[place].push(devices(&args, tracing, &sink).await?);
        }
    }
    for line in lines {
        report.push(median(line)?);
    }
    let cpu = |at: usize| report.lines[at].cpu_seconds_per_million;
    let mut table = report.table();
    for (on, off) in [(1, 0), (3, 2)] {
        let more = (cpu(on) / cpu(off) - 1.0) * 100.0;
        table.push_str(&format!("\n{}: {more:+.1} % CPU", report.lines[on].what));
    }
    tell(args.json.as_deref(), &report, &table)
}

fn median(mut lines: Vec<Line>) -> anyhow::Result<Line> {
    lines.sort_by(|a, b| {
        a.cpu_seconds_per_million
            .total_cmp(&b.cpu_seconds_per_million)
    });
    let middle = lines.len() / 2;
    lines.into_iter().nth(middle).context("no run was made")
}

/// Ingest to PostgreSQL, where its own share is the smallest and spans weigh the most: rounds of one
/// process without and with traces, in turns. Two processes differ by more than tracing costs.
async fn ingest(args: &Args, sink: &SpanSink) -> anyhow::Result<[Line; 2]> {
    let (postgres, feed) = (Postgres::start().await, Feed::listen()?);
    let program = Program::service("ingest")
        .flag("--mqtt-url", format!("mqtt://{}", feed.addr()))
        .flag("--mqtt-receive-maximum", 10_000)
        .flag("--database-url", postgres.url());
    let mut process = Tracing::ByParent.settle(program, sink).start();
    let mut consumer = watched(&mut process, move || feed.consumer()).await?;
    let start = Timestamp::now() - Duration::from_secs(86_400);
    let mut sums = [(0, Duration::ZERO, Duration::ZERO); 2];
    // The first two warm up, and do not count.
    for round in 0..2 * (args.runs as u64 + 1) {
        let is_traced = !round.is_multiple_of(2);
        let numbers = round * args.readings..(round + 1) * args.readings;
        let packets = Packets::with_context(numbers, start, |number| {
            let is_traced = is_traced && number.is_multiple_of(ONE_IN);
            is_traced.then(|| format!("00-{:032x}-{:016x}-01", number + 1, number + 1))
        });
        let (exported, cpu) = (spans(&process).await?, process.cpu());
        let rate = Some(args.ingest_rate);
        let feeding = move || Ok((consumer.feed(&packets, 10_000, rate)?, consumer));
        let (fed, connected) = watched(&mut process, feeding).await?;
        consumer = connected;
        if is_traced {
            // What is exported later belongs to this round all the same.
            let least = exported + fed.readings / ONE_IN;
            let deadline = Instant::now() + Duration::from_secs(30);
            while spans(&process).await? < least {
                ensure!(Instant::now() < deadline, "{least} spans are not exported");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        if round >= 2 {
            let (readings, took, sum) = &mut sums[usize::from(is_traced)];
            *readings += fed.readings;
            *took += fed.took;
            *sum += process.cpu() - cpu;
        }
    }
    let resident = process.resident_bytes();
    stop(&mut process).await?;
    ensure!(sink.taken() > 0, "the collector was sent nothing");
    let line = |what: &str, (readings, took, cpu)| {
        Line::new(
            format!("ingest, {what}"),
            readings,
            took,
            cpu,
            Some(resident),
        )
    };
    Ok([
        line("no reading traced", sums[0]),
        line("1 % traced", sums[1]),
    ])
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
    let what = format!("device-sim, {}", told(tracing));
    Ok(Line::new(what, count, took, cpu, Some(resident)))
}

fn told(tracing: Tracing) -> &'static str {
    match tracing {
        Tracing::Off => "tracing off",
        Tracing::ByParent | Tracing::ByRatio => "1 % traced",
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
