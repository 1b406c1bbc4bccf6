//! A simulated sensor, and one measurement of it.

use std::sync::Arc;

use fleet_shared::model::{Quality, SensorReading};
use fleet_shared::session::{ByteString, Publish, QoS};
use jiff::Timestamp;
use serde::Serialize;

use crate::chaos::Intents;
use crate::stamp;

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

/// A reading on the wire; the fields are those of `SensorReading`.
#[derive(Serialize)]
struct Wire<'a> {
    sensor_id: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    value: f64,
    unit: &'a str,
    location: &'a str,
    #[serde(serialize_with = "stamp::serialize")]
    timestamp: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    battery_percent: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quality: Option<Quality>,
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
        let mut json = self.json();
        if self.padding_bytes > 0 && json.pop() == Some(b'}') {
            json.extend_from_slice(br#","padding":""#);
            json.resize(json.len() + self.padding_bytes as usize, b'.');
            json.extend_from_slice(br#""}"#);
        }
        json
    }

    /// As `SensorReading::to_json`, without copies of the texts.
    fn json(&self) -> Vec<u8> {
        let channel = &self.sensor.channel;
        let wire = Wire {
            sensor_id: &self.sensor.id,
            kind: &channel.kind,
            value: self.value,
            unit: &channel.unit,
            location: &channel.location,
            timestamp: self.timestamp,
            battery_percent: self.battery_percent,
            quality: self.quality,
        };
        let mut json = Vec::with_capacity(256 + self.padding_bytes as usize);
        serde_json::to_writer(&mut json, &wire)
            .expect("a struct of texts and numbers always has a JSON form");
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_measurement_says_what_its_reading_says(
            value in any::<f64>().prop_filter("finite", |it| it.is_finite()),
            micros in 0..4_000_000_000_000_000_i64,
            battery_percent in prop::option::of(0..=100_u8), id in ".*", good in any::<bool>(),
        ) {
            let channel = Channel {
                kind: "temperature".into(),
                unit: "\u{b0}C".into(),
                location: "a/\"b\"".into(),
                topic: "sensors/a/temperature".into(),
                label: "sensors",
                qos: QoS::AtLeastOnce,
                retain: false,
            };
            let measurement = Measurement {
                sensor: Arc::new(Sensor { id: id.into(), channel: Arc::new(channel) }),
                value,
                timestamp: Timestamp::from_microsecond(micros).unwrap(),
                battery_percent,
                quality: good.then_some(Quality::Good),
                padding_bytes: 0,
                intents: Intents::default(),
            };
            prop_assert_eq!(measurement.payload(), measurement.reading().to_json());
        }
    }
}
