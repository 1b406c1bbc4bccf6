use std::fmt;
use std::str::FromStr;

use super::error::TopicError;
use super::excerpt::Excerpt;
use super::name::{self, TopicName};

const SHARE_PREFIX: &str = "$share/";

/// What a subscription asks for: a filter, and with `$share/{group}/{filter}` the group among whose
/// members the broker divides the messages.
///
/// `$share` without a following `/`, or `$shared/x`, is an ordinary filter.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct TopicFilter {
    text: String,
    /// Where the filter proper starts: 0, or after `$share/{group}/`.
    filter_at: usize,
}

impl TopicFilter {
    /// Takes `text` as a topic filter, shared or not.
    ///
    /// # Errors
    /// The rule of MQTT 5, section 4.7 or 4.8.2, that it breaks.
    pub fn parse(text: impl Into<String>) -> Result<Self, TopicError> {
        let text = text.into();
        name::check_text(&text)?;
        let filter_at = share_len(&text)?;
        check_wildcards(&text[filter_at..], &text)?;
        Ok(Self { text, filter_at })
    }

    /// The group of a shared filter; none for an ordinary one.
    #[must_use]
    pub fn share_group(&self) -> Option<&str> {
        self.text[..self.filter_at]
            .strip_prefix(SHARE_PREFIX)?
            .strip_suffix('/')
    }

    /// The filter proper, without `$share/{group}/`: what topics are matched against.
    #[must_use]
    pub fn filter(&self) -> &str {
        &self.text[self.filter_at..]
    }

    /// The whole text, as it goes into a SUBSCRIBE.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a message on `topic` belongs to the subscription.
    #[must_use]
    pub fn matches(&self, topic: &TopicName) -> bool {
        matches(self.filter(), topic.as_str())
    }
}

/// The length of `$share/{group}/` at the start of `text`, 0 if it is not a shared filter.
fn share_len(text: &str) -> Result<usize, TopicError> {
    let Some(rest) = text.strip_prefix(SHARE_PREFIX) else {
        return Ok(0);
    };
    let (group, filter) = rest.split_once('/').unwrap_or((rest, ""));
    if group.is_empty() {
        return Err(TopicError::ShareGroupEmpty {
            filter: Excerpt::new(text),
        });
    }
    if let Some(wildcard) = group.chars().find(|char| matches!(char, '+' | '#')) {
        return Err(TopicError::ShareGroupWildcard {
            filter: Excerpt::new(text),
            wildcard,
        });
    }
    if filter.is_empty() {
        return Err(TopicError::ShareFilterEmpty {
            filter: Excerpt::new(text),
        });
    }
    Ok(text.len() - filter.len())
}

fn check_wildcards(filter: &str, text: &str) -> Result<(), TopicError> {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let is_last = levels.peek().is_none();
        if level == "+" || (level == "#" && is_last) {
            continue;
        }
        let filter = || Excerpt::new(text);
        if level == "#" {
            return Err(TopicError::HashNotLast { filter: filter() });
        }
        if level.contains('#') {
            return Err(TopicError::HashNotWholeLevel { filter: filter() });
        }
        if level.contains('+') {
            return Err(TopicError::PlusNotWholeLevel { filter: filter() });
        }
    }
    Ok(())
}

/// Whether the filter matches the topic (MQTT 5, section 4.7), both being valid and the filter
/// without `$share/{group}/`.
///
/// `#` also matches the parent level, `+` an empty level; neither matches, in first place, a topic
/// that starts with `$`. Nothing is allocated. For texts that are not valid the answer is either.
#[must_use]
pub fn matches(filter: &str, topic: &str) -> bool {
    let (filter, topic) = (filter.as_bytes(), topic.as_bytes());
    if topic.first() == Some(&b'$') && matches!(filter.first(), Some(b'+' | b'#')) {
        return false;
    }
    let (mut in_filter, mut in_topic) = (0, 0);
    loop {
        // Both stand at the start of a level here.
        match filter.get(in_filter) {
            Some(b'#') => return true,
            Some(b'+') => {
                in_filter += 1;
                while topic.get(in_topic).is_some_and(|&byte| byte != b'/') {
                    in_topic += 1;
                }
            }
            _ => {
                while let Some(&byte) = filter.get(in_filter)
                    && byte != b'/'
                    && topic.get(in_topic) == Some(&byte)
                {
                    in_filter += 1;
                    in_topic += 1;
                }
            }
        }
        // And at the end of that level here, or the level differs.
        match (filter.get(in_filter), topic.get(in_topic)) {
            (None, None) => return true,
            (Some(b'/'), Some(b'/')) => {
                in_filter += 1;
                in_topic += 1;
            }
            (Some(_), None) => return &filter[in_filter..] == b"/#",
            _ => return false,
        }
    }
}

impl FromStr for TopicFilter {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for TopicFilter {
    type Error = TopicError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(text)
    }
}

impl From<TopicFilter> for String {
    fn from(filter: TopicFilter) -> Self {
        filter.text
    }
}

impl AsRef<str> for TopicFilter {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
