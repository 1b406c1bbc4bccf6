use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::topic::Excerpt;

use super::decode::{self, Field, Form, Limits, Text, check_text};
use super::reject::RejectError;
use super::time;

/// Longest sensor id in bytes.
pub const SENSOR_ID_BYTES_MAX: usize = 128;
/// Longest type of a reading in bytes.
pub const KIND_BYTES_MAX: usize = 64;
/// Longest unit in bytes.
pub const UNIT_BYTES_MAX: usize = 32;
/// Longest location in bytes.
pub const LOCATION_BYTES_MAX: usize = 256;
/// Most topic levels of a location.
pub const LOCATION_LEVELS_MAX: usize = 16;

/// One measurement of one sensor, as it is published to `sensors/{location}/{type}`.
///
/// The key is `(sensor_id, type, timestamp)`: a reading with a key seen before is the same reading.
/// What [`SensorReading::parse`] returns has passed [`SensorReading::validate`].
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(description = "One measurement of one sensor, published to sensors/{location}/{type}.")]
pub struct SensorReading {
    /// Which sensor; one topic level of 1 to 128 bytes, unique in the fleet.
    #[schemars(length(min = 1, max = SENSOR_ID_BYTES_MAX), regex(pattern = "^[^/+#\\u0000-\\u001f\\u007f-\\u009f]+$"))]
    pub sensor_id: String,
    /// What is measured, `temperature` for one; one topic level of 1 to 64 bytes.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = KIND_BYTES_MAX), regex(pattern = "^[^/+#\\u0000-\\u001f\\u007f-\\u009f]+$"))]
    pub kind: String,
    /// The measured value, a finite number.
    pub value: f64,
    /// Unit of the value, `celsius` for one; at most 32 bytes, empty if it has none.
    #[schemars(length(max = UNIT_BYTES_MAX))]
    pub unit: String,
    /// Where it was measured: 1 to 16 topic levels, 1 to 256 bytes together.
    #[schemars(length(min = 1, max = LOCATION_BYTES_MAX), regex(pattern = "^[^+#\\u0000-\\u001f\\u007f-\\u009f]+$"))]
    pub location: String,
    /// When it was measured; years 1970 to 9999, kept to the microsecond.
    pub timestamp: Timestamp,
    /// Charge of the sensor's battery in percent, 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub battery_percent: Option<u8>,
    /// How far the sensor trusts its value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality: Option<Quality>,
}

/// How far a sensor trusts its own value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Quality {
    /// As good as the sensor gets.
    Good,
    /// Usable.
    Fair,
    /// Doubtful.
    Poor,
}

impl Quality {
    /// The quality as payloads and stores write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Fair => "fair",
            Self::Poor => "poor",
        }
    }

    /// The quality of that name, as [`Quality::as_str`] writes it.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "good" => Some(Self::Good),
            "fair" => Some(Self::Fair),
            "poor" => Some(Self::Poor),
            _ => None,
        }
    }
}

/// The payload as it lies there; `battery_percent` is wide, so that a value out of range is told
/// from one of a wrong type.
#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    sensor_id: Text<'a>,
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    value: f64,
    #[serde(borrow)]
    unit: Text<'a>,
    #[serde(borrow)]
    location: Text<'a>,
    #[serde(borrow)]
    timestamp: Text<'a>,
    battery_percent: Option<f64>,
    #[serde(borrow)]
    quality: Option<Text<'a>>,
}

const FIELDS: [Field; 8] = [
    Field::required("sensor_id", Form::Text),
    Field::required("type", Form::Text),
    Field::required("value", Form::Number),
    Field::required("unit", Form::Text),
    Field::required("location", Form::Text),
    Field::required("timestamp", Form::Text),
    Field::optional("battery_percent", Form::Number),
    Field::optional("quality", Form::Text),
];

impl SensorReading {
    /// Takes a payload as a reading. Unknown fields are ignored; an absent optional field may also
    /// be `null`; a known field may not come twice.
    ///
    /// # Errors
    /// In this order: `too_large`, `not_utf8`, `too_deep`, then `malformed` or `not_finite`, then
    /// `invalid_field`.
    pub fn parse(payload: &[u8], limits: &Limits) -> Result<Self, RejectError> {
        let mut reading = Self::blank();
        reading.read(payload, limits)?;
        Ok(reading)
    }

    /// A place for [`SensorReading::read`]; no reading by itself.
    #[must_use]
    pub const fn blank() -> Self {
        Self {
            sensor_id: String::new(),
            kind: String::new(),
            value: 0.0,
            unit: String::new(),
            location: String::new(),
            timestamp: Timestamp::UNIX_EPOCH,
            battery_percent: None,
            quality: None,
        }
    }

    /// As [`SensorReading::parse`], in the memory of a reading that is not needed any more: for who
    /// looks at many and keeps few. After an error it is no reading.
    ///
    /// # Errors
    /// As [`SensorReading::parse`].
    pub fn read(&mut self, payload: &[u8], limits: &Limits) -> Result<(), RejectError> {
        let wire: Wire<'_> = decode::object(payload, limits, &FIELDS)?;
        self.timestamp = time::parse("timestamp", &wire.timestamp.0)?;
        self.battery_percent = wire.battery_percent.map(percent).transpose()?;
        self.quality = wire.quality.as_ref().map(quality).transpose()?;
        self.value = wire.value;
        for (field, text) in [
            (&mut self.sensor_id, &wire.sensor_id),
            (&mut self.kind, &wire.kind),
            (&mut self.unit, &wire.unit),
            (&mut self.location, &wire.location),
        ] {
            field.clear();
            field.push_str(&text.0);
        }
        self.validate()
    }

    /// Checks what the types leave open, for readings that were not parsed but put together.
    ///
    /// # Errors
    /// `not_finite` or `invalid_field`.
    pub fn validate(&self) -> Result<(), RejectError> {
        if !self.value.is_finite() {
            return Err(RejectError::NotFinite {
                field: "value".into(),
                value: Excerpt::new(&self.value.to_string()),
            });
        }
        check_level("sensor_id", &self.sensor_id)?;
        check_text(
            "type",
            &self.kind,
            1..=KIND_BYTES_MAX,
            &['/', '+', '#'],
            "it must be 1 to 64 bytes without `/`, `+`, `#` and control characters",
        )?;
        check_text(
            "unit",
            &self.unit,
            0..=UNIT_BYTES_MAX,
            &[],
            "it must be at most 32 bytes without control characters",
        )?;
        check_text(
            "location",
            &self.location,
            1..=LOCATION_BYTES_MAX,
            &['+', '#'],
            "it must be 1 to 256 bytes without `+`, `#` and control characters",
        )?;
        if self.location.split('/').count() > LOCATION_LEVELS_MAX {
            return Err(RejectError::InvalidField {
                field: "location",
                value: Excerpt::new(&self.location),
                rule: "it must have at most 16 levels",
            });
        }
        if self.timestamp < Timestamp::UNIX_EPOCH {
            return Err(RejectError::InvalidField {
                field: "timestamp",
                value: Excerpt::new(&self.timestamp.to_string()),
                rule: "it must not be before 1970",
            });
        }
        match self.battery_percent {
            Some(battery) => percent(f64::from(battery)).map(drop),
            None => Ok(()),
        }
    }

    /// Checks that the reading came on the topic its payload says.
    ///
    /// # Errors
    /// `topic_mismatch` unless `topic` is `sensors/{location}/{type}`.
    pub fn check_topic(&self, topic: &str) -> Result<(), RejectError> {
        let is_ours = topic
            .strip_prefix("sensors/")
            .and_then(|rest| rest.strip_prefix(self.location.as_str()))
            .and_then(|rest| rest.strip_prefix('/'))
            == Some(self.kind.as_str());
        if is_ours {
            return Ok(());
        }
        Err(RejectError::TopicMismatch {
            topic: Excerpt::new(topic),
            expected: Excerpt::new(&self.topic()),
        })
    }

    /// Checks that the reading is dated at most `max_skew` after `now`, our clock.
    ///
    /// # Errors
    /// `future_timestamp`.
    pub fn check_clock(&self, now: Timestamp, max_skew: Duration) -> Result<(), RejectError> {
        let ahead = self.timestamp.duration_since(now);
        if SignedDuration::try_from(max_skew).is_ok_and(|max| ahead > max) {
            return Err(RejectError::FutureTimestamp {
                timestamp: self.timestamp,
                now,
                max_skew,
            });
        }
        Ok(())
    }

    /// The topic the reading belongs on, `sensors/{location}/{type}`.
    #[must_use]
    pub fn topic(&self) -> String {
        format!("sensors/{}/{}", self.location, self.kind)
    }

    /// The payload of the reading.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        decode::to_json(self)
    }

    /// The refusal of this reading because the store holds another value under its key.
    #[must_use]
    pub fn conflict(&self) -> RejectError {
        RejectError::Conflict {
            sensor_id: Excerpt::new(&self.sensor_id),
            kind: Excerpt::new(&self.kind),
            timestamp: self.timestamp,
        }
    }
}

/// Checks an id of a sensor or a device.
pub(super) fn check_level(field: &'static str, id: &str) -> Result<(), RejectError> {
    check_text(
        field,
        id,
        1..=SENSOR_ID_BYTES_MAX,
        &['/', '+', '#'],
        "it must be 1 to 128 bytes without `/`, `+`, `#` and control characters",
    )
}

pub(super) fn percent(value: f64) -> Result<u8, RejectError> {
    // 85.0 is a whole number to JSON Schema, and Python writes it that way.
    if (0.0..=100.0).contains(&value) && value.fract() == 0.0 {
        return Ok(value as u8);
    }
    Err(RejectError::InvalidField {
        field: "battery_percent",
        value: Excerpt::new(&value.to_string()),
        rule: "it must be a whole number from 0 to 100",
    })
}

fn quality(text: &Text<'_>) -> Result<Quality, RejectError> {
    Quality::from_name(&text.0).ok_or_else(|| RejectError::InvalidField {
        field: "quality",
        value: Excerpt::new(&text.0),
        rule: "it must be `good`, `fair` or `poor`",
    })
}
