use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::topic::Excerpt;

use super::decode::{self, Field, Form, Limits, Text, check_text};
use super::reading::{check_level, percent};
use super::reject::RejectError;
use super::time;

const FIRMWARE_BYTES_MAX: usize = 128;
const REASON_BYTES_MAX: usize = 256;

/// What a device says of itself, retained on `devices/{device_id}/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(description = "What a device says of itself on devices/{device_id}/status.")]
pub struct DeviceStatus {
    /// Which device; one topic level of 1 to 128 bytes.
    #[schemars(length(min = 1, max = 128))]
    pub device_id: String,
    /// Whether it is connected.
    pub online: bool,
    /// When it said so.
    pub last_seen: Timestamp,
    /// Version of its firmware; at most 128 bytes.
    #[schemars(length(max = FIRMWARE_BYTES_MAX))]
    pub firmware_version: String,
    /// Received signal strength in dBm, so mostly negative.
    pub signal_strength: i32,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// New for every connection, and sorts by time (UUID version 7).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "uuid"))]
    pub session_id: Option<Uuid>,
}

/// What the broker says in a device's name when its connection breaks: its last will.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(description = "The last will of a device on devices/{device_id}/status.")]
pub struct DeviceWill {
    /// Which device; one topic level of 1 to 128 bytes.
    #[schemars(length(min = 1, max = 128))]
    pub device_id: String,
    /// Always false.
    #[schemars(extend("const" = false))]
    pub online: bool,
    /// When the connection was opened that the will belongs to; the will is made then.
    pub timestamp: Timestamp,
    /// Why it is offline, `unexpected_disconnect` for one; at most 256 bytes.
    #[schemars(length(max = REASON_BYTES_MAX))]
    pub reason: String,
    /// The same as in the status of that connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "uuid"))]
    pub session_id: Option<Uuid>,
}

/// A message on `devices/{device_id}/status`, be it a status, a will, or the little that some
/// devices send. Only `online` is always there; the device is taken from the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusMessage {
    /// Which device.
    pub device_id: String,
    /// Whether it is connected.
    pub online: bool,
    /// `last_seen` if it was there, else `timestamp`. A will's was made when the connection opened.
    pub at: Option<Timestamp>,
    /// Why it is offline.
    pub reason: Option<String>,
    /// Version of its firmware.
    pub firmware_version: Option<String>,
    /// Received signal strength in dBm.
    pub signal_strength: Option<i32>,
    /// Seconds since it started.
    pub uptime_seconds: Option<u64>,
    /// The connection the message belongs to.
    pub session_id: Option<Uuid>,
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    device_id: Option<Text<'a>>,
    online: bool,
    #[serde(borrow)]
    last_seen: Option<Text<'a>>,
    #[serde(borrow)]
    timestamp: Option<Text<'a>>,
    #[serde(borrow)]
    reason: Option<Text<'a>>,
    #[serde(borrow)]
    firmware_version: Option<Text<'a>>,
    signal_strength: Option<i64>,
    uptime_seconds: Option<i64>,
    #[serde(borrow)]
    session_id: Option<Text<'a>>,
}

const FIELDS: [Field; 9] = [
    Field::optional("device_id", Form::Text),
    Field::required("online", Form::Flag),
    Field::optional("last_seen", Form::Text),
    Field::optional("timestamp", Form::Text),
    Field::optional("reason", Form::Text),
    Field::optional("firmware_version", Form::Text),
    Field::optional("signal_strength", Form::WholeNumber),
    Field::optional("uptime_seconds", Form::WholeNumber),
    Field::optional("session_id", Form::Text),
];

impl StatusMessage {
    /// Takes away a time of more than `max_skew` after `now`, our clock. What is said of a device is
    /// true whatever its clock says, but what has a time in the far future could never be followed by
    /// anything.
    pub fn distrust_clock(&mut self, now: Timestamp, max_skew: Duration) {
        let latest = SignedDuration::try_from(max_skew)
            .ok()
            .and_then(|skew| now.checked_add(skew).ok())
            .unwrap_or(Timestamp::MAX);
        self.at = self.at.filter(|at| *at <= latest);
    }

    /// Takes a payload that came on `devices/{device_id}/status`. Unknown fields are ignored.
    ///
    /// The default [`Limits`] hold.
    ///
    /// # Errors
    /// As for a reading; `topic_mismatch` if the payload names another device than the topic.
    pub fn parse(device_id: &str, payload: &[u8]) -> Result<Self, RejectError> {
        let wire: Wire<'_> = decode::object(payload, &Limits::default(), &FIELDS)?;
        check_level("device_id", device_id)?;
        check_device(device_id, wire.device_id.as_ref(), "status")?;
        let at = match (&wire.last_seen, &wire.timestamp) {
            (Some(text), _) => Some(time::parse("last_seen", &text.0)?),
            (None, Some(text)) => Some(time::parse("timestamp", &text.0)?),
            (None, None) => None,
        };
        let session_id = wire.session_id.as_ref().map(session_id).transpose()?;
        Ok(Self {
            device_id: device_id.to_owned(),
            online: wire.online,
            at,
            reason: short_text("reason", wire.reason, REASON_BYTES_MAX)?,
            firmware_version: short_text(
                "firmware_version",
                wire.firmware_version,
                FIRMWARE_BYTES_MAX,
            )?,
            signal_strength: in_range("signal_strength", wire.signal_strength)?,
            uptime_seconds: in_range("uptime_seconds", wire.uptime_seconds)?,
            session_id,
        })
    }
}

/// A message on `devices/{device_id}/telemetry`: what a device measures of itself. Each field may be
/// absent or `null`, for devices measure what they can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TelemetryMessage {
    /// Charge of its battery.
    pub battery_percent: Option<u8>,
    /// Received signal strength in dBm.
    pub signal_strength: Option<i32>,
    /// Seconds since it started.
    pub uptime_seconds: Option<u64>,
}

/// Numbers are wide, so that one out of range is told from one of a wrong type.
#[derive(Deserialize)]
struct TelemetryWire<'a> {
    #[serde(borrow)]
    device_id: Option<Text<'a>>,
    #[serde(borrow)]
    timestamp: Option<Text<'a>>,
    battery_percent: Option<f64>,
    signal_strength: Option<i64>,
    uptime_seconds: Option<i64>,
}

const TELEMETRY_FIELDS: [Field; 5] = [
    Field::optional("device_id", Form::Text),
    Field::optional("timestamp", Form::Text),
    Field::optional("battery_percent", Form::Number),
    Field::optional("signal_strength", Form::WholeNumber),
    Field::optional("uptime_seconds", Form::WholeNumber),
];

impl TelemetryMessage {
    /// Takes a payload that came on `devices/{device_id}/telemetry`. Unknown fields are ignored.
    ///
    /// The default [`Limits`] hold.
    ///
    /// # Errors
    /// As for [`StatusMessage::parse`].
    pub fn parse(device_id: &str, payload: &[u8]) -> Result<Self, RejectError> {
        let wire: TelemetryWire<'_> =
            decode::object(payload, &Limits::default(), &TELEMETRY_FIELDS)?;
        check_level("device_id", device_id)?;
        check_device(device_id, wire.device_id.as_ref(), "telemetry")?;
        if let Some(text) = &wire.timestamp {
            time::parse("timestamp", &text.0)?;
        }
        Ok(Self {
            battery_percent: wire.battery_percent.map(percent).transpose()?,
            signal_strength: in_range("signal_strength", wire.signal_strength)?,
            uptime_seconds: in_range("uptime_seconds", wire.uptime_seconds)?,
        })
    }
}

/// Checks that a payload names the device of its topic, or none.
fn check_device(device_id: &str, said: Option<&Text<'_>>, kind: &str) -> Result<(), RejectError> {
    let topic = |id: &str| Excerpt::new(&format!("devices/{id}/{kind}"));
    match said {
        Some(said) if said.0 != device_id => Err(RejectError::TopicMismatch {
            topic: topic(device_id),
            expected: topic(&said.0),
        }),
        _ => Ok(()),
    }
}

fn short_text(
    field: &'static str,
    text: Option<Text<'_>>,
    max: usize,
) -> Result<Option<String>, RejectError> {
    let Some(text) = text else {
        return Ok(None);
    };
    let rule = "it is too long or holds control characters";
    check_text(field, &text.0, 0..=max, &[], rule)?;
    Ok(Some(text.into_owned()))
}

fn in_range<T: TryFrom<i64>>(
    field: &'static str,
    value: Option<i64>,
) -> Result<Option<T>, RejectError> {
    let Some(value) = value else {
        return Ok(None);
    };
    match T::try_from(value) {
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(RejectError::InvalidField {
            field,
            value: Excerpt::new(&value.to_string()),
            rule: "it is out of the field's range",
        }),
    }
}

fn session_id(text: &Text<'_>) -> Result<Uuid, RejectError> {
    Uuid::try_parse(&text.0).map_err(|_| RejectError::InvalidField {
        field: "session_id",
        value: Excerpt::new(&text.0),
        rule: "it must be a UUID",
    })
}

impl DeviceStatus {
    /// The payload of the status.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        decode::to_json(self)
    }
}

impl DeviceWill {
    /// The payload of the will.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        decode::to_json(self)
    }
}
