//! Readings and dead letters to write.

use std::sync::Arc;

use fleet_shared::model::{Quality, SensorReading};
use fleet_store::{Batch, DeadLetter, NewReading, Outcome, Store};
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

/// 2026-11-23T07:00:00Z plus some seconds and a microsecond or two.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_microsecond(1_795_417_200_000_000 + seconds * 1_000_003).unwrap()
}

pub(crate) fn reading(sensor: u32, seconds: i64, value: f64) -> NewReading {
    NewReading {
        reading: SensorReading {
            sensor_id: format!("sensor-{sensor:04}"),
            kind: "temperature".to_owned(),
            value,
            unit: "celsius".to_owned(),
            location: format!("building-a/room-{}", sensor % 7),
            timestamp: at(seconds),
            battery_percent: Some(87),
            quality: Some(Quality::Good),
        },
        received_at: at(seconds) + SignedDuration::from_millis(3),
    }
}

pub(crate) fn letter(topic: &str, reason: &str, payload: &[u8]) -> DeadLetter {
    DeadLetter {
        id: Uuid::now_v7(),
        service: "ingest".to_owned(),
        topic: topic.to_owned(),
        payload: payload.to_owned(),
        reason: reason.to_owned(),
        detail: "field `value` is missing".to_owned(),
        received_at: at(1),
        redelivered: false,
    }
}

pub(crate) fn batch_of(readings: Vec<NewReading>) -> Arc<Batch> {
    Arc::new(Batch {
        readings,
        dead_letters: Vec::new(),
    })
}

pub(crate) async fn write(store: &dyn Store, readings: Vec<NewReading>) -> Vec<Outcome> {
    store.write_batch(batch_of(readings)).await.unwrap()
}

pub(crate) async fn write_letters(store: &dyn Store, dead_letters: Vec<DeadLetter>) {
    let batch = Batch {
        readings: Vec::new(),
        dead_letters,
    };
    assert!(store.write_batch(Arc::new(batch)).await.unwrap().is_empty());
}
