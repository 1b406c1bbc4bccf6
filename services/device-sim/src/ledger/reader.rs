//! Reading a ledger, also while it is written.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{DeadLetterEntry, Entry, LedgerError, Line, LinkEntry, OpenEntry, WithheldEntry};

/// Opens a ledger for reading what must be in the store; other lines are passed over.
pub fn read(path: impl Into<PathBuf>) -> Result<Entries, LedgerError> {
    read_lines(path).map(Entries)
}

/// Opens a ledger for reading all of it.
pub fn read_lines(path: impl Into<PathBuf>) -> Result<Lines, LedgerError> {
    let path = path.into();
    match File::open(&path) {
        Ok(file) => Ok(Lines {
            path,
            input: BufReader::new(file),
            line: 0,
            text: Vec::new(),
            over: false,
        }),
        Err(source) => Err(LedgerError::Open { path, source }),
    }
}

/// The acknowledged readings of a ledger in the order in which their acknowledgements came.
///
/// It ends as [`Lines`] does.
#[derive(Debug)]
pub struct Entries(Lines);

impl Entries {
    /// The file they come from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }
}

impl Iterator for Entries {
    type Item = Result<Entry, LedgerError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.find_map(|line| match line {
            Ok(Line::Acknowledged(entry)) => Some(Ok(entry)),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })
    }
}

/// The lines of a ledger, in order.
///
/// A last line without its line feed was torn by a crash, or is being written: it is left out.
/// After an error there are no more lines.
#[derive(Debug)]
pub struct Lines {
    path: PathBuf,
    input: BufReader<File>,
    line: u64,
    text: Vec<u8>,
    over: bool,
}

/// The lines that are seldom.
#[derive(Deserialize)]
#[serde(untagged)]
enum Other {
    DeadLetter(DeadLetterEntry),
    Open(OpenEntry),
    Withheld(WithheldEntry),
    Link(LinkEntry),
}

impl Lines {
    /// The file they come from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn read(&mut self) -> Result<Option<Line>, LedgerError> {
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
        parse(line).map(Some).map_err(|source| LedgerError::Line {
            path: self.path.clone(),
            line: self.line,
            source,
        })
    }
}

fn parse(line: &[u8]) -> serde_json::Result<Line> {
    let error = match serde_json::from_slice(line) {
        Ok(entry) => return Ok(Line::Acknowledged(entry)),
        Err(error) => error,
    };
    match serde_json::from_slice(line) {
        Ok(Other::DeadLetter(entry)) => Ok(Line::DeadLetter(entry)),
        Ok(Other::Open(entry)) => Ok(Line::Open(entry)),
        Ok(Other::Withheld(entry)) => Ok(Line::Withheld(entry)),
        Ok(Other::Link(entry)) => Ok(Line::Link(entry)),
        // What is wrong with it as the usual line says more.
        Err(_) => Err(error),
    }
}

impl Iterator for Lines {
    type Item = Result<Line, LedgerError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let line = self.read().transpose();
        self.over = !matches!(line, Some(Ok(_)));
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = r#"{"sensor_id":"s","type":"t","timestamp":"2026-01-01T00:00:00Z","value":1.5,"qos":1,"topic":"sensors/l/t","acknowledged_at":"2026-01-01T00:00:01Z","intent":"spike+duplicate"}
{"dead_letter":"not_utf8","intent":"malformed:not_utf8","topic":"sensors/l/t","payload_hash":"cbf29ce484222325","payload_bytes":0,"sensor_id":"s","type":"t","timestamp":"2026-01-01T00:00:00Z","qos":1,"acknowledged_at":"2026-01-01T00:00:01Z"}
{"open":"given_up","sensor_id":"s","type":"t","timestamp":"2026-01-01T00:00:00Z","value":1.5,"qos":1,"topic":"sensors/l/t"}
{"withheld":"missing","sensor_id":"s","type":"t","timestamp":"2026-01-01T00:00:00Z"}
{"sensor_id":"s","type":"t","timestamp":"2026-01-01T00:00:00Z","value":2,"qos":2,"topic":"sensors/l/t","acknowledged_at":"2026-01-01T00:00:01Z"}
"#;

    #[test]
    fn what_must_be_stored_is_told_from_the_rest() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), LINES).unwrap();
        let values: Vec<f64> = read(file.path())
            .unwrap()
            .map(|entry| entry.unwrap().value)
            .collect();
        assert_eq!(values, [1.5, 2.0]);
        let lines: Vec<Line> = read_lines(file.path())
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert!(
            matches!(
                &lines[..],
                [
                    Line::Acknowledged(_),
                    Line::DeadLetter(_),
                    Line::Open(_),
                    Line::Withheld(_),
                    Line::Acknowledged(_),
                ]
            ),
            "{lines:?}"
        );
        let Line::DeadLetter(letter) = &lines[1] else {
            panic!("no dead letter");
        };
        assert_eq!(letter.payload_hash, super::super::payload_hash(b""));
    }
}
