//! `fleet rules`: are these rules right, and what would they have said?

mod backtest;
mod check;
mod plot;
mod table;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use alerting::{DEFAULT_RULES, RuleError, RuleSet};
use fleet_shared::config::{ConfigError, LogArgs};
use fleet_shared::service::Host;

pub use backtest::BacktestArgs;
pub use check::CheckArgs;

/// Checks a file of alerting's rules, or tries it on stored readings.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum RulesCommand {
    #[expect(
        missing_docs,
        reason = "clap would show it above the arguments' own text"
    )]
    Check(CheckArgs),
    #[expect(
        missing_docs,
        reason = "clap would show it above the arguments' own text"
    )]
    Backtest(Box<BacktestArgs>),
}

impl RulesCommand {
    /// What the command logs.
    pub(crate) fn logs(&self) -> &LogArgs {
        match self {
            Self::Check(args) => &args.logs,
            Self::Backtest(args) => &args.logs,
        }
    }
}

/// The command.
///
/// # Errors
/// When a file or the store cannot be read.
pub async fn run(command: RulesCommand, host: Host) -> anyhow::Result<ExitCode> {
    match command {
        RulesCommand::Check(args) => check::run(&args),
        RulesCommand::Backtest(args) => backtest::run(&args, &host).await,
    }
}

/// The text of rules and what it is called.
struct Source {
    name: String,
    text: String,
}

impl Source {
    /// Of a file, of standard input for `-`, or the rules that ship with the program.
    fn read(file: Option<&PathBuf>) -> Result<Self, ConfigError> {
        let Some(path) = file else {
            return Ok(Self {
                name: "the shipped rules".to_owned(),
                text: DEFAULT_RULES.to_owned(),
            });
        };
        let mut text = String::new();
        let read = if path == Path::new("-") {
            std::io::stdin().read_to_string(&mut text)
        } else {
            std::fs::read_to_string(path).map(|read| {
                text = read;
                0
            })
        };
        read.map_err(|source| ConfigError::Unreadable {
            setting: "FILE".to_owned(),
            path: path.clone(),
            source,
        })?;
        Ok(Self {
            name: path.display().to_string(),
            text,
        })
    }

    fn rules(&self) -> Result<RuleSet, Vec<RuleError>> {
        RuleSet::parse(&self.text)
    }

    /// Everything that is wrong, each with the line it is in.
    fn complaint(&self, errors: &[RuleError]) -> String {
        let mut told = String::new();
        for error in errors {
            told.push_str(&self.excerpt(error));
        }
        let count = match errors.len() {
            1 => "1 error".to_owned(),
            more => format!("{more} errors"),
        };
        told + &format!("{count} in {}\n", self.name)
    }

    fn excerpt(&self, error: &RuleError) -> String {
        let RuleError {
            line,
            column,
            message,
        } = error;
        if *line == 0 {
            return format!("error: {message}\n  --> {}\n\n", self.name);
        }
        let index = usize::try_from(*line).unwrap_or(usize::MAX) - 1;
        let text = self.text.lines().nth(index).unwrap_or_default();
        let number = line.to_string();
        let margin = " ".repeat(number.len());
        // Tabs stay tabs, so that the caret stands under its place in every terminal.
        let before = usize::try_from(column.saturating_sub(1)).unwrap_or(usize::MAX);
        let under: String = text
            .chars()
            .chain(std::iter::repeat(' '))
            .take(before.min(text.chars().count()))
            .map(|char| if char == '\t' { '\t' } else { ' ' })
            .collect();
        format!(
            "error: {message}\n{margin}--> {}:{line}:{column}\n{margin} |\n{number} | {text}\n{margin} | {under}^\n\n",
            self.name
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_shown_where_it_stands() {
        let source = Source {
            name: "rules.yaml".to_owned(),
            text: "groups:\n  - name: g\n    rules:\n      - alert: A\n        when: value > 3 && valu < 5\n        severity: info\n      - alert: B\n        when: \"avg(5) > 3\"\n        severity: info\n        for: soon\n".to_owned(),
        };
        let errors = source.rules().unwrap_err();
        insta::assert_snapshot!(source.complaint(&errors));
    }
}
