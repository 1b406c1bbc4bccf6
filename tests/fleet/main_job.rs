//! The main job: a device publishes, and the reading is a durable row, once.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fleet_tests::{Process, Program, TempDir, eventually};
use jiff::ToSpan;
use jiff::civil::date;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde_json::Value;

use crate::site::{LONG, Site, Verified, number};

/// Rows of the data set that the replay was made for, and its columns of numbers.
const ROWS: usize = 8_143;
const COLUMNS: u64 = 6;

/// A file of the form in which that data set comes: the first column, a row number, has no name.
fn room(dir: &Path, rows: usize) -> PathBuf {
    let mut rng = Pcg64Mcg::seed_from_u64(8_143);
    let start = date(2015, 2, 4).at(17, 51, 0, 0);
    let mut text = String::from(
        "\"date\",\"Temperature\",\"Humidity\",\"Light\",\"CO2\",\"HumidityRatio\",\"Occupancy\"\n",
    );
    for row in 0..rows {
        // Some minutes last a second less, as in the field.
        let seconds = row as i64 * 60 - i64::from(rng.random_bool(0.3));
        let time = start
            .saturating_add(seconds.seconds())
            .strftime("%Y-%m-%d %H:%M:%S");
        let temperature: f64 = rng.random_range(19.0..24.0);
        let humidity: f64 = rng.random_range(16.0..40.0);
        let light = rng.random_range(0..1_600);
        let co2: f64 = rng.random_range(412.0..2_030.0);
        let ratio: f64 = rng.random_range(0.002..0.007);
        let occupied = u8::from(light > 400);
        writeln!(
            text,
            "\"{}\",\"{time}\",{temperature:.2},{humidity:.4},{light},{co2:.2},{ratio},{occupied}",
            row + 1
        )
        .unwrap();
    }
    let path = dir.join("room.csv");
    std::fs::write(&path, text).unwrap();
    path
}

fn nothing_wrong(published: u64, acknowledged: u64) -> Verified {
    Verified {
        published,
        acknowledged,
        stored: acknowledged,
        missing: 0,
        duplicates: 0,
        conflicts: 0,
    }
}

#[actix::test]
async fn replayed_file_is_stored_once_and_a_second_replay_adds_no_row() {
    let total = ROWS as u64 * COLUMNS;
    let site = Site::on_sqlite().await;
    let file = room(site.path("").as_path(), ROWS);
    let mut ingest = site.ingest("ingest-0").start();
    ingest.ready(LONG).await;
    assert_eq!(site.replay(&file).output(LONG).await.0, 0);
    assert_eq!(site.verified(LONG).await, nothing_wrong(total, total));
    assert_eq!(site.replay(&file).output(LONG).await.0, 0);
    eventually(LONG, "the second replay was taken", async || {
        let metrics = ingest.metrics().await.map_err(|error| error.to_string())?;
        let taken = metrics.sum("ingest_readings_total", &[("outcome", "duplicate")]);
        if taken == total as f64 {
            Ok(())
        } else {
            Err(taken.to_string())
        }
    })
    .await;
    assert_eq!(site.verified(LONG).await, nothing_wrong(2 * total, total));
    assert_eq!(site.number("SELECT count(*) FROM readings"), Some(total));
    assert_eq!(site.number("SELECT count(*) FROM dead_letters"), Some(0));
    ingest.terminate();
    assert_eq!(ingest.exit(LONG).await, 0);
}

#[actix::test]
async fn ingest_killed_in_the_middle_of_a_replay_loses_nothing() {
    let total = ROWS as u64 * COLUMNS;
    let site = Site::on_sqlite().await;
    let file = room(site.path("").as_path(), ROWS);
    let mut ingest = site.ingest("ingest-0").start();
    ingest.ready(LONG).await;
    let mut replay = site.replay(&file).start();
    for before in [total / 10, total / 3, total / 2] {
        site.stored_at_least(before).await;
        ingest.kill();
        let stored = site.number("SELECT count(*) FROM readings").unwrap();
        assert!(
            stored < total,
            "the replay was over before the kill at {before}"
        );
        ingest = site.ingest("ingest-0").start();
    }
    assert_eq!(replay.exit(LONG).await, 0);
    assert_eq!(site.verified(LONG).await, nothing_wrong(total, total));
    assert_eq!(site.number("SELECT count(*) FROM readings"), Some(total));
}

/// `fleet up` in a directory of its own, on free ports.
fn fleet_up(dir: &Path) -> Program {
    Program::new("fleet")
        .arg("up")
        .flag("--data-dir", dir.display())
        .flag("--mqtt-addr", "127.0.0.1:0")
        .flag("--admin-addr", "127.0.0.1:0")
        .flag("--devices", 20)
        .flag("--seed", 7)
}

/// The lines of JSON that `fleet up` has written so far.
fn events(output: &str) -> Vec<Value> {
    output
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// The port of the broker in a running `fleet up`.
async fn broker_port(fleet: &mut Process) -> u16 {
    eventually(
        LONG,
        "the fleet says where its broker listens",
        async || {
            assert!(fleet.is_running(), "the fleet has ended");
            let output = fleet.stdout();
            let started = events(&output)
                .into_iter()
                .find(|event| event["event"] == "started");
            let port = started.as_ref().and_then(|event| {
                event["broker"]
                    .as_str()?
                    .rsplit_once(':')?
                    .1
                    .parse::<u16>()
                    .ok()
            });
            port.ok_or(output)
        },
    )
    .await
}

/// Publishes with Mosquitto's client, as a stranger would.
fn mosquitto_pub(port: u16, topic: &str, payload: &str) {
    let published = Command::new("mosquitto_pub")
        .args([
            "-V",
            "5",
            "-q",
            "1",
            "-p",
            &port.to_string(),
            "-t",
            topic,
            "-m",
            payload,
        ])
        .status()
        .expect("this test needs mosquitto_pub: `apt-get install mosquitto-clients`");
    assert!(published.success(), "{published}");
}

#[actix::test]
async fn one_command_runs_the_fleet_and_ends_by_itself() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("new/data");
    let mut fleet = fleet_up(&data).flag("--duration", "8s").start();
    assert_eq!(fleet.exit(LONG).await, 0);
    let events = events(&fleet.stdout());
    let last = events.last().expect("the fleet writes lines of JSON");
    assert_eq!(last["event"], "ended", "{last}");
    let stored = number(&data.join("fleet.db"), "SELECT count(*) FROM readings").unwrap();
    assert!(stored >= 20, "{stored} readings of 20 devices in 8 seconds");
    assert_eq!(last["stored"], stored);
    assert_eq!(last["failed"], 0);
    let (code, answer) = Program::new("fleet")
        .arg("verify")
        .flag("--data-dir", data.display())
        .flag("--output", "json")
        .output(LONG)
        .await;
    assert_eq!(code, 0, "{answer}");
}

#[actix::test]
async fn valid_reading_is_a_row_broken_one_a_dead_letter_and_nothing_stops() {
    let dir = TempDir::new().unwrap();
    let store = dir.path().join("fleet.db");
    let mut fleet = fleet_up(dir.path()).start();
    let port = broker_port(&mut fleet).await;
    let reading = r#"{"sensor_id":"stranger-1","type":"temperature","value":21.5,"unit":"celsius",
        "location":"hall","timestamp":"2026-01-02T03:04:05Z"}"#;
    mosquitto_pub(port, "sensors/hall/temperature", reading);
    mosquitto_pub(port, "sensors/hall/temperature", "{ this is no reading");
    let rows = "SELECT count(*) FROM readings WHERE sensor_id = 'stranger-1'";
    let letters = "SELECT count(*) FROM dead_letters WHERE reason = 'malformed'";
    eventually(LONG, "one row and one dead letter", async || {
        match (number(&store, rows), number(&store, letters)) {
            (Some(1), Some(1)) => Ok(()),
            other => Err(other),
        }
    })
    .await;
    let all = "SELECT count(*) FROM readings";
    let before = number(&store, all).unwrap();
    eventually(LONG, "the fleet goes on", async || {
        assert!(fleet.is_running(), "the fleet has ended");
        match number(&store, all) {
            Some(now) if now > before => Ok(()),
            other => Err(other),
        }
    })
    .await;
    fleet.terminate();
    assert_eq!(fleet.exit(Duration::from_secs(20)).await, 0);
    assert_eq!(number(&store, rows), Some(1));
    assert_eq!(number(&store, "SELECT count(*) FROM dead_letters"), Some(1));
}
