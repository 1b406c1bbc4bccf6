//! The ledger: one line for each reading that the broker has acknowledged.
//!
//! It settles arguments about loss: such a reading must be in the store, once, with that value.
//! Other lines tell what else became of publishes, and what was done on purpose: see [`Line`].
//! Lines are JSON objects ([`Entry`]) and only ever appended, so that one run may follow another in
//! the same file, and a run that is killed leaves at most its last line torn.

mod reader;
mod writer;

use std::path::PathBuf;

use fleet_shared::model::RejectReason;
use fleet_shared::session::QoS;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::chaos::Intents;
use crate::stamp;

pub use reader::{Entries, Lines, read, read_lines};
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
    /// What was done to it on purpose, such as `duplicate` or `spike+reordered`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<String>,
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
    #[serde(serialize_with = "stamp::serialize")]
    pub timestamp: Timestamp,
    /// As [`Entry::value`].
    pub value: f64,
    /// As [`Entry::qos`].
    pub qos: QoS,
    /// As [`Entry::topic`].
    pub topic: &'a str,
    /// As [`Entry::acknowledged_at`].
    #[serde(serialize_with = "stamp::serialize")]
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
#[derive(Clone, Copy, Debug, Default)]
pub struct Course {
    /// As [`Entry::intended_at`].
    pub intended_at: Option<Timestamp>,
    /// As [`Entry::published_at`].
    pub published_at: Option<Timestamp>,
    /// As [`Entry::intent`].
    pub intents: Intents,
}

/// An entry with its course, in one object: the fields of both, in the order in which they are told.
#[derive(Serialize)]
struct Whole<'a> {
    sensor_id: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(serialize_with = "stamp::serialize")]
    timestamp: Timestamp,
    value: f64,
    qos: QoS,
    topic: &'a str,
    #[serde(serialize_with = "stamp::serialize")]
    acknowledged_at: Timestamp,
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "stamp::option::serialize"
    )]
    intended_at: Option<Timestamp>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "stamp::option::serialize"
    )]
    published_at: Option<Timestamp>,
    #[serde(rename = "intent", skip_serializing_if = "Intents::is_empty")]
    intents: Intents,
}

impl<'a> Whole<'a> {
    fn new(entry: &NewEntry<'a>, course: &Course) -> Self {
        Self {
            sensor_id: entry.sensor_id,
            kind: entry.kind,
            timestamp: entry.timestamp,
            value: entry.value,
            qos: entry.qos,
            topic: entry.topic,
            acknowledged_at: entry.acknowledged_at,
            intended_at: course.intended_at,
            published_at: course.published_at,
            intents: course.intents,
        }
    }
}

/// One line of a ledger.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// A reading that the broker has acknowledged: it must be in the store, once.
    Acknowledged(Entry),
    /// A message that must become a dead letter, and the broker has acknowledged it.
    DeadLetter(DeadLetterEntry),
    /// A reading that may be in the store and need not: at QoS 0, or given up before it was
    /// acknowledged.
    Open(OpenEntry),
    /// A reading that was kept back on purpose: it must not be in the store.
    Withheld(WithheldEntry),
    /// Something that was done to a connection on purpose.
    Link(LinkEntry),
}

/// A message that must be refused, acknowledged by the broker.
///
/// A dead letter is this one when topic and payload are the same: see [`payload_hash`]. A conflict
/// and the reading it contradicts may overtake each other between workers; then the one is stored
/// and the other a dead letter, and it does not matter which.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetterEntry {
    /// The reason for which it is refused.
    pub dead_letter: RejectReason,
    /// `malformed:` and the reason.
    pub intent: String,
    /// Where it was published.
    pub topic: String,
    /// [`payload_hash`] of what was published.
    pub payload_hash: String,
    /// Bytes that were published.
    pub payload_bytes: u64,
    /// Sensor of the reading it was made of.
    pub sensor_id: String,
    /// Type of that reading.
    #[serde(rename = "type")]
    pub kind: String,
    /// Time of that reading, at microsecond precision.
    pub timestamp: Timestamp,
    /// 1 or 2.
    pub qos: QoS,
    /// When the acknowledgement came.
    pub acknowledged_at: Timestamp,
}

/// A reading of which nobody knows whether the broker has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenEntry {
    /// Why: `sent` at QoS 0, `given_up` when the simulator ended first.
    pub open: OpenReason,
    /// First part of the reading's key.
    pub sensor_id: String,
    /// Second part of the reading's key.
    #[serde(rename = "type")]
    pub kind: String,
    /// Third part of the reading's key.
    pub timestamp: Timestamp,
    /// What was measured.
    pub value: f64,
    /// The guarantee it was published with.
    pub qos: QoS,
    /// Where it was published.
    pub topic: String,
}

/// Why nobody knows whether the broker has a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenReason {
    /// It was written to the socket, at QoS 0.
    Sent,
    /// It was published and not acknowledged before the simulator ended.
    GivenUp,
}

/// A reading that was kept back on purpose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WithheldEntry {
    /// Always `missing`.
    pub withheld: String,
    /// First part of the reading's key.
    pub sensor_id: String,
    /// Second part of the reading's key.
    #[serde(rename = "type")]
    pub kind: String,
    /// Third part of the reading's key.
    pub timestamp: Timestamp,
}

/// Something that was done to a connection on purpose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkEntry {
    /// What.
    pub link: LinkFault,
    /// To which device.
    pub device_id: String,
    /// When it began.
    pub at: Timestamp,
    /// For how long.
    pub lasts_ms: u64,
}

/// What is done to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkFault {
    /// Closed without DISCONNECT; the device comes back after the time.
    Dropped,
    /// Left open in silence: neither read nor written, then closed.
    HalfOpen,
    /// Read slowly.
    SlowReader,
}

impl LinkFault {
    /// Its name in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::HalfOpen => "half_open",
            Self::SlowReader => "slow_reader",
        }
    }
}

/// 64 bits of FNV-1a over a payload, in hexadecimal: the same in every build and on every machine.
#[must_use]
pub fn payload_hash(payload: &[u8]) -> String {
    let hash = payload
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    format!("{hash:016x}")
}
