//! Transitions and buckets in PostgreSQL.

use std::collections::HashMap;
use std::sync::Arc;

use deadpool_postgres::Client;
use jiff::Timestamp;
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::PostgresStore;
use super::reader::{Unreadable, decoded, instant, stored_dead_letter, stored_reading};
use super::value::Micros;
use crate::history::{Newest, judge};
use crate::{
    Bucket, DeadLetterFilter, DeviceTransition, History, Recorded, Span, StoreFuture,
    StoredDeadLetter, StoredReading, TimePage,
};

/// The advisory lock under which one replica at a time looks and stores; the number spells
/// "transit".
const RECORD_LOCK: i64 = 0x74_7261_6e73_6974;

const NEWEST: &str =
    "SELECT newest.device_id, newest.at, newest.online, newest.reason, newest.session_id
FROM unnest($1::text[]) AS asked (device_id)
CROSS JOIN LATERAL (
    SELECT * FROM device_transitions AS t
    WHERE t.device_id = asked.device_id COLLATE \"C\" ORDER BY at DESC LIMIT 1) AS newest";

const INSERT: &str = "INSERT INTO device_transitions (device_id, at, online, reason, session_id)
SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::bool[], $4::text[], $5::uuid[])
ON CONFLICT DO NOTHING";

const BUCKETS: &str = "SELECT (extract(epoch FROM timestamp - $3) * 1000000)::int8 / $5 AS bucket,
       min(value), avg(value), max(value), count(*)
FROM readings WHERE sensor_id = $1 AND type = $2 AND timestamp >= $3 AND timestamp < $4
GROUP BY bucket ORDER BY bucket";

impl History for PostgresStore {
    fn record_transitions(
        &self,
        transitions: Arc<[DeviceTransition]>,
    ) -> StoreFuture<'_, Vec<Recorded>> {
        Box::pin(async move {
            self.require_writer()?;
            self.run("store transitions", |client| {
                let transitions = Arc::clone(&transitions);
                Box::pin(async move { record(client, &transitions).await })
            })
            .await
        })
    }

    fn transitions<'a>(
        &'a self,
        device_id: &'a str,
        before: Option<Timestamp>,
        limit: u32,
    ) -> StoreFuture<'a, Vec<DeviceTransition>> {
        Box::pin(async move {
            let rows = self
                .run("read transitions", |client| {
                    let device_id = device_id.to_owned();
                    Box::pin(async move {
                        let before = before.map(Micros::of);
                        client
                            .query(
                                "SELECT device_id, at, online, reason, session_id FROM device_transitions
                                 WHERE device_id = $1 AND ($2::timestamptz IS NULL OR at < $2)
                                 ORDER BY at DESC LIMIT $3",
                                &[&device_id, &before, &i64::from(limit)],
                            )
                            .await
                    })
                })
                .await?;
            decoded(&self.server, rows.iter().map(transition))
        })
    }

    fn newest_transitions(
        &self,
        after: Option<String>,
        limit: u32,
    ) -> StoreFuture<'_, Vec<DeviceTransition>> {
        Box::pin(async move {
            let after = after.unwrap_or_default();
            let rows = self
                .run("read transitions", |client| {
                    let after = after.clone();
                    Box::pin(async move {
                        client
                            .query(
                                "SELECT DISTINCT ON (device_id) device_id, at, online, reason, session_id
                                 FROM device_transitions WHERE device_id > $1
                                 ORDER BY device_id, at DESC LIMIT $2",
                                &[&after, &i64::from(limit)],
                            )
                            .await
                    })
                })
                .await?;
            decoded(&self.server, rows.iter().map(transition))
        })
    }

    fn transitions_since(
        &self,
        since: Timestamp,
        limit: u32,
    ) -> StoreFuture<'_, Vec<DeviceTransition>> {
        Box::pin(async move {
            let rows = self
                .run("read transitions", |client| {
                    Box::pin(async move {
                        client
                            .query(
                                "SELECT device_id, at, online, reason, session_id FROM device_transitions
                                 WHERE at >= $1 ORDER BY at LIMIT $2",
                                &[&Micros::of(since), &i64::from(limit)],
                            )
                            .await
                    })
                })
                .await?;
            decoded(&self.server, rows.iter().map(transition))
        })
    }

    fn reading_buckets<'a>(
        &'a self,
        sensor_id: &'a str,
        kind: &'a str,
        span: Span,
    ) -> StoreFuture<'a, Vec<Bucket>> {
        Box::pin(async move {
            let width = span.width();
            let rows = self
                .run("read readings", |client| {
                    let (sensor_id, kind) = (sensor_id.to_owned(), kind.to_owned());
                    Box::pin(async move {
                        let (from, to) = (Micros::of(span.from), Micros::of(span.to));
                        client
                            .query(BUCKETS, &[&sensor_id, &kind, &from, &to, &width])
                            .await
                    })
                })
                .await?;
            let start = span.from.as_microsecond();
            decoded(
                &self.server,
                rows.iter().map(|row| bucket(row, start, width)),
            )
        })
    }

    fn sensor_kind<'a>(&'a self, sensor_id: &'a str) -> StoreFuture<'a, Option<String>> {
        Box::pin(async move {
            self.run("look up a sensor", |client| {
                let sensor_id = sensor_id.to_owned();
                Box::pin(async move {
                    let sql =
                        "SELECT type FROM readings WHERE sensor_id = $1 ORDER BY type LIMIT 1";
                    let row = client.query_opt(sql, &[&sensor_id]).await?;
                    row.map(|row| row.try_get(0)).transpose()
                })
            })
            .await
        })
    }

    fn readings_by_time(&self, page: TimePage) -> StoreFuture<'_, Vec<StoredReading>> {
        Box::pin(async move {
            let rows = self
                .run("read readings", |client| {
                    let page = page.clone();
                    Box::pin(async move { readings_by_time(client, &page).await })
                })
                .await?;
            decoded(&self.server, rows.iter().map(stored_reading))
        })
    }

    fn newest_dead_letters(
        &self,
        filter: DeadLetterFilter,
        before: Option<Uuid>,
        limit: u32,
    ) -> StoreFuture<'_, Vec<StoredDeadLetter>> {
        Box::pin(async move {
            let rows = self
                .run("read dead letters", |client| {
                    let filter = filter.clone();
                    Box::pin(async move {
                        client
                            .query(
                                "SELECT id, service, topic, payload, reason, detail, received_at FROM dead_letters
                                 WHERE ($1::uuid IS NULL OR id < $1) AND ($2::text IS NULL OR service = $2)
                                   AND ($3::text IS NULL OR reason = $3)
                                 ORDER BY id DESC LIMIT $4",
                                &[&before, &filter.service, &filter.reason, &i64::from(limit)],
                            )
                            .await
                    })
                })
                .await?;
            decoded(&self.server, rows.iter().map(stored_dead_letter))
        })
    }
}

async fn record(
    client: &mut Client,
    transitions: &[DeviceTransition],
) -> Result<Vec<Recorded>, Error> {
    let transaction = client.transaction().await?;
    transaction
        .execute("SELECT pg_advisory_xact_lock($1)", &[&RECORD_LOCK])
        .await?;
    let mut ids: Vec<&str> = transitions.iter().map(|it| it.device_id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut newest: HashMap<String, Newest> = HashMap::new();
    for row in transaction.query(NEWEST, &[&ids]).await? {
        let Micros(micros) = row.try_get(1)?;
        // Out of range only where others wrote: such a row does not count as the newest.
        if let Ok(at) = Timestamp::from_microsecond(micros) {
            let known = Newest {
                at,
                online: row.try_get(2)?,
                session_id: row.try_get(4)?,
            };
            newest.insert(row.try_get(0)?, known);
        }
    }
    let mut answers = Vec::with_capacity(transitions.len());
    let mut news = Vec::new();
    for new in transitions {
        let answer = judge(newest.get(&new.device_id).copied(), new);
        if answer == Recorded::Stored {
            newest.insert(new.device_id.clone(), Newest::of(new));
            news.push(new);
        }
        answers.push(answer);
    }
    insert(&transaction, &news).await?;
    transaction.commit().await?;
    Ok(answers)
}

async fn insert(
    transaction: &deadpool_postgres::Transaction<'_>,
    news: &[&DeviceTransition],
) -> Result<(), Error> {
    if news.is_empty() {
        return Ok(());
    }
    let device_id: Vec<&str> = news.iter().map(|it| it.device_id.as_str()).collect();
    let at: Vec<Micros> = news.iter().map(|it| Micros::of(it.at)).collect();
    let online: Vec<bool> = news.iter().map(|it| it.online).collect();
    let reason: Vec<&str> = news.iter().map(|it| it.reason.as_str()).collect();
    let session_id: Vec<Option<Uuid>> = news.iter().map(|it| it.session_id).collect();
    transaction
        .execute(INSERT, &[&device_id, &at, &online, &reason, &session_id])
        .await?;
    Ok(())
}

async fn readings_by_time(client: &Client, page: &TimePage) -> Result<Vec<Row>, Error> {
    // A sensor is found by the primary key, a time by the index over blocks.
    let of_sensor = match page.sensor_id {
        None => "$7::text IS NULL",
        Some(_) => "sensor_id = $7 COLLATE \"C\"",
    };
    let sql = format!(
        "SELECT sensor_id, type, timestamp, value, unit, location, battery_percent, quality,
                received_at
         FROM readings
         WHERE {of_sensor} AND timestamp >= $1 AND timestamp < $2
           AND (timestamp, sensor_id, type) > ($3, $4, $5)
         ORDER BY timestamp, sensor_id, type LIMIT $6"
    );
    let (mut at, mut sensor_id, mut kind) = (page.from, "", "");
    if let Some(key) = &page.after {
        (at, sensor_id, kind) = (key.timestamp, &key.sensor_id, &key.kind);
    }
    let statement = client.prepare_cached(&sql).await?;
    client
        .query(
            &statement,
            &[
                &Micros::of(page.from),
                &Micros::of(page.to),
                &Micros::of(at),
                &sensor_id,
                &kind,
                &i64::from(page.limit),
                &page.sensor_id,
            ],
        )
        .await
}

fn transition(row: &Row) -> Result<DeviceTransition, Unreadable> {
    Ok(DeviceTransition {
        device_id: row.try_get(0)?,
        at: instant(row, 1)?,
        online: row.try_get(2)?,
        reason: row.try_get(3)?,
        session_id: row.try_get(4)?,
    })
}

fn bucket(row: &Row, from: i64, width: i64) -> Result<Bucket, Unreadable> {
    let place: i64 = row.try_get(0)?;
    Ok(Bucket {
        at: Timestamp::from_microsecond(from + place * width)?,
        min: row.try_get(1)?,
        mean: row.try_get(2)?,
        max: row.try_get(3)?,
        count: row.try_get::<_, i64>(4)?.unsigned_abs(),
    })
}
