//! The reading side.

use deadpool_postgres::Client;
use fleet_shared::model::{Quality, SensorReading};
use jiff::Timestamp;
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::insert::values;
use super::value::Micros;
use crate::{
    DeadLetterCount, DeadLetterFilter, ReadingKey, StoreError, StoredDeadLetter, StoredReading,
};

pub(super) async fn count_readings(client: &Client) -> Result<u64, Error> {
    let row = client
        .query_one("SELECT count(*) FROM readings", &[])
        .await?;
    count(&row, 0)
}

pub(super) async fn lookup(
    client: &Client,
    keys: &[ReadingKey],
) -> Result<Vec<Option<f64>>, Error> {
    // A text with a NUL is in no row of PostgreSQL, and cannot be asked for.
    let storable = |key: &&ReadingKey| {
        !key.sensor_id.contains('\0')
            && !key.kind.contains('\0')
            && Micros::of(key.timestamp).is_storable()
    };
    let places: Vec<usize> = (0..keys.len())
        .filter(|place| storable(&&keys[*place]))
        .collect();
    let sensor_id: Vec<&str> = places
        .iter()
        .map(|place| keys[*place].sensor_id.as_str())
        .collect();
    let kind: Vec<&str> = places
        .iter()
        .map(|place| keys[*place].kind.as_str())
        .collect();
    let timestamp: Vec<Micros> = places
        .iter()
        .map(|place| Micros::of(keys[*place].timestamp))
        .collect();
    let mut found = vec![None; keys.len()];
    for (asked, value) in values(client, &sensor_id, &kind, &timestamp).await? {
        found[places[asked]] = Some(value);
    }
    Ok(found)
}

pub(super) async fn scan_readings(
    client: &Client,
    after: Option<ReadingKey>,
    limit: u32,
) -> Result<Vec<Row>, Error> {
    let columns = "SELECT sensor_id, type, timestamp, value, unit, location, battery_percent, quality, received_at FROM readings";
    let order = "ORDER BY sensor_id, type, timestamp LIMIT";
    let limit = i64::from(limit);
    match after {
        None => {
            let scan = client
                .prepare_cached(&format!("{columns} {order} $1"))
                .await?;
            client.query(&scan, &[&limit]).await
        }
        Some(key) => {
            let scan = client
                .prepare_cached(&format!(
                    "{columns} WHERE (sensor_id, type, timestamp) > ($1, $2, $3) {order} $4"
                ))
                .await?;
            let at = Micros::of(key.timestamp);
            client
                .query(&scan, &[&key.sensor_id, &key.kind, &at, &limit])
                .await
        }
    }
}

pub(super) async fn duplicate_keys(client: &Client) -> Result<u64, Error> {
    let row = client
        .query_one(
            "SELECT count(*) FROM
             (SELECT FROM readings GROUP BY sensor_id, type, timestamp HAVING count(*) > 1) AS doubles",
            &[],
        )
        .await?;
    count(&row, 0)
}

pub(super) async fn dead_letters(
    client: &Client,
    filter: &DeadLetterFilter,
    after: Option<Uuid>,
    limit: u32,
) -> Result<Vec<Row>, Error> {
    client
        .query(
            "SELECT id, service, topic, payload, reason, detail, received_at FROM dead_letters
             WHERE ($1::uuid IS NULL OR id > $1) AND ($2::text IS NULL OR service = $2)
               AND ($3::text IS NULL OR reason = $3)
             ORDER BY id LIMIT $4",
            &[&after, &filter.service, &filter.reason, &i64::from(limit)],
        )
        .await
}

pub(super) async fn count_dead_letters(client: &Client) -> Result<Vec<DeadLetterCount>, Error> {
    let rows = client
        .query(
            "SELECT service, reason, count(*) FROM dead_letters
             GROUP BY service, reason ORDER BY service, reason",
            &[],
        )
        .await?;
    let counts = rows.iter().map(|row| {
        Ok(DeadLetterCount {
            service: row.try_get(0)?,
            reason: row.try_get(1)?,
            count: count(row, 2)?,
        })
    });
    counts.collect()
}

fn count(row: &Row, column: usize) -> Result<u64, Error> {
    // A count is never negative.
    row.try_get::<_, i64>(column).map(i64::unsigned_abs)
}

/// Turns rows into values; a row that others wrote with values of theirs is an error that names it.
pub(super) fn decoded<T>(
    server: &str,
    rows: impl Iterator<Item = Result<T, Unreadable>>,
) -> Result<Vec<T>, StoreError> {
    rows.collect::<Result<Vec<T>, Unreadable>>()
        .map_err(|source| {
            StoreError::permanent(
                format!("a row on {server} is not the fleet's: delete it"),
                source,
            )
        })
}

/// Why a row cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("a column has another type than the schema gives it")]
    Column(#[from] Error),
    #[error("battery_percent is {0}, not within 0 to 255")]
    Battery(i16),
    #[error("an instant is out of range")]
    Instant(#[from] jiff::Error),
}

pub(super) fn stored_reading(row: &Row) -> Result<StoredReading, Unreadable> {
    let battery: Option<i16> = row.try_get(6)?;
    let battery_percent = battery
        .map(|percent| u8::try_from(percent).map_err(|_| Unreadable::Battery(percent)))
        .transpose()?;
    let quality: Option<&str> = row.try_get(7)?;
    Ok(StoredReading {
        reading: SensorReading {
            sensor_id: row.try_get(0)?,
            kind: row.try_get(1)?,
            timestamp: instant(row, 2)?,
            value: row.try_get(3)?,
            unit: row.try_get(4)?,
            location: row.try_get(5)?,
            battery_percent,
            quality: quality.and_then(Quality::from_name),
        },
        received_at: instant(row, 8)?,
    })
}

pub(super) fn stored_dead_letter(row: &Row) -> Result<StoredDeadLetter, Unreadable> {
    Ok(StoredDeadLetter {
        id: row.try_get(0)?,
        service: row.try_get(1)?,
        topic: row.try_get(2)?,
        payload: row.try_get(3)?,
        reason: row.try_get(4)?,
        detail: row.try_get(5)?,
        received_at: instant(row, 6)?,
    })
}

pub(super) fn instant(row: &Row, column: usize) -> Result<Timestamp, Unreadable> {
    let Micros(micros) = row.try_get(column)?;
    Ok(Timestamp::from_microsecond(micros)?)
}
