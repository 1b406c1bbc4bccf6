//! The file that describes mappings.

use std::collections::BTreeMap;
use std::path::Path;

use fleet_shared::topic::{Template, TopicFilter};
use serde::Deserialize;

use super::pointer::Pointer;
use super::text::Text;
use super::{Clock, Mapping, Rule, Value, When};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileFields {
    mapping: Vec<MappingFields>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MappingFields {
    topic: String,
    timestamp: Option<TimestampFields>,
    battery_percent: Option<String>,
    reading: Vec<ReadingFields>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TimestampFields {
    pointer: String,
    #[serde(default)]
    format: TimestampFormat,
    timezone: Option<String>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TimestampFormat {
    #[default]
    Iso8601,
    Unix,
    UnixMs,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadingFields {
    value: ValueFields,
    when: Option<WhenFields>,
    sensor_id: String,
    #[serde(rename = "type")]
    kind: String,
    unit: String,
    location: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ValueFields {
    pointer: String,
    #[serde(default = "one")]
    scale: f64,
    #[serde(default)]
    offset: f64,
    #[serde(default)]
    map: BTreeMap<String, f64>,
}

fn one() -> f64 {
    1.0
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WhenFields {
    pointer: String,
    equals: toml::Value,
}

/// Why a mapping file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MappingError {
    /// The file cannot be read, and no ready mapping has that name.
    #[error(
        "mapping `{name}` is neither a readable file nor one of {}",
        super::READY.map(|(name, _)| name).join(", ")
    )]
    Unreadable {
        /// As given.
        name: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It is not TOML of the form expected; the text points at line and column.
    #[error("mapping file {name}: {message}")]
    Malformed {
        /// As given.
        name: String,
        /// What and where.
        message: String,
    },
    /// A value in it makes no sense.
    #[error("mapping file {name}, mapping of `{topic}`: {field} `{value}`: {reason}")]
    Invalid {
        /// As given.
        name: String,
        /// The mapping's topic.
        topic: String,
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Reads the mappings of a file, or ready ones by name.
pub(super) fn load(name: &str) -> Result<Vec<Mapping>, MappingError> {
    let ready = super::READY.iter().find(|(ready, _)| *ready == name);
    let text = match ready {
        Some((_, text)) => (*text).to_owned(),
        None => {
            std::fs::read_to_string(Path::new(name)).map_err(|source| MappingError::Unreadable {
                name: name.to_owned(),
                source,
            })?
        }
    };
    parse(name, &text)
}

pub(super) fn parse(name: &str, text: &str) -> Result<Vec<Mapping>, MappingError> {
    let file: FileFields = toml::from_str(text).map_err(|error| MappingError::Malformed {
        name: name.to_owned(),
        message: error.to_string().trim_end().replace('\n', " "),
    })?;
    file.mapping
        .into_iter()
        .map(|mapping| compile(name, mapping))
        .collect()
}

fn compile(name: &str, fields: MappingFields) -> Result<Mapping, MappingError> {
    let invalid = |field: &'static str, value: &str, reason: String| MappingError::Invalid {
        name: name.to_owned(),
        topic: fields.topic.clone(),
        field,
        value: value.to_owned(),
        reason,
    };
    let pointer = |field: &'static str, text: &str| {
        Pointer::parse(text)
            .and_then(|pointer| match pointer.wildcards() {
                0 => Ok(pointer),
                _ => Err("`*` is only for a value's pointer".to_owned()),
            })
            .map_err(|reason| invalid(field, text, reason))
    };
    let template = Template::parse(fields.topic.as_str())
        .map_err(|error| invalid("topic", &fields.topic, error.to_string()))?;
    let levels: Vec<String> = template.placeholders().map(ToOwned::to_owned).collect();
    let filter = filter_of(&fields.topic);
    let filter = TopicFilter::parse(filter.as_str())
        .map_err(|error| invalid("topic", &fields.topic, error.to_string()))?;
    let clock = match &fields.timestamp {
        None => None,
        Some(timestamp) => {
            let at = pointer("timestamp", &timestamp.pointer)?;
            Some(match timestamp.format {
                TimestampFormat::Unix => Clock::Unix(at, 1.0),
                TimestampFormat::UnixMs => Clock::Unix(at, 1_000.0),
                TimestampFormat::Iso8601 => {
                    let zone = timestamp.timezone.as_deref().unwrap_or("UTC");
                    // Known without a zone database, which a small image may not have.
                    let zone = match zone {
                        "UTC" => jiff::tz::TimeZone::UTC,
                        name => jiff::tz::TimeZone::get(name)
                            .map_err(|error| invalid("timezone", name, error.to_string()))?,
                    };
                    Clock::Iso8601(at, zone)
                }
            })
        }
    };
    let battery = match &fields.battery_percent {
        None => None,
        Some(text) => Some(pointer("battery_percent", text)?),
    };
    let mut rules = Vec::new();
    for reading in &fields.reading {
        let value = &reading.value;
        let at = Pointer::parse(&value.pointer)
            .map_err(|reason| invalid("value", &value.pointer, reason))?;
        let text = |field: &'static str, text: &str| {
            Text::parse(text, &levels, at.wildcards())
                .map_err(|reason| invalid(field, text, reason))
        };
        let when = match &reading.when {
            None => None,
            Some(when) => Some(When {
                at: pointer("when", &when.pointer)?,
                equals: serde_json::to_value(&when.equals)
                    .map_err(|error| invalid("when", &when.pointer, error.to_string()))?,
            }),
        };
        rules.push(Rule {
            sensor_id: text("sensor_id", &reading.sensor_id)?,
            kind: text("type", &reading.kind)?,
            location: text("location", &reading.location)?,
            unit: reading.unit.clone(),
            when,
            value: Value {
                at,
                scale: value.scale,
                offset: value.offset,
                map: value.map.clone(),
            },
        });
    }
    Ok(Mapping {
        template,
        filter,
        clock,
        battery,
        rules,
    })
}

/// The filter of a topic template: every placeholder is a level of any text. A location that spans
/// levels can only be narrowed by the template itself, so it and what follows becomes `#`.
fn filter_of(template: &str) -> String {
    let mut levels = Vec::new();
    for level in template.split('/') {
        match level {
            "{location}" => {
                levels.push("#");
                break;
            }
            level if level.starts_with('{') => levels.push("+"),
            level => levels.push(level),
        }
    }
    levels.join("/")
}
