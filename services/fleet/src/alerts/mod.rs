//! `fleet alerts`: what fires, why, who was told; and what people answer.

mod acknowledge;
mod explain;
mod list;
mod routes;
mod silence;
mod text;

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use fleet_shared::config::LogArgs;
use fleet_shared::service::Host;
use fleet_store::{AlertStore, OpenOptions};

pub use acknowledge::AcknowledgeArgs;
pub use explain::{ExplainArgs, ShowArgs};
pub use list::ListArgs;
pub use routes::RoutesArgs;
pub use silence::{SilenceArgs, SilencesArgs, UnsilenceArgs};

use crate::place::StoreArgs;

/// Lists alerts, explains them, and takes note of them; keeps silences, and checks routes.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum AlertsCommand {
    #[expect(
        missing_docs,
        reason = "clap would show it above the arguments' own text"
    )]
    List(ListArgs),
    #[expect(
        missing_docs,
        reason = "clap would show it above the arguments' own text"
    )]
    Show(ShowArgs),
    #[expect(
        missing_docs,
        reason = "clap would show it above the arguments' own text"
    )]
    Explain(ExplainArgs),
    #[expect(
        missing_docs,
        reason = "clap would show it above the arguments' own text"
    )]
    Acknowledge(AcknowledgeArgs),
    #[expect(
        missing_docs,
        reason = "clap would show it above the arguments' own text"
    )]
    Silence(SilenceArgs),
    #[expect(
        missing_docs,
        reason = "clap would show it above the arguments' own text"
    )]
    Silences(SilencesArgs),
    #[expect(
        missing_docs,
        reason = "clap would show it above the arguments' own text"
    )]
    Unsilence(UnsilenceArgs),
    #[expect(
        missing_docs,
        reason = "clap would show it above the arguments' own text"
    )]
    Routes(RoutesArgs),
}

/// Where the alerts are, and what is logged of finding them.
#[derive(clap::Args, Clone, Debug)]
pub struct Where {
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// What is logged, and how.
    #[command(flatten)]
    pub logs: LogArgs,
}

impl Where {
    async fn read(&self) -> anyhow::Result<Arc<dyn AlertStore>> {
        let options = OpenOptions::reader("fleet-alerts");
        Ok(self.store.open_alerts(options).await?)
    }

    async fn write(&self) -> anyhow::Result<Arc<dyn AlertStore>> {
        let options = OpenOptions::writer("fleet-alerts");
        Ok(self.store.open_alerts(options).await?)
    }
}

impl AlertsCommand {
    /// What the command logs.
    pub(crate) fn logs(&self) -> &LogArgs {
        match self {
            Self::List(args) => &args.place.logs,
            Self::Show(args) => &args.place.logs,
            Self::Explain(args) => &args.place.logs,
            Self::Acknowledge(args) => &args.place.logs,
            Self::Silence(args) => &args.place.logs,
            Self::Silences(args) => &args.place.logs,
            Self::Unsilence(args) => &args.place.logs,
            Self::Routes(args) => &args.logs,
        }
    }
}

/// The command.
///
/// # Errors
/// When the store does not do its part, or there is no such alert, silence or file.
pub async fn run(command: AlertsCommand, _: Host) -> anyhow::Result<ExitCode> {
    let said = match command {
        AlertsCommand::List(args) => list::run(&args).await?,
        AlertsCommand::Show(args) => explain::show(&args).await?,
        AlertsCommand::Explain(args) => explain::run(&args).await?,
        AlertsCommand::Acknowledge(args) => acknowledge::run(&args).await?,
        AlertsCommand::Silence(args) => silence::create(&args).await?,
        AlertsCommand::Silences(args) => silence::list(&args).await?,
        AlertsCommand::Unsilence(args) => silence::delete(&args).await?,
        AlertsCommand::Routes(args) => return routes::run(&args),
    };
    say(&said)
}

fn say(text: &str) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn no_alert(alert_id: &str) -> anyhow::Error {
    anyhow::anyhow!("there is no alert {alert_id}: `fleet alerts list` shows those that are there")
}
