//! Silences: what nobody wants to hear of for a while.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Silences that are kept and have not ended; more are not taken.
pub const SILENCES_MAX: u32 = 1_000;

/// A wish not to be notified about some alerts until an end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// Its name; UUID version 7, so that names sort by time.
    pub id: Uuid,
    /// It is about alerts that all of these hold for.
    pub matchers: Vec<Matcher>,
    /// When it begins.
    pub starts_at: Timestamp,
    /// When it ends.
    pub ends_at: Timestamp,
    /// Who wishes it.
    pub created_by: String,
    /// Why.
    pub comment: String,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Silence {
    /// Whether it is in force at `at`: from its start on, until before its end.
    #[must_use]
    pub fn is_active(&self, at: Timestamp) -> bool {
        self.starts_at <= at && at < self.ends_at
    }
}

/// A condition on a label of an alert. A label that an alert lacks counts as empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matcher {
    /// The label: `rule`, `severity`, `sensor_id`, `location`, `type`, or one of a rule's own.
    pub name: String,
    /// How it is compared.
    pub op: MatchOp,
    /// What it is compared with; a regular expression that must match the whole value for
    /// [`MatchOp::Matches`] and [`MatchOp::MatchesNot`].
    pub value: String,
}

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MatchOp {
    /// The same text.
    #[serde(rename = "=")]
    Equal,
    /// Another text.
    #[serde(rename = "!=")]
    NotEqual,
    /// The regular expression matches.
    #[serde(rename = "=~")]
    Matches,
    /// It does not.
    #[serde(rename = "!~")]
    MatchesNot,
}

impl MatchOp {
    /// All of them, the longer ones first as a parser needs it.
    pub const ALL: [Self; 4] = [Self::Matches, Self::MatchesNot, Self::NotEqual, Self::Equal];

    /// As people write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Matches => "=~",
            Self::MatchesNot => "!~",
        }
    }
}
