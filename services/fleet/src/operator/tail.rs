//! `fleet tail`: what goes over the broker, as it comes.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use fleet_shared::config::{ConfigError, LogArgs, MqttArgs, duration};
use fleet_shared::service::Host;
use fleet_shared::session::{QoS, Retained, Subscription};
use fleet_shared::topic::TopicFilter;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Operator;
use super::payload::{Line, text};
use crate::place::Output;

const EXAMPLES: &str = "\
A topic that matches several filters is shown once for each on some brokers. Nothing is taken away
from anybody, unless the filter is a shared one ($share/GROUP/FILTER).

Examples:
  fleet tail                                # everything but the broker's own $-topics
  fleet tail 'sensors/+/temperature' 'alerts/#'
  fleet tail 'devices/+/status' --for 1s    # what the broker remembers of every device
  fleet tail 'sensors/#' --count 100 --output json | jq -r .payload";

/// Shows messages as they come, until stopped.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
#[command(mut_arg("log", |arg| arg.default_value("warn")))]
pub struct TailArgs {
    /// Topic filters.
    #[arg(value_name = "FILTER", default_value = "#")]
    pub filters: Vec<String>,
    /// Ends after so many messages.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Ends after this time; also the longest wait for the connection.
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub period: Option<Duration>,
    /// Highest QoS of the deliveries.
    #[arg(long, value_name = "0|1|2", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// Leave out what the broker remembered from before.
    #[arg(long)]
    pub no_retained: bool,
    /// Form; json is one object a line.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
    /// The broker.
    #[command(flatten)]
    pub mqtt: MqttArgs,
    /// What is logged, and how.
    #[command(flatten)]
    pub logs: LogArgs,
}

/// The command.
///
/// # Errors
/// If the broker cannot be used, or standard output fails.
pub async fn run(args: TailArgs, host: Host) -> anyhow::Result<ExitCode> {
    for filter in &args.filters {
        TopicFilter::parse(filter.as_str())
            .map_err(|error| ConfigError::value("FILTER", filter, error.to_string()))?;
    }
    let qos = QoS::try_from(args.qos).map_err(|error| ConfigError::setting("--qos", error))?;
    let subscriptions = |_: &str| {
        let filters = args.filters.iter();
        filters
            .map(|filter| Subscription {
                retained: match args.no_retained {
                    true => Retained::Never,
                    false => Retained::Always,
                },
                ..Subscription::new(filter.clone(), qos)
            })
            .collect()
    };
    let mut operator =
        Operator::connect("tail", &args.mqtt, &host, args.period, subscriptions).await?;
    let outcome = tokio::select! {
        outcome = show(&args, &mut operator) => outcome,
        () = host.stopping() => Ok(()),
        () = over(args.period) => Ok(()),
    };
    operator.leave().await;
    outcome.map(|()| ExitCode::SUCCESS)
}

async fn over(period: Option<Duration>) {
    match period {
        Some(period) => tokio::time::sleep(period).await,
        None => std::future::pending().await,
    }
}

async fn show(args: &TailArgs, operator: &mut Operator) -> anyhow::Result<()> {
    let zone = TimeZone::system();
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        let message = operator.next().await?;
        let at = Timestamp::now();
        let line = match args.output {
            Output::Text => text(&message, at, &zone),
            Output::Json => serde_json::to_string(&Line::of(&message, at))? + "\n",
        };
        let mut out = std::io::stdout();
        match out.write_all(line.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => {}
            // `fleet tail | head` has seen enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(error).context("writing a message"),
        }
        operator
            .session
            .acknowledge(message.ticket.into_iter().collect());
        left -= 1;
    }
    Ok(())
}
