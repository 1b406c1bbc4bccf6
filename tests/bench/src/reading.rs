//! The readings that the benchmarks store.

use std::time::Duration;

use fleet_shared::model::{Quality, SensorReading};
use jiff::Timestamp;

/// Sensors that take turns.
const SENSORS: u64 = 1_000;

/// Reading number `n` of a run that began at `start`: a thousand sensors, a reading each every
/// 100 ms of their time, so that no key comes twice.
pub fn reading(n: u64, start: Timestamp) -> SensorReading {
    let sensor = n % SENSORS;
    SensorReading {
        sensor_id: format!("temp-sensor-{sensor:04}"),
        kind: "temperature".to_owned(),
        value: 20.0 + (n % 1_000) as f64 / 100.0,
        unit: "celsius".to_owned(),
        location: format!("site-1/room-{:02}", sensor % 50),
        timestamp: start + Duration::from_millis(n / SENSORS * 100),
        battery_percent: Some(80 + (n % 20) as u8),
        quality: Some(Quality::Good),
    }
}

/// Topic and payload of the same, as a device publishes it.
pub fn payload(n: u64, start: Timestamp) -> (String, Vec<u8>) {
    let reading = reading(n, start);
    (reading.topic(), reading.to_json())
}
