//! clap's errors, which take several lines and do not know variables, as one line.

use std::error::Error as _;
use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};

use super::{ConfigError, Refused};

/// Turns clap's answer into ours. `secret` says whether an argument's value must not be shown.
pub(super) fn refused(
    error: &clap::Error,
    command: &Command,
    args: &[OsString],
    secret: impl Fn(&Arg) -> bool,
) -> Refused {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        return Refused::Answer(error.render().to_string());
    }
    let Some(arg) = invalid_arg(error, command) else {
        return Refused::Error(ConfigError::Usage(format!(
            "{}; try --help",
            sentence(error)
        )));
    };
    let flag = format!("--{}", arg.get_long().unwrap_or_default());
    let setting = match arg.get_env() {
        Some(variable) if !is_given(&flag, args) => variable.to_string_lossy().into_owned(),
        _ => flag,
    };
    let remedy = format!("{}; try --help", reason(error));
    Refused::Error(match invalid_value(error) {
        Some(value) if !secret(arg) => ConfigError::value(setting, value, remedy),
        _ => ConfigError::setting(setting, remedy),
    })
}

/// Why a value was refused, without the value.
pub(super) fn reason(error: &clap::Error) -> String {
    if let Some(source) = error.source() {
        return source.to_string();
    }
    if let Some(ContextValue::Strings(valid)) = error.get(ContextKind::ValidValue)
        && !valid.is_empty()
    {
        return format!("give one of {}", valid.join(", "));
    }
    match invalid_value(error) {
        Some("") => "a value is missing".to_owned(),
        _ => sentence(error),
    }
}

fn invalid_value(error: &clap::Error) -> Option<&str> {
    match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) => Some(value),
        _ => None,
    }
}

/// The flag that a wrong value was given to; clap names it as in `--drain-timeout <DURATION>`.
fn invalid_arg<'a>(error: &clap::Error, command: &'a Command) -> Option<&'a Arg> {
    if !matches!(
        error.kind(),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation
    ) {
        return None;
    }
    let Some(ContextValue::String(shown)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let flag = shown.strip_prefix("--")?.split([' ', '=', '[']).next()?;
    find(command, flag)
}

fn find<'a>(command: &'a Command, flag: &str) -> Option<&'a Arg> {
    command
        .get_arguments()
        .find(|arg| arg.get_long() == Some(flag))
        .or_else(|| {
            command
                .get_subcommands()
                .find_map(|command| find(command, flag))
        })
}

fn is_given(flag: &str, args: &[OsString]) -> bool {
    args.iter().any(|arg| {
        arg.to_str()
            .and_then(|arg| arg.strip_prefix(flag))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    })
}

/// clap's message and tips without the usage and without line ends.
fn sentence(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "a command is missing".to_owned();
    }
    let text = error.render().to_string();
    let lines = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty());
    let mut sentence = String::new();
    for line in lines {
        let line = line.strip_prefix("error: ").unwrap_or(line);
        if !sentence.is_empty() {
            sentence.push_str(if line.starts_with("tip: ") { "; " } else { " " });
        }
        sentence.push_str(line.strip_prefix("tip: ").unwrap_or(line));
    }
    sentence
}
