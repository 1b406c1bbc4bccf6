//! What SQLite acknowledged survives the death of the process that wrote it.

use std::fs::{self, OpenOptions as FileOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fleet_shared::config::DatabaseUrl;
use fleet_store::{OpenOptions, Store};

use crate::sample::{reading, write};

const BATCH: u32 = 200;

/// Written by the parent, so that the child's part does nothing when it is run by itself.
const ORDER: &str = "write-until-killed";
const DATABASE: &str = "fleet.db";
const ACKNOWLEDGED: &str = "acknowledged";

fn readings(part: i64) -> Vec<fleet_store::NewReading> {
    (0..BATCH)
        .map(|sensor| reading(sensor, part, 1.0))
        .collect()
}

async fn open(folder: &Path) -> std::sync::Arc<dyn Store> {
    let url = DatabaseUrl::Sqlite(folder.join(DATABASE));
    fleet_store::open(&url, OpenOptions::writer("test"))
        .await
        .unwrap()
}

#[tokio::test]
#[ignore = "the child that killed_writer_keeps_what_it_acknowledged starts and kills"]
async fn child() {
    if !Path::new(ORDER).exists() {
        return;
    }
    let store = open(Path::new("")).await;
    let mut acknowledged = FileOptions::new()
        .create(true)
        .append(true)
        .open(ACKNOWLEDGED)
        .unwrap();
    let begun = fs::metadata(ACKNOWLEDGED).unwrap().len();
    for part in i64::try_from(begun).unwrap()..100_000 {
        write(&*store, readings(part)).await;
        acknowledged.write_all(b".").unwrap();
    }
}

#[tokio::test]
async fn killed_writer_keeps_what_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(ORDER), "").unwrap();
    let acknowledged = || {
        let file = fs::metadata(folder.path().join(ACKNOWLEDGED));
        file.map_or(0, |file| i64::try_from(file.len()).unwrap())
    };
    for round in 1..=3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child", "--ignored"])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while acknowledged() < round * 40 {
            assert!(Instant::now() < deadline, "{} batches", acknowledged());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        child.kill().unwrap();
        child.wait().unwrap();

        let store = open(folder.path()).await;
        let parts = acknowledged();
        for part in 0..parts {
            let keys: Vec<_> = readings(part)
                .iter()
                .map(|new| fleet_store::ReadingKey::of(&new.reading))
                .collect();
            let found = store.lookup(&keys).await.unwrap();
            assert!(
                found.iter().all(Option::is_some),
                "batch {part} of {parts} is not whole"
            );
        }
        let rows = store.count_readings().await.unwrap();
        // The batch after the last acknowledged one may have been committed, but only whole.
        assert!(rows % u64::from(BATCH) == 0, "{rows}");
        store.close().await.unwrap();
    }
}
