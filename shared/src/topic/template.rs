use std::fmt;
use std::str::FromStr;

use super::error::TopicError;
use super::excerpt::Excerpt;
use super::name;

/// The one placeholder that stands for one or more levels; every other stands for exactly one.
const SPANNING: &str = "location";

/// A pattern of topics such as `sensors/{location}/{type}`: formats them and takes them apart.
///
/// A level is either text or one placeholder, `{name}`, of letters, digits and `_`; no name twice.
/// `{location}` stands for one level or more (`site-1/floor-2/room-7`), all others for one, and no
/// value is empty. So a topic has one reading at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Placeholder(String),
}

/// What a topic has in the places of a template's placeholders, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Values<'a>(Vec<(&'a str, &'a str)>);

impl Template {
    /// Takes `text` as a template.
    ///
    /// # Errors
    /// [`TopicError::BadPlaceholder`], [`TopicError::RepeatedPlaceholder`], or the rule for topic
    /// names that its text breaks.
    pub fn parse(text: impl Into<String>) -> Result<Self, TopicError> {
        let text = text.into();
        name::check(&text)?;
        let mut parts = Vec::new();
        for level in text.split('/') {
            let part = parse_level(level).ok_or_else(|| TopicError::BadPlaceholder {
                template: Excerpt::new(&text),
                level: Excerpt::new(level),
            })?;
            if matches!(part, Part::Placeholder(_)) && parts.contains(&part) {
                return Err(TopicError::RepeatedPlaceholder {
                    template: Excerpt::new(&text),
                    name: Excerpt::new(level.trim_matches(['{', '}'])),
                });
            }
            parts.push(part);
        }
        Ok(Self { text, parts })
    }

    /// The template as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The names of the placeholders, from the left.
    pub fn placeholders(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Placeholder(name) => Some(name.as_str()),
            Part::Literal(_) => None,
        })
    }

    /// The topic with `values` in place of the placeholders; values of other names are left out.
    ///
    /// # Errors
    /// [`TopicError::MissingValue`]; [`TopicError::BadValue`] if one is empty, holds a wildcard or
    /// NUL, or, unless it is the location, a `/`; [`TopicError::TooLong`].
    pub fn format(&self, values: &[(&str, &str)]) -> Result<String, TopicError> {
        let mut topic = String::with_capacity(self.text.len() + 64);
        for (at, part) in self.parts.iter().enumerate() {
            if at > 0 {
                topic.push('/');
            }
            match part {
                Part::Literal(text) => topic.push_str(text),
                Part::Placeholder(name) => {
                    let (_, value) =
                        values.iter().find(|(key, _)| key == name).ok_or_else(|| {
                            TopicError::MissingValue {
                                template: Excerpt::new(&self.text),
                                name: Excerpt::new(name),
                            }
                        })?;
                    check_value(&self.text, name, value)?;
                    topic.push_str(value);
                }
            }
        }
        name::check(&topic)?;
        Ok(topic)
    }

    /// What `topic` has in the places of the placeholders; none if it is not of this form.
    #[must_use]
    pub fn extract<'a>(&'a self, topic: &'a str) -> Option<Values<'a>> {
        let mut values = Vec::with_capacity(self.parts.len());
        let mut rest = Some(topic);
        for (at, part) in self.parts.iter().enumerate() {
            let levels = rest?;
            let level;
            (level, rest) = match part {
                Part::Placeholder(name) if name == SPANNING => {
                    split_spanning(levels, self.parts.len() - at - 1)?
                }
                _ => match levels.split_once('/') {
                    Some((level, rest)) => (level, Some(rest)),
                    None => (levels, None),
                },
            };
            match part {
                Part::Literal(text) if text == level => {}
                Part::Placeholder(name) if !level.is_empty() => values.push((name.as_str(), level)),
                _ => return None,
            }
        }
        rest.is_none().then_some(Values(values))
    }
}

impl Values<'_> {
    /// The value of that placeholder.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }

    /// Names and values, from the left.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().copied()
    }
}

/// Splits off all but the last `after` levels.
fn split_spanning(levels: &str, after: usize) -> Option<(&str, Option<&str>)> {
    if after == 0 {
        return Some((levels, None));
    }
    let (slash, _) = levels.rmatch_indices('/').nth(after - 1)?;
    Some((&levels[..slash], Some(&levels[slash + 1..])))
}

fn parse_level(level: &str) -> Option<Part> {
    if !level.contains(['{', '}']) {
        return Some(Part::Literal(level.to_owned()));
    }
    let name = level.strip_prefix('{')?.strip_suffix('}')?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (!name.is_empty() && name.bytes().all(is_name)).then(|| Part::Placeholder(name.to_owned()))
}

/// Whether `value` may stand for the placeholder `name`.
pub(super) fn check_value(template: &str, name: &str, value: &str) -> Result<(), TopicError> {
    let is_spanning = name == SPANNING;
    let rule = if value.is_empty() {
        "it must not be empty"
    } else if value.contains(['+', '#', '\0']) {
        "it must not hold `+`, `#` or NUL"
    } else if !is_spanning && value.contains('/') {
        "it must be one level, without `/`"
    } else {
        return Ok(());
    };
    Err(TopicError::BadValue {
        template: Excerpt::new(template),
        name: Excerpt::new(name),
        value: Excerpt::new(value),
        rule,
    })
}

impl FromStr for Template {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
