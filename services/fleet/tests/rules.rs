//! `fleet rules` on a week of an office room, measured by others.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use device_sim::replay::{Table, sensors};
use fleet_shared::config::DatabaseUrl;
use fleet_shared::model::SensorReading;
use fleet_shared::session::QoS;
use fleet_store::{Batch, NewReading, OpenOptions};
use jiff::tz::TimeZone;

/// The readings lie beside the repository; they are not ours to keep in it.
fn occupancy() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/occupancy.csv");
    if path.exists() {
        return Some(path);
    }
    #[expect(clippy::print_stderr, reason = "whoever runs the tests should know")]
    {
        eprintln!("SKIPPED: {} is not there", path.display());
    }
    None
}

/// A data folder whose store has the readings of the file.
async fn stored(file: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let table = Table::open(file, None, None, &TimeZone::UTC).unwrap();
    let sensors = sensors(&table, "office-", "office/room-1", QoS::AtLeastOnce).unwrap();
    let url = DatabaseUrl::Sqlite(folder.path().join("fleet.db"));
    let store = fleet_store::open(&url, OpenOptions::writer("test"))
        .await
        .unwrap();
    let mut readings = Vec::new();
    for (row, timestamp) in table.times.iter().enumerate() {
        for (column, sensor) in sensors.iter().enumerate() {
            let Some(value) = table.value(row, column) else {
                continue;
            };
            let reading = SensorReading {
                sensor_id: sensor.id.to_string(),
                kind: sensor.channel.kind.to_string(),
                value,
                unit: sensor.channel.unit.to_string(),
                location: sensor.channel.location.to_string(),
                timestamp: *timestamp,
                battery_percent: None,
                quality: None,
            };
            readings.push(NewReading {
                received_at: reading.timestamp,
                reading,
            });
        }
    }
    for batch in readings.chunks(5_000) {
        let batch = Batch {
            readings: batch.to_vec(),
            dead_letters: Vec::new(),
        };
        store.write_batch(Arc::new(batch)).await.unwrap();
    }
    store.close().await.unwrap();
    folder
}

fn backtest(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fleet"))
        .args([
            "rules",
            "backtest",
            "--from",
            "2015-02-04T00:00:00Z",
            "--to",
            "2015-02-11T00:00:00Z",
        ])
        .arg("--data-dir")
        .arg(folder)
        .args(arguments)
        .output()
        .unwrap()
}

fn told(output: Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}");
    String::from_utf8(output.stdout).unwrap()
}

const COMFORT: &str = "
groups:
  - name: comfort
    rules:
      - alert: TooCool
        type: temperature
        when: value < 19.2
        clear: value > 19.5
        for: 30m
        severity: warning
        message: '{{ location }} is at {{ value | round(1) }} {{ unit }}'
      - alert: Stuffy
        type: co2
        when: avg('10m') > 1200
        clear: avg('10m') < 1000
        severity: critical
      - { alert: Silent, type: temperature, absent: 10m, severity: warning }
      - { alert: Gone, topic: devices/+/status, when: '!online', severity: info }
";

#[actix::test]
async fn a_week_of_an_office_is_told_as_reviewed() {
    let Some(file) = occupancy() else { return };
    let folder = stored(&file).await;
    let rules = folder.path().join("comfort.yaml");
    std::fs::write(&rules, COMFORT).unwrap();
    let rules = rules.to_str().unwrap();
    let here = folder.path().to_str().unwrap();
    let plain = |text: String| text.replace(here, "DIR");

    let shipped = told(backtest(folder.path(), &[]));
    insta::assert_snapshot!("the_shipped_rules_over_an_office", plain(shipped));
    let comfort = told(backtest(folder.path(), &[rules]));
    insta::assert_snapshot!("rules_for_comfort_over_an_office", plain(comfort));

    let json = told(backtest(
        folder.path(),
        &[rules, "--output", "json", "--sensor", "office-co2"],
    ));
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["readings"], 8_143);
    assert_eq!(report["rules"][0]["episodes"], serde_json::json!([]));
    assert_eq!(
        report["rules"][1]["fired"],
        report["rules"][1]["episodes"].as_array().unwrap().len()
    );

    let svg = told(backtest(folder.path(), &[rules, "--output", "svg"]));
    insta::assert_snapshot!("a_picture_of_rules_for_comfort", plain(svg));
}

#[actix::test]
async fn wrong_rules_are_shown_and_nothing_is_run() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.yaml");
    std::fs::write(&rules, COMFORT.replace("value < 19.2", "valu < 19.2")).unwrap();
    for command in ["check", "backtest"] {
        let output = Command::new(env!("CARGO_BIN_EXE_fleet"))
            .args(["rules", command])
            .arg(&rules)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{command}: {output:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains("rules.yaml:7:15\n"), "{error}");
        assert!(error.contains("\n  |               ^\n"), "{error}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn check_tells_what_each_rule_does() {
    let output = Command::new(env!("CARGO_BIN_EXE_fleet"))
        .args(["rules", "check"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    insta::assert_snapshot!(String::from_utf8(output.stdout).unwrap());
    let output = Command::new(env!("CARGO_BIN_EXE_fleet"))
        .args(["rules", "check", "--output", "json"])
        .output()
        .unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["rules"].as_array().unwrap().len(), 7);
    assert_eq!(answer["errors"], serde_json::json!([]));
}
