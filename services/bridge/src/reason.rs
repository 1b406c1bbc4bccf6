//! Why a message or record is a dead letter.

/// One of a closed set: the metric's label and the letter's user property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Larger than `--record-max`, or than the Kafka topic allows.
    TooLarge,
    /// The name that the route makes of the MQTT topic is none for Kafka.
    InvalidTopic,
    /// Kafka has no topic of the name that the route makes of the MQTT topic.
    UnknownTopic,
    /// Kafka took the batch but not this record of it.
    Refused,
    /// No route matches: an older file of routes had one.
    NoRoute,
    /// A record that is no command.
    Malformed,
    /// A command whose device, name or correlation id cannot be a topic level.
    InvalidField,
    /// The broker refused to pass the command on.
    BrokerRefused,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::TooLarge,
        Self::InvalidTopic,
        Self::UnknownTopic,
        Self::Refused,
        Self::NoRoute,
        Self::Malformed,
        Self::InvalidField,
        Self::BrokerRefused,
    ];

    /// As label and user property.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::InvalidTopic => "invalid_topic",
            Self::UnknownTopic => "unknown_topic",
            Self::Refused => "refused",
            Self::NoRoute => "no_route",
            Self::Malformed => "malformed",
            Self::InvalidField => "invalid_field",
            Self::BrokerRefused => "broker_refused",
        }
    }
}

/// Bytes of a sentence. Others' words are in it, which may be as long as the message: JSON's errors
/// repeat a string that stands in the wrong place. A letter that says so must not outgrow it.
const DETAIL_MAX: usize = 512;

/// A reason with its sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) detail: String,
}

impl Refusal {
    pub(crate) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        if detail.len() > DETAIL_MAX {
            detail.truncate(detail.floor_char_boundary(DETAIL_MAX));
            detail.push('…');
        }
        Self { reason, detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detail_is_short_however_long_what_it_tells_of() {
        let refusal = Refusal::new(Reason::Malformed, format!("a{}", "ä".repeat(600_000)));
        assert_eq!(refusal.detail, format!("a{}…", "ä".repeat(255)));
        let short = "ä".repeat(256);
        assert_eq!(Refusal::new(Reason::Malformed, &short).detail, short);
    }
}
