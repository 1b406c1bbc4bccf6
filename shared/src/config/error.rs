//! What is wrong with a setting.

use std::fmt::Display;
use std::path::PathBuf;

/// A setting that cannot be used: the process prints it as one line and exits with code 2.
///
/// Each variant says which flag, variable or file, what its value is, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A value that parses but makes no sense.
    #[error("{setting} is `{value}`: {remedy}")]
    Value {
        /// The flag and its variable, as in `--mqtt-url (MQTT_URL)`.
        setting: String,
        /// What it was set to.
        value: String,
        /// What is wrong and what to set instead.
        remedy: String,
    },
    /// Settings that do not fit together, or one whose value must not be shown.
    #[error("{setting}: {remedy}")]
    Setting {
        /// The flag or flags.
        setting: String,
        /// What is wrong and what to set instead.
        remedy: String,
    },
    /// A file that a setting names cannot be read.
    #[error("{setting}: cannot read `{}`; check the path and its permissions", path.display())]
    Unreadable {
        /// The flag that names the file.
        setting: String,
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A settings file that is not what it should be.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Where, what and the remedy.
        problem: String,
    },
    /// The command line does not parse.
    #[error("{0}")]
    Usage(String),
}

impl ConfigError {
    /// A value that parses but makes no sense: `remedy` says why and what to set instead.
    pub fn value(
        setting: impl Into<String>,
        value: impl Display,
        remedy: impl Into<String>,
    ) -> Self {
        Self::Value {
            setting: setting.into(),
            value: value.to_string(),
            remedy: remedy.into(),
        }
    }

    /// Settings that do not fit together, or one whose value must not be shown.
    pub fn setting(setting: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Setting {
            setting: setting.into(),
            remedy: remedy.into(),
        }
    }
}
