//! What is read back: keys, rows, filters and reports.

use fleet_shared::model::SensorReading;
use jiff::Timestamp;
use uuid::Uuid;

/// The key of a reading: a sensor reports one value of a type at an instant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReadingKey {
    /// The sensor.
    pub sensor_id: String,
    /// What it measures; `type` in payloads and tables.
    pub kind: String,
    /// When it measured; compared at microseconds.
    pub timestamp: Timestamp,
}

impl ReadingKey {
    /// The key of `reading`.
    pub fn of(reading: &SensorReading) -> Self {
        Self {
            sensor_id: reading.sensor_id.clone(),
            kind: reading.kind.clone(),
            timestamp: reading.timestamp,
        }
    }
}

/// A reading as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredReading {
    /// The reading; its timestamp has whole microseconds.
    pub reading: SensorReading,
    /// When the service took it from the broker.
    pub received_at: Timestamp,
}

/// Which dead letters are meant; an empty filter means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterFilter {
    /// Only those refused by this service.
    pub service: Option<String>,
    /// Only those refused for this reason.
    pub reason: Option<String>,
}

/// A dead letter as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredDeadLetter {
    /// Its name; names sort by time.
    pub id: Uuid,
    /// The service that refused it.
    pub service: String,
    /// The topic it was published to.
    pub topic: String,
    /// The payload, byte for byte.
    pub payload: Vec<u8>,
    /// One word of a closed set.
    pub reason: String,
    /// The reason in a sentence.
    pub detail: String,
    /// When the service took it from the broker.
    pub received_at: Timestamp,
}

/// How many dead letters a service has for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterCount {
    /// The service that refused them.
    pub service: String,
    /// Why.
    pub reason: String,
    /// How many there are.
    pub count: u64,
}

/// What a retention run deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetainReport {
    /// Readings deleted; 0 where whole chunks were dropped instead.
    pub readings: u64,
    /// Dead letters deleted.
    pub dead_letters: u64,
    /// Chunks of a TimescaleDB hypertable that were dropped.
    pub chunks: u64,
}

/// The smallest UUID version 7 of the millisecond of `at`: all names given before sort below it.
pub(crate) fn first_id_at(at: Timestamp) -> Uuid {
    let millis = u64::try_from(at.as_millisecond()).unwrap_or(0);
    Uuid::from_u64_pair(millis << 16, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_around_the_first_id_of_an_instant() {
        let at = Timestamp::from_millisecond(1_790_000_000_000).unwrap();
        let named = |millis: u64| {
            Uuid::new_v7(uuid::Timestamp::from_unix(
                uuid::NoContext,
                millis / 1_000,
                u32::try_from(millis % 1_000).unwrap() * 1_000_000,
            ))
        };
        assert!(named(1_789_999_999_999) < first_id_at(at));
        assert!(named(1_790_000_000_000) > first_id_at(at));
        assert_eq!(first_id_at(Timestamp::MIN), Uuid::nil());
    }
}
