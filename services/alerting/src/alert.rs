//! What is published and stored of a change.

use std::collections::BTreeMap;

use fleet_shared::model::AlertMessage;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::rule::{Facts, Rule};
use crate::state::Transition;

/// The name of an episode: the same whoever computes it, and whenever.
///
/// A UUID of version 8 from a hash of rule, sensor and the time of the reading that crossed.
#[must_use]
pub fn alert_id(rule: &str, sensor_id: &str, crossed_at: Timestamp) -> Uuid {
    let mut hash = Sha256::new();
    for part in [rule, sensor_id] {
        // With its length before it, no two pairs run together into the same text.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.update(crossed_at.as_microsecond().to_be_bytes());
    let digest = hash.finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// The message about a transition. A template that does not render gives its place to the bare
/// facts: an alert is never lost for its wording.
#[must_use]
pub fn message(
    rule: &Rule,
    sensor_id: &str,
    transition: &Transition,
    facts: &Facts,
) -> AlertMessage {
    let state = transition.kind.as_str();
    let text = |template: &crate::rule::Message| {
        template
            .render(&rule.name, state, facts)
            .unwrap_or_else(|error| {
                let error = format!("{:#}", anyhow::Error::new(error));
                tracing::warn!(rule = %rule.name, sensor_id, %error, "a template does not render");
                format!("{}: {sensor_id} is at {}", rule.name, facts.value())
            })
    };
    let mut metadata = BTreeMap::from([
        ("rule".to_owned(), rule.name.clone()),
        ("state".to_owned(), state.to_owned()),
        ("value".to_owned(), facts.value()),
        ("crossed_at".to_owned(), transition.crossed_at.to_string()),
    ]);
    for name in ["type", "unit", "location", "reason"] {
        if let Some(serde_json::Value::String(value)) = facts.0.get(name) {
            metadata.insert(name.to_owned(), value.clone());
        }
    }
    for (name, value) in &rule.labels {
        metadata.insert(format!("label.{name}"), value.clone());
    }
    for (name, template) in &rule.annotations {
        metadata.insert(format!("annotation.{name}"), text(template));
    }
    AlertMessage {
        alert_id: alert_id(&rule.name, sensor_id, transition.crossed_at).to_string(),
        severity: rule.severity,
        message: text(&rule.message),
        sensor_id: sensor_id.to_owned(),
        timestamp: transition.at,
        metadata: Some(metadata),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_depends_on_rule_sensor_and_reading_alone_and_never_changes() {
        let at = Timestamp::from_microsecond(1_790_000_000_123_456).unwrap();
        let id = alert_id("TemperatureHigh", "sensor-1", at);
        assert_eq!(id.get_version_num(), 8);
        assert_eq!(id, alert_id("TemperatureHigh", "sensor-1", at));
        assert_ne!(id, alert_id("TemperatureHig", "hsensor-1", at));
        let later = Timestamp::from_microsecond(1_790_000_000_123_457).unwrap();
        assert_ne!(id, alert_id("TemperatureHigh", "sensor-1", later));
    }
}
