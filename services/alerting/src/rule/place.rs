//! Where in a file something is wrong.

use serde_saphyr::{Location, Spanned};

use crate::condition::ConditionError;

/// What is wrong with a file, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", place(*line, *column))]
pub struct RuleError {
    /// Line, from 1; 0 if it is about no place.
    pub line: u64,
    /// Column, from 1; 0 if it is about no place.
    pub column: u64,
    /// What is wrong, the value, and what would be right.
    pub message: String,
}

/// A place, as it stands before what is wrong there; nothing for what is about no place.
fn place(line: u64, column: u64) -> String {
    match line {
        0 => String::new(),
        _ => format!("line {line}, column {column}: "),
    }
}

impl RuleError {
    /// About the value that stands at `location`.
    pub(crate) fn at(location: Location, message: impl Into<String>) -> Self {
        Self {
            line: location.line(),
            column: location.column(),
            message: message.into(),
        }
    }

    /// About a place inside the text of a value, in a file of these lines.
    pub(crate) fn inside(lines: &[&str], value: &Spanned<String>, error: &ConditionError) -> Self {
        let (line, column) = (value.referenced.line(), value.referenced.column());
        let source_line = |line: u64| {
            let index = usize::try_from(line)
                .unwrap_or(usize::MAX)
                .saturating_sub(1);
            lines.get(index).copied().unwrap_or_default()
        };
        let first = usize::try_from(column)
            .unwrap_or(usize::MAX)
            .saturating_sub(1);
        let opening = source_line(line).chars().nth(first);
        let (inner_line, inner_column) = (error.line as u64, error.column as u64);
        let (line, column) = match opening {
            Some('"' | '\'') => (line, column + inner_column),
            _ if inner_line == 1 => (line, column + inner_column - 1),
            // Lines of a block are indented; the place is that of its first line.
            _ => {
                let line = line + inner_line - 1;
                let indent = source_line(line).chars().take_while(|c| *c == ' ').count() as u64;
                (line, indent + inner_column)
            }
        };
        Self {
            line,
            column,
            message: error.message.clone(),
        }
    }

    /// There is no thread to read the file on.
    pub(crate) fn thread(error: &std::io::Error) -> Self {
        Self {
            line: 0,
            column: 0,
            message: format!("no thread to read it on could be started: {error}"),
        }
    }

    /// What the YAML parser says.
    pub(crate) fn yaml(error: &serde_saphyr::Error) -> Self {
        let location = error.location();
        let text = error.without_snippet().to_string();
        Self {
            line: location.map_or(0, |location| location.line()),
            column: location.map_or(0, |location| location.column()),
            message: text.lines().collect::<Vec<_>>().join(" "),
        }
    }
}
