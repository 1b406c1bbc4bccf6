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
    entries: std::cell::Cell<i64>,
}

impl Run {
    /// Readings as (second, value).
    async fn new(ledger: &[(i64, f64)], stored: &[(i64, f64)]) -> Self {
        let run = Self {
            folder: tempfile::tempdir().unwrap(),
            entries: std::cell::Cell::new(0),
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
                // Each acknowledgement has its own time, also of one reading published twice.
                acknowledged_at: Timestamp::from_millisecond(self.entries.get()).unwrap(),
            };
            self.entries.set(self.entries.get() + 1);
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

    /// What `--strict` says to people, without the numbers.
    fn findings(&self) -> (Option<i32>, String) {
        let output = verify(self.folder.path(), &["--strict"]);
        let text = String::from_utf8(output.stdout).unwrap();
        let (_, findings) = text.split_once("\n\n").unwrap();
        (output.status.code(), findings.to_owned())
    }

    /// Changes the store behind everybody's back.
    fn tamper(&self, sql: &str) {
        let store = rusqlite::Connection::open(self.path("fleet.db")).unwrap();
        store.execute_batch(sql).unwrap();
    }

    /// Changes the lines of the ledger.
    fn rewrite(&self, change: impl FnOnce(Vec<&str>) -> Vec<String>) {
        let text = std::fs::read_to_string(self.path("ledger.jsonl")).unwrap();
        let lines = change(text.lines().collect()).join("\n") + "\n";
        std::fs::write(self.path("ledger.jsonl"), lines).unwrap();
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
    fleet_verify_with(&[], arguments)
}

fn fleet_verify_with(variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fleet"))
        .env_remove("DATABASE_URL")
        .env_remove("FLEET_DATA_DIR")
        .envs(variables.iter().copied())
        .arg("verify")
        .args(arguments)
        .output()
        .unwrap()
}

/// The keys of the contract, which come first and in this order.
fn six(json: &str) -> String {
    let (six, _) = json.split_once(",\"late\"").unwrap();
    format!("{six}}}")
}

#[actix::test]
async fn a_whole_run_is_proven() {
    let run = Run::new(&[(1, 1.0), (2, 2.0)], &[(1, 1.0), (2, 2.0), (3, 3.0)]).await;
    let (code, json) = run.verify("json");
    assert_eq!(code, Some(0));
    insta::assert_snapshot!(six(&json), @r#"{"published":2,"acknowledged":2,"stored":2,"missing":0,"duplicates":0,"conflicts":0}"#);
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
    insta::assert_snapshot!(six(&json), @r#"{"published":20,"acknowledged":20,"stored":8,"missing":12,"duplicates":0,"conflicts":2}"#);
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
    insta::assert_snapshot!(six(&json), @r#"{"published":4,"acknowledged":2,"stored":2,"missing":0,"duplicates":0,"conflicts":0}"#);
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
    insta::assert_snapshot!(six(&json), @r#"{"published":5,"acknowledged":2,"stored":2,"missing":0,"duplicates":0,"conflicts":2}"#);
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
            "--data-dir (FLEET_DATA_DIR) is `/nonexistent`: there is no store `fleet.db`",
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
async fn the_folder_of_the_variable_is_used_unless_a_flag_names_another_store() {
    let run = Run::new(&[(1, 1.0)], &[(1, 1.0)]).await;
    let data = run.folder.path().to_str().unwrap();
    let url = format!("sqlite://{}", run.path("fleet.db").display());
    let ledger = run.path("ledger.jsonl");
    let ledger = ledger.to_str().unwrap();
    for (variables, arguments, code) in [
        (&[("FLEET_DATA_DIR", data)][..], &[][..], 0),
        (&[("FLEET_DATA_DIR", "/none")], &["--data-dir", data], 0),
        (&[("FLEET_DATA_DIR", data)], &["--database-url", &url], 0),
        (
            &[("FLEET_DATA_DIR", "/none")],
            &["--ledger", ledger, "--database-url", &url],
            0,
        ),
        // The one that says more of the store, which services obey as well.
        (&[("FLEET_DATA_DIR", data), ("DATABASE_URL", &url)], &[], 0),
        (&[("DATABASE_URL", &url)], &["--data-dir", data], 2),
        (&[("FLEET_DATA_DIR", "/none")], &[], 2),
    ] {
        let output = fleet_verify_with(variables, arguments);
        let told = format!("{variables:?} {arguments:?}: {output:?}");
        assert_eq!(output.status.code(), Some(code), "{told}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(error.contains("FLEET_DATA_DIR"), code == 2, "{told}");
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

/// Five readings, in the ledger and in the store.
async fn whole() -> Run {
    let readings: Vec<_> = (1..=5).map(|second| (second, 0.5)).collect();
    let run = Run::new(&readings, &readings).await;
    assert_eq!(run.findings().0, Some(0));
    run
}

#[actix::test]
async fn a_removed_row_is_named() {
    let run = whole().await;
    run.tamper("DELETE FROM reading WHERE \"offset\" = 3000000");
    insta::assert_snapshot!(run.findings().1, @r"
    missing, 1 of 1:
      t-1 temperature 1970-01-01T00:00:03Z: 0.5 on sensors/hall/temperature, acknowledged at 1970-01-01T00:00:00.002Z

    The store does not hold what the broker has acknowledged.
    ");
    assert_eq!(run.findings().0, Some(1));
}

#[actix::test]
async fn an_altered_row_is_named() {
    let run = whole().await;
    run.tamper("UPDATE reading SET value = 0.75 WHERE \"offset\" = 3000000");
    insta::assert_snapshot!(run.findings().1, @r"
    different, 1 of 1:
      t-1 temperature 1970-01-01T00:00:03Z: 0.5 in the ledger, 0.75 in the store, on sensors/hall/temperature

    The store does not hold what the broker has acknowledged.
    ");
    assert_eq!(run.findings().0, Some(1));
}

#[actix::test]
async fn a_double_row_is_named() {
    let run = whole().await;
    // The schema does not let it happen, so the schema goes first.
    run.tamper(
        "PRAGMA legacy_alter_table = ON;
         CREATE TABLE plain AS SELECT * FROM series;
         DROP TABLE series;
         ALTER TABLE plain RENAME TO series;
         INSERT INTO series SELECT 99, sensor_id, type FROM series;
         INSERT INTO reading SELECT minute, 99, \"offset\", value, place, battery_percent, quality, delay
            FROM reading WHERE \"offset\" = 3000000;",
    );
    insta::assert_snapshot!(run.findings().1, @r"
    double, 1 of 1:
      t-1 temperature 1970-01-01T00:00:03Z: a second row, with 0.5, received at 1970-01-01T00:00:03Z

    The store does not hold what the broker has acknowledged.
    ");
    let (code, json) = run.verify("json");
    assert_eq!(code, Some(1));
    insta::assert_snapshot!(six(&json), @r#"{"published":5,"acknowledged":5,"stored":5,"missing":0,"duplicates":1,"conflicts":0}"#);
}

#[actix::test]
async fn a_removed_entry_is_named() {
    let run = whole().await;
    run.rewrite(|lines| {
        lines
            .iter()
            .filter(|line| !line.contains(":03Z"))
            .map(|&line| line.to_owned())
            .collect()
    });
    insta::assert_snapshot!(run.findings().1, @r"
    unexplained, 1 of 1:
      t-1 temperature 1970-01-01T00:00:03Z: 0.5, received at 1970-01-01T00:00:03Z; no line of the ledger has it

    Every acknowledged reading is stored, once, with its value; but not everything is as the ledger says.
    ");
    assert_eq!(run.findings().0, Some(1));
    // Nothing is missing or double, so it is no failure of the fleet.
    assert_eq!(run.verify("json").0, Some(0));
}

#[actix::test]
async fn a_doubled_entry_is_named() {
    let run = whole().await;
    run.rewrite(|lines| {
        let again = lines[2].to_owned();
        lines
            .into_iter()
            .map(str::to_owned)
            .chain([again])
            .collect()
    });
    insta::assert_snapshot!(run.findings().1, @r"
    repeated in the ledger, 1 of 1:
      t-1 temperature 1970-01-01T00:00:03Z: two lines with one acknowledgement, at 1970-01-01T00:00:00.002Z

    Every acknowledged reading is stored, once, with its value; but not everything is as the ledger says.
    ");
    assert_eq!(run.findings().0, Some(1));
    assert_eq!(run.verify("json").0, Some(0));
}

#[actix::test]
async fn an_altered_entry_is_named() {
    let run = whole().await;
    run.rewrite(|lines| {
        lines
            .iter()
            .map(|line| line.replace(":03Z", ":33Z"))
            .collect()
    });
    insta::assert_snapshot!(run.findings().1, @r"
    missing, 1 of 1:
      t-1 temperature 1970-01-01T00:00:33Z: 0.5 on sensors/hall/temperature, acknowledged at 1970-01-01T00:00:00.002Z

    unexplained, 1 of 1:
      t-1 temperature 1970-01-01T00:00:03Z: 0.5, received at 1970-01-01T00:00:03Z; no line of the ledger has it

    The store does not hold what the broker has acknowledged.
    ");
    assert_eq!(run.findings().0, Some(1));
    run.rewrite(|lines| {
        let line = |line: &&str| line.replace(":33Z\",\"value\":0.5", ":03Z\",\"value\":9.5");
        lines.iter().map(line).collect()
    });
    insta::assert_snapshot!(run.findings().1, @r"
    different, 1 of 1:
      t-1 temperature 1970-01-01T00:00:03Z: 9.5 in the ledger, 0.5 in the store, on sensors/hall/temperature

    The store does not hold what the broker has acknowledged.
    ");
}

#[actix::test]
async fn dead_letters_are_compared_with_what_was_to_be_refused() {
    let run = whole().await;
    let letter = |payload: &str, reason: &str| {
        let hash = device_sim::ledger::payload_hash(payload.as_bytes());
        format!(
            r#"{{"dead_letter":"{reason}","intent":"malformed:{reason}","topic":"sensors/hall/temperature","payload_hash":"{hash}","payload_bytes":3,"sensor_id":"t-1","type":"temperature","timestamp":"1970-01-01T00:00:09Z","qos":1,"acknowledged_at":"1970-01-01T00:00:09Z"}}"#
        )
    };
    run.rewrite(|lines| {
        let mut lines: Vec<String> = lines.into_iter().map(str::to_owned).collect();
        lines.push(letter("as intended", "malformed"));
        lines.push(letter("for another reason", "not_utf8"));
        lines.push(letter("gone", "malformed"));
        lines.push(
            r#"{"link":"dropped","device_id":"d-1","at":"1970-01-01T00:00:04Z","lasts_ms":20}"#
                .to_owned(),
        );
        lines
    });
    let url = DatabaseUrl::Sqlite(run.path("fleet.db"));
    let store = fleet_store::open(&url, OpenOptions::writer("test"))
        .await
        .unwrap();
    let stored = |payload: &str| fleet_store::DeadLetter {
        id: uuid::Uuid::now_v7(),
        service: "ingest".to_owned(),
        topic: "sensors/hall/temperature".to_owned(),
        payload: payload.as_bytes().to_vec(),
        reason: "malformed".to_owned(),
        detail: String::new(),
        received_at: Timestamp::from_second(10).unwrap(),
        redelivered: false,
    };
    let dead_letters = ["as intended", "for another reason", "of a stranger"].map(stored);
    let batch = Batch {
        readings: Vec::new(),
        dead_letters: dead_letters.to_vec(),
    };
    store.write_batch(Arc::new(batch)).await.unwrap();
    store.close().await.unwrap();
    let (code, findings) = run.findings();
    assert_eq!(code, Some(1));
    insta::assert_snapshot!(findings, @r"
    not dead-lettered as intended, 2 of 2:
      malformed:not_utf8 on sensors/hall/temperature: it is a dead letter for malformed
      malformed:malformed on sensors/hall/temperature: acknowledged at 1970-01-01T00:00:09Z and no dead letter

    unexplained, 1 of 1:
      a dead letter of 1970-01-01T00:00:10Z: malformed; `fleet dead-letters list` shows it

    Every acknowledged reading is stored, once, with its value; but not everything is as the ledger says.
    ");
    let (code, json) = run.verify("json");
    assert_eq!(code, Some(0));
    insta::assert_snapshot!(json.trim(), @r#"{"published":5,"acknowledged":5,"stored":5,"missing":0,"duplicates":0,"conflicts":0,"late":0,"repeated":0,"dead_lettered":1,"not_dead_lettered":2,"open_stored":0,"open_lost":0,"unexplained":1,"delivery":null,"faults":{"dropped":1,"malformed:malformed":2,"malformed:not_utf8":1}}"#);
}

#[actix::test]
async fn the_page_is_written_and_whole() {
    let run = whole().await;
    let page = run.path("report.html");
    let output = verify(run.folder.path(), &["--html", page.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    assert!(page.contains("It holds"));
}
