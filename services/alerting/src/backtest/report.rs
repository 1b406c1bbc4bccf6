//! What a backtest found.

use fleet_shared::model::Severity;
use jiff::Timestamp;
use serde::Serialize;

use crate::alert::{alert_id, message};
use crate::rule::{Facts, Rule};
use crate::state::Transition;

/// What rules would have said of a span.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Start of the span.
    pub from: Timestamp,
    /// Its end; where the run was cut short, the time it came to.
    pub to: Timestamp,
    /// Readings that were looked at.
    pub readings: u64,
    /// Each rule, in the order of the file.
    pub rules: Vec<RuleReport>,
    /// Not everything is here: the span was not run to its end, or not every episode is described.
    /// Numbers of a rule cover what was run.
    pub truncated: bool,
}

/// What one rule would have said.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleReport {
    /// Its name.
    pub rule: String,
    /// How urgent it is.
    pub severity: Severity,
    /// Its episodes, in the order in which they began.
    pub episodes: Vec<Episode>,
    /// How often it would have fired.
    pub fired: u64,
    /// How long it would have fired, all sensors together, in seconds.
    pub firing_seconds: f64,
    /// Episodes that began soon after the one before of the same sensor: within the rule's `flap`,
    /// or ten minutes.
    pub flaps: u64,
    /// Why it cannot be tried, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<&'static str>,
}

/// One time that a rule would have fired.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Episode {
    /// The id that the alert has, or would have had.
    pub alert_id: String,
    /// The sensor.
    pub sensor_id: String,
    /// What it measures.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// When it would have begun, in event time.
    pub fired_at: Timestamp,
    /// When it would have ended; none if it would still fire.
    pub resolved_at: Option<Timestamp>,
    /// The value that crossed.
    pub value: serde_json::Value,
    /// What would have been said.
    pub message: String,
}

impl Episode {
    pub(super) fn new(
        rule: &Rule,
        sensor_id: &str,
        transition: &Transition,
        facts: &Facts,
    ) -> Self {
        let kind = facts.0.get("type").and_then(serde_json::Value::as_str);
        Self {
            alert_id: alert_id(&rule.name, sensor_id, transition.crossed_at).to_string(),
            sensor_id: sensor_id.to_owned(),
            kind: kind.map(str::to_owned),
            fired_at: transition.at,
            resolved_at: None,
            value: facts.0.get("value").cloned().unwrap_or_default(),
            message: message(rule, sensor_id, transition, facts).message,
        }
    }
}
