//! The reading side: one connection, used by one blocking task at a time.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleet_shared::model::SensorReading;
use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::connection::{classify, open_reader};
use super::row::{Instant, quality_of_code};
use crate::{
    DeadLetterCount, DeadLetterFilter, ReadingKey, StoreError, StoredDeadLetter, StoredReading,
};

/// A connection that only reads; readers and the writer do not wait for each other.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    path: PathBuf,
    /// `None` once the store is closed.
    connection: Arc<Mutex<Option<Connection>>>,
}

impl Reader {
    pub(super) fn open(path: &Path, lock_timeout: Duration) -> Result<Self, StoreError> {
        Ok(Self {
            path: path.to_owned(),
            connection: Arc::new(Mutex::new(Some(open_reader(path, lock_timeout)?))),
        })
    }

    pub(super) async fn read<T: Send + 'static>(
        &self,
        what: &'static str,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let reader = self.clone();
        let done = spawn_blocking(move || {
            // A query that panicked left nothing half done behind: it only read.
            let held = reader
                .connection
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let path = reader.path.display();
            match &*held {
                Some(connection) => query(connection)
                    .map_err(|error| classify(format!("cannot {what} in {path}"), error)),
                None => Err(StoreError::permanent_because(format!(
                    "the store at {path} is closed"
                ))),
            }
        });
        done.await
            .unwrap_or_else(|error| Err(StoreError::transient(format!("cannot {what}"), error)))
    }

    pub(super) async fn close(&self) -> Result<(), StoreError> {
        let connection = Arc::clone(&self.connection);
        let done = spawn_blocking(move || {
            connection
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
        });
        done.await
            .map_err(|error| StoreError::transient("cannot close the database", error))
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        self.read("read", |connection| {
            connection
                .prepare_cached("SELECT 1 FROM reading LIMIT 1")?
                .exists([])?;
            Ok(())
        })
        .await
    }

    pub(super) async fn count_readings(&self) -> Result<u64, StoreError> {
        self.read("count readings", |connection| {
            connection.query_row("SELECT count(*) FROM reading", [], |row| count(row, 0))
        })
        .await
    }

    pub(super) async fn lookup(
        &self,
        keys: Vec<ReadingKey>,
    ) -> Result<Vec<Option<f64>>, StoreError> {
        self.read("look up readings", move |connection| {
            let mut find = connection.prepare_cached(
                "SELECT r.value FROM series AS s
                 JOIN reading AS r ON r.series = s.id AND r.minute = ?3 AND r.\"offset\" = ?4
                 WHERE s.sensor_id = ?1 AND s.type = ?2",
            )?;
            let values = keys.iter().map(|key| {
                let at = Instant::of(key.timestamp);
                find.query_row(
                    params![key.sensor_id, key.kind, at.minute, at.offset],
                    |row| row.get(0),
                )
                .optional()
            });
            values.collect()
        })
        .await
    }

    pub(super) async fn scan_readings(
        &self,
        after: Option<ReadingKey>,
        limit: u32,
    ) -> Result<Vec<StoredReading>, StoreError> {
        self.read("read readings", move |connection| {
            // Before every row; a key whose series is not there sorts before its minute.
            let mut start = (i64::MIN, 0, 0);
            if let Some(key) = after {
                let series = connection
                    .prepare_cached("SELECT id FROM series WHERE sensor_id = ?1 AND type = ?2")?
                    .query_row(params![key.sensor_id, key.kind], |row| row.get(0))
                    .optional()?;
                let at = Instant::of(key.timestamp);
                start = (at.minute, series.unwrap_or(0), at.offset);
            }
            let mut scan = connection.prepare_cached(
                "SELECT s.sensor_id, s.type, r.minute, r.\"offset\", r.value, p.unit, p.location,
                        r.battery_percent, r.quality, r.delay
                 FROM reading AS r
                 CROSS JOIN series AS s ON s.id = r.series
                 CROSS JOIN place AS p ON p.id = r.place
                 WHERE (r.minute, r.series, r.\"offset\") > (?1, ?2, ?3)
                 ORDER BY r.minute, r.series, r.\"offset\" LIMIT ?4",
            )?;
            let rows = scan.query_map(params![start.0, start.1, start.2, limit], stored_reading)?;
            rows.collect()
        })
        .await
    }

    pub(super) async fn duplicate_keys(&self) -> Result<u64, StoreError> {
        self.read("look for duplicate keys", |connection| {
            let groups = |sql| connection.query_row(sql, [], |row| count(row, 0));
            let double_series = groups(
                "SELECT count(*) FROM
                 (SELECT 1 FROM series GROUP BY sensor_id, type HAVING count(*) > 1)",
            )?;
            if double_series == 0 {
                // With one number a series, the short keys are as distinct as the long ones.
                groups(
                    "SELECT count(*) FROM
                     (SELECT 1 FROM reading GROUP BY minute, series, \"offset\" HAVING count(*) > 1)",
                )
            } else {
                groups(
                    "SELECT count(*) FROM
                     (SELECT 1 FROM readings GROUP BY sensor_id, type, timestamp HAVING count(*) > 1)",
                )
            }
        })
        .await
    }

    pub(super) async fn dead_letters(
        &self,
        filter: DeadLetterFilter,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<StoredDeadLetter>, StoreError> {
        self.read("read dead letters", move |connection| {
            let mut list = connection.prepare_cached(
                "SELECT id, service, topic, payload, reason, detail, received_at FROM dead_letters
                 WHERE id > ?1 AND (?2 IS NULL OR service = ?2) AND (?3 IS NULL OR reason = ?3)
                 ORDER BY id LIMIT ?4",
            )?;
            let after = after.map(|id| id.to_string()).unwrap_or_default();
            let rows = list.query_map(
                params![after, filter.service, filter.reason, limit],
                stored_dead_letter,
            )?;
            rows.collect()
        })
        .await
    }

    pub(super) async fn count_dead_letters(&self) -> Result<Vec<DeadLetterCount>, StoreError> {
        self.read("count dead letters", |connection| {
            let mut counts = connection.prepare_cached(
                "SELECT service, reason, count(*) FROM dead_letters
                 GROUP BY service, reason ORDER BY service, reason",
            )?;
            let rows = counts.query_map([], |row| {
                Ok(DeadLetterCount {
                    service: row.get(0)?,
                    reason: row.get(1)?,
                    count: count(row, 2)?,
                })
            })?;
            rows.collect()
        })
        .await
    }
}

fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    // A count is never negative.
    row.get::<_, i64>(column).map(i64::unsigned_abs)
}

pub(super) fn stored_reading(row: &Row<'_>) -> rusqlite::Result<StoredReading> {
    let at = Instant {
        minute: row.get(2)?,
        offset: row.get(3)?,
    };
    let micros = at.micros().ok_or_else(|| out_of_range(2, at.minute))?;
    let delay: i64 = row.get(9)?;
    let received = micros
        .checked_add(delay)
        .ok_or_else(|| out_of_range(9, delay))?;
    let quality: Option<i64> = row.get(8)?;
    Ok(StoredReading {
        reading: SensorReading {
            sensor_id: row.get(0)?,
            kind: row.get(1)?,
            value: row.get(4)?,
            unit: row.get(5)?,
            location: row.get(6)?,
            timestamp: timestamp(2, micros)?,
            battery_percent: row.get(7)?,
            quality: quality.and_then(quality_of_code),
        },
        received_at: timestamp(9, received)?,
    })
}

pub(super) fn stored_dead_letter(row: &Row<'_>) -> rusqlite::Result<StoredDeadLetter> {
    let id: String = row.get(0)?;
    let received_at: String = row.get(6)?;
    Ok(StoredDeadLetter {
        id: id.parse().map_err(|error| not_text_of(0, error))?,
        service: row.get(1)?,
        topic: row.get(2)?,
        payload: row.get(3)?,
        reason: row.get(4)?,
        detail: row.get(5)?,
        received_at: received_at.parse().map_err(|error| not_text_of(6, error))?,
    })
}

fn timestamp(column: usize, micros: i64) -> rusqlite::Result<Timestamp> {
    Timestamp::from_microsecond(micros).map_err(|_| out_of_range(column, micros))
}

fn out_of_range(column: usize, value: i64) -> rusqlite::Error {
    rusqlite::Error::IntegralValueOutOfRange(column, value)
}

fn not_text_of(
    column: usize,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}
