//! `fleet dead-letters replay`.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use actix::prelude::*;
use anyhow::Context as _;
use fleet_shared::config::{LogArgs, MqttArgs};
use fleet_shared::service::Host;
use fleet_shared::session::{Session, Stop};
use fleet_store::replay::{self, Chosen, ReplayError};
use fleet_store::{OpenOptions, Store};
use tokio::sync::watch;
use uuid::Uuid;

use super::Which;
use crate::operator::link::{Link, Teller, Watch, failed};
use crate::place::{Output, StoreArgs};

/// For the goodbye; everything is acknowledged by then.
const GOODBYE: Duration = Duration::from_secs(2);

const EXAMPLES: &str = "\
A dead letter is deleted after the broker has acknowledged its publish, so none is lost and an
interrupted replay may be run again: a reading that was stored meanwhile stays one row. What is
still refused comes back as a new dead letter.

Examples:
  fleet dead-letters replay --id 019aaf0e-5b1c-7c3e-8e55-0c3d8e0c4e11
  fleet dead-letters replay --reason future_timestamp
  fleet dead-letters replay --all --mqtt-url mqtt://broker:1883";

/// Publishes dead letters again, to their own topics at QoS 1, and deletes them from the store.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
#[command(mut_arg("log", |arg| arg.default_value("warn")))]
#[command(group(clap::ArgGroup::new("chosen").args(["id", "reason", "service", "all"]).required(true).multiple(true)))]
pub struct ReplayArgs {
    /// Longest time without an acknowledgement before the replay gives up.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = fleet_shared::config::duration)]
    pub timeout: Duration,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
    /// Only the one with this id; repeat it for several.
    #[arg(long, value_name = "ID", help_heading = "Which", conflicts_with_all = ["reason", "service", "all"])]
    pub id: Vec<Uuid>,
    /// Which.
    #[command(flatten)]
    pub which: Which,
    /// All of them.
    #[arg(long, help_heading = "Which", conflicts_with_all = ["reason", "service"])]
    pub all: bool,
    /// Where they are.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Where they go.
    #[command(flatten)]
    pub mqtt: MqttArgs,
    /// What is logged, and how.
    #[command(flatten)]
    pub logs: LogArgs,
}

/// The answer of `--output json`.
#[derive(serde::Serialize)]
struct Answer {
    replayed: u64,
    failed: u64,
}

pub(super) async fn run(args: &ReplayArgs, host: &Host) -> anyhow::Result<ExitCode> {
    // A reader does not create a store, so a misspelt one is noticed here.
    let reader = args
        .store
        .open(OpenOptions::reader("fleet-dead-letters"))
        .await?;
    reader.close().await.context("closing the store")?;
    let store = args
        .store
        .open(OpenOptions::writer("fleet-dead-letters"))
        .await?;
    let (session, mut link) = connect(args, host)?;
    let replayed = tokio::select! {
        replayed = replay(args, store.as_ref(), &session) => replayed,
        error = failed(&mut link, &args.mqtt) => Err(error),
        () = host.stopping() => Err(anyhow::anyhow!("interrupted; run it again for the rest")),
    };
    session.stop(Stop::EndSession, GOODBYE).await;
    store.close().await.context("closing the store")?;
    let replayed = replayed?;
    let answer = match args.output {
        Output::Json => serde_json::to_string(&Answer {
            replayed: replayed.replayed,
            failed: replayed.failed,
        })?,
        Output::Text => format!("replayed {}, failed {}", replayed.replayed, replayed.failed),
    };
    writeln!(std::io::stdout(), "{answer}").context("writing the answer")?;
    Ok(ExitCode::from(u8::from(replayed.failed > 0)))
}

fn connect(args: &ReplayArgs, host: &Host) -> anyhow::Result<(Session, watch::Receiver<Link>)> {
    let mut options = args.mqtt.options("fleet-replay", host.instance())?;
    options.clean_start = true;
    options.session_expiry = Duration::ZERO;
    let (teller, link) = Teller::new();
    let watch = Watch(teller).start();
    let session = Session::start(
        options,
        host.metrics(),
        watch.clone().recipient(),
        watch.recipient(),
    );
    Ok((session, link))
}

async fn replay(
    args: &ReplayArgs,
    store: &dyn Store,
    session: &Session,
) -> anyhow::Result<replay::Replayed> {
    let chosen = if args.id.is_empty() {
        Chosen::Passing(args.which.filter(), u64::MAX)
    } else {
        Chosen::Ids(args.id.clone())
    };
    let replayed = replay::replay(store, session, chosen, args.timeout).await;
    replayed.map_err(|error| match error {
        ReplayError::Store(error) => anyhow::Error::new(error).context("replaying from the store"),
        ReplayError::Unknown(_) => {
            anyhow::anyhow!("{error}; `fleet dead-letters list` shows what there is")
        }
        ReplayError::Unacknowledged { patience } => anyhow::anyhow!(
            "{} did not acknowledge within {patience:?}; see whether it runs, then run this again",
            args.mqtt.mqtt_url
        ),
    })
}
