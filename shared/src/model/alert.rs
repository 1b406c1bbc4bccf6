use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::topic::{self, Excerpt, TopicError};

use super::decode::{self, Field, Form, Limits, Text, check_text};
use super::reading::check_level;
use super::reject::RejectError;
use super::time;

const ALERT_ID_BYTES_MAX: usize = 128;
const MESSAGE_BYTES_MAX: usize = 4_096;

/// What alerting says about a sensor, on `alerts/{severity}/{sensor_id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(description = "An alert about a sensor, published to alerts/{severity}/{sensor_id}.")]
pub struct AlertMessage {
    /// The same for every message about one alert; 1 to 128 bytes.
    #[schemars(length(min = 1, max = ALERT_ID_BYTES_MAX))]
    pub alert_id: String,
    /// How urgent it is.
    pub severity: Severity,
    /// A sentence for people; at most 4,096 bytes.
    #[schemars(length(max = MESSAGE_BYTES_MAX))]
    pub message: String,
    /// The sensor it is about; one topic level of 1 to 128 bytes.
    #[schemars(length(min = 1, max = 128))]
    pub sensor_id: String,
    /// When the state it tells of began.
    pub timestamp: Timestamp,
    /// Further facts; ours hold at least `rule`, `value` and `state` (`firing` or `resolved`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
}

/// How urgent an alert is, in rising order.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// To be looked at soon.
    Warning,
    /// To be looked at now.
    Critical,
}

impl Severity {
    /// All severities, in rising order.
    pub const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Critical];

    /// The severity as payloads, topics and metric labels write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// The severity of that name, as [`Severity::as_str`] writes it.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|severity| severity.as_str() == name)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    alert_id: Text<'a>,
    #[serde(borrow)]
    severity: Text<'a>,
    #[serde(borrow)]
    message: Text<'a>,
    #[serde(borrow)]
    sensor_id: Text<'a>,
    #[serde(borrow)]
    timestamp: Text<'a>,
    metadata: Option<BTreeMap<String, String>>,
}

const FIELDS: [Field; 6] = [
    Field::required("alert_id", Form::Text),
    Field::required("severity", Form::Text),
    Field::required("message", Form::Text),
    Field::required("sensor_id", Form::Text),
    Field::required("timestamp", Form::Text),
    Field::optional("metadata", Form::TextMap),
];

impl AlertMessage {
    /// Takes a payload as an alert. Unknown fields are ignored.
    ///
    /// # Errors
    /// `too_large`, `not_utf8`, `too_deep`, `malformed`, `not_finite` or `invalid_field`.
    pub fn parse(payload: &[u8], limits: &Limits) -> Result<Self, RejectError> {
        let wire: Wire<'_> = decode::object(payload, limits, &FIELDS)?;
        let severity =
            Severity::from_name(&wire.severity.0).ok_or_else(|| RejectError::InvalidField {
                field: "severity",
                value: Excerpt::new(&wire.severity.0),
                rule: "it must be `critical`, `warning` or `info`",
            })?;
        check_text(
            "alert_id",
            &wire.alert_id.0,
            1..=ALERT_ID_BYTES_MAX,
            &[],
            "it must be 1 to 128 bytes without control characters",
        )?;
        if wire.message.0.len() > MESSAGE_BYTES_MAX {
            return Err(RejectError::InvalidField {
                field: "message",
                value: Excerpt::new(&wire.message.0),
                rule: "it must be at most 4096 bytes",
            });
        }
        check_level("sensor_id", &wire.sensor_id.0)?;
        Ok(Self {
            severity,
            timestamp: time::parse("timestamp", &wire.timestamp.0)?,
            alert_id: wire.alert_id.into_owned(),
            message: wire.message.into_owned(),
            sensor_id: wire.sensor_id.into_owned(),
            metadata: wire.metadata,
        })
    }

    /// The topic the alert belongs on, `alerts/{severity}/{sensor_id}`.
    ///
    /// # Errors
    /// [`TopicError::BadValue`] if the sensor's id is not one topic level.
    pub fn topic(&self) -> Result<String, TopicError> {
        topic::alert(self.severity.as_str(), &self.sensor_id)
    }

    /// The payload of the alert.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        decode::to_json(self)
    }
}
