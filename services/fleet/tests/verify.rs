//! `fleet verify` on a small store with planted faults.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use device_sim::ledger::{Ledger, NewEntry};
use fleet_shared::config::DatabaseUrl;
use fleet_shared::model::SensorReading;
use fleet_shared::session::QoS;
use fleet_store::{Batch, NewReading, OpenOptions, Outcome};
use jiff::Timestamp;

/// A data folder with a ledger and a store, like that of `fleet up`.
struct Run {
    folder: tempfile::TempDir,
}

impl Run {
    /// Readings as (second, value).
    async fn new(ledger: &[(i64, f64)], stored: &[(i64, f64)]) -> Self {
        let run = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        run.append(ledger);
        let url = DatabaseUrl::Sqlite(run.path("fleet.db"));
        let store = fleet_store::open(&url, OpenOptions::writer("test"))
            .await
            .unwrap();
        let readings = stored
            .iter()
            .map(|(second, value)| reading(*second, *value))
            .collect();
        let outcomes = store
            .write_batch(Arc::new(Batch {
                readings,
                dead_letters: Vec::new(),
            }))
            .await;
        assert!(
            outcomes
                .unwrap()
                .iter()
                .all(|outcome| *outcome == Outcome::Stored)
        );
        store.close().await.unwrap();
        run
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn append(&self, entries: &[(i64, f64)]) {
        let ledger = Ledger::open(self.path("ledger.jsonl")).unwrap();
        for (second, value) in entries {
            let entry = NewEntry {
                sensor_id: "t-1",
                kind: "temperature",
                timestamp: Timestamp::from_second(*second).unwrap(),
                value: *value,
                qos: QoS::AtLeastOnce,
                topic: "sensors/hall/temperature",
                acknowledged_at: Timestamp::UNIX_EPOCH,
            };
            ledger.append(&entry).unwrap();
        }
        ledger.close().unwrap();
    }

    fn verify(&self, output: &str) -> (Option<i32>, String) {
        let output = verify(self.folder.path(), &["--output", output]);
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    }
}

fn reading(second: i64, value: f64) -> NewReading {
    let timestamp = Timestamp::from_second(second).unwrap();
    let payload = format!(
        r#"{{"sensor_id":"t-1","type":"temperature","value":{value},"unit":"celsius","location":"hall","timestamp":"{timestamp}"}}"#
    );
    let reading = SensorReading::parse(payload.as_bytes(), &fleet_shared::model::Limits::default());
    NewReading {
        reading: reading.unwrap(),
        received_at: timestamp,
    }
}

fn verify(data_dir: &Path, arguments: &[&str]) -> Output {
    fleet_verify(&[&["--data-dir", data_dir.to_str().unwrap()], arguments].concat())
}

fn fleet_verify(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fleet"))
        .env_remove("DATABASE_URL")
        .arg("verify")
        .args(arguments)
        .output()
        .unwrap()
}

#[actix::test]
async fn a_whole_run_is_proven() {
    let run = Run::new(&[(1, 1.0), (2, 2.0)], &[(1, 1.0), (2, 2.0), (3, 3.0)]).await;
    let (code, json) = run.verify("json");
    assert_eq!(code, Some(0));
    insta::assert_snapshot!(json.trim(), @r#"{"published":2,"acknowledged":2,"stored":2,"missing":0,"duplicates":0,"conflicts":0}"#);
    let (code, text) = run.verify("text");
    assert_eq!(code, Some(0));
    insta::assert_snapshot!("whole", text);
}

#[actix::test]
async fn missing_and_different_readings_are_counted_and_named() {
    let ledger: Vec<_> = (0..20).map(|second| (second, 0.1)).collect();
    let stored: Vec<_> = (0..8)
        .map(|second| (second, if second < 6 { 0.1 } else { 0.2 }))
        .collect();
    let run = Run::new(&ledger, &stored).await;
    let (code, json) = run.verify("json");
    assert_eq!(code, Some(1));
    insta::assert_snapshot!(json.trim(), @r#"{"published":20,"acknowledged":20,"stored":8,"missing":12,"duplicates":0,"conflicts":2}"#);
    let (code, text) = run.verify("text");
    assert_eq!(code, Some(1));
    insta::assert_snapshot!("broken", text);
}

#[actix::test]
async fn a_reading_published_twice_is_one_reading() {
    let run = Run::new(&[(1, 1.0), (2, 2.0)], &[(1, 1.0), (2, 2.0)]).await;
    run.append(&[(2, 2.0), (1, 1.0)]);
    let (code, json) = run.verify("json");
    assert_eq!(code, Some(0));
    insta::assert_snapshot!(json.trim(), @r#"{"published":4,"acknowledged":2,"stored":2,"missing":0,"duplicates":0,"conflicts":0}"#);
}

#[actix::test]
async fn a_key_with_two_values_in_the_ledger_is_one_conflict() {
    let run = Run::new(
        &[(1, 1.0), (1, 9.0), (1, 1.0), (2, 5.0), (2, 2.0)],
        &[(1, 1.0), (2, 2.0)],
    )
    .await;
    let (code, json) = run.verify("json");
    assert_eq!(code, Some(1));
    insta::assert_snapshot!(json.trim(), @r#"{"published":5,"acknowledged":2,"stored":2,"missing":0,"duplicates":0,"conflicts":2}"#);
}

#[actix::test]
async fn an_altered_ledger_is_refused_with_its_line() {
    let run = Run::new(&[(1, 1.0)], &[(1, 1.0)]).await;
    let text = std::fs::read_to_string(run.path("ledger.jsonl")).unwrap();
    std::fs::write(
        run.path("ledger.jsonl"),
        format!("{text}{}", text.replace("value", "worth")),
    )
    .unwrap();
    let output = verify(run.folder.path(), &[]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.starts_with("error: --ledger (SIM_LEDGER)") && error.contains("line 2"),
        "{error}"
    );
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[actix::test]
async fn a_ledger_or_store_that_is_not_there_proves_nothing() {
    let run = Run::new(&[(1, 1.0)], &[(1, 1.0)]).await;
    let (data, ledger) = (run.folder.path(), run.path("ledger.jsonl"));
    let (data, ledger) = (data.to_str().unwrap(), ledger.to_str().unwrap());
    for (arguments, named) in [
        (
            ["--data-dir", data, "--ledger", "/nonexistent/l"],
            "/nonexistent/l",
        ),
        (
            [
                "--ledger",
                ledger,
                "--database-url",
                "sqlite:///nonexistent/d",
            ],
            "/nonexistent/d",
        ),
        (
            ["--ledger", ledger, "--data-dir", "/nonexistent"],
            "/nonexistent/fleet.db",
        ),
        (
            ["--data-dir", data, "--database-url", "sqlite://d"],
            "both name a store",
        ),
    ] {
        let output = fleet_verify(&arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(named), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(output.stdout.is_empty());
    }
}

#[actix::test]
async fn waits_for_readings_that_are_on_their_way() {
    let run = Run::new(&[(1, 1.0), (2, 2.0)], &[(1, 1.0)]).await;
    let folder = run.folder.path().to_owned();
    let waiting =
        std::thread::spawn(move || verify(&folder, &["--wait", "60s", "--output", "json"]));
    let url = DatabaseUrl::Sqlite(run.path("fleet.db"));
    let store = fleet_store::open(&url, OpenOptions::writer("test"))
        .await
        .unwrap();
    let batch = Batch {
        readings: vec![reading(2, 2.0)],
        dead_letters: Vec::new(),
    };
    store.write_batch(Arc::new(batch)).await.unwrap();
    let output = waiting.join().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}
