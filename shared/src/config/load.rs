//! From the command line, the environment and a file to a program's settings.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Command, Parser};

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

/// Reads the settings of `program`, or answers the user and says how to exit.
///
/// # Errors
/// The exit code: 0 after `--help` and `--version`, 2 when a setting cannot be used, which is
/// printed as one line.
pub fn parse<C: Parser>(program: &str) -> Result<C, ExitCode> {
    match load(program, std::env::args_os()) {
        Ok(settings) => Ok(settings),
        Err(Refused::Answer(text)) => {
            #[expect(clippy::print_stdout, reason = "it is what the user asked for")]
            {
                print!("{text}");
            }
            Err(ExitCode::SUCCESS)
        }
        Err(Refused::Error(error)) => Err(report(&error.into())),
    }
}

/// Prints a configuration error as one line and gives the exit code for it.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let line = format!("error: {error:#}").replace(char::is_control, " ");
    #[expect(
        clippy::print_stderr,
        reason = "logs may not be set up, and the one line is for people"
    )]
    {
        eprintln!("{line}");
    }
    ExitCode::from(2)
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
    // What is secret in the environment is secret in the file too. Then hide every variable's
    // value, so that help reads the same everywhere.
    let secret = |arg: &clap::Arg| arg.is_hide_env_values_set();
    let shown = quiet(command.clone());
    let matches = shown
        .try_get_matches_from(&args)
        .map_err(|error| usage::refused(&error, &command, &args, secret))?;
    C::from_arg_matches(&matches).map_err(|error| usage::refused(&error, &command, &args, secret))
}

fn quiet(command: Command) -> Command {
    command
        .mut_args(|arg| {
            let secret = arg.is_hide_env_values_set();
            let from_url = arg.get_default_values() == ["mqtt://localhost:1883"]
                || arg.get_default_values() == ["sqlite://data/fleet.db"];
            arg.hide_env_values(true)
                .hide_default_value(secret && !from_url)
        })
        .mut_subcommands(quiet)
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
