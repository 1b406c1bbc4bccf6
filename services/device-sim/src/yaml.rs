//! Reading the YAML files of the simulator.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// Largest file: a profile of a thousand kinds of sensor is smaller.
const BYTES_MAX: u64 = 1024 * 1024;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file is missing, not readable, not UTF-8 or larger than 1 MiB.
    #[error("cannot read {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// It is no YAML, or has fields that are wrong or unknown; line and column are in the text.
    #[error("{0}")]
    Yaml(String),
    /// A field breaks a rule.
    #[error("`{at}` {rule}")]
    Rule {
        /// Which field.
        at: String,
        /// What the rule is.
        rule: String,
    },
}

/// Reads a file into memory.
pub(crate) fn open(path: &Path) -> Result<String, FileError> {
    let open = || {
        if std::fs::metadata(path)?.len() > BYTES_MAX {
            return Err(std::io::Error::other("it is larger than 1 MiB"));
        }
        std::fs::read_to_string(path)
    };
    open().map_err(|source| FileError::Open {
        path: path.to_owned(),
        source,
    })
}

/// Reads the text of a file.
pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, FileError> {
    let options = serde_saphyr::options! {
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options)
        // Settings are complained about in one line.
        .map_err(|error| FileError::Yaml(error.to_string().replace('\n', " ")))
}
