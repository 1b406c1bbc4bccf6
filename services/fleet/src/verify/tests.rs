//! Ledgers of any length are compared in the same memory.

use std::sync::Arc;
use std::time::Duration;

use fleet_shared::config::DatabaseUrl;
use fleet_shared::model::SensorReading;
use fleet_shared::session::QoS;
use fleet_store::{Batch, NewReading, OpenOptions};
use jiff::Timestamp;

use device_sim::ledger;

use super::join::verify_shares;
use super::report::{Counts, Kind};

#[actix::test]
async fn a_ledger_is_compared_in_shares_with_the_same_result() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.jsonl");
    let ledger = ledger::Ledger::open(&path).unwrap();
    let url = DatabaseUrl::Sqlite(folder.path().join("fleet.db"));
    let store = fleet_store::open(&url, OpenOptions::writer("test"))
        .await
        .unwrap();
    let mut batch = Batch::default();
    // 9,000 readings, of which every ninth is published twice, every tenth is missing and
    // every hundredth has another value.
    for number in 0..10_000_i64 {
        let timestamp = Timestamp::from_microsecond(number % 9_000).unwrap();
        let entry = ledger::NewEntry {
            sensor_id: "s",
            kind: "temperature",
            timestamp,
            value: 0.5,
            qos: QoS::AtLeastOnce,
            topic: "sensors/hall/temperature",
            acknowledged_at: timestamp,
        };
        ledger.append(&entry).unwrap();
        if number < 9_000 && number % 10 != 1 {
            let reading = SensorReading {
                sensor_id: "s".to_owned(),
                kind: "temperature".to_owned(),
                value: if number % 100 == 0 { 0.25 } else { 0.5 },
                unit: String::new(),
                location: "hall".to_owned(),
                timestamp,
                battery_percent: None,
                quality: None,
            };
            batch.readings.push(NewReading {
                reading,
                received_at: timestamp,
            });
        }
    }
    ledger.close().unwrap();
    store.write_batch(Arc::new(batch)).await.unwrap();
    let expected = Counts {
        published: 10_000,
        acknowledged: 9_000,
        stored: 8_100,
        missing: 900,
        duplicates: 0,
        conflicts: 90,
        // Each line of the ninth part has the acknowledgement of another.
        repeated: 1_000,
        ..Counts::default()
    };
    for shares in [1, 3] {
        let proof = verify_shares(&path, store.as_ref(), Duration::MAX, shares)
            .await
            .unwrap();
        assert_eq!(proof.counts, expected, "{shares}");
        assert_eq!(
            [Kind::Missing, Kind::Conflict].map(|kind| proof.findings[&kind].len()),
            [10, 10]
        );
    }
}
