//! A simulated sensor, and one measurement of it.

use std::sync::Arc;

use fleet_shared::model::{Quality, SensorReading};
use fleet_shared::session::{ByteString, Publish, QoS};
use jiff::Timestamp;

use crate::chaos::Intents;

/// What all sensors of one kind in one place have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// `type` of their readings and last level of their topic.
    pub kind: Arc<str>,
    /// Unit of their values.
    pub unit: Arc<str>,
    /// Where they hang; may span several topic levels.
    pub location: Arc<str>,
    /// `sensors/{location}/{type}`.
    pub topic: ByteString,
    /// Metric label for the topic: its template.
    pub label: &'static str,
    /// Delivery guarantee of their readings.
    pub qos: QoS,
    /// Whether the broker keeps their last reading for later subscribers.
    pub retain: bool,
}

/// A sensor. There may be hundreds of thousands, so what they share is kept once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sensor {
    /// `sensor_id` of its readings.
    pub id: Box<str>,
    /// What it measures, and where.
    pub channel: Arc<Channel>,
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
    /// Bytes of a field that nobody reads, for payloads of many sizes; none without.
    pub padding_bytes: u32,
    /// What was done to it on purpose.
    pub intents: Intents,
}

impl Measurement {
    /// The reading on the wire.
    #[must_use]
    pub fn reading(&self) -> SensorReading {
        let channel = &self.sensor.channel;
        SensorReading {
            sensor_id: self.sensor.id.to_string(),
            kind: channel.kind.to_string(),
            value: self.value,
            unit: channel.unit.to_string(),
            location: channel.location.to_string(),
            timestamp: self.timestamp,
            battery_percent: self.battery_percent,
            quality: self.quality,
        }
    }

    /// The reading as JSON; with padding it has one more field, which receivers ignore.
    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        let mut json = self.reading().to_json();
        if self.padding_bytes > 0 && json.pop() == Some(b'}') {
            json.extend_from_slice(br#","padding":""#);
            json.resize(json.len() + self.padding_bytes as usize, b'.');
            json.extend_from_slice(br#""}"#);
        }
        json
    }

    /// The publish that carries the reading; the same measurement gives the same bytes.
    #[must_use]
    pub fn publish(&self) -> Publish {
        let channel = &self.sensor.channel;
        Publish::new(channel.topic.clone(), channel.label, self.payload())
            .qos(channel.qos)
            .retain(channel.retain)
            .expect_subscriber()
    }
}
