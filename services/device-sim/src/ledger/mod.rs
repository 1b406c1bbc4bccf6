//! The ledger: one line for each reading that the broker has acknowledged.
//!
//! It settles arguments about loss: what stands in it must be in the store, once, with that value.
//! Lines are JSON objects ([`Entry`]) and only ever appended, so that one run may follow another in
//! the same file, and a run that is killed leaves at most its last line torn.

mod reader;
mod writer;

use std::path::PathBuf;

use fleet_shared::session::QoS;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use reader::{Entries, read};
pub use writer::Ledger;

/// One acknowledged reading.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// First part of the reading's key.
    pub sensor_id: String,
    /// Second part of the reading's key.
    #[serde(rename = "type")]
    pub kind: String,
    /// Third part of the reading's key, at microsecond precision.
    pub timestamp: Timestamp,
    /// What was measured.
    pub value: f64,
    /// 1 or 2: at QoS 0 nothing is acknowledged.
    pub qos: QoS,
    /// Where it was published.
    pub topic: String,
    /// When the acknowledgement came, by the clock of the simulator.
    pub acknowledged_at: Timestamp,
    /// When it was due; absent in a replay that goes as fast as the broker takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intended_at: Option<Timestamp>,
    /// When it was handed to the MQTT session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_at: Option<Timestamp>,
}

/// An entry on its way into the file, without copies of its texts.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct NewEntry<'a> {
    /// As [`Entry::sensor_id`].
    pub sensor_id: &'a str,
    /// As [`Entry::kind`].
    #[serde(rename = "type")]
    pub kind: &'a str,
    /// As [`Entry::timestamp`].
    pub timestamp: Timestamp,
    /// As [`Entry::value`].
    pub value: f64,
    /// As [`Entry::qos`].
    pub qos: QoS,
    /// As [`Entry::topic`].
    pub topic: &'a str,
    /// As [`Entry::acknowledged_at`].
    pub acknowledged_at: Timestamp,
}

/// Why a ledger cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The file cannot be opened.
    #[error("cannot open the ledger {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The disk is full or gone; entries after that are missing.
    #[error("cannot write the ledger {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// Reading failed.
    #[error("cannot read the ledger {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A whole line is not an entry: the file is no ledger, or was changed by hand.
    #[error("line {line} of the ledger {} is not an entry", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Line in the file, from 1.
        line: u64,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// What is known of a publish beside its acknowledgement; appended to the entry's line.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Course {
    /// As [`Entry::intended_at`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intended_at: Option<Timestamp>,
    /// As [`Entry::published_at`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub published_at: Option<Timestamp>,
}
