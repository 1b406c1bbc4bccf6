//! clap's errors, which take several lines and do not know variables, as one line.

use std::error::Error as _;
use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command};

use super::{ConfigError, Refused};

/// Turns clap's answer into ours. Of what `command` hides in help, no value is shown.
pub(super) fn refused(error: &clap::Error, command: &Command, args: &[OsString]) -> Refused {
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
    let shown = match invalid_value(error) {
        None | Some("") => None,
        Some(value) => shown(arg, value),
    };
    Refused::Error(match shown {
        Some(value) => ConfigError::value(setting, value, remedy),
        None => ConfigError::setting(setting, remedy),
    })
}

/// What of a value may be shown: all, of a secret URL its address, of another secret nothing.
pub(super) fn shown(arg: &Arg, value: &str) -> Option<String> {
    if !arg.is_hide_env_values_set() {
        return Some(value.to_owned());
    }
    let is_url = arg.get_value_names().is_some_and(|names| names == ["URL"]);
    is_url.then(|| address(value))
}

/// The address in a URL that may be malformed: nothing before an `@`, nothing that could be a
/// password without one, no parameters.
fn address(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    let rest = rest.rsplit('@').next().unwrap_or_default();
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (host, after) = rest.rsplit_once(':').unwrap_or((rest, ""));
    let port: String = after.chars().take_while(char::is_ascii_digit).collect();
    let path = &after[port.len()..];
    if host == rest || path.starts_with('/') || path.is_empty() {
        format!("{scheme}{rest}")
    } else {
        format!("{scheme}{host}")
    }
}

/// Whether the argument takes this value.
pub(super) fn probe(arg: &Arg, value: &str) -> Result<(), clap::Error> {
    let probe = Arg::new("probe")
        .long("probe")
        .action(ArgAction::Set)
        .require_equals(true)
        .value_parser(arg.get_value_parser().clone());
    Command::new("probe")
        .arg(probe)
        .try_get_matches_from(["probe", &format!("--probe={value}")])
        .map(drop)
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
