//! Alerts in SQLite: a connection of their own, used by one blocking task at a time.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use tokio::task::spawn_blocking;

use super::connection::{classify, open_reader, open_writer};
use super::notice;
use super::row::instant_text;
use crate::alert::{
    AlertBatch, AlertMarks, AlertState, AlertStore, Lease, METADATA_STATES, MQTT_CHANNEL, NewAlert,
    NewOutgoing, Outgoing, StoredAlert, StoredOutgoing, Written,
};
use crate::{Firing, OpenOptions, Role, StoreError, StoreFuture};

/// The alerts of a SQLite file.
pub(crate) struct SqliteAlerts {
    path: PathBuf,
    connection: Arc<Mutex<Connection>>,
}

impl SqliteAlerts {
    pub(crate) async fn open(path: PathBuf, options: OpenOptions) -> Result<Self, StoreError> {
        let opened = spawn_blocking(move || {
            let connection = match options.role {
                Role::Writer => open_writer(&path, options.statement_timeout)?,
                Role::Reader => open_reader(&path, options.statement_timeout)?,
            };
            Ok(Self {
                path,
                connection: Arc::new(Mutex::new(connection)),
            })
        });
        opened
            .await
            .unwrap_or_else(|error| Err(StoreError::permanent("opening was cut off", error)))
    }

    /// Runs `work` in a transaction; one that writes holds the write lock from its start.
    async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        behavior: TransactionBehavior,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let connection = Arc::clone(&self.connection);
        let done = spawn_blocking(move || {
            // A task that panicked left its transaction to be rolled back by its drop.
            let mut held = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let transaction = held.transaction_with_behavior(behavior)?;
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        });
        match done.await {
            Ok(result) => result.map_err(|error| {
                classify(format!("cannot {what} in {}", self.path.display()), error)
            }),
            Err(error) => Err(StoreError::transient(format!("cannot {what}"), error)),
        }
    }

    pub(super) async fn write<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run(what, TransactionBehavior::Immediate, work).await
    }

    pub(super) async fn read<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run(what, TransactionBehavior::Deferred, work).await
    }
}

impl AlertStore for SqliteAlerts {
    fn acquire_lease<'a>(
        &'a self,
        name: &'a str,
        holder: &'a str,
        ttl: Duration,
    ) -> StoreFuture<'a, Option<Lease>> {
        let (name, holder) = (name.to_owned(), holder.to_owned());
        Box::pin(self.write("take the lease", move |transaction| {
            // All who open the file share its machine's clock.
            let now = Timestamp::now();
            let epoch: Option<i64> = transaction
                .prepare_cached(
                    "INSERT INTO leases (name, holder, epoch, expires_at) VALUES (?1, ?2, 1, ?3)
                     ON CONFLICT (name) DO UPDATE
                     SET holder = ?2, epoch = epoch + 1, expires_at = ?3
                     WHERE expires_at <= ?4 OR holder = ?2
                     RETURNING epoch",
                )?
                .query_row(
                    params![name, holder, later(now, ttl), instant_text(now)],
                    |row| row.get(0),
                )
                .optional()?;
            Ok(epoch.map(|epoch| Lease {
                name,
                holder,
                epoch,
            }))
        }))
    }

    fn renew_lease<'a>(&'a self, lease: &'a Lease, ttl: Duration) -> StoreFuture<'a, bool> {
        let lease = lease.clone();
        Box::pin(self.write("renew the lease", move |transaction| {
            let renewed = transaction
                .prepare_cached("UPDATE leases SET expires_at = ?3 WHERE name = ?1 AND epoch = ?2")?
                .execute(params![
                    lease.name,
                    lease.epoch,
                    later(Timestamp::now(), ttl)
                ])?;
            Ok(renewed > 0)
        }))
    }

    fn release_lease<'a>(&'a self, lease: &'a Lease) -> StoreFuture<'a, ()> {
        let lease = lease.clone();
        Box::pin(self.write("release the lease", move |transaction| {
            // The row stays, and with it the epoch.
            transaction
                .prepare_cached(
                    "UPDATE leases SET holder = '', expires_at = '' WHERE name = ?1 AND epoch = ?2",
                )?
                .execute(params![lease.name, lease.epoch])?;
            Ok(())
        }))
    }

    fn write_alerts<'a>(
        &'a self,
        batch: Arc<AlertBatch>,
        lease: &'a Lease,
    ) -> StoreFuture<'a, Written> {
        let lease = lease.clone();
        Box::pin(self.write("write alerts", move |transaction| {
            let held = transaction
                .prepare_cached("SELECT 1 FROM leases WHERE name = ?1 AND epoch = ?2")?
                .exists(params![lease.name, lease.epoch])?;
            if !held {
                return Ok(Written::Fenced);
            }
            if let Some(marks) = &batch.marks {
                write_marks(transaction, marks, &lease.name)?;
            }
            write_batch(transaction, &batch).map(Written::Done)
        }))
    }

    fn alert_marks<'a>(&'a self, lease: Option<&'a str>) -> StoreFuture<'a, Vec<String>> {
        let lease = lease.map(str::to_owned);
        Box::pin(
            self.read("read how far messages were evaluated", move |transaction| {
                transaction
                    .prepare_cached(
                        "SELECT body FROM alert_marks WHERE ?1 IS NULL OR lease = ?1 ORDER BY seq",
                    )?
                    .query_map([&lease], |row| row.get(0))?
                    .collect()
            }),
        )
    }

    fn alert_states(&self) -> StoreFuture<'_, Vec<AlertState>> {
        Box::pin(self.read("read the states of alerts", |transaction| {
            transaction
                .prepare_cached("SELECT rule, sensor_id, state, updated_at FROM alert_states")?
                .query_map([], |row| {
                    Ok(AlertState {
                        rule: row.get(0)?,
                        sensor_id: row.get(1)?,
                        state: row.get(2)?,
                        updated_at: instant(row, 3)?,
                    })
                })?
                .collect()
        }))
    }

    fn outbox_due(
        &self,
        to_broker: bool,
        due_by: Timestamp,
        limit: u32,
    ) -> StoreFuture<'_, Vec<Outgoing>> {
        Box::pin(self.read("read the outbox", move |transaction| {
            transaction
                .prepare_cached(
                    "SELECT seq, name, alert_id, channel, body, attempts FROM alert_outbox
                     WHERE done_at IS NULL AND due_at <= ?1 AND (channel = ?2) = ?3
                     ORDER BY seq LIMIT ?4",
                )?
                .query_map(
                    params![instant_text(due_by), MQTT_CHANNEL, to_broker, limit],
                    outgoing,
                )?
                .collect()
        }))
    }

    fn outbox_done<'a>(
        &'a self,
        seqs: &'a [i64],
        outcome: &'static str,
        at: Timestamp,
    ) -> StoreFuture<'a, ()> {
        let seqs = seqs.to_vec();
        Box::pin(self.write("note what was sent", move |transaction| {
            let mut done = transaction.prepare_cached(
                "UPDATE alert_outbox SET done_at = ?2, outcome = ?3, attempts = attempts + 1
                 WHERE seq = ?1 AND done_at IS NULL",
            )?;
            for seq in seqs {
                done.execute(params![seq, instant_text(at), outcome])?;
            }
            Ok(())
        }))
    }

    fn outbox_failed<'a>(
        &'a self,
        seq: i64,
        error: &'a str,
        due_at: Timestamp,
    ) -> StoreFuture<'a, ()> {
        let error = error.to_owned();
        Box::pin(self.write("note a failed attempt", move |transaction| {
            transaction
                .prepare_cached(
                    "UPDATE alert_outbox SET attempts = attempts + 1, error = ?2, due_at = ?3
                     WHERE seq = ?1",
                )?
                .execute(params![seq, error, instant_text(due_at)])?;
            Ok(())
        }))
    }

    fn prune_outbox(&self, before: Timestamp) -> StoreFuture<'_, u64> {
        Box::pin(self.write("delete old messages", move |transaction| {
            notice::prune(transaction, before)
        }))
    }

    fn alert<'a>(&'a self, alert_id: &'a str) -> StoreFuture<'a, Option<StoredAlert>> {
        let alert_id = alert_id.to_owned();
        Box::pin(self.read("read an alert", move |transaction| {
            transaction
                .prepare_cached(&format!("{ALERTS} WHERE alert_id = ?1"))?
                .query_row([alert_id], stored_alert)
                .optional()
        }))
    }

    fn alerts(&self, firing: bool, limit: u32) -> StoreFuture<'_, Vec<StoredAlert>> {
        Box::pin(self.read("read alerts", move |transaction| {
            let filter = if firing {
                "WHERE resolved_at IS NULL"
            } else {
                ""
            };
            transaction
                .prepare_cached(&format!(
                    "{ALERTS} {filter} ORDER BY fired_at DESC, alert_id LIMIT ?1"
                ))?
                .query_map([limit], stored_alert)?
                .collect()
        }))
    }

    fn firing(&self) -> StoreFuture<'_, Vec<Firing>> {
        Box::pin(self.read("count firing alerts", move |transaction| {
            transaction
                .prepare_cached(
                    "SELECT severity, count(*), min(fired_at) FROM alerts
                     WHERE resolved_at IS NULL GROUP BY severity ORDER BY severity",
                )?
                .query_map([], |row| {
                    Ok(Firing {
                        severity: row.get(0)?,
                        count: row.get::<_, i64>(1)?.unsigned_abs(),
                        since: instant(row, 2)?,
                    })
                })?
                .collect()
        }))
    }

    fn outbox_of<'a>(&'a self, alert_id: &'a str) -> StoreFuture<'a, Vec<StoredOutgoing>> {
        let alert_id = alert_id.to_owned();
        Box::pin(self.read("read an alert's messages", move |transaction| {
            transaction
                .prepare_cached(
                    "SELECT seq, name, alert_id, channel, body, attempts, due_at, done_at, outcome,
                            error
                     FROM alert_outbox WHERE alert_id = ?1 ORDER BY seq",
                )?
                .query_map([alert_id], stored_outgoing)?
                .collect()
        }))
    }
}

fn write_batch(
    transaction: &Transaction<'_>,
    batch: &AlertBatch,
) -> rusqlite::Result<Vec<Outgoing>> {
    let mut state = transaction.prepare_cached(
        "INSERT INTO alert_states (rule, sensor_id, state, updated_at) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (rule, sensor_id) DO UPDATE
         SET state = excluded.state, updated_at = excluded.updated_at",
    )?;
    for new in batch.newest_states() {
        state.execute(params![
            new.rule,
            new.sensor_id,
            new.state,
            instant_text(new.updated_at)
        ])?;
    }
    let mut forget = transaction
        .prepare_cached("DELETE FROM alert_states WHERE rule = ?1 AND sensor_id = ?2")?;
    for (rule, sensor_id) in &batch.forgotten {
        forget.execute([rule, sensor_id])?;
    }
    let mut fired = transaction.prepare_cached(
        "INSERT INTO alerts (alert_id, rule, severity, sensor_id, message, fired_at, metadata)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
    )?;
    for alert in &batch.fired {
        fired.execute(params![
            alert.alert_id,
            alert.rule,
            alert.severity,
            alert.sensor_id,
            alert.message,
            instant_text(alert.fired_at),
            alert.metadata
        ])?;
    }
    let mut resolved = transaction.prepare_cached(
        "UPDATE alerts SET resolved_at = ?2, metadata = replace(metadata, ?3, ?4)
         WHERE alert_id = ?1 AND resolved_at IS NULL",
    )?;
    let [firing, over] = METADATA_STATES;
    for (alert_id, at) in &batch.resolved {
        resolved.execute(params![alert_id, instant_text(*at), firing, over])?;
    }
    let mut new = Vec::with_capacity(batch.outbox.len());
    for message in &batch.outbox {
        new.extend(send(transaction, message)?);
    }
    let (notifications, events) = (&batch.notifications, &batch.events);
    let told = notice::write_notices(transaction, notifications, events, &batch.settled)?;
    new.extend(told);
    Ok(new)
}

fn write_marks(
    transaction: &Transaction<'_>,
    marks: &AlertMarks,
    lease: &str,
) -> rusqlite::Result<()> {
    if marks.replaces {
        transaction
            .prepare_cached("DELETE FROM alert_marks WHERE lease = ?1")?
            .execute([lease])?;
    }
    transaction
        .prepare_cached("INSERT INTO alert_marks (lease, body) VALUES (?1, ?2)")?
        .execute([lease, &marks.body])?;
    Ok(())
}

/// Puts a message into the outbox; none if one of its name is there.
pub(super) fn send(
    transaction: &Transaction<'_>,
    message: &NewOutgoing,
) -> rusqlite::Result<Option<Outgoing>> {
    transaction
        .prepare_cached(
            "INSERT INTO alert_outbox (name, alert_id, channel, body, due_at)
             VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING
             RETURNING seq, name, alert_id, channel, body, attempts",
        )?
        .query_row(
            params![
                message.name,
                message.alert_id,
                message.channel,
                message.body,
                instant_text(message.due_at)
            ],
            outgoing,
        )
        .optional()
}

pub(super) const ALERTS: &str =
    "SELECT alert_id, rule, severity, sensor_id, message, fired_at, metadata,
    resolved_at, acknowledged_at, acknowledged_by FROM alerts";

pub(super) fn stored_alert(row: &Row<'_>) -> rusqlite::Result<StoredAlert> {
    Ok(StoredAlert {
        alert: NewAlert {
            alert_id: row.get(0)?,
            rule: row.get(1)?,
            severity: row.get(2)?,
            sensor_id: row.get(3)?,
            message: row.get(4)?,
            fired_at: instant(row, 5)?,
            metadata: row.get(6)?,
        },
        resolved_at: instant_or_none(row, 7)?,
        acknowledged_at: instant_or_none(row, 8)?,
        acknowledged_by: row.get(9)?,
    })
}

pub(super) fn outgoing(row: &Row<'_>) -> rusqlite::Result<Outgoing> {
    Ok(Outgoing {
        seq: row.get(0)?,
        name: row.get(1)?,
        alert_id: row.get(2)?,
        channel: row.get(3)?,
        body: row.get(4)?,
        attempts: row.get(5)?,
    })
}

pub(super) fn stored_outgoing(row: &Row<'_>) -> rusqlite::Result<StoredOutgoing> {
    Ok(StoredOutgoing {
        message: outgoing(row)?,
        due_at: instant(row, 6)?,
        done_at: instant_or_none(row, 7)?,
        outcome: row.get(8)?,
        error: row.get(9)?,
    })
}

fn later(now: Timestamp, span: Duration) -> String {
    instant_text(now.checked_add(span).unwrap_or(Timestamp::MAX))
}

pub(super) fn instant(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    let text: String = row.get(column)?;
    text.parse().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
    })
}

pub(super) fn instant_or_none(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    let text: Option<String> = row.get(column)?;
    text.map(|_| instant(row, column)).transpose()
}
