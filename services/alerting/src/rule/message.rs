//! Texts with placeholders.

use std::collections::BTreeMap;

use jiff::Timestamp;
use minijinja::Value;
use serde::{Deserialize, Serialize};

use crate::condition::{ConditionError, Subject, Topic, sample_reading, sample_status};
use crate::template::{RenderError, Template, TemplateError};

/// Longest text that a template makes, in bytes; the rest is cut off.
const TEXT_BYTES_MAX: usize = 4_000;

/// What is known of the message that caused a change; kept with the state, so that a text can still
/// be made after a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts(pub BTreeMap<String, serde_json::Value>);

impl Facts {
    /// The facts of a message.
    #[must_use]
    pub fn of(subject: Subject<'_>) -> Self {
        let mut facts = BTreeMap::new();
        let mut put = |name: &str, value: serde_json::Value| {
            facts.insert(name.to_owned(), value);
        };
        put("sensor_id", subject.sensor_id().into());
        match subject {
            Subject::Reading(reading) => {
                put("type", reading.kind.as_str().into());
                put("value", reading.value.into());
                put("unit", reading.unit.as_str().into());
                put("location", reading.location.as_str().into());
                put("timestamp", reading.timestamp.to_string().into());
                put("battery_percent", reading.battery_percent.into());
                let quality = reading.quality.map(|quality| quality.as_str());
                put("quality", quality.into());
            }
            Subject::Status(status) => {
                put("device_id", status.device_id.as_str().into());
                put("value", status.online.into());
                put("online", status.online.into());
                put("timestamp", status.at.map(|at| at.to_string()).into());
                put("reason", status.reason.as_deref().into());
                put(
                    "firmware_version",
                    status.firmware_version.as_deref().into(),
                );
                put("signal_strength", status.signal_strength.into());
                put("uptime_seconds", status.uptime_seconds.into());
            }
        }
        Self(facts)
    }

    /// Makes them those of a later message of the same sensor; what a sensor says only now and then is
    /// left as it was.
    pub(crate) fn renew(&mut self, subject: Subject<'_>) {
        let (value, at) = match subject {
            Subject::Reading(reading) => (reading.value.into(), Some(reading.timestamp)),
            Subject::Status(status) => (status.online.into(), status.at),
        };
        let same = |name: &str, text: &str| {
            let known = self.0.get(name).and_then(serde_json::Value::as_str);
            known == Some(text)
        };
        let is_known = match subject {
            Subject::Reading(reading) => {
                same("type", &reading.kind)
                    && same("unit", &reading.unit)
                    && same("location", &reading.location)
            }
            Subject::Status(_) => !self.0.is_empty(),
        };
        if !is_known {
            *self = Self::of(subject);
            return;
        }
        for (name, value) in [
            ("value", value),
            ("timestamp", at.map(|at| at.to_string()).into()),
        ] {
            if let Some(known) = self.0.get_mut(name) {
                *known = value;
            }
        }
    }

    /// The value that crossed, as text.
    #[must_use]
    pub fn value(&self) -> String {
        match self.0.get("value") {
            None => String::new(),
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        }
    }
}

/// A compiled template of a rule. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Message(Template);

impl Message {
    /// Compiles `source` and tries it on a message with every field.
    ///
    /// # Errors
    /// What is wrong, with its line.
    pub fn compile(source: &str, topic: Topic) -> Result<Self, ConditionError> {
        let refused = |error: TemplateError| ConditionError {
            line: error.line(),
            column: 1,
            message: format!("the template cannot be used: {error}"),
        };
        let message = Self(Template::compile(source).map_err(refused)?);
        let at = Timestamp::UNIX_EPOCH;
        let facts = match topic {
            Topic::Readings => Facts::of(Subject::Reading(&sample_reading(at))),
            Topic::Status => Facts::of(Subject::Status(&sample_status(at))),
        };
        message
            .render("rule", "firing", &facts)
            .map_err(|error| refused(error.into()))?;
        Ok(message)
    }

    /// The template as it was written.
    #[must_use]
    pub fn source(&self) -> &str {
        self.0.source()
    }

    /// What is said when a rule says nothing of its own.
    pub(super) fn default_for(topic: Topic) -> Self {
        let source = match topic {
            Topic::Readings => "{{ rule }}: {{ sensor_id }} is at {{ value }} {{ unit }}",
            Topic::Status => "{{ rule }}: {{ sensor_id }}",
        };
        Self::compile(source, topic).expect("the defaults are templates, which a test compiles")
    }

    /// The text, at most 4,000 bytes.
    ///
    /// # Errors
    /// If a value has not the type that the template takes it for, or if it takes too much work.
    pub fn render(&self, rule: &str, state: &str, facts: &Facts) -> Result<String, RenderError> {
        let mut values: BTreeMap<&str, Value> = facts
            .0
            .iter()
            .map(|(name, value)| (name.as_str(), template_value(value)))
            .collect();
        values.insert("rule", rule.into());
        values.insert("state", state.into());
        self.0.render(Value::from_pairs(values), TEXT_BYTES_MAX)
    }
}

fn template_value(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Bool(flag) => Value::from(*flag),
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(whole) => Value::from(whole),
            None => Value::from(number.as_f64()),
        },
        // Facts are flat: what is left is a field that the message lacks.
        _ => Value::from(()),
    }
}
