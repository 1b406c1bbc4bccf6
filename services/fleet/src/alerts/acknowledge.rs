//! `fleet alerts acknowledge`.

use anyhow::Context as _;
use jiff::Timestamp;

use super::text::{alert_json, head};
use super::{Where, no_alert};
use crate::place::Output;

const EXAMPLES: &str = "\
What is acknowledged is not told again while it fires; that it ends is told.

Examples:
  fleet alerts acknowledge 0f0e0d0c-0b0a-8908-8706-050403020100
  fleet alerts acknowledge 0f0e0d0c-0b0a-8908-8706-050403020100 --by 'Ada, on call'";

/// Takes note of an alert, so that it is not told again.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
#[command(mut_arg("log", |arg| arg.default_value("warn")))]
pub struct AcknowledgeArgs {
    /// The alert.
    #[arg(value_name = "ALERT")]
    pub alert_id: String,
    /// Who takes note.
    #[arg(
        long,
        env = "USER",
        hide_env_values = true,
        value_name = "NAME",
        default_value = "operator"
    )]
    pub by: String,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
    /// Where it is.
    #[command(flatten)]
    pub place: Where,
}

pub(super) async fn run(args: &AcknowledgeArgs) -> anyhow::Result<String> {
    let store = args.place.write().await?;
    let noted = store.acknowledge_alert(&args.alert_id, Timestamp::now(), &args.by);
    let noted = noted.await.context("acknowledging the alert")?;
    let alert = noted.ok_or_else(|| no_alert(&args.alert_id))?;
    match args.output {
        Output::Text => Ok(head(&alert)),
        Output::Json => Ok(serde_json::to_string(&alert_json(&alert))? + "\n"),
    }
}
