//! From the payloads that real devices send to readings, as a file describes it.

mod file;
mod pointer;
mod text;

use std::collections::BTreeMap;

use fleet_shared::model::{RejectReason, SensorReading, to_micros};
use fleet_shared::topic::{Template, TopicFilter, Trie};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::Value as Json;

pub use file::MappingError;
use pointer::Pointer;
use text::Text;

use crate::decode::Rejection;

/// Mappings that come with the program, by name.
const READY: [(&str, &str); 3] = [
    ("tasmota", include_str!("../../mappings/tasmota.toml")),
    (
        "zigbee2mqtt",
        include_str!("../../mappings/zigbee2mqtt.toml"),
    ),
    ("shelly", include_str!("../../mappings/shelly.toml")),
];

/// How the messages of some topics become readings.
#[derive(Debug)]
struct Mapping {
    template: Template,
    filter: TopicFilter,
    clock: Option<Clock>,
    battery: Option<Pointer>,
    rules: Vec<Rule>,
}

/// Where a payload has its time.
#[derive(Debug)]
enum Clock {
    /// Text; the zone is for one without.
    Iso8601(Pointer, TimeZone),
    /// A number since 1970, and how many of it a second has.
    Unix(Pointer, f64),
}

/// One reading of a message, or several when the value's pointer has wildcards.
#[derive(Debug)]
struct Rule {
    sensor_id: Text,
    kind: Text,
    location: Text,
    unit: String,
    when: Option<When>,
    value: Value,
}

#[derive(Debug)]
struct When {
    at: Pointer,
    equals: Json,
}

#[derive(Debug)]
struct Value {
    at: Pointer,
    scale: f64,
    offset: f64,
    map: BTreeMap<String, f64>,
}

/// The mappings of a process, found by topic.
#[derive(Debug)]
pub struct Mappings {
    mappings: Vec<Mapping>,
    by_topic: Trie<usize>,
}

impl Mappings {
    /// Loads files, and ready mappings by name, in order: of several that fit a topic the first
    /// counts.
    ///
    /// # Errors
    /// A file that cannot be read or used, and why.
    pub fn load(names: &[String]) -> Result<Self, MappingError> {
        let mut mappings = Vec::new();
        for name in names {
            mappings.extend(file::load(name)?);
        }
        Ok(Self::new(mappings))
    }

    fn new(mappings: Vec<Mapping>) -> Self {
        let mut by_topic = Trie::new();
        for (index, mapping) in mappings.iter().enumerate() {
            by_topic
                .insert(&mapping.filter, index)
                .expect("a template has no more levels than a filter may have");
        }
        Self { mappings, by_topic }
    }

    /// The filters of the topics that are mapped.
    pub fn filters(&self) -> impl Iterator<Item = &TopicFilter> {
        self.mappings.iter().map(|mapping| &mapping.filter)
    }

    /// The readings of a message, or none when its topic is not mapped. All of a message is taken
    /// or refused: a part of it could not be told from the whole when it is delivered again.
    pub fn decode(
        &self,
        topic: &str,
        payload: &[u8],
        received_at: Timestamp,
    ) -> Option<Result<Vec<SensorReading>, Rejection>> {
        if self.mappings.is_empty() {
            return None;
        }
        let mut first = None;
        self.by_topic.for_each_match(topic, |index| {
            let fits = self.mappings[*index].template.extract(topic).is_some();
            if fits && first.is_none_or(|earlier| *index < earlier) {
                first = Some(*index);
            }
        });
        first.map(|index| self.mappings[index].readings(topic, payload, received_at))
    }
}

impl Mapping {
    fn readings(
        &self,
        topic: &str,
        payload: &[u8],
        received_at: Timestamp,
    ) -> Result<Vec<SensorReading>, Rejection> {
        let json: Json =
            serde_json::from_slice(payload).map_err(|error| refuse(payload, &error))?;
        let levels = self.template.extract(topic);
        let level = |name: &str| levels.as_ref().and_then(|levels| levels.get(name));
        let timestamp = match &self.clock {
            None => to_micros(received_at),
            Some(clock) => clock.read(&json)?,
        };
        let battery = match &self.battery {
            None => None,
            Some(at) => at
                .get(&json)
                .and_then(Json::as_f64)
                .map(|percent| percent.round() as u8),
        };
        let mut readings = Vec::new();
        for rule in &self.rules {
            if let Some(when) = &rule.when
                && when.at.get(&json) != Some(&when.equals)
            {
                continue;
            }
            for (names, value) in rule.value.at.find(&json) {
                let Some(value) = rule.value.read(value)? else {
                    continue;
                };
                let reading = SensorReading {
                    sensor_id: rule.sensor_id.render(level, &names),
                    kind: rule.kind.render(level, &names),
                    value,
                    unit: rule.unit.clone(),
                    location: rule.location.render(level, &names),
                    timestamp,
                    battery_percent: battery,
                    quality: None,
                };
                reading.validate()?;
                readings.push(reading);
            }
        }
        if readings.is_empty() {
            return Err(Rejection::new(
                RejectReason::Unmapped,
                format!(
                    "the payload has no value that the mapping of `{}` asks for",
                    self.template.as_str()
                ),
            ));
        }
        Ok(readings)
    }
}

impl Clock {
    fn read(&self, json: &Json) -> Result<Timestamp, Rejection> {
        let refuse = |found: Option<&Json>| {
            Rejection::new(
                RejectReason::Malformed,
                match found {
                    None => "the payload has no time where the mapping expects it".to_owned(),
                    Some(value) => {
                        format!("`{}` is not a time of the mapping's format", excerpt(value))
                    }
                },
            )
        };
        match self {
            Self::Iso8601(at, zone) => {
                let found = at.get(json);
                let text = found.and_then(Json::as_str).ok_or_else(|| refuse(found))?;
                if let Ok(timestamp) = text.parse::<Timestamp>() {
                    return Ok(to_micros(timestamp));
                }
                let local = text.parse::<DateTime>().map_err(|_| refuse(found))?;
                let zoned = zone.to_zoned(local).map_err(|_| refuse(found))?;
                Ok(to_micros(zoned.timestamp()))
            }
            Self::Unix(at, per_second) => {
                let found = at.get(json);
                let number = found.and_then(Json::as_f64).ok_or_else(|| refuse(found))?;
                let micros = (number / per_second * 1e6).round();
                Timestamp::from_microsecond(micros as i64).map_err(|_| refuse(found))
            }
        }
    }
}

impl Value {
    /// The number; none for null, which devices send for what they have not measured yet.
    fn read(&self, json: &Json) -> Result<Option<f64>, Rejection> {
        let mapped = match json {
            Json::Null => return Ok(None),
            Json::Bool(flag) => self.map.get(if *flag { "true" } else { "false" }),
            Json::String(text) => self.map.get(text.as_str()),
            _ => None,
        };
        let number = match (mapped, json) {
            (Some(number), _) => Some(*number),
            (None, Json::Bool(flag)) => Some(f64::from(u8::from(*flag))),
            (None, Json::Number(number)) => number.as_f64(),
            (None, Json::String(text)) => text.trim().parse().ok(),
            (None, _) => None,
        };
        match number {
            Some(number) => Ok(Some(number * self.scale + self.offset)),
            None => Err(Rejection::new(
                RejectReason::Malformed,
                format!(
                    "`{}` is not a number, nor in the mapping's `map`",
                    excerpt(json)
                ),
            )),
        }
    }
}

fn excerpt(json: &Json) -> String {
    json.to_string().chars().take(64).collect()
}

fn refuse(payload: &[u8], error: &serde_json::Error) -> Rejection {
    let text = error.to_string();
    // serde_json tells these two only by their words.
    let reason = if std::str::from_utf8(payload).is_err() {
        RejectReason::NotUtf8
    } else if text.starts_with("recursion limit exceeded") {
        RejectReason::TooDeep
    } else if text.starts_with("number out of range") {
        RejectReason::NotFinite
    } else {
        RejectReason::Malformed
    };
    Rejection::new(reason, format!("the payload is not JSON: {text}"))
}

#[cfg(test)]
mod tests;
