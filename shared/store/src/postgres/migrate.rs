//! The schema, and what TimescaleDB makes of it.

use tokio_postgres::Client;

use super::error::classify;
use crate::StoreError;

refinery::embed_migrations!("migrations/postgres");

/// The advisory lock under which one process at a time migrates; the number spells "fleetdb".
const MIGRATION_LOCK: i64 = 0x66_6c65_6574_6462;

/// Brings the schema up to date; any number of processes may do so at once.
///
/// `client` must be a connection of its own: the lock is let go with it, whatever happens.
pub(super) async fn migrate(client: &mut Client, server: &str) -> Result<(), StoreError> {
    let refused = |error| {
        classify(
            format!("cannot bring the schema of {server} up to date"),
            error,
        )
    };
    // Waiting for another process's migration may take longer than a statement should.
    client
        .batch_execute(&format!(
            "SET statement_timeout = 0; SELECT pg_advisory_lock({MIGRATION_LOCK})"
        ))
        .await
        .map_err(refused)?;
    migrations::runner()
        .set_grouped(true)
        .run_async(client)
        .await
        .map_err(|error| {
            StoreError::permanent(
                format!("cannot bring the schema of {server} up to date: let its user create tables, or apply the migrations as one who may"),
                error,
            )
        })?;
    make_hypertable(client, server).await?;
    client
        .batch_execute(&format!("SELECT pg_advisory_unlock({MIGRATION_LOCK})"))
        .await
        .map_err(refused)
}

/// Says what to do when the schema is not there, for a program that only reads.
pub(super) async fn require_schema(client: &Client, server: &str) -> Result<(), StoreError> {
    let looked = client
        .batch_execute("SELECT FROM readings, dead_letters LIMIT 0")
        .await;
    looked.map_err(|error| {
        let what =
            format!("{server} is not a fleet database, or an older one: start ingest on it once");
        classify(what, error)
    })
}

/// Makes `readings` a hypertable where TimescaleDB can be had; without it the plain table serves.
async fn make_hypertable(client: &Client, server: &str) -> Result<(), StoreError> {
    let available = client
        .query_opt(
            "SELECT 1 FROM pg_available_extensions WHERE name = 'timescaledb'",
            &[],
        )
        .await
        .map_err(|error| classify(format!("cannot look for TimescaleDB on {server}"), error))?;
    if available.is_none() || is_hypertable(client, server).await? {
        return Ok(());
    }
    // A chunk a day: retention drops whole days, and the index of one day stays in memory.
    let made = client
        .batch_execute(
            "CREATE EXTENSION IF NOT EXISTS timescaledb;
             SELECT create_hypertable('readings', 'timestamp',
                 chunk_time_interval => interval '1 day', create_default_indexes => false,
                 migrate_data => true, if_not_exists => true)",
        )
        .await;
    if let Err(error) = made {
        tracing::warn!(%error, "TimescaleDB is installed but cannot be used, going on with a plain table");
    }
    Ok(())
}

/// Whether `readings` is a hypertable of TimescaleDB.
pub(super) async fn is_hypertable(client: &Client, server: &str) -> Result<bool, StoreError> {
    let known = client
        .query_opt(
            "SELECT 1 FROM pg_extension WHERE extname = 'timescaledb'",
            &[],
        )
        .await;
    let hypertable = match known {
        Ok(None) => return Ok(false),
        Ok(Some(_)) => {
            client
                .query_opt(
                    "SELECT 1 FROM timescaledb_information.hypertables
                     WHERE hypertable_name = 'readings' AND hypertable_schema = current_schema()",
                    &[],
                )
                .await
        }
        Err(error) => Err(error),
    };
    hypertable
        .map(|row| row.is_some())
        .map_err(|error| classify(format!("cannot look for TimescaleDB on {server}"), error))
}
