//! The configuration of a device: what it is told to have, and what it says it has.

use std::time::Duration;

use fleet_shared::session::{ByteString, Publish};
use fleet_shared::topic::templates;
use serde_json::{Map, Value, json};

use crate::schedule::Intervals;

/// Shortest pause between two readings of a sensor that somebody may ask for: a device with forty
/// sensors says 400 readings a second then.
pub(crate) const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Longest pause.
pub(crate) const INTERVAL_MAX: Duration = Duration::from_secs(86_400);
/// Keys that are told as refused at most, of a configuration that may have thousands.
const REFUSED_MAX: usize = 16;

const READINGS: &str = "interval_ms";
const STATUS: &str = "status_interval_ms";

/// Where a device is told its configuration.
pub(crate) fn filter(device_id: &str) -> String {
    format!("devices/{device_id}/config")
}

/// What a device is set to, and what it could not be set to. Without settings it keeps to its
/// profile.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Configuration {
    /// The pauses in force.
    pub(crate) intervals: Intervals,
    /// Settings that were refused, each with the rule it breaks.
    refused: Map<String, Value>,
}

impl Configuration {
    /// The configuration that a message on `devices/{device_id}/config` asks for. An empty payload
    /// clears all of it. A setting that is not there, or is refused, keeps to the profile.
    pub(crate) fn read(payload: &[u8]) -> Self {
        let mut this = Self::default();
        if payload.is_empty() {
            return this;
        }
        let settings = match serde_json::from_slice(payload) {
            Ok(Value::Object(settings)) => settings,
            Ok(_) => return this.refusing("", "the configuration must be a JSON object".into()),
            Err(error) => return this.refusing("", format!("this is no JSON: {error}")),
        };
        let range = format!(
            "must be a whole number from {} to {}",
            INTERVAL_MIN.as_millis(),
            INTERVAL_MAX.as_millis()
        );
        for (key, value) in settings {
            let setting = match key.as_str() {
                READINGS => &mut this.intervals.readings,
                STATUS => &mut this.intervals.status,
                _ => {
                    this = this.refusing(&key, format!("there are {READINGS} and {STATUS}"));
                    continue;
                }
            };
            *setting = interval(&value);
            if setting.is_none() {
                this = this.refusing(&key, range.clone());
            }
        }
        this
    }

    /// Nothing can be set on a device whose schedule is fixed.
    pub(crate) fn fixed(mut self, reason: &str) -> Self {
        let Intervals { readings, status } = std::mem::take(&mut self.intervals);
        for (key, _) in [(READINGS, readings), (STATUS, status)]
            .into_iter()
            .filter(|(_, setting)| setting.is_some())
        {
            self = self.refusing(key, reason.to_owned());
        }
        self
    }

    fn refusing(mut self, key: &str, rule: String) -> Self {
        if self.refused.len() < REFUSED_MAX {
            // A key may be as long as a message.
            let key: String = key.chars().take(64).collect();
            self.refused.insert(key, rule.into());
        }
        self
    }

    /// What is reported: the settings in force, and under `refused` those that are not, with the
    /// reason.
    pub(crate) fn to_json(&self) -> Value {
        let mut report = Map::new();
        let Intervals { readings, status } = self.intervals;
        for (key, setting) in [(READINGS, readings), (STATUS, status)] {
            if let Some(pause) = setting {
                report.insert(key.to_owned(), json!(pause.as_millis()));
            }
        }
        if !self.refused.is_empty() {
            report.insert("refused".to_owned(), Value::Object(self.refused.clone()));
        }
        Value::Object(report)
    }

    /// The report as it is published.
    pub(crate) fn report(&self, device_id: &str) -> Publish {
        let topic = ByteString::from(format!("devices/{device_id}/config/reported"));
        let report = self.to_json().to_string().into_bytes();
        Publish::new(topic, templates::DEVICE_CONFIG_REPORTED, report).retain(true)
    }
}

/// A pause in milliseconds, within its bounds.
pub(crate) fn interval(value: &Value) -> Option<Duration> {
    let pause = Duration::from_millis(value.as_u64()?);
    (INTERVAL_MIN..=INTERVAL_MAX)
        .contains(&pause)
        .then_some(pause)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reported(payload: &str) -> String {
        Configuration::read(payload.as_bytes())
            .to_json()
            .to_string()
    }

    #[test]
    fn what_is_in_force_is_reported_and_what_is_refused_with_its_rule() {
        let all = r#"{"interval_ms":5000,"status_interval_ms":60000}"#;
        assert_eq!(reported(all), all);
        assert_eq!(reported(""), "{}");
        assert_eq!(reported("{}"), "{}");
        insta::assert_snapshot!(reported(r#"{"interval_ms":5,"status_interval_ms":1000,"color":"red"}"#), @r#"{"refused":{"color":"there are interval_ms and status_interval_ms","interval_ms":"must be a whole number from 100 to 86400000"},"status_interval_ms":1000}"#);
        insta::assert_snapshot!(reported("[]"), @r#"{"refused":{"":"the configuration must be a JSON object"}}"#);
        let fixed = Configuration::read(all.as_bytes()).fixed("a replay keeps its times");
        insta::assert_snapshot!(fixed.to_json(), @r#"{"refused":{"interval_ms":"a replay keeps its times","status_interval_ms":"a replay keeps its times"}}"#);
    }

    proptest! {
        #[test]
        fn any_payload_gives_a_small_report(payload in any::<Vec<u8>>(), keys in prop::collection::vec(".{0,100}", 0..40)) {
            Configuration::read(&payload).to_json();
            let settings: Map<_, _> = keys.into_iter().map(|key| (key, json!(1))).collect();
            let report = Configuration::read(&Value::Object(settings).to_string().into_bytes());
            prop_assert!(report.to_json().to_string().len() < 16 * 1024);
        }
    }
}
