//! The command line: which command there is and how it is run.

use std::io::Write as _;
use std::process::ExitCode;

use fleet_shared::config::{ConfigError, LogArgs};
use fleet_shared::service::Host;
use fleet_shared::{config, service};

use crate::access::{self, AccountsArgs};
use crate::alerts::{self, AlertsCommand};
use crate::certs::{self, CertsArgs};
use crate::dead_letters::{self, DeadLettersCommand};
use crate::devices::{self, DevicesArgs};
use crate::doctor::{self, DoctorArgs};
use crate::matching::{self, MatchArgs};
use crate::operator::publish::{self, PublishArgs};
use crate::operator::request::{self, RequestArgs};
use crate::operator::tail::{self, TailArgs};
use crate::probe::{self, ProbeArgs};
use crate::recording::{self, RecordArgs, ReplayArgs};
use crate::rules::{self, RulesCommand};
use crate::up::{self, UpArgs};
use crate::verify::{self, VerifyArgs};

const EXAMPLES: &str = "\
Start here:
  fleet up                                   # broker, devices and every service, in this terminal
  fleet verify                               # afterwards or meanwhile: is anything missing?
  fleet dead-letters list                    # what was refused, and why
  fleet devices                              # who is there
  fleet alerts list                          # what fires; `fleet alerts explain` tells why
  fleet tail 'sensors/#'                     # what goes over the broker
  fleet request sensor-001 ping              # a command to a device, and its answer
  fleet rules check rules.yaml               # can alerting use these rules?
  fleet probe                                # does a reading get from the broker to the API?
  fleet record 'sensors/#' -o day.jsonl      # keep what goes through a broker, and
  fleet replay day.jsonl --speed 10          # say it again
  fleet doctor                               # can this broker carry the fleet?
  fleet match 'sensors/+/temperature' sensors/kitchen/temperature
  fleet accounts                             # who may do what at the broker: its rules
  fleet certs                                # certificates for TLS, for development

`fleet COMMAND --help` shows examples, every flag, its variable and its default.";

/// The whole fleet in one process, and the operator's tool.
#[derive(clap::Parser, Clone, Debug)]
#[command(name = "fleet", version, about, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Command {
    #[expect(
        missing_docs,
        reason = "clap would show it above the arguments' own text"
    )]
    Up(Box<UpArgs>),
    #[expect(
        missing_docs,
        reason = "clap would show it above the arguments' own text"
    )]
    Verify(VerifyArgs),
    #[expect(
        missing_docs,
        reason = "clap would show it above the arguments' own text"
    )]
    Match(MatchArgs),
    #[expect(
        missing_docs,
        reason = "clap would show it above the arguments' own text"
    )]
    Doctor(Box<DoctorArgs>),
    #[expect(
        missing_docs,
        reason = "clap would show it above the arguments' own text"
    )]
    Devices(DevicesArgs),
    #[expect(
        missing_docs,
        reason = "clap would show it above the arguments' own text"
    )]
    Accounts(AccountsArgs),
    #[expect(
        missing_docs,
        reason = "clap would show it above the arguments' own text"
    )]
    Tail(TailArgs),
    #[expect(
        missing_docs,
        reason = "clap would show it above the arguments' own text"
    )]
    Publish(Box<PublishArgs>),
    #[expect(
        missing_docs,
        reason = "clap would show it above the arguments' own text"
    )]
    Request(RequestArgs),
    #[expect(
        missing_docs,
        reason = "clap would show it above the arguments' own text"
    )]
    Record(Box<RecordArgs>),
    #[expect(
        missing_docs,
        reason = "clap would show it above the arguments' own text"
    )]
    Replay(Box<ReplayArgs>),
    #[expect(
        missing_docs,
        reason = "clap would show it above the commands' own text"
    )]
    #[command(subcommand)]
    Alerts(AlertsCommand),
    #[expect(
        missing_docs,
        reason = "clap would show it above the arguments' own text"
    )]
    Probe(Box<ProbeArgs>),
    #[expect(
        missing_docs,
        reason = "clap would show it above the arguments' own text"
    )]
    Certs(CertsArgs),
    /// Lists what was refused, or publishes it again.
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// Checks alerting's rules, or tries them on stored readings.
    #[command(subcommand)]
    Rules(RulesCommand),
}

/// The program: runs the command of the command line and gives the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli: Cli = match config::parse("fleet") {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    match cli.command {
        Command::Up(args) => service::start("fleet", *args, up::run),
        Command::Verify(args) => {
            let logs = args.logs.clone();
            run_once(&logs, async |host| verify::run(args, host).await)
        }
        Command::Match(args) => matching::run(&args),
        Command::Doctor(args) => {
            let logs = args.logs.clone();
            run_once(&logs, async |host| doctor::run(*args, host).await)
        }
        Command::Devices(args) => {
            let logs = args.logs.clone();
            run_once(&logs, async |host| devices::run(args, host).await)
        }
        Command::Tail(args) => {
            let logs = args.logs.clone();
            run_once(&logs, async |host| tail::run(args, host).await)
        }
        Command::Publish(args) => {
            let logs = args.logs.clone();
            run_once(&logs, async |host| publish::run(*args, host).await)
        }
        Command::Request(args) => {
            let logs = args.logs.clone();
            run_once(&logs, async |host| request::run(args, host).await)
        }
        Command::Record(args) => {
            let logs = args.logs.clone();
            run_once(&logs, async |host| recording::record(*args, host).await)
        }
        Command::Replay(args) => {
            let logs = args.logs.clone();
            run_once(&logs, async |host| recording::replay(*args, host).await)
        }
        Command::Alerts(command) => {
            let logs = command.logs().clone();
            run_once(&logs, async |host| alerts::run(command, host).await)
        }
        Command::Probe(args) => {
            let logs = args.logs.clone();
            run_once(&logs, async |host| probe::run(*args, host).await)
        }
        Command::Accounts(args) => access::run(&args),
        Command::Certs(args) => certs::run(&args),
        Command::DeadLetters(command) => {
            let logs = command.logs().clone();
            run_once(&logs, async |host| dead_letters::run(command, host).await)
        }
        Command::Rules(command) => {
            let logs = command.logs().clone();
            run_once(&logs, async |host| rules::run(command, host).await)
        }
    }
}

/// Runs an operator's command. What it fails with is a line like that of a wrong setting: an entry of
/// a log would be for whoever collects logs, and here a person waits.
fn run_once<R>(logs: &LogArgs, run: R) -> ExitCode
where
    R: AsyncFnOnce(Host) -> anyhow::Result<ExitCode>,
{
    service::command("fleet", logs, async |host| match run(host).await {
        Err(error) if !error.chain().any(|cause| cause.is::<ConfigError>()) => {
            let line = format!("error: {error:#}").replace(char::is_control, " ");
            // Where nobody listens any more, the exit code has to do.
            writeln!(std::io::stderr(), "{line}").ok();
            Ok(ExitCode::FAILURE)
        }
        outcome => outcome,
    })
}
