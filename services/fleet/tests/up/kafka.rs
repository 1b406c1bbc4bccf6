//! `fleet up` with the bridge, to a real Kafka.

use std::collections::HashSet;
use std::time::Duration;

use fleet_tests::{Kafka, eventually};

use crate::running::Up;

#[tokio::test]
async fn readings_go_to_kafka_too_and_both_sides_have_all_of_them() {
    let kafka = Kafka::start().await;
    let brokers = kafka.brokers();
    let mut up = Up::start(&[
        "--devices",
        "5",
        "--seed",
        "1",
        "--duration",
        "8s",
        "--kafka-brokers",
        &brokers,
    ]);
    up.wait_for("stored readings", |line| {
        line["readings_stored"].as_u64() >= Some(10)
    });
    let ended = up.ended();
    let stored = ended["stored"].as_u64().unwrap();
    let mut ids = HashSet::new();
    eventually(
        Duration::from_secs(60),
        "all of them are in Kafka",
        async || {
            let records = kafka.records("sensors.readings");
            ids.extend(
                records
                    .iter()
                    .filter_map(|it| it.header("message-id").map(str::to_owned)),
            );
            if ids.len() as u64 >= stored {
                Ok(())
            } else {
                Err((ids.len(), stored))
            }
        },
    )
    .await;
}
