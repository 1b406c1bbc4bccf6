//! What is promised of every store.

use std::collections::HashSet;
use std::sync::Arc;

use fleet_shared::model::Quality;
use fleet_store::{
    Batch, DeadLetterFilter, NewReading, OpenOptions, Outcome, ReadingKey, RetainReport, StoreError,
};
use jiff::Timestamp;
use uuid::Uuid;

use crate::database::Database;
use crate::sample::{at, batch_of, letter, reading, write, write_letters};

pub(crate) async fn same_batch_twice_is_one_row_each(database: &Database<'_>) {
    let store = database.writer().await;
    let readings: Vec<_> = (0..1_000)
        .map(|n| reading(n % 30, n.into(), 0.1 * f64::from(n)))
        .collect();
    let first = write(&*store, readings.clone()).await;
    assert!(
        first.iter().all(|outcome| *outcome == Outcome::Stored),
        "{first:?}"
    );
    let second = write(&*store, readings).await;
    assert!(
        second.iter().all(|outcome| *outcome == Outcome::Duplicate),
        "{second:?}"
    );
    assert_eq!(store.count_readings().await.unwrap(), 1_000);
    assert_eq!(store.duplicate_keys().await.unwrap(), 0);
    assert_eq!(database.sql("SELECT count(*) FROM readings"), "1000");
}

pub(crate) async fn first_value_of_a_key_stays(database: &Database<'_>) {
    use Outcome::{Conflict, Duplicate, Stored};
    let store = database.writer().await;
    let within = write(
        &*store,
        vec![
            reading(9, 0, 1.0),
            reading(1, 0, 5.0),
            reading(9, 0, 2.0),
            reading(9, 0, 1.0),
        ],
    )
    .await;
    assert_eq!(within, [Stored, Stored, Conflict, Duplicate]);
    let across = write(
        &*store,
        vec![
            reading(9, 0, 2.0),
            reading(2, 0, 7.0),
            reading(1, 0, 5.0),
            reading(2, 0, 8.0),
        ],
    )
    .await;
    assert_eq!(across, [Conflict, Stored, Duplicate, Conflict]);
    let keys = [9, 1, 2, 3].map(|sensor| ReadingKey::of(&reading(sensor, 0, 0.0).reading));
    let stored = store.lookup(&keys).await.unwrap();
    assert_eq!(stored, [Some(1.0), Some(5.0), Some(7.0), None]);
}

pub(crate) async fn bad_row_fails_alone_among_a_thousand(database: &Database<'_>) {
    let store = database.writer().await;
    let mut readings: Vec<_> = (0..1_000).map(|n| reading(n, 0, 1.0)).collect();
    readings[500].reading.value = f64::NAN;
    let batch = Batch {
        readings,
        dead_letters: vec![letter("sensors/a/b", "malformed", b"{")],
    };
    let outcomes = store.write_batch(Arc::new(batch)).await.unwrap();
    for (place, outcome) in outcomes.iter().enumerate() {
        if place == 500 {
            assert!(
                matches!(outcome, Outcome::Failed(why) if why.contains("NaN")),
                "{outcome:?}"
            );
        } else {
            assert_eq!(*outcome, Outcome::Stored, "place {place}");
        }
    }
    assert_eq!(store.count_readings().await.unwrap(), 999);
    assert_eq!(database.sql("SELECT count(*) FROM dead_letters"), "1");
}

pub(crate) async fn every_field_comes_back(database: &Database<'_>) {
    let store = database.writer().await;
    let mut bare = reading(1, 1, -0.25);
    bare.reading.battery_percent = None;
    bare.reading.quality = None;
    let mut old = reading(2, 2, 1e-300);
    old.reading.timestamp = "1969-12-31T23:59:59.999999Z".parse().unwrap();
    old.reading.quality = Some(Quality::Poor);
    old.reading.location = "Gebäude-ß/🌡".to_owned();
    let mut late = reading(3, 3, f64::MAX);
    late.received_at = late.reading.timestamp - jiff::SignedDuration::from_hours(30);
    late.reading.quality = Some(Quality::Fair);
    late.reading.battery_percent = Some(100);
    let written = vec![bare, old, late];
    write(&*store, written.clone()).await;

    let reader = database.reader().await;
    let mut read: Vec<NewReading> = Vec::new();
    for stored in reader.scan_readings(None, 10).await.unwrap() {
        read.push(NewReading {
            reading: stored.reading,
            received_at: stored.received_at,
        });
    }
    read.sort_by(|a, b| a.reading.sensor_id.cmp(&b.reading.sensor_id));
    assert_eq!(read, written);
    let seen = database.sql(
        "SELECT sensor_id, type, unit, location, battery_percent, quality FROM readings ORDER BY sensor_id",
    );
    assert_eq!(
        seen.lines().collect::<Vec<_>>(),
        [
            "sensor-0001|temperature|celsius|building-a/room-1||",
            "sensor-0002|temperature|celsius|Gebäude-ß/🌡|87|poor",
            "sensor-0003|temperature|celsius|building-a/room-3|100|fair",
        ]
    );
}

pub(crate) async fn scan_meets_every_reading_once(database: &Database<'_>) {
    let store = database.writer().await;
    // Four minutes, and several readings of one sensor in each.
    let readings: Vec<_> = (0..500)
        .map(|n| reading(n % 7, i64::from(n) / 2, 1.0))
        .collect();
    let keys: HashSet<_> = readings
        .iter()
        .map(|new| ReadingKey::of(&new.reading))
        .collect();
    write(&*store, readings).await;
    let mut met = HashSet::new();
    let mut after = None;
    loop {
        let page = store.scan_readings(after.clone(), 33).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(ReadingKey::of(&last.reading));
        for stored in &page {
            assert!(
                met.insert(ReadingKey::of(&stored.reading)),
                "met twice: {stored:?}"
            );
        }
    }
    assert_eq!(met, keys);
}

pub(crate) async fn redelivered_dead_letter_is_written_once(database: &Database<'_>) {
    let store = database.writer().await;
    let first = letter("sensors/a/b", "malformed", b"\0\xff");
    let again = || {
        let mut letter = letter("sensors/a/b", "malformed", b"\0\xff");
        letter.redelivered = true;
        letter
    };
    // In the same batch, in the next one, and the very same one written again.
    write_letters(&*store, vec![first.clone(), again()]).await;
    write_letters(&*store, vec![again(), first.clone()]).await;
    // Sent a second time on its own account, it is a second message.
    write_letters(&*store, vec![letter("sensors/a/b", "malformed", b"\0\xff")]).await;
    let mut other = again();
    other.reason = "too_large".to_owned();
    write_letters(&*store, vec![other]).await;

    let all = store
        .dead_letters(DeadLetterFilter::default(), None, 10)
        .await
        .unwrap();
    assert_eq!(all.len(), 3);
    assert_eq!(all[0].id, first.id);
    assert_eq!(all[0].payload, first.payload);
    assert_eq!(all[0].detail, first.detail);
    assert_eq!(all[0].received_at, first.received_at);
}

pub(crate) async fn dead_letters_are_listed_counted_and_deleted(database: &Database<'_>) {
    let store = database.writer().await;
    let mut letters: Vec<_> = (0..25_u8)
        .map(|n| {
            letter(
                "t",
                if n % 5 == 0 { "too_large" } else { "malformed" },
                &[n],
            )
        })
        .collect();
    letters[24].service = "bridge".to_owned();
    letters.sort_by_key(|letter| letter.id);
    write_letters(&*store, letters.clone()).await;

    let counts = store.count_dead_letters().await.unwrap();
    let counts: Vec<_> = counts
        .iter()
        .map(|c| (c.service.as_str(), c.reason.as_str(), c.count))
        .collect();
    assert_eq!(
        counts,
        [
            ("bridge", "malformed", 1),
            ("ingest", "malformed", 19),
            ("ingest", "too_large", 5)
        ]
    );
    let filter = DeadLetterFilter {
        service: Some("ingest".to_owned()),
        reason: Some("malformed".to_owned()),
    };
    let mut listed: Vec<Uuid> = Vec::new();
    loop {
        let page = store
            .dead_letters(filter.clone(), listed.last().copied(), 6)
            .await
            .unwrap();
        if page.is_empty() {
            break;
        }
        listed.extend(page.iter().map(|letter| letter.id));
    }
    assert_eq!(listed.len(), 19);
    assert!(listed.is_sorted());
    assert_eq!(store.delete_dead_letters(&listed[..3]).await.unwrap(), 3);
    assert_eq!(store.delete_dead_letters(&listed[..4]).await.unwrap(), 1);
    assert_eq!(
        store.dead_letters(filter, None, 100).await.unwrap().len(),
        15
    );
}

pub(crate) async fn racing_writers_store_each_reading_once(database: &Database<'_>) {
    let stores = [database.writer().await, database.writer().await];
    let mut writing = tokio::task::JoinSet::new();
    for (which, store) in stores.iter().enumerate() {
        for part in 0..20_i64 {
            // One goes up while the other comes down, and neither is sorted.
            let part = if which == 0 { part } else { 19 - part };
            let mut readings: Vec<_> = (0..200)
                .map(|n| reading(n % 50, part * 4 + i64::from(n / 50), 1.0))
                .collect();
            if which == 1 {
                readings.reverse();
            }
            let store = Arc::clone(store);
            writing.spawn(async move { write(&*store, readings).await });
        }
    }
    let outcomes: Vec<_> = writing.join_all().await.into_iter().flatten().collect();
    let stored = outcomes
        .iter()
        .filter(|outcome| **outcome == Outcome::Stored)
        .count();
    let duplicate = outcomes
        .iter()
        .filter(|outcome| **outcome == Outcome::Duplicate)
        .count();
    assert_eq!((stored, duplicate), (4_000, 4_000));
    assert_eq!(stores[0].count_readings().await.unwrap(), 4_000);
    assert_eq!(stores[1].duplicate_keys().await.unwrap(), 0);
}

pub(crate) async fn stores_opened_at_once_agree_on_the_schema(database: &Database<'_>) {
    let url = database.url();
    let mut opening = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let url = url.clone();
        opening.spawn(async move { fleet_store::open(&url, OpenOptions::writer("test")).await });
    }
    for (n, store) in (0..).zip(opening.join_all().await) {
        let store = store.unwrap();
        store.ping().await.unwrap();
        assert_eq!(
            write(&*store, vec![reading(n, 0, 1.0)]).await,
            [Outcome::Stored]
        );
    }
    assert_eq!(
        database.sql("SELECT count(*) - count(DISTINCT version) FROM refinery_schema_history"),
        "0"
    );
}

pub(crate) async fn retention_takes_the_old_and_leaves_the_new(database: &Database<'_>) {
    const DAY: i64 = 86_400;
    let store = database.writer().await;
    for part in 0..4 {
        let old = (0..3_000).map(|n| reading(n % 100, -DAY + part * 30 + i64::from(n / 100), 1.0));
        write(&*store, old.collect()).await;
    }
    let mut letters = vec![
        letter("t", "malformed", b"old"),
        letter("t", "malformed", b"new"),
    ];
    letters[0].id = "01900000-0000-7000-8000-000000000000".parse().unwrap();
    write_letters(&*store, letters).await;

    let retaining = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.retain(at(-3_600)).await.unwrap() }
    });
    let mut written = 0;
    while !retaining.is_finished() || written < 5 {
        let new = (0..100).map(|n| reading(n, written, 2.0)).collect();
        let outcomes = write(&*store, new).await;
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Stored));
        written += 1;
    }
    let report = retaining.await.unwrap();
    assert_eq!(
        report,
        RetainReport {
            readings: 12_000,
            dead_letters: 1,
            chunks: 0
        }
    );
    assert_eq!(
        store.count_readings().await.unwrap(),
        u64::try_from(written * 100).unwrap()
    );
    assert_eq!(
        store.retain(at(-3_600)).await.unwrap(),
        RetainReport::default()
    );
    assert_eq!(
        store.retain(Timestamp::MIN).await.unwrap(),
        RetainReport::default()
    );
}

pub(crate) async fn reader_needs_a_schema_and_does_not_write(database: &Database<'_>) {
    let early = fleet_store::open(&database.url(), OpenOptions::reader("test")).await;
    let error = early.err().unwrap();
    assert!(error.to_string().contains("start ingest"), "{error}");
    assert!(!error.is_transient());

    let writer = database.writer().await;
    write(&*writer, vec![reading(1, 1, 1.0)]).await;
    let reader = database.reader().await;
    reader.ping().await.unwrap();
    assert_eq!(reader.count_readings().await.unwrap(), 1);
    let refused = [
        reader
            .write_batch(batch_of(vec![reading(2, 2, 2.0)]))
            .await
            .err(),
        reader.retain(at(0)).await.err(),
        reader.delete_dead_letters(&[Uuid::nil()]).await.err(),
    ];
    for error in refused {
        assert!(
            matches!(error, Some(StoreError::Permanent { .. })),
            "{error:?}"
        );
    }
}

pub(crate) async fn closed_store_says_so(database: &Database<'_>) {
    let store = database.writer().await;
    write(&*store, vec![reading(1, 1, 1.0)]).await;
    store.close().await.unwrap();
    let error = store
        .write_batch(batch_of(vec![reading(2, 2, 2.0)]))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("is closed"), "{error}");
    let error = store.count_readings().await.unwrap_err();
    assert!(error.to_string().contains("is closed"), "{error}");
    assert_eq!(database.reader().await.count_readings().await.unwrap(), 1);
}

pub(crate) async fn empty_batch_is_nothing(database: &Database<'_>) {
    let store = database.writer().await;
    assert!(store.write_batch(Arc::default()).await.unwrap().is_empty());
    assert!(store.lookup(&[]).await.unwrap().is_empty());
    assert!(store.scan_readings(None, 10).await.unwrap().is_empty());
}
