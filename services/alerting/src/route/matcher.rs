//! Conditions on the labels of an alert.

use std::collections::BTreeMap;
use std::fmt;

use fleet_store::{MatchOp, Matcher, StoredAlert};
use regex::Regex;

/// Longest value of a matcher in bytes, which bounds the work of its regular expression too.
const VALUE_BYTES_MAX: usize = 1_024;

/// Compiled size of a regular expression at most, in bytes.
const REGEX_BYTES_MAX: usize = 256 * 1_024;

/// What an alert is told apart by.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// The labels of an alert: `rule`, `severity`, `sensor_id`, what its reading says of `type`,
    /// `unit`, `location` and `reason`, and those that its rule gives it.
    #[must_use]
    pub fn of(alert: &StoredAlert) -> Self {
        let metadata: BTreeMap<String, String> =
            serde_json::from_str(&alert.alert.metadata).unwrap_or_default();
        let mut labels = BTreeMap::new();
        for (name, value) in metadata {
            if let Some(name) = name.strip_prefix("label.") {
                labels.insert(name.to_owned(), value);
            } else if matches!(name.as_str(), "type" | "unit" | "location" | "reason") {
                labels.entry(name).or_insert(value);
            }
        }
        // Last, so that no rule's own label takes their place.
        for (name, value) in [
            ("rule", &alert.alert.rule),
            ("severity", &alert.alert.severity),
            ("sensor_id", &alert.alert.sensor_id),
        ] {
            labels.insert(name.to_owned(), value.clone());
        }
        Self(labels)
    }

    /// The value of a label; empty for one that is not there.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The map itself.
    #[must_use]
    pub const fn map(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Labels {
    fn from(pairs: [(&str, &str); N]) -> Self {
        let owned = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self(owned.into())
    }
}

impl FromIterator<(String, String)> for Labels {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

/// The name that a label goes by here: users of Alertmanager and of the tutorial know others.
#[must_use]
pub(crate) fn canonical(name: &str) -> &str {
    match name {
        "alertname" => "rule",
        "sensor" => "sensor_id",
        other => other,
    }
}

/// Why a matcher cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MatcherError(String);

/// A matcher that can be asked.
#[derive(Clone, Debug)]
pub struct CompiledMatcher {
    matcher: Matcher,
    regex: Option<Regex>,
}

impl fmt::Display for CompiledMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Matcher { name, op, value } = &self.matcher;
        write!(f, "{name}{}{value:?}", op.as_str())
    }
}

impl CompiledMatcher {
    /// Compiles a matcher.
    ///
    /// # Errors
    /// If its name is none, its value is too long, or its regular expression is none.
    pub fn new(matcher: &Matcher) -> Result<Self, MatcherError> {
        let name = canonical(matcher.name.trim());
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if name.is_empty() || !name.chars().all(plain) {
            return Err(MatcherError(format!(
                "`{}` is no name of a label: use letters, digits, `_`, `-` and `.`",
                matcher.name
            )));
        }
        if matcher.value.len() > VALUE_BYTES_MAX {
            let length = matcher.value.len();
            return Err(MatcherError(format!(
                "the value for `{name}` has {length} bytes; {VALUE_BYTES_MAX} are the most"
            )));
        }
        let regex = match matcher.op {
            MatchOp::Equal | MatchOp::NotEqual => None,
            MatchOp::Matches | MatchOp::MatchesNot => {
                let whole = format!("^(?s:{})$", matcher.value);
                let built = regex::RegexBuilder::new(&whole)
                    .size_limit(REGEX_BYTES_MAX)
                    .build();
                Some(built.map_err(|error| {
                    let error = error.to_string();
                    let last = error.lines().last().unwrap_or_default().to_owned();
                    MatcherError(format!(
                        "`{}` is no regular expression: {last}",
                        matcher.value
                    ))
                })?)
            }
        };
        Ok(Self {
            matcher: Matcher {
                name: name.to_owned(),
                ..matcher.clone()
            },
            regex,
        })
    }

    /// Reads one as people write it: `severity="critical"`, `location=~"hall/.*"`, `team!=night`.
    ///
    /// # Errors
    /// If it has no operator, or cannot be compiled.
    pub fn parse(text: &str) -> Result<Self, MatcherError> {
        let no_operator = || {
            MatcherError(format!(
                "`{text}` is no matcher: write a label, one of = != =~ !~, and a value, such as \
                 severity=\"critical\""
            ))
        };
        let place = text.find(['=', '!']).ok_or_else(no_operator)?;
        let (name, rest) = text.split_at(place);
        let op = MatchOp::ALL
            .into_iter()
            .find(|op| rest.starts_with(op.as_str()))
            .ok_or_else(no_operator)?;
        let value = rest[op.as_str().len()..].trim();
        let value = match value.strip_prefix('"') {
            None => value.to_owned(),
            Some(quoted) => {
                let inner = quoted
                    .strip_suffix('"')
                    .ok_or_else(|| MatcherError(format!("in `{text}` the quote is not closed")))?;
                inner.replace("\\\"", "\"").replace("\\\\", "\\")
            }
        };
        Self::new(&Matcher {
            name: name.trim().to_owned(),
            op,
            value,
        })
    }

    /// The matcher.
    #[must_use]
    pub const fn matcher(&self) -> &Matcher {
        &self.matcher
    }

    /// Whether it holds for an alert.
    #[must_use]
    pub fn holds(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.matcher.name);
        let matches = || {
            self.regex
                .as_ref()
                .is_some_and(|regex| regex.is_match(value))
        };
        match self.matcher.op {
            MatchOp::Equal => value == self.matcher.value,
            MatchOp::NotEqual => value != self.matcher.value,
            MatchOp::Matches => matches(),
            MatchOp::MatchesNot => !matches(),
        }
    }
}
