//! `fleet rules backtest`.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use alerting::{Backtest, Bounds, Progress, backtest};
use anyhow::Context as _;
use fleet_shared::config::{ConfigError, LogArgs, duration};
use fleet_shared::service::Host;
use fleet_store::OpenOptions;
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;

use super::{Source, plot, table};
use crate::place::StoreArgs;

const EXAMPLES: &str = "\
Nothing is published and nothing is written. Readings come in the order of their timestamps.

Exit codes: 0 done, 1 the rules or the store are not in order, 2 wrong usage.

Examples:
  fleet rules backtest rules.yaml                          # the last 24 hours of ./data
  fleet rules backtest --from 7d                           # the shipped rules over a week
  fleet rules backtest rules.yaml --from 2026-01-01T00:00:00Z --to 2026-02-01T00:00:00Z \\
      --sensor boiler-1 --output svg > boiler.svg";

/// Tells what rules would have said of stored readings: how often, for how long, how restlessly.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
#[command(mut_arg("log", |arg| arg.default_value("warn")))]
pub struct BacktestArgs {
    /// File of rules, `-` for standard input; those that ship with the program without.
    pub file: Option<PathBuf>,
    /// Start: an RFC 3339 time, or a duration before now.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = moment)]
    pub from: Moment,
    /// End, not included: an RFC 3339 time, or a duration before now.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = moment)]
    pub to: Moment,
    /// Readings of this sensor only.
    #[arg(long, value_name = "ID")]
    pub sensor: Option<String>,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t)]
    pub output: Form,
    /// Where the readings are.
    #[command(flatten)]
    pub store: StoreArgs,
    /// What is logged, and how.
    #[command(flatten)]
    pub logs: LogArgs,
}

/// The form of the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// A picture: values, thresholds, and episodes as bands.
    Svg,
}

/// A point in time as it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A time.
    At(Timestamp),
    /// So long before now.
    Ago(Duration),
}

impl Moment {
    fn before(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(ago) => now.checked_sub(ago).unwrap_or(Timestamp::UNIX_EPOCH),
        }
    }
}

fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(at) = text.parse() {
        return Ok(Moment::At(at));
    }
    duration(text).map(Moment::Ago).map_err(|_| {
        "give a time such as 2026-01-31T12:00:00Z, or a duration before now such as 24h".to_owned()
    })
}

pub(super) async fn run(args: &BacktestArgs, host: &Host) -> anyhow::Result<ExitCode> {
    let now = Timestamp::now();
    let (from, to) = (args.from.before(now), args.to.before(now));
    if from >= to {
        let setting = "--from and --to";
        let remedy = format!("{from} is not before {to}");
        return Err(ConfigError::setting(setting, remedy).into());
    }
    let source = Source::read(args.file.as_ref())?;
    let rules = match source.rules() {
        Ok(rules) => Arc::new(rules),
        Err(errors) => {
            #[expect(clippy::print_stderr, reason = "what is wrong is for people")]
            {
                eprint!("{}", source.complaint(&errors));
            }
            return Ok(ExitCode::from(1));
        }
    };
    let store = args.store.open(OpenOptions::reader("fleet-rules")).await?;
    let mut tested = Backtest::new(rules.clone(), from, to);
    if args.output == Form::Svg {
        tested = tested.traced(plot::COLUMNS);
    }
    let bar = Bar::new(from, to);
    let run = backtest(
        store.clone(),
        tested,
        args.sensor.clone(),
        Bounds::NONE,
        |progress| {
            bar.show(progress);
            true
        },
    );
    let (report, trace) = tokio::select! {
        outcome = run => outcome.context("reading the stored readings")?,
        () = host.stopping() => anyhow::bail!("interrupted before the end: nothing is told"),
    };
    bar.end();
    store.close().await.context("closing the store")?;
    let text = match (args.output, trace) {
        (Form::Json, _) => serde_json::to_string_pretty(&report)? + "\n",
        (Form::Svg, Some(trace)) => plot::svg(&source.name, &rules, &report, &trace),
        _ => table::text(&source.name, &report),
    };
    std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())
        .context("writing the answer")?;
    Ok(ExitCode::SUCCESS)
}

/// Progress for a person who waits; nothing in a pipe.
struct Bar {
    bar: ProgressBar,
    from: Timestamp,
    span: f64,
}

/// Steps of the bar: the span has no unit of its own.
const STEPS: u64 = 1_000;

impl Bar {
    fn new(from: Timestamp, to: Timestamp) -> Self {
        let target = match std::io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(STEPS), target);
        let style = ProgressStyle::with_template("{bar:40} {percent:>3} %  {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        Self {
            bar,
            from,
            span: to.duration_since(from).as_secs_f64(),
        }
    }

    fn show(&self, progress: Progress) {
        let done = progress.at.duration_since(self.from).as_secs_f64() / self.span;
        self.bar.set_position((done * STEPS as f64) as u64);
        let readings = HumanCount(progress.readings);
        self.bar
            .set_message(format!("{readings} readings, up to {:.0}", progress.at));
    }

    fn end(self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_a_duration_before_now() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        let before = |text: &str| moment(text).map(|moment| moment.before(now).to_string());
        assert_eq!(
            before("2015-02-04T17:51:00Z"),
            Ok("2015-02-04T17:51:00Z".to_owned())
        );
        assert_eq!(before("24h"), Ok("2026-01-30T12:00:00Z".to_owned()));
        assert!(before("yesterday").is_err());
    }
}
