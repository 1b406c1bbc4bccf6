//! `fleet verify`: is everything that the broker has acknowledged in the store, once?

mod join;
mod page;
mod report;
#[cfg(test)]
mod tests;
mod timeline;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use fleet_shared::config::{ConfigError, LogArgs, duration};
use fleet_shared::service::Host;
use fleet_store::OpenOptions;
use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use crate::place::{Output, StoreArgs, ledger_file};

pub use join::{VerifyError, verify};
pub use report::{Counts, Delivery, Finding, Kind, Proof};

/// Pause between two looks while readings are still on their way.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Exit codes: 0 nothing is missing, double or different, 1 something is, 2 it cannot be told.

  published          acknowledgements in the ledger; a reading published twice counts twice
  acknowledged       different readings among them
  stored             those that the store has
  missing            those that it has not
  duplicates         keys (sensor, type, timestamp) with more than one row in the store
  conflicts          readings whose value in the store differs from the ledger's
  late               readings stored more than --late-after after their acknowledgement
  repeated           lines that the ledger has twice
  dead-lettered      messages made to be refused, and refused for that reason
  not dead-lettered  those that were not
  open               readings at QoS 0, or given up: they may be stored or not
  unexplained        rows and dead letters of the run that no line of the ledger explains

Examples:
  fleet verify                                      # the run of `fleet up` in ./data
  fleet verify --wait 30s --output json
  fleet verify --strict --html report.html          # also nothing unexplained; and with plots
  fleet verify --ledger run.jsonl --database-url postgres://fleet@localhost/fleet";

/// Compares the simulator's ledger with the store.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
#[command(mut_arg("log", |arg| arg.default_value("warn")))]
pub struct VerifyArgs {
    /// Ledger of `device-sim --ledger` [default: DIR/ledger.jsonl].
    #[arg(long, env = "SIM_LEDGER", value_name = "FILE")]
    pub ledger: Option<PathBuf>,
    /// Longest wait for readings that are still on their way to the store.
    #[arg(long, env = "FLEET_VERIFY_WAIT", value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub wait: Duration,
    /// Also fails when something is unexplained, repeated, or not dead-lettered as intended.
    #[arg(long)]
    pub strict: bool,
    /// A reading that is stored so long after its acknowledgement is late.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub late_after: Duration,
    /// Writes a page with plots: one file that needs nothing else.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
    /// Where the readings are.
    #[command(flatten)]
    pub store: StoreArgs,
    /// What is logged, and how.
    #[command(flatten)]
    pub logs: LogArgs,
}

/// The command.
///
/// # Errors
/// When the ledger or the store cannot be read.
pub async fn run(args: VerifyArgs, host: Host) -> anyhow::Result<ExitCode> {
    let proof = tokio::select! {
        proof = prove(&args) => proof?,
        () = host.stopping() => anyhow::bail!("interrupted before the end: nothing is proven"),
    };
    let text = match args.output {
        Output::Text => proof.to_string(),
        Output::Json => proof.to_json()? + "\n",
    };
    if let Some(html) = &args.html {
        let page = page::render(&proof, &ledger_of(&args), Timestamp::now());
        std::fs::write(html, page).with_context(|| format!("writing {}", html.display()))?;
    }
    std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())
        .context("writing the answer")?;
    let holds = if args.strict {
        proof.counts.hold_strictly()
    } else {
        proof.counts.hold()
    };
    Ok(ExitCode::from(u8::from(!holds)))
}

fn ledger_of(args: &VerifyArgs) -> PathBuf {
    let named = args.ledger.clone();
    named.unwrap_or_else(|| ledger_file(args.store.data_dir()))
}

/// Compares, and again while something is missing and there is time.
async fn prove(args: &VerifyArgs) -> anyhow::Result<Proof> {
    let ledger = ledger_of(args);
    let store = args.store.open(OpenOptions::reader("fleet-verify")).await?;
    let deadline = Instant::now() + args.wait;
    loop {
        let proof = match verify(&ledger, store.as_ref(), args.late_after).await {
            Ok(proof) => proof,
            Err(VerifyError::Ledger(error)) => {
                let remedy = format!("{:#}", anyhow::Error::new(error));
                return Err(
                    ConfigError::value("--ledger (SIM_LEDGER)", ledger.display(), remedy).into(),
                );
            }
            Err(error) => return Err(error).context("comparing with the store"),
        };
        let on_their_way = proof.counts.missing > 0 || proof.counts.not_dead_lettered > 0;
        if !on_their_way || Instant::now() >= deadline {
            store.close().await.context("closing the store")?;
            return Ok(proof);
        }
        sleep(LOOK_AGAIN).await;
    }
}
