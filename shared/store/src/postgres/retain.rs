//! Deleting old rows without keeping writers waiting.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio_postgres::Row;

use super::PostgresStore;
use super::error::classify;
use super::value::Micros;
use crate::query::first_id_at;
use crate::{Backend, RetainReport, StoreError};

/// Rows deleted in one transaction, some 20 ms of work.
const SLICE_ROWS: i32 = 5_000;

pub(super) async fn retain(
    store: &PostgresStore,
    before: Timestamp,
) -> Result<RetainReport, StoreError> {
    // Older than any reading there can be means that there is nothing to delete.
    let at = Micros::of(before);
    if !at.is_storable() {
        return Ok(RetainReport::default());
    }
    let mut report = RetainReport::default();
    if store.backend == Backend::Timescale {
        report.chunks = drop_chunks(store, at).await?;
    } else {
        report.readings = delete_readings(store, at).await?;
    }
    report.dead_letters = delete_dead_letters(store, before).await?;
    Ok(report)
}

async fn drop_chunks(store: &PostgresStore, before: Micros) -> Result<u64, StoreError> {
    store
        .run("drop old chunks", |client| {
            Box::pin(async move {
                let drop = "SELECT drop_chunks('readings', older_than => $1::timestamptz)";
                client
                    .query(drop, &[&before])
                    .await
                    .map(|rows| rows.len() as u64)
            })
        })
        .await
}

/// Deletes readings slice by slice, and rests after each for as long as it took.
///
/// One connection reads the places of old rows through a cursor, so that the table is gone through
/// once; another deletes them in transactions of their own. The cursor's snapshot keeps a place from
/// being used again before it was looked at, and the instant is asked for once more.
async fn delete_readings(store: &PostgresStore, before: Micros) -> Result<u64, StoreError> {
    const OLD: &str = "SELECT ctid::text FROM readings WHERE timestamp < $1";
    const DELETE: &str =
        "DELETE FROM readings WHERE ctid = ANY($1::text[]::tid[]) AND timestamp < $2";
    let failed = |error| {
        classify(
            format!("cannot look for old readings on {}", store.server),
            error,
        )
    };
    let mut client = store.client().await?;
    let cursor = client.transaction().await.map_err(failed)?;
    // The cursor waits while slices are deleted, for longer than a session usually may.
    cursor
        .batch_execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        .await
        .map_err(failed)?;
    let places = cursor.bind(OLD, &[&before]).await.map_err(failed)?;
    let mut deleted = 0;
    loop {
        let fetched = cursor.query_portal(&places, SLICE_ROWS);
        let rows = tokio::time::timeout(store.statement_timeout, fetched)
            .await
            .map_err(|_| StoreError::transient_because("old readings were not found in time"))?
            .map_err(failed)?;
        if rows.is_empty() {
            return Ok(deleted);
        }
        let slice: Vec<String> = rows
            .iter()
            .map(|row: &Row| row.try_get(0))
            .collect::<Result<_, _>>()
            .map_err(failed)?;
        let began = Instant::now();
        deleted += store
            .run("delete old readings", |client| {
                let slice = slice.clone();
                Box::pin(async move { client.execute(DELETE, &[&slice, &before]).await })
            })
            .await?;
        tokio::time::sleep(began.elapsed().max(Duration::from_millis(1))).await;
    }
}

/// Dead letters are named by time, so the old ones are the first names.
async fn delete_dead_letters(store: &PostgresStore, before: Timestamp) -> Result<u64, StoreError> {
    let before = first_id_at(before);
    let mut deleted = 0;
    loop {
        let began = Instant::now();
        let slice = store
            .run("delete old dead letters", |client| {
                Box::pin(async move {
                    let delete = "DELETE FROM dead_letters WHERE id IN
                        (SELECT id FROM dead_letters WHERE id < $1 ORDER BY id LIMIT $2)";
                    client
                        .execute(delete, &[&before, &i64::from(SLICE_ROWS)])
                        .await
                })
            })
            .await?;
        deleted += slice;
        if slice < SLICE_ROWS.unsigned_abs().into() {
            return Ok(deleted);
        }
        tokio::time::sleep(began.elapsed().max(Duration::from_millis(1))).await;
    }
}
