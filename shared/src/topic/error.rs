use super::TOPIC_BYTES_MAX;
use super::excerpt::Excerpt;
use super::trie::LEVELS_MAX;

/// The rule that a topic name, a topic filter or a template breaks.
///
/// The offending text is shown shortened and escaped, so that the message is always one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// A name or filter has at least one character (MQTT-4.7.3-1).
    #[error("a topic is at least one character long")]
    Empty,
    /// A name or filter has at most 65,535 bytes (MQTT-4.7.3-3).
    #[error("topic is {len} bytes, the limit is {TOPIC_BYTES_MAX}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A name or filter holds no NUL character (MQTT-4.7.3-2).
    #[error("topic `{topic}` holds a NUL character at byte {at}")]
    Nul {
        /// The name or filter.
        topic: Excerpt,
        /// Offset of the first NUL in bytes.
        at: usize,
    },
    /// What the fleet itself publishes to holds no control character and no non-character: section 1.5.4
    /// lets a broker end the connection over one, and Mosquitto does.
    #[error("topic `{topic}` holds a character at byte {at} over which brokers end the connection")]
    Unprintable {
        /// The name.
        topic: Excerpt,
        /// Offset of the first such character in bytes.
        at: usize,
    },
    /// Wildcards belong to filters, not to names (MQTT-4.7.0-1).
    #[error("topic name `{topic}` holds the wildcard `{wildcard}`, which only a filter may")]
    WildcardInName {
        /// The topic name.
        topic: Excerpt,
        /// `+` or `#`.
        wildcard: char,
    },
    /// `#` stands alone in its level (MQTT-4.7.1-1).
    #[error("`#` must be a whole level of the filter `{filter}`")]
    HashNotWholeLevel {
        /// The topic filter.
        filter: Excerpt,
    },
    /// `#` is the last character of its filter (MQTT-4.7.1-1).
    #[error("`#` must be the last level of the filter `{filter}`")]
    HashNotLast {
        /// The topic filter.
        filter: Excerpt,
    },
    /// `+` stands alone in its level (MQTT-4.7.1-2).
    #[error("`+` must be a whole level of the filter `{filter}`")]
    PlusNotWholeLevel {
        /// The topic filter.
        filter: Excerpt,
    },
    /// A share name has at least one character (MQTT-4.8.2-1).
    #[error("shared filter `{filter}` names no group, write `$share/GROUP/FILTER`")]
    ShareGroupEmpty {
        /// The topic filter.
        filter: Excerpt,
    },
    /// A share name holds no `+` and no `#` (MQTT-4.8.2-2).
    #[error("the group of the shared filter `{filter}` holds the wildcard `{wildcard}`")]
    ShareGroupWildcard {
        /// The topic filter.
        filter: Excerpt,
        /// `+` or `#`.
        wildcard: char,
    },
    /// A filter follows the share name (MQTT-4.8.2-2).
    #[error("shared filter `{filter}` has no filter after its group, write `$share/GROUP/FILTER`")]
    ShareFilterEmpty {
        /// The topic filter.
        filter: Excerpt,
    },
    /// A [`Trie`](super::Trie) takes no filter with more levels.
    #[error("filter `{filter}` has {levels} levels, the limit is {LEVELS_MAX}")]
    TooManyLevels {
        /// The topic filter.
        filter: Excerpt,
        /// How many levels it has.
        levels: usize,
    },
    /// A placeholder is a whole level, `{name}`, of letters, digits and `_`.
    #[error("level `{level}` of the template `{template}` is neither text nor one `{{name}}`")]
    BadPlaceholder {
        /// The template.
        template: Excerpt,
        /// The level that is neither.
        level: Excerpt,
    },
    /// A placeholder appears once in a template.
    #[error("template `{template}` names `{{{name}}}` twice")]
    RepeatedPlaceholder {
        /// The template.
        template: Excerpt,
        /// The placeholder.
        name: Excerpt,
    },
    /// A template cannot be formatted without a value for every placeholder.
    #[error("no value for `{{{name}}}` of the template `{template}`")]
    MissingValue {
        /// The template.
        template: Excerpt,
        /// The placeholder.
        name: Excerpt,
    },
    /// A value does not fit the place it should fill.
    #[error("`{value}` cannot be the {name} in `{template}`: {rule}")]
    BadValue {
        /// The template.
        template: Excerpt,
        /// The placeholder.
        name: Excerpt,
        /// The value.
        value: Excerpt,
        /// What a value there must be.
        rule: &'static str,
    },
}
