//! Where in a file something is wrong.

use serde_saphyr::Location;

/// What is wrong with a file of routes, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct RouteError {
    /// Line, from 1; 0 if it is about no place.
    pub line: u64,
    /// Column, from 1; 0 if it is about no place.
    pub column: u64,
    /// What is wrong, the value, and what would be right.
    pub message: String,
}

impl RouteError {
    /// About the value that stands at `location`.
    pub(crate) fn at(location: Location, message: impl Into<String>) -> Self {
        Self {
            line: location.line(),
            column: location.column(),
            message: message.into(),
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
