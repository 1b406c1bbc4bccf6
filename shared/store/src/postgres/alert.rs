//! Alerts in PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Client, Transaction};
use jiff::Timestamp;
use tokio_postgres::{Error, Row};

use super::value::Micros;
use super::{PostgresStore, notice};
use crate::alert::{
    AlertBatch, AlertMarks, AlertState, AlertStore, Lease, METADATA_STATES, MQTT_CHANNEL, NewAlert,
    NewOutgoing, Outgoing, StoredAlert, StoredOutgoing, Written,
};
use crate::{Firing, StoreError, StoreFuture};

impl AlertStore for PostgresStore {
    fn acquire_lease<'a>(
        &'a self,
        name: &'a str,
        holder: &'a str,
        ttl: Duration,
    ) -> StoreFuture<'a, Option<Lease>> {
        Box::pin(async move {
            self.require_writer()?;
            let row = self
                .run("take the lease", |client| {
                    let (name, holder) = (name.to_owned(), holder.to_owned());
                    Box::pin(async move {
                        // The server's clock is the same for all who want it.
                        let take = "INSERT INTO leases (name, holder, epoch, expires_at)
                             VALUES ($1, $2, 1, now() + $3 * interval '1 ms')
                             ON CONFLICT (name) DO UPDATE
                             SET holder = excluded.holder, epoch = leases.epoch + 1,
                                 expires_at = excluded.expires_at
                             WHERE leases.expires_at <= now() OR leases.holder = excluded.holder
                             RETURNING epoch";
                        client
                            .query_opt(take, &[&name, &holder, &millis(ttl)])
                            .await
                    })
                })
                .await?;
            let epoch = row.map(|row| self.column(row.try_get(0))).transpose()?;
            Ok(epoch.map(|epoch| Lease {
                name: name.to_owned(),
                holder: holder.to_owned(),
                epoch,
            }))
        })
    }

    fn renew_lease<'a>(&'a self, lease: &'a Lease, ttl: Duration) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let renewed = self
                .run("renew the lease", |client| {
                    let lease = lease.clone();
                    Box::pin(async move {
                        let renew = "UPDATE leases SET expires_at = now() + $3 * interval '1 ms'
                             WHERE name = $1 AND epoch = $2";
                        client
                            .execute(renew, &[&lease.name, &lease.epoch, &millis(ttl)])
                            .await
                    })
                })
                .await?;
            Ok(renewed > 0)
        })
    }

    fn release_lease<'a>(&'a self, lease: &'a Lease) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            self.run("release the lease", |client| {
                let lease = lease.clone();
                Box::pin(async move {
                    // The row stays, and with it the epoch.
                    let release = "UPDATE leases SET holder = '', expires_at = '-infinity'
                         WHERE name = $1 AND epoch = $2";
                    client.execute(release, &[&lease.name, &lease.epoch]).await
                })
            })
            .await
            .map(drop)
        })
    }

    fn write_alerts<'a>(
        &'a self,
        batch: Arc<AlertBatch>,
        lease: &'a Lease,
    ) -> StoreFuture<'a, Written> {
        Box::pin(async move {
            self.require_writer()?;
            let rows = self
                .run("write alerts", |client| {
                    let (batch, lease) = (Arc::clone(&batch), lease.clone());
                    Box::pin(async move { write_batch(client, &batch, &lease).await })
                })
                .await?;
            match rows {
                None => Ok(Written::Fenced),
                Some(rows) => self.rows(&rows, outgoing).map(Written::Done),
            }
        })
    }

    fn alert_marks<'a>(&'a self, lease: Option<&'a str>) -> StoreFuture<'a, Vec<String>> {
        Box::pin(async move {
            let rows = self
                .run("read how far messages were evaluated", |client| {
                    let lease = lease.map(str::to_owned);
                    Box::pin(async move {
                        let marks = "SELECT body FROM alert_marks
                             WHERE $1::text IS NULL OR lease = $1 ORDER BY seq";
                        client.query(marks, &[&lease]).await
                    })
                })
                .await?;
            self.rows(&rows, |row| row.try_get(0))
        })
    }

    fn alert_states(&self) -> StoreFuture<'_, Vec<AlertState>> {
        Box::pin(async move {
            let rows = self
                .run("read the states of alerts", |client| {
                    Box::pin(async move {
                        let states = "SELECT rule, sensor_id, state, updated_at FROM alert_states";
                        client.query(states, &[]).await
                    })
                })
                .await?;
            self.rows(&rows, |row| {
                Ok(AlertState {
                    rule: row.try_get(0)?,
                    sensor_id: row.try_get(1)?,
                    state: row.try_get(2)?,
                    updated_at: row.try_get(3)?,
                })
            })
        })
    }

    fn outbox_due(
        &self,
        to_broker: bool,
        due_by: Timestamp,
        limit: u32,
    ) -> StoreFuture<'_, Vec<Outgoing>> {
        Box::pin(async move {
            let rows = self
                .run("read the outbox", |client| {
                    Box::pin(async move {
                        let due = "SELECT seq, name, alert_id, channel, body, attempts
                             FROM alert_outbox
                             WHERE done_at IS NULL AND due_at <= $1 AND (channel = $2) = $3
                             ORDER BY seq LIMIT $4";
                        let due_by = Micros::of(due_by);
                        client
                            .query(
                                due,
                                &[&due_by, &MQTT_CHANNEL, &to_broker, &i64::from(limit)],
                            )
                            .await
                    })
                })
                .await?;
            self.rows(&rows, outgoing)
        })
    }

    fn outbox_done<'a>(
        &'a self,
        seqs: &'a [i64],
        outcome: &'static str,
        at: Timestamp,
    ) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            self.require_writer()?;
            self.run("note what was sent", |client| {
                let seqs = seqs.to_vec();
                Box::pin(async move {
                    let done = "UPDATE alert_outbox
                         SET done_at = $2, outcome = $3, attempts = attempts + 1
                         WHERE seq = ANY($1) AND done_at IS NULL";
                    client
                        .execute(done, &[&seqs, &Micros::of(at), &outcome])
                        .await
                })
            })
            .await
            .map(drop)
        })
    }

    fn outbox_failed<'a>(
        &'a self,
        seq: i64,
        error: &'a str,
        due_at: Timestamp,
    ) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            self.require_writer()?;
            self.run("note a failed attempt", |client| {
                let error = error.replace('\0', " ");
                Box::pin(async move {
                    let failed = "UPDATE alert_outbox
                         SET attempts = attempts + 1, error = $2, due_at = $3 WHERE seq = $1";
                    client
                        .execute(failed, &[&seq, &error, &Micros::of(due_at)])
                        .await
                })
            })
            .await
            .map(drop)
        })
    }

    fn prune_outbox(&self, before: Timestamp) -> StoreFuture<'_, u64> {
        Box::pin(async move {
            self.require_writer()?;
            self.run("delete old messages", |client| {
                Box::pin(async move {
                    let transaction = client.transaction().await?;
                    let deleted = notice::prune(&transaction, before).await?;
                    transaction.commit().await?;
                    Ok(deleted)
                })
            })
            .await
        })
    }

    fn alert<'a>(&'a self, alert_id: &'a str) -> StoreFuture<'a, Option<StoredAlert>> {
        Box::pin(async move {
            let rows = self
                .run("read an alert", |client| {
                    let alert_id = alert_id.to_owned();
                    Box::pin(async move {
                        let one = format!("{ALERTS} WHERE alert_id = $1");
                        client.query(&one, &[&alert_id]).await
                    })
                })
                .await?;
            Ok(self.rows(&rows, stored_alert)?.pop())
        })
    }

    fn alerts(&self, firing: bool, limit: u32) -> StoreFuture<'_, Vec<StoredAlert>> {
        Box::pin(async move {
            let rows = self
                .run("read alerts", |client| {
                    Box::pin(async move {
                        let all = format!(
                            "{ALERTS} WHERE NOT $1 OR resolved_at IS NULL
                             ORDER BY fired_at DESC, alert_id LIMIT $2"
                        );
                        client.query(&all, &[&firing, &i64::from(limit)]).await
                    })
                })
                .await?;
            self.rows(&rows, stored_alert)
        })
    }

    fn firing(&self) -> StoreFuture<'_, Vec<Firing>> {
        Box::pin(async move {
            let rows = self
                .run("count firing alerts", |client| {
                    Box::pin(async move {
                        let all = "SELECT severity, count(*), min(fired_at) FROM alerts
                             WHERE resolved_at IS NULL GROUP BY severity ORDER BY severity";
                        client.query(all, &[]).await
                    })
                })
                .await?;
            self.rows(&rows, |row| {
                Ok(Firing {
                    severity: row.try_get(0)?,
                    count: row.try_get::<_, i64>(1)?.unsigned_abs(),
                    since: row.try_get(2)?,
                })
            })
        })
    }

    fn outbox_of<'a>(&'a self, alert_id: &'a str) -> StoreFuture<'a, Vec<StoredOutgoing>> {
        Box::pin(async move {
            let rows = self
                .run("read an alert's messages", |client| {
                    let alert_id = alert_id.to_owned();
                    Box::pin(async move {
                        let all = "SELECT seq, name, alert_id, channel, body, attempts, due_at,
                                    done_at, outcome, error
                             FROM alert_outbox WHERE alert_id = $1 ORDER BY seq";
                        client.query(all, &[&alert_id]).await
                    })
                })
                .await?;
            self.rows(&rows, stored_outgoing)
        })
    }
}

impl PostgresStore {
    pub(super) fn column<T>(&self, value: Result<T, Error>) -> Result<T, StoreError> {
        value.map_err(|error| {
            let what = format!("a row on {} is not the fleet's: delete it", self.server);
            StoreError::permanent(what, error)
        })
    }

    pub(super) fn rows<T>(
        &self,
        rows: &[Row],
        decode: impl Fn(&Row) -> Result<T, Error>,
    ) -> Result<Vec<T>, StoreError> {
        self.column(rows.iter().map(decode).collect())
    }
}

/// The new messages of the outbox; none if the lease is somebody else's.
async fn write_batch(
    client: &mut Client,
    batch: &AlertBatch,
    lease: &Lease,
) -> Result<Option<Vec<Row>>, Error> {
    let transaction = client.transaction().await?;
    // Locked against a change until the commit, so that nobody takes over in between.
    let held = "SELECT 1 FROM leases WHERE name = $1 AND epoch = $2 FOR SHARE";
    let held = transaction
        .query_opt(held, &[&lease.name, &lease.epoch])
        .await?;
    if held.is_none() {
        return Ok(None);
    }
    if let Some(marks) = &batch.marks {
        write_marks(&transaction, marks, &lease.name).await?;
    }
    write_states(&transaction, batch).await?;
    for alert in &batch.fired {
        let fired = transaction
            .prepare_cached(
                "INSERT INTO alerts
                     (alert_id, rule, severity, sensor_id, message, fired_at, metadata)
                 VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
            )
            .await?;
        transaction
            .execute(
                &fired,
                &[
                    &alert.alert_id,
                    &alert.rule,
                    &alert.severity,
                    &alert.sensor_id,
                    &alert.message.replace('\0', " "),
                    &Micros::of(alert.fired_at),
                    &alert.metadata,
                ],
            )
            .await?;
    }
    for (alert_id, at) in &batch.resolved {
        let resolved = transaction
            .prepare_cached(
                "UPDATE alerts SET resolved_at = $2, metadata = replace(metadata, $3, $4)
                 WHERE alert_id = $1 AND resolved_at IS NULL",
            )
            .await?;
        let [firing, over] = METADATA_STATES;
        transaction
            .execute(&resolved, &[alert_id, &Micros::of(*at), &firing, &over])
            .await?;
    }
    let mut new = Vec::with_capacity(batch.outbox.len());
    for message in &batch.outbox {
        new.extend(send(&transaction, message).await?);
    }
    new.extend(notice::write_notices(&transaction, batch).await?);
    transaction.commit().await?;
    Ok(Some(new))
}

/// Puts a message into the outbox; none if one of its name is there.
pub(super) async fn send(
    transaction: &Transaction<'_>,
    message: &NewOutgoing,
) -> Result<Option<Row>, Error> {
    let send = transaction
        .prepare_cached(
            "INSERT INTO alert_outbox (name, alert_id, channel, body, due_at)
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (name) DO NOTHING
             RETURNING seq, name, alert_id, channel, body, attempts",
        )
        .await?;
    let body = message.body.replace('\0', " ");
    let due_at = Micros::of(message.due_at);
    transaction
        .query_opt(
            &send,
            &[
                &message.name,
                &message.alert_id,
                &message.channel,
                &body,
                &due_at,
            ],
        )
        .await
}

async fn write_marks(
    transaction: &Transaction<'_>,
    marks: &AlertMarks,
    lease: &str,
) -> Result<(), Error> {
    if marks.replaces {
        let delete = transaction
            .prepare_cached("DELETE FROM alert_marks WHERE lease = $1")
            .await?;
        transaction.execute(&delete, &[&lease]).await?;
    }
    let insert = transaction
        .prepare_cached("INSERT INTO alert_marks (lease, body) VALUES ($1, $2)")
        .await?;
    transaction.execute(&insert, &[&lease, &marks.body]).await?;
    Ok(())
}

async fn write_states(transaction: &Transaction<'_>, batch: &AlertBatch) -> Result<(), Error> {
    let states = batch.newest_states();
    if !states.is_empty() {
        let upsert = transaction
            .prepare_cached(
                "INSERT INTO alert_states (rule, sensor_id, state, updated_at)
                 SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[], $4::timestamptz[])
                 ON CONFLICT (rule, sensor_id) DO UPDATE
                 SET state = excluded.state, updated_at = excluded.updated_at",
            )
            .await?;
        let rules: Vec<&str> = states.iter().map(|state| state.rule.as_str()).collect();
        let sensors: Vec<&str> = states
            .iter()
            .map(|state| state.sensor_id.as_str())
            .collect();
        let texts: Vec<&str> = states.iter().map(|state| state.state.as_str()).collect();
        let times: Vec<Micros> = states
            .iter()
            .map(|state| Micros::of(state.updated_at))
            .collect();
        transaction
            .execute(&upsert, &[&rules, &sensors, &texts, &times])
            .await?;
    }
    if !batch.forgotten.is_empty() {
        let (rules, sensors): (Vec<&str>, Vec<&str>) = batch
            .forgotten
            .iter()
            .map(|(rule, sensor)| (rule.as_str(), sensor.as_str()))
            .unzip();
        let forget = "DELETE FROM alert_states WHERE (rule, sensor_id) IN
             (SELECT * FROM UNNEST($1::text[], $2::text[]))";
        transaction.execute(forget, &[&rules, &sensors]).await?;
    }
    Ok(())
}

pub(super) const ALERTS: &str =
    "SELECT alert_id, rule, severity, sensor_id, message, fired_at, metadata,
    resolved_at, acknowledged_at, acknowledged_by FROM alerts";

pub(super) fn stored_alert(row: &Row) -> Result<StoredAlert, Error> {
    Ok(StoredAlert {
        alert: NewAlert {
            alert_id: row.try_get(0)?,
            rule: row.try_get(1)?,
            severity: row.try_get(2)?,
            sensor_id: row.try_get(3)?,
            message: row.try_get(4)?,
            fired_at: row.try_get(5)?,
            metadata: row.try_get(6)?,
        },
        resolved_at: row.try_get(7)?,
        acknowledged_at: row.try_get(8)?,
        acknowledged_by: row.try_get(9)?,
    })
}

pub(super) fn outgoing(row: &Row) -> Result<Outgoing, Error> {
    let attempts: i32 = row.try_get(5)?;
    Ok(Outgoing {
        seq: row.try_get(0)?,
        name: row.try_get(1)?,
        alert_id: row.try_get(2)?,
        channel: row.try_get(3)?,
        body: row.try_get(4)?,
        attempts: attempts.unsigned_abs(),
    })
}

pub(super) fn stored_outgoing(row: &Row) -> Result<StoredOutgoing, Error> {
    Ok(StoredOutgoing {
        message: outgoing(row)?,
        due_at: row.try_get(6)?,
        done_at: row.try_get(7)?,
        outcome: row.try_get(8)?,
        error: row.try_get(9)?,
    })
}

/// As a double, which is what PostgreSQL multiplies an interval by.
fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1_000.0
}
