//! A simulated sensor, and one measurement of it.

use std::borrow::Cow;
use std::sync::Arc;

use fleet_shared::model::{Quality, SensorReading};
use fleet_shared::session::{ByteString, Publish, QoS};
use jiff::Timestamp;

/// What all readings of one sensor have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sensor {
    /// `sensor_id` of its readings.
    pub id: String,
    /// `type` of its readings and last level of its topic.
    pub kind: Cow<'static, str>,
    /// Unit of its values.
    pub unit: Cow<'static, str>,
    /// Where it hangs; may span several topic levels.
    pub location: Cow<'static, str>,
    /// `sensors/{location}/{type}`, shared by the sensors of one place and kind.
    pub topic: ByteString,
    /// Metric label for the topic: its template.
    pub label: &'static str,
    /// Delivery guarantee of its readings.
    pub qos: QoS,
    /// Whether the broker keeps its last reading for later subscribers.
    pub retain: bool,
}

/// One measurement, not yet encoded.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// Who measured.
    pub sensor: Arc<Sensor>,
    /// What, in the sensor's unit.
    pub value: f64,
    /// When, at microsecond precision.
    pub timestamp: Timestamp,
    /// Charge of the sensor's battery, if it has one.
    pub battery_percent: Option<u8>,
    /// How far the value can be trusted, if the sensor says so.
    pub quality: Option<Quality>,
}

impl Measurement {
    /// The reading on the wire.
    #[must_use]
    pub fn reading(&self) -> SensorReading {
        SensorReading {
            sensor_id: self.sensor.id.clone(),
            kind: self.sensor.kind.to_string(),
            value: self.value,
            unit: self.sensor.unit.to_string(),
            location: self.sensor.location.to_string(),
            timestamp: self.timestamp,
            battery_percent: self.battery_percent,
            quality: self.quality,
        }
    }

    /// The publish that carries the reading; the same measurement gives the same bytes.
    #[must_use]
    pub fn publish(&self) -> Publish {
        Publish::new(
            self.sensor.topic.clone(),
            self.sensor.label,
            self.reading().to_json(),
        )
        .qos(self.sensor.qos)
        .retain(self.sensor.retain)
    }
}
