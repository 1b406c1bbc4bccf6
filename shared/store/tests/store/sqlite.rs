//! The cases on SQLite, and what only a file can go through.

use std::fs;

use fleet_shared::config::DatabaseUrl;
use fleet_store::{Backend, OpenOptions, Outcome};

use crate::database::Database;
use crate::sample::{at, reading, write};
use crate::{history, suite};

#[tokio::test]
async fn same_batch_twice_is_one_row_each() {
    suite::same_batch_twice_is_one_row_each(&Database::sqlite()).await;
}

#[tokio::test]
async fn first_value_of_a_key_stays() {
    suite::first_value_of_a_key_stays(&Database::sqlite()).await;
}

#[tokio::test]
async fn bad_row_fails_alone_among_a_thousand() {
    suite::bad_row_fails_alone_among_a_thousand(&Database::sqlite()).await;
}

#[tokio::test]
async fn every_field_comes_back() {
    suite::every_field_comes_back(&Database::sqlite()).await;
}

#[tokio::test]
async fn scan_meets_every_reading_once() {
    suite::scan_meets_every_reading_once(&Database::sqlite()).await;
}

#[tokio::test]
async fn redelivered_dead_letter_is_written_once() {
    suite::redelivered_dead_letter_is_written_once(&Database::sqlite()).await;
}

#[tokio::test]
async fn dead_letters_are_listed_counted_and_deleted() {
    suite::dead_letters_are_listed_counted_and_deleted(&Database::sqlite()).await;
}

#[tokio::test]
async fn transitions_of_several_replicas_are_stored_once() {
    history::transitions_of_several_replicas_are_stored_once(&Database::sqlite()).await;
}

#[tokio::test]
async fn buckets_hold_lowest_mean_and_highest() {
    history::buckets_hold_lowest_mean_and_highest(&Database::sqlite()).await;
}

#[tokio::test]
async fn readings_come_in_the_order_of_time() {
    history::readings_come_in_the_order_of_time(&Database::sqlite()).await;
}

#[tokio::test]
async fn newest_dead_letters_come_first() {
    history::newest_dead_letters_come_first(&Database::sqlite()).await;
}

#[tokio::test]
async fn racing_writers_store_each_reading_once() {
    suite::racing_writers_store_each_reading_once(&Database::sqlite()).await;
}

#[tokio::test]
async fn stores_opened_at_once_agree_on_the_schema() {
    for _ in 0..5 {
        suite::stores_opened_at_once_agree_on_the_schema(&Database::sqlite()).await;
    }
}

#[tokio::test]
async fn retention_takes_the_old_and_leaves_the_new() {
    suite::retention_takes_the_old_and_leaves_the_new(&Database::sqlite()).await;
}

#[tokio::test]
async fn reader_needs_a_schema_and_does_not_write() {
    suite::reader_needs_a_schema_and_does_not_write(&Database::sqlite()).await;
}

#[tokio::test]
async fn closed_store_says_so() {
    suite::closed_store_says_so(&Database::sqlite()).await;
}

#[tokio::test]
async fn empty_batch_is_nothing() {
    suite::empty_batch_is_nothing(&Database::sqlite()).await;
}

#[tokio::test]
async fn readings_show_instants_that_sort_as_text() {
    let database = Database::sqlite();
    let store = database.writer().await;
    assert_eq!(store.backend(), Backend::Sqlite);
    write(&*store, vec![reading(1, 0, 1.5), reading(1, 70, 2.0)]).await;
    assert_eq!(at(0).to_string(), "2026-11-23T07:00:00Z");
    assert_eq!(
        database.sql("SELECT timestamp, value, received_at FROM readings ORDER BY timestamp"),
        "2026-11-23T07:00:00.000000Z|1.5|2026-11-23T07:00:00.003000Z\n\
         2026-11-23T07:01:10.000210Z|2|2026-11-23T07:01:10.003210Z"
    );
}

#[tokio::test]
async fn counting_the_view_leaves_the_dictionaries_alone() {
    let database = Database::sqlite();
    let _store = database.writer().await;
    let plan = database.sql("EXPLAIN QUERY PLAN SELECT count(*) FROM readings");
    assert!(
        !plan.contains("series") && !plan.contains("place"),
        "{plan}"
    );
}

#[tokio::test]
async fn readings_can_be_changed_by_hand_like_a_table() {
    let database = Database::sqlite();
    let store = database.writer().await;
    write(&*store, (0..3).map(|n| reading(n, 0, 1.0)).collect()).await;
    let all = || database.sql("SELECT * FROM readings ORDER BY sensor_id");
    let before = all();
    database.sql("CREATE TABLE copy AS SELECT * FROM readings");
    database.sql("DELETE FROM readings");
    assert_eq!(all(), "");
    database.sql("INSERT INTO readings SELECT * FROM copy");
    assert_eq!(all(), before, "to the microsecond");

    database.sql("UPDATE readings SET value = 7.5, location = 'elsewhere', quality = 'poor'");
    let changed = database.sql("SELECT DISTINCT value, location, quality FROM readings");
    assert_eq!(changed.trim(), "7.5|elsewhere|poor");
    database.sql(
        "INSERT INTO readings (sensor_id, type, timestamp, value, unit, location)
         VALUES ('by-hand', 't', '2026-01-02T03:04:59.9999996+02:00', 1, 'u', 'l')",
    );
    let at =
        database.sql("SELECT timestamp, received_at FROM readings WHERE sensor_id = 'by-hand'");
    assert_eq!(
        at.trim(),
        "2026-01-02T01:04:59.999999Z|2026-01-02T01:04:59.999999Z"
    );
    // What is written by the fleet afterwards finds it.
    let outcomes = write(&*store, vec![reading(0, 0, 7.5), reading(0, 0, 1.0)]).await;
    assert_eq!(outcomes, [Outcome::Duplicate, Outcome::Conflict]);
}

#[tokio::test]
async fn double_keys_are_counted_without_trust_in_the_schema() {
    let database = Database::sqlite();
    let store = database.writer().await;
    write(&*store, (0..5).map(|n| reading(n, 0, 1.0)).collect()).await;
    for statement in [
        "PRAGMA legacy_alter_table = ON",
        "CREATE TABLE copy AS SELECT * FROM reading",
        "DROP VIEW readings",
        "DROP TABLE reading",
        "ALTER TABLE copy RENAME TO reading",
        "INSERT INTO reading SELECT * FROM reading WHERE series <= 2",
    ] {
        database.sql(statement);
    }
    assert_eq!(store.duplicate_keys().await.unwrap(), 2);
}

#[tokio::test]
async fn unusable_path_is_named_with_its_remedy() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "not a folder").unwrap();
    let cases = [
        (
            folder.path().join("file/fleet.db"),
            "cannot create the folder",
        ),
        (folder.path().to_owned(), "cannot open the SQLite database"),
        (
            folder.path().join("file"),
            "cannot open the SQLite database",
        ),
    ];
    for (path, expected) in cases {
        let url = DatabaseUrl::Sqlite(path.clone());
        let error = fleet_store::open(&url, OpenOptions::writer("test"))
            .await
            .err()
            .unwrap();
        let text = error.to_string();
        assert!(text.contains(expected), "{text}");
        assert!(
            text.contains(path.parent().unwrap().to_str().unwrap()),
            "{text}"
        );
        assert!(
            text.contains("DATABASE_URL") && !error.is_transient(),
            "{text}"
        );
    }
}
