//! What is told: the body of a notification as it waits in the outbox.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Alerts that a notification lists; further ones are counted.
pub(crate) const LISTED_MAX: usize = 100;

/// The same for an Alertmanager, which must be given each.
pub(crate) const LISTED_ALERTMANAGER_MAX: usize = 1_000;

/// One notification. It is stored as JSON: fields may be added, not renamed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notification {
    /// The receiver.
    pub receiver: String,
    /// The group: route and common labels.
    pub group_key: String,
    /// Labels that all of its alerts have in common.
    pub group_labels: BTreeMap<String, String>,
    /// `firing` if any of them fires, else `resolved`.
    pub status: String,
    /// Why it is sent.
    pub why: Why,
    /// When that was decided.
    pub at: Timestamp,
    /// The alerts, those that fire first, at most 100.
    pub alerts: Vec<NotifiedAlert>,
    /// How many fire in all.
    pub firing: usize,
    /// How many have ended in all.
    pub resolved: usize,
    /// The trace it belongs to, as W3C Trace Context writes it; handed on in the header of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// Why a notification is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// There are alerts that were not told yet.
    New,
    /// Alerts have ended.
    Ended,
    /// It fires still, and the repeat interval is over.
    Repeat,
}

impl Why {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Ended => "ended",
            Self::Repeat => "repeat",
        }
    }
}

/// An alert as receivers are told of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NotifiedAlert {
    /// Its name.
    pub alert_id: String,
    /// `firing` or `resolved`.
    pub status: String,
    /// The rule.
    pub rule: String,
    /// `critical`, `warning` or `info`.
    pub severity: String,
    /// The sensor.
    pub sensor_id: String,
    /// A sentence for people.
    pub message: String,
    /// The value that crossed.
    pub value: String,
    /// When it began.
    pub starts_at: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<Timestamp>,
    /// Who took note of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_by: Option<String>,
    /// What it is told apart by.
    pub labels: BTreeMap<String, String>,
    /// Further texts for people.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Notification {
    /// The most urgent severity in it.
    #[must_use]
    pub fn severity(&self) -> &str {
        let rank = |severity: &str| match severity {
            "critical" => 2,
            "warning" => 1,
            _ => 0,
        };
        let severities = self.alerts.iter().map(|alert| alert.severity.as_str());
        severities
            .max_by_key(|severity| rank(severity))
            .unwrap_or("info")
    }
}
