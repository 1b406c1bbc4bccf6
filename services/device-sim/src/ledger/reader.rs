//! Reading a ledger, also while it is written.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::{Entry, LedgerError};

/// Opens a ledger for reading.
pub fn read(path: impl Into<PathBuf>) -> Result<Entries, LedgerError> {
    let path = path.into();
    match File::open(&path) {
        Ok(file) => Ok(Entries {
            path,
            input: BufReader::new(file),
            line: 0,
            text: Vec::new(),
            over: false,
        }),
        Err(source) => Err(LedgerError::Open { path, source }),
    }
}

/// The entries of a ledger in the order in which their acknowledgements came.
///
/// A last line without its line feed was torn by a crash, or is being written: it is left out.
/// After an error there are no more entries.
#[derive(Debug)]
pub struct Entries {
    path: PathBuf,
    input: BufReader<File>,
    line: u64,
    text: Vec<u8>,
    over: bool,
}

impl Entries {
    /// The file they come from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn read(&mut self) -> Result<Option<Entry>, LedgerError> {
        self.text.clear();
        self.line += 1;
        self.input
            .read_until(b'\n', &mut self.text)
            .map_err(|source| LedgerError::Read {
                path: self.path.clone(),
                source,
            })?;
        let Some(line) = self.text.strip_suffix(b"\n") else {
            return Ok(None);
        };
        serde_json::from_slice(line)
            .map(Some)
            .map_err(|source| LedgerError::Line {
                path: self.path.clone(),
                line: self.line,
                source,
            })
    }
}

impl Iterator for Entries {
    type Item = Result<Entry, LedgerError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let entry = self.read().transpose();
        self.over = !matches!(entry, Some(Ok(_)));
        entry
    }
}
