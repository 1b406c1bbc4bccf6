//! `fleet dead-letters`: what was refused, and a second try for it.

mod list;
mod replay;

use std::process::ExitCode;

use fleet_shared::config::LogArgs;
use fleet_shared::service::Host;
use fleet_store::DeadLetterFilter;

pub use list::ListArgs;
pub(crate) use list::visible;
pub use replay::ReplayArgs;

/// Dead letters in memory at once: at most 100 MB, should each be as large as a packet may be.
const PAGE: u32 = 100;

/// Lists what was refused, or publishes it again.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum DeadLettersCommand {
    #[expect(
        missing_docs,
        reason = "clap would show it above the arguments' own text"
    )]
    List(ListArgs),
    #[expect(
        missing_docs,
        reason = "clap would show it above the arguments' own text"
    )]
    Replay(Box<ReplayArgs>),
}

impl DeadLettersCommand {
    /// What the command logs.
    pub(crate) fn logs(&self) -> &LogArgs {
        match self {
            Self::List(args) => &args.logs,
            Self::Replay(args) => &args.logs,
        }
    }
}

/// Which dead letters are meant.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Which")]
pub struct Which {
    /// Only those refused for this reason, such as malformed or future_timestamp.
    #[arg(long, value_name = "REASON")]
    pub reason: Option<String>,
    /// Only those refused by this service.
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<String>,
}

impl Which {
    fn filter(&self) -> DeadLetterFilter {
        DeadLetterFilter {
            service: self.service.clone(),
            reason: self.reason.clone(),
        }
    }
}

/// The command.
///
/// # Errors
/// When the store or the broker does not do its part.
pub async fn run(command: DeadLettersCommand, host: Host) -> anyhow::Result<ExitCode> {
    match command {
        DeadLettersCommand::List(args) => list::run(&args).await,
        DeadLettersCommand::Replay(args) => replay::run(&args, &host).await,
    }
}
