use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use crate::topic::Excerpt;

/// Why a message is refused: a closed set, for it is a label of metrics and a column of the store.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum RejectReason {
    /// The payload has more bytes than allowed.
    TooLarge,
    /// The payload is not UTF-8.
    NotUtf8,
    /// The payload nests deeper than allowed.
    TooDeep,
    /// The payload is not the JSON object expected, or a field is missing or of the wrong type.
    Malformed,
    /// A number is NaN or infinite.
    NotFinite,
    /// A field has the right type and a value outside of its range.
    InvalidField,
    /// The message is dated too far in the future.
    FutureTimestamp,
    /// Payload and topic contradict each other.
    TopicMismatch,
    /// The store holds another value under the same key.
    Conflict,
    /// The topic is none we know how to read.
    Unmapped,
}

impl RejectReason {
    /// All reasons.
    pub const ALL: [Self; 10] = [
        Self::TooLarge,
        Self::NotUtf8,
        Self::TooDeep,
        Self::Malformed,
        Self::NotFinite,
        Self::InvalidField,
        Self::FutureTimestamp,
        Self::TopicMismatch,
        Self::Conflict,
        Self::Unmapped,
    ];

    /// The reason as metric label and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::NotUtf8 => "not_utf8",
            Self::TooDeep => "too_deep",
            Self::Malformed => "malformed",
            Self::NotFinite => "not_finite",
            Self::InvalidField => "invalid_field",
            Self::FutureTimestamp => "future_timestamp",
            Self::TopicMismatch => "topic_mismatch",
            Self::Conflict => "conflict",
            Self::Unmapped => "unmapped",
        }
    }

    /// The reason of that name, as [`RejectReason::as_str`] writes it.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why this message is refused: the field, what it holds and the rule it breaks.
///
/// What comes from the message is shortened and escaped, so that the text is always one line of
/// bounded length.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RejectError {
    /// More bytes than allowed.
    #[error("payload is {len} bytes, the limit is {max}")]
    TooLarge {
        /// Bytes of the payload.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Not UTF-8.
    #[error("payload is not UTF-8 from byte {at} on")]
    NotUtf8 {
        /// Offset of the first byte that is wrong.
        at: usize,
    },
    /// Objects and arrays nested deeper than allowed, be it in a field we ignore.
    #[error("payload nests deeper than {max} levels")]
    TooDeep {
        /// Levels allowed; the payload's own object is the first.
        max: usize,
    },
    /// Not one JSON object.
    #[error("payload `{payload}` is not a JSON object: {detail}")]
    NotAnObject {
        /// The payload.
        payload: Excerpt,
        /// Where it goes wrong.
        detail: Excerpt,
    },
    /// A field is not there.
    #[error("field `{field}` is missing")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A field is there more than once.
    #[error("field `{field}` is there twice, it must be there once")]
    Repeated {
        /// The field.
        field: &'static str,
    },
    /// A field has the wrong JSON type, or its text cannot be read.
    #[error("field `{field}` is `{value}`, it must be {expected}")]
    IllTyped {
        /// The field.
        field: &'static str,
        /// Its JSON text.
        value: Excerpt,
        /// What it must be.
        expected: &'static str,
    },
    /// A number is NaN, infinite, or too large to be told from infinity.
    #[error("field `{field}` is `{value}`, it must be a finite number")]
    NotFinite {
        /// The field.
        field: Cow<'static, str>,
        /// Its JSON text.
        value: Excerpt,
    },
    /// A field's value is out of its range.
    #[error("field `{field}` is `{value}`, {rule}")]
    InvalidField {
        /// The field.
        field: &'static str,
        /// Its value.
        value: Excerpt,
        /// The range, as a clause of a sentence.
        rule: &'static str,
    },
    /// Dated further ahead than clocks may differ.
    #[error("field `timestamp` is `{timestamp}`, more than {max_skew:?} ahead of our clock, {now}")]
    FutureTimestamp {
        /// The message's time.
        timestamp: Timestamp,
        /// Our time.
        now: Timestamp,
        /// How far ahead is let through.
        max_skew: Duration,
    },
    /// The payload says another topic than the one it came on.
    #[error("topic is `{topic}`, by its payload it must be `{expected}`")]
    TopicMismatch {
        /// The topic it came on.
        topic: Excerpt,
        /// The topic that would fit.
        expected: Excerpt,
    },
    /// The store holds another reading under the same key.
    #[error("the store holds another value of `{sensor_id}`, `{kind}`, at {timestamp}")]
    Conflict {
        /// The sensor.
        sensor_id: Excerpt,
        /// The reading's type.
        kind: Excerpt,
        /// The reading's time.
        timestamp: Timestamp,
    },
    /// No rule says how messages of that topic are read.
    #[error("topic is `{topic}`, no rule says how to read it")]
    Unmapped {
        /// The topic.
        topic: Excerpt,
    },
}

impl RejectError {
    /// The reason as an element of the closed set.
    #[must_use]
    pub const fn kind(&self) -> RejectReason {
        match self {
            Self::TooLarge { .. } => RejectReason::TooLarge,
            Self::NotUtf8 { .. } => RejectReason::NotUtf8,
            Self::TooDeep { .. } => RejectReason::TooDeep,
            Self::NotAnObject { .. }
            | Self::Missing { .. }
            | Self::Repeated { .. }
            | Self::IllTyped { .. } => RejectReason::Malformed,
            Self::NotFinite { .. } => RejectReason::NotFinite,
            Self::InvalidField { .. } => RejectReason::InvalidField,
            Self::FutureTimestamp { .. } => RejectReason::FutureTimestamp,
            Self::TopicMismatch { .. } => RejectReason::TopicMismatch,
            Self::Conflict { .. } => RejectReason::Conflict,
            Self::Unmapped { .. } => RejectReason::Unmapped,
        }
    }

    /// The reason as metric label and in the store; `kind().as_str()`.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        self.kind().as_str()
    }

    /// The refusal of a message on a topic that no rule reads.
    #[must_use]
    pub fn unmapped(topic: &str) -> Self {
        Self::Unmapped {
            topic: Excerpt::new(topic),
        }
    }
}
