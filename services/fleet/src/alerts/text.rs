//! Alerts as people and programs read them.

use fleet_store::StoredAlert;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

pub(super) use crate::dead_letters::visible;

/// An alert as JSON; the same as the HTTP API's.
#[derive(Serialize)]
pub(super) struct AlertJson<'a> {
    alert_id: &'a str,
    rule: &'a str,
    severity: &'a str,
    sensor_id: &'a str,
    message: &'a str,
    state: &'static str,
    fired_at: Timestamp,
    resolved_at: Option<Timestamp>,
    acknowledged_at: Option<Timestamp>,
    acknowledged_by: Option<&'a str>,
    metadata: Value,
}

pub(super) fn alert_json(stored: &StoredAlert) -> AlertJson<'_> {
    let alert = &stored.alert;
    AlertJson {
        alert_id: &alert.alert_id,
        rule: &alert.rule,
        severity: &alert.severity,
        sensor_id: &alert.sensor_id,
        message: &alert.message,
        state: state(stored),
        fired_at: alert.fired_at,
        resolved_at: stored.resolved_at,
        acknowledged_at: stored.acknowledged_at,
        acknowledged_by: stored.acknowledged_by.as_deref(),
        metadata: object(&alert.metadata),
    }
}

pub(super) fn state(stored: &StoredAlert) -> &'static str {
    if stored.resolved_at.is_some() {
        "resolved"
    } else {
        "firing"
    }
}

/// The object that a text is; an empty one if it is none.
pub(super) fn object(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Value::Object(object),
        _ => Value::Object(serde_json::Map::new()),
    }
}

/// An alert in a few lines.
pub(super) fn head(stored: &StoredAlert) -> String {
    let alert = &stored.alert;
    let mut text = format!(
        "{} {} {} {} {}\n  {}\n  fired {}",
        alert.alert_id,
        state(stored),
        alert.severity,
        alert.rule,
        visible(&alert.sensor_id),
        visible(&alert.message),
        alert.fired_at
    );
    if let Some(at) = stored.resolved_at {
        text += &format!(", resolved {at}");
    }
    if let Some(at) = stored.acknowledged_at {
        let by = stored.acknowledged_by.as_deref().unwrap_or("somebody");
        text += &format!(", acknowledged {at} by {}", visible(by));
    }
    text + "\n"
}
