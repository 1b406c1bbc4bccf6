//! From the command line, the environment and a file to a program's settings.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, Command, Parser};

use super::file::SettingsFile;
use super::{ConfigError, usage};

/// Columns that `--help` fits in.
const HELP_COLUMNS: usize = 100;

/// Why there are no settings to run with.
#[derive(Debug)]
pub enum Refused {
    /// `--help` or `--version`: the text for standard output; exit code 0.
    Answer(String),
    /// One line for standard error; exit code 2.
    Error(ConfigError),
}

/// Reads the settings of `program` from its command line, or answers the user and says how to
/// exit.
///
/// # Errors
/// The exit code: 0 after `--help` and `--version`, 2 when a setting cannot be used, which is
/// printed as one line.
pub fn parse<C: Parser>(program: &str) -> Result<C, ExitCode> {
    parse_from(program, std::env::args_os())
}

/// As [`parse`], from these arguments instead of the command line.
///
/// # Errors
/// As [`parse`].
pub fn parse_from<C: Parser>(
    program: &str,
    args: impl IntoIterator<Item = OsString>,
) -> Result<C, ExitCode> {
    load(program, args).map_err(|refused| match refused {
        Refused::Answer(text) => {
            say(std::io::stdout(), &text);
            ExitCode::SUCCESS
        }
        Refused::Error(error) => report(&error.into()),
    })
}

/// Prints a configuration error as one line and gives the exit code for it.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let line = format!("error: {error:#}").replace(char::is_control, " ");
    say(std::io::stderr(), &format!("{line}\n"));
    ExitCode::from(2)
}

/// Where nobody listens any more, as in `--help | head -1`, nobody misses the rest.
fn say(mut out: impl std::io::Write, text: &str) {
    out.write_all(text.as_bytes()).unwrap_or_default();
}

/// Reads the settings of `program` from `args` (the first is the program's path), the
/// environment, and the file that `--config` or `FLEET_CONFIG` names.
///
/// # Errors
/// When the user asked for help or the version, or a setting cannot be used.
pub fn load<C: Parser>(
    program: &str,
    args: impl IntoIterator<Item = OsString>,
) -> Result<C, Refused> {
    let args: Vec<OsString> = args.into_iter().collect();
    let mut command = C::command().max_term_width(HELP_COLUMNS);
    if takes_file(&command)
        && let Some((path, setting)) = config_file(&args)
    {
        command = SettingsFile::read(&path, setting)
            .and_then(|file| file.apply(program, command))
            .map_err(Refused::Error)?;
    }
    let refused = |error| usage::refused(&error, &command, &args);
    let matches = presented(command.clone())
        .try_get_matches_from(&args)
        .map_err(refused)?;
    C::from_arg_matches(&matches).map_err(refused)
}

/// A part of a program's settings, as `flags` and the environment's variables give it: for a program
/// that runs another's service, whose settings are not flags of its own.
///
/// # Errors
/// A flag or a variable that cannot be used.
pub fn part<A: clap::Args>(
    program: &str,
    flags: impl IntoIterator<Item = String>,
) -> Result<A, ConfigError> {
    #[derive(Parser)]
    struct Part<A: clap::Args> {
        #[command(flatten)]
        part: A,
    }

    let name = std::iter::once(program.to_owned());
    match load::<Part<A>>(program, name.chain(flags).map(Into::into)) {
        Ok(Part { part }) => Ok(part),
        Err(Refused::Error(error)) => Err(error),
        Err(Refused::Answer(text)) => Err(ConfigError::Usage(text)),
    }
}

/// The command as users meet it: variables that are set to nothing are not set, and help is the
/// short one everywhere and shows no variable's value.
fn presented(command: Command) -> Command {
    let help = Arg::new("help")
        .short('h')
        .long("help")
        .action(ArgAction::HelpShort)
        .help("Print help");
    command
        .mut_args(|arg| without_empty_variable(arg).hide_env_values(true))
        .mut_subcommands(presented)
        .disable_help_flag(true)
        .arg(help)
}

/// Compose files and charts pass variables on that hold nothing, which would be no path and no
/// duration. Where nothing is a value (`ADMIN_ADDR`) it stays one.
fn without_empty_variable(arg: Arg) -> Arg {
    #[expect(
        clippy::disallowed_methods,
        reason = "clap has read it already, but does not tell"
    )]
    let empty = arg
        .get_env()
        .filter(|name| std::env::var_os(name).is_some_and(|value| value.is_empty()));
    let Some(name) = empty.filter(|_| usage::probe(&arg, "").is_err()) else {
        return arg;
    };
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let help = format!("{help} [env: {}]", name.to_string_lossy());
    // No variable has an empty name.
    arg.env("").hide_env(true).help(help)
}

fn takes_file(command: &Command) -> bool {
    command
        .get_arguments()
        .any(|arg| arg.get_long() == Some("config"))
        || command.get_subcommands().any(takes_file)
}

/// The settings file and who named it. It is needed before clap can parse, because its values
/// become clap's defaults; what is wrong with the flag itself, clap finds later.
fn config_file(args: &[OsString]) -> Option<(PathBuf, &'static str)> {
    let mut args = args.iter().skip(1).take_while(|arg| *arg != "--");
    while let Some(arg) = args.next() {
        if arg == "--config" {
            return Some((PathBuf::from(args.next()?), "--config"));
        }
        if let Some(path) = arg.to_str().and_then(|arg| arg.strip_prefix("--config=")) {
            return Some((PathBuf::from(path), "--config"));
        }
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "clap reads the same variable, but too late"
    )]
    let path = std::env::var_os("FLEET_CONFIG")?;
    (!path.is_empty()).then(|| (PathBuf::from(path), "FLEET_CONFIG"))
}
