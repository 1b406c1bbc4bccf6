//! Transitions and buckets in SQLite.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::SqliteStore;
use super::reader::{stored_dead_letter, stored_reading};
use super::row::{Instant, instant_text};
use super::writer::Command;
use crate::history::{Newest, judge};
use crate::{
    Bucket, DeadLetterFilter, DeviceTransition, History, Recorded, Span, StoreFuture,
    StoredDeadLetter, StoredReading, TimePage,
};

const COLUMNS: &str = "device_id, at, online, reason, session_id";

impl History for SqliteStore {
    fn record_transitions(
        &self,
        transitions: Arc<[DeviceTransition]>,
    ) -> StoreFuture<'_, Vec<Recorded>> {
        Box::pin(self.ask(|reply| Command::RecordTransitions(transitions, reply)))
    }

    fn transitions<'a>(
        &'a self,
        device_id: &'a str,
        before: Option<Timestamp>,
        limit: u32,
    ) -> StoreFuture<'a, Vec<DeviceTransition>> {
        let device_id = device_id.to_owned();
        Box::pin(self.reader.read("read transitions", move |connection| {
            let sql = format!(
                "SELECT {COLUMNS} FROM device_transitions
                 WHERE device_id = ?1 AND (?2 IS NULL OR at < ?2) ORDER BY at DESC LIMIT ?3"
            );
            let before = before.map(instant_text);
            let mut list = connection.prepare_cached(&sql)?;
            let rows = list.query_map(params![device_id, before, limit], transition)?;
            rows.collect()
        }))
    }

    fn newest_transitions(
        &self,
        after: Option<String>,
        limit: u32,
    ) -> StoreFuture<'_, Vec<DeviceTransition>> {
        Box::pin(self.reader.read("read transitions", move |connection| {
            // With max() the other columns are those of the row that has it.
            let mut list = connection.prepare_cached(
                "SELECT device_id, max(at), online, reason, session_id FROM device_transitions
                 WHERE device_id > ?1 GROUP BY device_id ORDER BY device_id LIMIT ?2",
            )?;
            let rows = list.query_map(params![after.unwrap_or_default(), limit], transition)?;
            rows.collect()
        }))
    }

    fn transitions_since(
        &self,
        since: Timestamp,
        limit: u32,
    ) -> StoreFuture<'_, Vec<DeviceTransition>> {
        Box::pin(self.reader.read("read transitions", move |connection| {
            let sql = format!(
                "SELECT {COLUMNS} FROM device_transitions WHERE at >= ?1 ORDER BY at LIMIT ?2"
            );
            let mut list = connection.prepare_cached(&sql)?;
            let rows = list.query_map(params![instant_text(since), limit], transition)?;
            rows.collect()
        }))
    }

    fn reading_buckets<'a>(
        &'a self,
        sensor_id: &'a str,
        kind: &'a str,
        span: Span,
    ) -> StoreFuture<'a, Vec<Bucket>> {
        let (sensor_id, kind) = (sensor_id.to_owned(), kind.to_owned());
        Box::pin(self.reader.read("read readings", move |connection| {
            buckets(connection, &sensor_id, &kind, span)
        }))
    }

    fn sensor_kind<'a>(&'a self, sensor_id: &'a str) -> StoreFuture<'a, Option<String>> {
        let sensor_id = sensor_id.to_owned();
        Box::pin(self.reader.read("look up a sensor", move |connection| {
            connection
                .prepare_cached(
                    "SELECT type FROM series WHERE sensor_id = ?1 ORDER BY type LIMIT 1",
                )?
                .query_row([sensor_id], |row| row.get(0))
                .optional()
        }))
    }

    fn readings_by_time(&self, page: TimePage) -> StoreFuture<'_, Vec<StoredReading>> {
        Box::pin(self.reader.read("read readings", move |connection| {
            readings_by_time(connection, &page)
        }))
    }

    fn newest_dead_letters(
        &self,
        filter: DeadLetterFilter,
        before: Option<Uuid>,
        limit: u32,
    ) -> StoreFuture<'_, Vec<StoredDeadLetter>> {
        Box::pin(self.reader.read("read dead letters", move |connection| {
            let mut list = connection.prepare_cached(
                "SELECT id, service, topic, payload, reason, detail, received_at FROM dead_letters
                 WHERE (?1 IS NULL OR id < ?1) AND (?2 IS NULL OR service = ?2)
                   AND (?3 IS NULL OR reason = ?3)
                 ORDER BY id DESC LIMIT ?4",
            )?;
            let before = before.map(|id| id.to_string());
            let rows = list.query_map(
                params![before, filter.service, filter.reason, limit],
                stored_dead_letter,
            )?;
            rows.collect()
        }))
    }
}

/// Stores what is news, inside the open transaction.
pub(super) fn record(
    connection: &Connection,
    transitions: &[DeviceTransition],
) -> rusqlite::Result<Vec<Recorded>> {
    let mut newest = connection.prepare_cached(
        "SELECT device_id, at, online, reason, session_id FROM device_transitions
         WHERE device_id = ?1 ORDER BY at DESC LIMIT 1",
    )?;
    let mut insert = connection.prepare_cached(
        "INSERT INTO device_transitions (device_id, at, online, reason, session_id)
         VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
    )?;
    let mut known: HashMap<&str, Option<Newest>> = HashMap::new();
    let mut answers = Vec::with_capacity(transitions.len());
    for new in transitions {
        let last = match known.get(new.device_id.as_str()) {
            Some(last) => *last,
            None => newest
                .query_row([&new.device_id], transition)
                .optional()?
                .map(|row| Newest::of(&row)),
        };
        let answer = judge(last, new);
        let mut last = last;
        if answer == Recorded::Stored {
            let session = new.session_id.map(|id| id.to_string());
            insert.execute(params![
                new.device_id,
                instant_text(new.at),
                new.online,
                new.reason,
                session
            ])?;
            last = Some(Newest::of(new));
        }
        known.insert(&new.device_id, last);
        answers.push(answer);
    }
    Ok(answers)
}

fn buckets(
    connection: &Connection,
    sensor_id: &str,
    kind: &str,
    span: Span,
) -> rusqlite::Result<Vec<Bucket>> {
    let (first, last): (Option<i64>, Option<i64>) = connection
        .prepare_cached(
            "SELECT (SELECT min(minute) FROM reading), (SELECT max(minute) FROM reading)",
        )?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (Some(first), Some(last)) = (first, last) else {
        return Ok(Vec::new());
    };
    let (from, to) = (span.from.as_microsecond(), span.to.as_microsecond());
    let first = first.max(Instant::of(span.from).minute);
    let last = last.min(Instant::of(span.to).minute);
    // One seek a minute: the key begins with it, so a scan for one series would read them all.
    let mut list = connection.prepare_cached(
        "WITH RECURSIVE minutes (minute) AS (
             SELECT ?3 WHERE ?3 <= ?4
             UNION ALL SELECT minute + 1 FROM minutes WHERE minute < ?4)
         SELECT (r.minute * 60000000 + r.\"offset\" - ?5) / ?7 AS bucket,
                min(r.value), avg(r.value), max(r.value), count(*)
         FROM minutes CROSS JOIN reading AS r ON r.minute = minutes.minute
          AND r.series = (SELECT id FROM series WHERE sensor_id = ?1 AND type = ?2)
         WHERE r.minute * 60000000 + r.\"offset\" >= ?5 AND r.minute * 60000000 + r.\"offset\" < ?6
         GROUP BY bucket ORDER BY bucket",
    )?;
    let width = span.width();
    let rows = list.query_map(
        params![sensor_id, kind, first, last, from, to, width],
        |row| {
            let bucket: i64 = row.get(0)?;
            let at = Timestamp::from_microsecond(from + bucket * width)
                .map_err(|_| rusqlite::Error::IntegralValueOutOfRange(0, bucket))?;
            Ok(Bucket {
                at,
                min: row.get(1)?,
                mean: row.get(2)?,
                max: row.get(3)?,
                count: row.get::<_, i64>(4)?.unsigned_abs(),
            })
        },
    )?;
    rows.collect()
}

fn readings_by_time(
    connection: &Connection,
    page: &TimePage,
) -> rusqlite::Result<Vec<StoredReading>> {
    let (first, last): (Option<i64>, Option<i64>) = connection
        .prepare_cached(
            "SELECT (SELECT min(minute) FROM reading), (SELECT max(minute) FROM reading)",
        )?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (Some(first), Some(last)) = (first, last) else {
        return Ok(Vec::new());
    };
    let (from, to) = (Instant::of(page.from), Instant::of(page.to));
    let first = first.max(from.minute);
    let last = last.min(to.minute);
    // Sorts before every row of its instant, which is therefore included.
    let mut start = (from, "", "");
    if let Some(key) = &page.after {
        start = (Instant::of(key.timestamp), &key.sensor_id, &key.kind);
    }
    // Minutes come in the order of the key; SQLite sorts only within each. For one sensor it is one
    // seek a minute.
    let source = match page.sensor_id {
        None => {
            "reading AS r CROSS JOIN series AS s ON s.id = r.series AND ?10 IS NULL
             CROSS JOIN place AS p ON p.id = r.place
             WHERE r.minute >= ?1 AND r.minute <= ?2"
        }
        Some(_) => {
            "minutes CROSS JOIN series AS s ON s.sensor_id = ?10
             CROSS JOIN reading AS r ON r.minute = minutes.minute AND r.series = s.id
             CROSS JOIN place AS p ON p.id = r.place
             WHERE true"
        }
    };
    let sql = format!(
        "WITH RECURSIVE minutes (minute) AS (
             SELECT ?1 WHERE ?1 <= ?2
             UNION ALL SELECT minute + 1 FROM minutes WHERE minute < ?2)
         SELECT s.sensor_id, s.type, r.minute, r.\"offset\", r.value, p.unit, p.location,
                r.battery_percent, r.quality, r.delay
         FROM {source}
           AND (r.minute, r.\"offset\", s.sensor_id, s.type) > (?3, ?4, ?5, ?6)
           AND (r.minute, r.\"offset\") < (?7, ?8)
         ORDER BY r.minute, r.\"offset\", s.sensor_id, s.type LIMIT ?9"
    );
    let (at, sensor_id, kind) = start;
    let mut list = connection.prepare_cached(&sql)?;
    let rows = list.query_map(
        params![
            first,
            last,
            at.minute,
            at.offset,
            sensor_id,
            kind,
            to.minute,
            to.offset,
            page.limit,
            page.sensor_id
        ],
        stored_reading,
    )?;
    rows.collect()
}

fn transition(row: &Row<'_>) -> rusqlite::Result<DeviceTransition> {
    let at: String = row.get(1)?;
    let session: Option<String> = row.get(4)?;
    let unreadable = |column, error: Box<dyn std::error::Error + Send + Sync>| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error)
    };
    Ok(DeviceTransition {
        device_id: row.get(0)?,
        at: at
            .parse()
            .map_err(|error: jiff::Error| unreadable(1, error.into()))?,
        online: row.get(2)?,
        reason: row.get(3)?,
        session_id: session
            .map(|id| {
                id.parse()
                    .map_err(|error: uuid::Error| unreadable(4, error.into()))
            })
            .transpose()?,
    })
}
