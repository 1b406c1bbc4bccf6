//! Devices that are cut off again and again, against a real broker.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use device_sim::ledger::{self, Line};
use device_sim::{Output, Scenario, Summary, simulate};
use fleet_shared::model::{Limits, SensorReading};
use fleet_shared::service::Host;
use fleet_shared::session::{Options, QoS, Subscription};
use fleet_tests::{Acknowledge, Client, Mosquitto, TempDir, eventually, options};

const DEVICES: u32 = 20;
/// Every device loses its connection some times, also with publishes of QoS 1 and 2 in flight.
const CUT_OFF: &str = "
readings: { duplicate: { chance: 0.05, after: [0s, 1s] } }
wrong: { chance: 0.05, kinds: [not_utf8, topic_mismatch] }
connection:
  drop: { every: [1s, 2s], away: [0s, 300ms] }
  half_open: { every: [1s, 3s], lasts: [100ms, 500ms] }
  slow_reader: { every: [1s, 3s], lasts: [200ms, 1s], pause: [5ms, 20ms] }
";

async fn cut_off(broker: &Mosquitto, folder: &TempDir) -> (Summary, PathBuf) {
    let (chaos, ledger) = (folder.path().join("c.yaml"), folder.path().join("l.jsonl"));
    std::fs::write(&chaos, CUT_OFF).expect("a writable folder");
    let scenario = Scenario {
        devices: DEVICES,
        rate: Some(400.0),
        duration: Some(Duration::from_secs(6)),
        seed: Some(1),
        chaos: Some(chaos),
        ledger: Some(ledger.clone()),
        output: Output::Nothing,
        ..Scenario::default()
    };
    let (host, _stop) = Host::embedded("device-sim");
    let options = Options::new(broker.addr(), "not-used");
    let summary = simulate(scenario, options, host).await;
    (summary.expect("a run that ends well"), ledger)
}

#[actix::test]
async fn what_the_ledger_says_has_arrived_however_often_devices_vanish() {
    let broker = Mosquitto::start().await;
    let mut watching = options(broker.addr(), "watcher");
    watching.subscriptions = vec![
        Subscription::new("sensors/#", QoS::ExactlyOnce),
        Subscription::new("devices/+/status", QoS::AtLeastOnce),
    ];
    let watcher = Client::connected(watching, Acknowledge::AtOnce).await;
    let folder = TempDir::new().unwrap();
    let (summary, ledger) = cut_off(&broker, &folder).await;
    assert_eq!(summary.failed, 0, "{summary:?}");

    let lines: Vec<Line> = ledger::read_lines(&ledger)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let entered = lines
        .iter()
        .filter(|line| matches!(line, Line::Acknowledged(_)));
    assert_eq!(entered.count() as u64, summary.acknowledged);
    let wrong = lines
        .iter()
        .filter(|line| matches!(line, Line::DeadLetter(_)));
    assert!(wrong.count() > 20);
    let missing = || {
        let mut readings = HashSet::new();
        let mut messages = HashSet::new();
        for message in watcher.received() {
            messages.insert((message.topic, ledger::payload_hash(&message.payload)));
            if let Ok(reading) = SensorReading::parse(&message.payload, &Limits::default()) {
                readings.insert((
                    reading.sensor_id,
                    reading.timestamp,
                    reading.value.to_bits(),
                ));
            }
        }
        let has_arrived = |line: &&Line| match line {
            Line::Acknowledged(entry) => readings.contains(&(
                entry.sensor_id.clone(),
                entry.timestamp,
                entry.value.to_bits(),
            )),
            Line::DeadLetter(letter) => {
                messages.contains(&(letter.topic.clone(), letter.payload_hash.clone()))
            }
            Line::Open(_) | Line::Withheld(_) | Line::Link(_) => true,
        };
        lines.iter().filter(|line| !has_arrived(line)).count()
    };
    let limit = Duration::from_secs(20);
    eventually(
        limit,
        "all of the ledger has arrived",
        async || match missing() {
            0 => Ok(()),
            missing => Err(missing),
        },
    )
    .await;

    let wills = watcher.received().into_iter().filter(|message| {
        String::from_utf8_lossy(&message.payload).contains("unexpected_disconnect")
    });
    assert!(wills.count() >= 2 * DEVICES as usize);
}
