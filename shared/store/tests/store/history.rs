//! Transitions and buckets, on both stores.

use std::sync::Arc;

use fleet_store::{
    Bucket, Chronology, DeadLetterFilter, DeviceTransition, ReadingKey, Recorded, Span, TimePage,
};
use uuid::Uuid;

use crate::database::Database;
use crate::sample::{at, letter, reading, write, write_letters};

fn transition(device: &str, seconds: i64, online: bool) -> DeviceTransition {
    DeviceTransition {
        device_id: device.to_owned(),
        at: at(seconds),
        online,
        reason: "connected".to_owned(),
        session_id: Some(Uuid::from_u128(7)),
    }
}

pub(crate) async fn transitions_of_several_replicas_are_stored_once(database: &Database<'_>) {
    use Recorded::{Known, Outdated, Stored};
    let store = database.writer().await;
    let first: Arc<[_]> = [
        transition("a", 1, true),
        transition("b", 1, true),
        transition("a", 5, false),
    ]
    .into();
    let recorded = store.record_transitions(first.clone()).await.unwrap();
    assert_eq!(recorded, [Stored, Stored, Stored]);
    // Another replica saw the same a little later, and is behind.
    let other = [
        transition("a", 2, true),
        transition("a", 6, false),
        transition("b", 2, true),
    ];
    let recorded = store.record_transitions(other.into()).await.unwrap();
    let (since_a, since_b) = (at(5), at(1));
    assert_eq!(
        recorded,
        [Outdated, Known { since: since_a }, Known { since: since_b }]
    );

    let of_a = store.transitions("a", None, 10).await.unwrap();
    assert_eq!(of_a, [first[2].clone(), first[0].clone()]);
    let older = store.transitions("a", Some(at(5)), 10).await.unwrap();
    assert_eq!(older, [first[0].clone()]);
    let newest = store.newest_transitions(None, 10).await.unwrap();
    assert_eq!(newest, [first[2].clone(), first[1].clone()]);
    let behind = store.newest_transitions(Some("a".to_owned()), 10).await;
    assert_eq!(behind.unwrap(), [first[1].clone()]);
    let recent = store.transitions_since(at(2), 10).await.unwrap();
    assert_eq!(recent, [first[2].clone()]);
}

pub(crate) async fn buckets_hold_lowest_mean_and_highest(database: &Database<'_>) {
    let store = database.writer().await;
    // One a second for four minutes, and another sensor that does not count.
    let readings = (0..240).map(|n| reading(1, n, n as f64));
    write(&*store, readings.chain([reading(2, 3, 1e6)]).collect()).await;
    let span = Span {
        from: at(60),
        to: at(180),
        points: 2,
    };
    let found = store.reading_buckets("sensor-0001", "temperature", span);
    let bucket = |from: i64, first: f64| Bucket {
        at: at(from),
        min: first,
        mean: first + 29.5,
        max: first + 59.0,
        count: 60,
    };
    assert_eq!(found.await.unwrap(), [bucket(60, 60.0), bucket(120, 120.0)]);
    let none = store.reading_buckets("sensor-0003", "temperature", span);
    assert!(none.await.unwrap().is_empty());
    let kind = store.sensor_kind("sensor-0001").await.unwrap();
    assert_eq!(kind.as_deref(), Some("temperature"));
    assert_eq!(store.sensor_kind("nobody").await.unwrap(), None);
}

pub(crate) async fn readings_come_in_the_order_of_time(database: &Database<'_>) {
    let store = database.writer().await;
    // Three sensors, one reading in 7 s each, over half an hour; written in another order.
    let all =
        || (0..256_i64).flat_map(|n| [1, 2, 3].map(|sensor| reading(sensor, n * 7, n as f64)));
    let mut shuffled: Vec<_> = all().collect();
    shuffled.reverse();
    write(&*store, shuffled).await;
    let page = |after, sensor_id: Option<&str>, limit| TimePage {
        from: at(70),
        to: at(140),
        sensor_id: sensor_id.map(str::to_owned),
        after,
        limit,
    };
    let mut expected: Vec<ReadingKey> = all()
        .map(|new| ReadingKey::of(&new.reading))
        .filter(|key| key.timestamp >= at(70) && key.timestamp < at(140))
        .collect();
    expected.sort_by(|a, b| (a.timestamp, &a.sensor_id).cmp(&(b.timestamp, &b.sensor_id)));
    assert_eq!(expected.len(), 30);
    for limit in [1, 7, 30, 100] {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let rows = store
                .readings_by_time(page(after, None, limit))
                .await
                .unwrap();
            found.extend(rows.iter().map(|row| ReadingKey::of(&row.reading)));
            after = found.last().cloned();
            if rows.len() < limit as usize {
                break;
            }
        }
        assert_eq!(found, expected, "pages of {limit}");
    }
    let of_one = store
        .readings_by_time(page(None, Some("sensor-0002"), 100))
        .await
        .unwrap();
    let ids: Vec<_> = of_one
        .iter()
        .map(|row| row.reading.sensor_id.as_str())
        .collect();
    assert_eq!(ids, ["sensor-0002"; 10]);
    let nobody = store
        .readings_by_time(page(None, Some("nobody"), 100))
        .await;
    assert!(nobody.unwrap().is_empty());

    let reader = database.reader().await;
    let mut chronology = Chronology::new(reader, at(-1_000_000_000), at(1_000_000_000), None);
    let mut times = Vec::new();
    while let Some(rows) = chronology.next().await.unwrap() {
        times.extend(rows.iter().map(|row| row.reading.timestamp));
    }
    assert_eq!(times.len(), 768);
    assert!(times.is_sorted());
    assert_eq!(chronology.position(), at(1_000_000_000));
}

pub(crate) async fn newest_dead_letters_come_first(database: &Database<'_>) {
    let store = database.writer().await;
    let letters: Vec<_> = (0..5_u8)
        .map(|n| letter("a/b", "malformed", &[n]))
        .collect();
    let ids: Vec<Uuid> = letters.iter().map(|it| it.id).collect();
    write_letters(&*store, letters).await;
    let page = async |before| {
        let filter = DeadLetterFilter {
            reason: Some("malformed".to_owned()),
            service: None,
        };
        let page = store.newest_dead_letters(filter, before, 3).await.unwrap();
        page.into_iter().map(|it| it.id).collect::<Vec<_>>()
    };
    assert_eq!(page(None).await, [ids[4], ids[3], ids[2]]);
    assert_eq!(page(Some(ids[2])).await, [ids[1], ids[0]]);
}
