use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use super::TOPIC_BYTES_MAX;
use super::error::TopicError;
use super::excerpt::Excerpt;

/// The topic a message is published to: 1 to 65,535 bytes, no wildcard, no NUL.
///
/// Levels may be empty, so `/` and `a//b` are names. A leading `$` is allowed, though only a broker
/// should publish there.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct TopicName(String);

impl TopicName {
    /// Takes `text` as a topic name.
    ///
    /// # Errors
    /// The rule of MQTT 5, section 4.7, that it breaks.
    pub fn parse(text: impl Into<String>) -> Result<Self, TopicError> {
        let text = text.into();
        check(&text)?;
        Ok(Self(text))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The levels from the left; at least one, and any may be empty.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

/// The rules for a topic name, without taking it.
pub(super) fn check(text: &str) -> Result<(), TopicError> {
    check_text(text)?;
    match text.bytes().find(|byte| matches!(byte, b'+' | b'#')) {
        None => Ok(()),
        Some(wildcard) => Err(TopicError::WildcardInName {
            topic: Excerpt::new(text),
            wildcard: char::from(wildcard),
        }),
    }
}

/// What holds for names and filters alike (section 4.7.3).
pub(super) fn check_text(text: &str) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > TOPIC_BYTES_MAX {
        return Err(TopicError::TooLong { len: text.len() });
    }
    match text.bytes().position(|byte| byte == 0) {
        None => Ok(()),
        Some(at) => Err(TopicError::Nul {
            topic: Excerpt::new(text),
            at,
        }),
    }
}

impl FromStr for TopicName {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for TopicName {
    type Error = TopicError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(text)
    }
}

impl From<TopicName> for String {
    fn from(name: TopicName) -> Self {
        name.0
    }
}

impl AsRef<str> for TopicName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
