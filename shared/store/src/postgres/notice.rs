//! What is told about alerts, in PostgreSQL.

use std::time::Duration;

use deadpool_postgres::Transaction;
use jiff::Timestamp;
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::PostgresStore;
use super::alert::{ALERTS, outgoing, send, stored_alert, stored_outgoing};
use super::insert::insert_dead_letters;
use super::value::Micros;
use crate::alert::{AlertBatch, Outgoing, StoredAlert};
use crate::notice::{
    ALERT_EVENTS_MAX, ATTEMPTS_KEPT_MAX, Acknowledgement, AlertCursor, AlertEvent, AlertFilter,
    AlertStory, AttemptOutcome, EventKind, NewAlertEvent, NewAttempt, Notices, StoredAttempt,
    StoryMessage, Told, Unsettled,
};
use crate::{SILENCES_MAX, Silence, StoreError, StoreFuture};

impl Notices for PostgresStore {
    fn acknowledge_alert<'a>(
        &'a self,
        alert_id: &'a str,
        at: Timestamp,
        by: &'a str,
    ) -> StoreFuture<'a, Option<StoredAlert>> {
        Box::pin(async move {
            self.require_writer()?;
            let rows = self
                .run("acknowledge an alert", |client| {
                    let (alert_id, by) = (alert_id.to_owned(), by.replace('\0', " "));
                    Box::pin(async move {
                        let transaction = client.transaction().await?;
                        let note = "UPDATE alerts SET acknowledged_at = $2, acknowledged_by = $3
                             WHERE alert_id = $1 AND acknowledged_at IS NULL";
                        let noted = transaction
                            .execute(note, &[&alert_id, &Micros::of(at), &by])
                            .await?;
                        if noted > 0 {
                            let event = NewAlertEvent {
                                alert_id: alert_id.clone(),
                                at,
                                kind: EventKind::Acknowledged,
                                detail: serde_json::json!({ "by": by }).to_string(),
                            };
                            write_events(&transaction, &[event]).await?;
                        }
                        let one = format!("{ALERTS} WHERE alert_id = $1");
                        let rows = transaction.query(&one, &[&alert_id]).await?;
                        transaction.commit().await?;
                        Ok(rows)
                    })
                })
                .await?;
            Ok(self.rows(&rows, stored_alert)?.pop())
        })
    }

    fn alert_page<'a>(
        &'a self,
        filter: &'a AlertFilter,
        after: Option<&'a AlertCursor>,
        limit: u32,
    ) -> StoreFuture<'a, Vec<StoredAlert>> {
        Box::pin(async move {
            let rows = self
                .run("read alerts", |client| {
                    let phase = filter.state.map_or("TRUE", |phase| phase.condition());
                    let (severity, sensor_id) = (filter.severity.clone(), filter.sensor_id.clone());
                    let after_at = after.map(|after| Micros::of(after.fired_at));
                    let after_id = after.map(|after| after.alert_id.clone());
                    Box::pin(async move {
                        let page = format!(
                            "{ALERTS} WHERE {phase} AND ($1::text IS NULL OR severity = $1)
                             AND ($2::timestamptz IS NULL OR (fired_at, alert_id) < ($2, $3))
                             AND ($5::text IS NULL OR sensor_id = $5)
                             ORDER BY fired_at DESC, alert_id DESC LIMIT $4"
                        );
                        let limit = i64::from(limit);
                        client
                            .query(
                                &page,
                                &[&severity, &after_at, &after_id, &limit, &sensor_id],
                            )
                            .await
                    })
                })
                .await?;
            self.rows(&rows, stored_alert)
        })
    }

    fn alert_story<'a>(&'a self, alert_id: &'a str) -> StoreFuture<'a, Option<AlertStory>> {
        Box::pin(async move {
            let read = self.run("read an alert's story", |client| {
                let alert_id = alert_id.to_owned();
                Box::pin(async move {
                    // All from one state of the database.
                    let transaction = client
                        .build_transaction()
                        .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
                        .read_only(true)
                        .start()
                        .await?;
                    let one = format!("{ALERTS} WHERE alert_id = $1");
                    let alert = transaction.query(&one, &[&alert_id]).await?;
                    let events = transaction
                        .query(
                            "SELECT at, kind, detail FROM alert_events WHERE alert_id = $1
                             ORDER BY seq",
                            &[&alert_id],
                        )
                        .await?;
                    let messages = transaction.query(STORY_MESSAGES, &[&alert_id]).await?;
                    let seqs = messages
                        .iter()
                        .map(|row| row.try_get(0))
                        .collect::<Result<Vec<i64>, _>>()?;
                    let attempts = transaction
                        .query(
                            "SELECT attempt, at, took_millis, outcome, error, seq
                             FROM notification_attempts WHERE seq = ANY($1)
                             ORDER BY seq, attempt",
                            &[&seqs],
                        )
                        .await?;
                    Ok((alert, events, messages, attempts))
                })
            });
            let (alert, events, messages, attempts) = read.await?;
            let Some(alert) = self.rows(&alert, stored_alert)?.pop() else {
                return Ok(None);
            };
            let mut messages = self.rows(&messages, |row| {
                Ok(StoryMessage {
                    stored: stored_outgoing(row)?,
                    group_key: row.try_get(10)?,
                    says: row.try_get(11)?,
                    attempts: Vec::new(),
                })
            })?;
            for (seq, attempt) in self.rows(&attempts, stored_attempt)? {
                let found = messages.binary_search_by_key(&seq, |known| known.stored.message.seq);
                if let Ok(place) = found {
                    messages[place].attempts.push(attempt);
                }
            }
            Ok(Some(AlertStory {
                alert,
                events: self.rows(&events, |row| {
                    Ok(AlertEvent {
                        at: row.try_get(0)?,
                        kind: row.try_get(1)?,
                        detail: row.try_get(2)?,
                    })
                })?,
                messages,
            }))
        })
    }

    fn create_silence<'a>(&'a self, silence: &'a Silence) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            self.require_writer()?;
            let matchers = serde_json::to_string(&silence.matchers).map_err(|error| {
                StoreError::permanent("the matchers of a silence are no JSON", error)
            })?;
            let matchers = matchers.replace("\\u0000", " ");
            self.run("keep a silence", |client| {
                let (silence, matchers) = (silence.clone(), matchers.clone());
                Box::pin(async move {
                    let transaction = client.transaction().await?;
                    let known: i64 = transaction
                        .query_one("SELECT count(*) FROM silences WHERE ends_at > now()", &[])
                        .await?
                        .try_get(0)?;
                    if known >= i64::from(SILENCES_MAX) {
                        return Ok(false);
                    }
                    let keep = "INSERT INTO silences
                             (id, matchers, starts_at, ends_at, created_by, comment, created_at)
                         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";
                    transaction
                        .execute(
                            keep,
                            &[
                                &silence.id,
                                &matchers,
                                &Micros::of(silence.starts_at),
                                &Micros::of(silence.ends_at),
                                &silence.created_by.replace('\0', " "),
                                &silence.comment.replace('\0', " "),
                                &Micros::of(silence.created_at),
                            ],
                        )
                        .await?;
                    transaction.commit().await?;
                    Ok(true)
                })
            })
            .await
        })
    }

    fn silences(&self, ended_after: Timestamp) -> StoreFuture<'_, Vec<Silence>> {
        Box::pin(async move {
            // PostgreSQL's time begins after jiff's, and no silence ended before the epoch.
            let ended_after = ended_after.max(Timestamp::UNIX_EPOCH);
            let rows = self
                .run("read silences", |client| {
                    Box::pin(async move {
                        let all = "SELECT id, starts_at, ends_at, created_by, comment, created_at,
                                matchers
                             FROM silences WHERE ends_at > $1 ORDER BY id";
                        client.query(all, &[&Micros::of(ended_after)]).await
                    })
                })
                .await?;
            let rows = self.rows(&rows, |row| {
                let silence = Silence {
                    id: row.try_get(0)?,
                    matchers: Vec::new(),
                    starts_at: row.try_get(1)?,
                    ends_at: row.try_get(2)?,
                    created_by: row.try_get(3)?,
                    comment: row.try_get(4)?,
                    created_at: row.try_get(5)?,
                };
                Ok((silence, row.try_get::<_, String>(6)?))
            })?;
            let silences = rows.into_iter().map(|(silence, matchers)| {
                let matchers = serde_json::from_str(&matchers).map_err(|error| {
                    let what = format!("the silence {} cannot be read: delete it", silence.id);
                    StoreError::permanent(what, error)
                })?;
                Ok(Silence {
                    matchers,
                    ..silence
                })
            });
            silences.collect()
        })
    }

    fn delete_silence(&self, id: Uuid) -> StoreFuture<'_, bool> {
        Box::pin(async move {
            self.require_writer()?;
            let deleted = self
                .run("delete a silence", |client| {
                    Box::pin(async move {
                        client
                            .execute("DELETE FROM silences WHERE id = $1", &[&id])
                            .await
                    })
                })
                .await?;
            Ok(deleted > 0)
        })
    }

    fn unsettled(&self) -> StoreFuture<'_, Unsettled> {
        Box::pin(async move {
            let read = self.run("read what is to be notified", |client| {
                Box::pin(async move {
                    let all =
                        format!("{ALERTS} WHERE settled_at IS NULL ORDER BY fired_at, alert_id");
                    let alerts = client.query(&all, &[]).await?;
                    let told = client.query(TOLD, &[]).await?;
                    let waiting = client
                        .query(
                            "SELECT DISTINCT group_key, channel FROM alert_outbox
                             WHERE done_at IS NULL AND channel <> 'mqtt' AND group_key IS NOT NULL",
                            &[],
                        )
                        .await?;
                    Ok((alerts, told, waiting))
                })
            });
            let (alerts, told, waiting) = read.await?;
            Ok(Unsettled {
                alerts: self.rows(&alerts, stored_alert)?,
                told: self.rows(&told, |row| {
                    Ok(Told {
                        group_key: row.try_get(0)?,
                        channel: row.try_get(1)?,
                        alert_id: row.try_get(2)?,
                        state: row.try_get(3)?,
                        at: row.try_get(4)?,
                    })
                })?,
                waiting: self.rows(&waiting, |row| Ok((row.try_get(0)?, row.try_get(1)?)))?,
            })
        })
    }

    fn acknowledgements(&self) -> StoreFuture<'_, Vec<Acknowledgement>> {
        Box::pin(async move {
            let rows = self
                .run("read acknowledgements", |client| {
                    Box::pin(async move {
                        let all = "SELECT alert_id, acknowledged_at, coalesce(acknowledged_by, '')
                             FROM alerts
                             WHERE settled_at IS NULL AND acknowledged_at IS NOT NULL";
                        client.query(all, &[]).await
                    })
                })
                .await?;
            self.rows(&rows, |row| {
                Ok(Acknowledgement {
                    alert_id: row.try_get(0)?,
                    at: row.try_get(1)?,
                    by: row.try_get(2)?,
                })
            })
        })
    }

    fn notifications_for<'a>(
        &'a self,
        channel: &'a str,
        limit: u32,
    ) -> StoreFuture<'a, Vec<(Outgoing, Timestamp)>> {
        Box::pin(async move {
            let rows = self
                .run("read notifications", |client| {
                    let channel = channel.to_owned();
                    Box::pin(async move {
                        let due = "SELECT seq, name, alert_id, channel, body, attempts, due_at
                             FROM alert_outbox
                             WHERE done_at IS NULL AND channel = $1 AND channel <> 'mqtt'
                             ORDER BY due_at, seq LIMIT $2";
                        client.query(due, &[&channel, &i64::from(limit)]).await
                    })
                })
                .await?;
            self.rows(&rows, |row| Ok((outgoing(row)?, row.try_get(6)?)))
        })
    }

    fn note_attempt<'a>(&'a self, attempt: &'a NewAttempt) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            self.require_writer()?;
            self.run("note an attempt to notify", |client| {
                let attempt = attempt.clone();
                Box::pin(async move {
                    let transaction = client.transaction().await?;
                    note_attempt(&transaction, &attempt).await?;
                    transaction.commit().await
                })
            })
            .await
        })
    }
}

const STORY_MESSAGES: &str = "SELECT o.seq, name, o.alert_id, channel, body, attempts, due_at,
        done_at, outcome, error, group_key, n.state
    FROM alert_outbox AS o
    LEFT JOIN alert_notified AS n ON n.seq = o.seq AND n.alert_id = $1
    WHERE o.seq IN (SELECT seq FROM alert_outbox WHERE alert_id = $1
                    UNION SELECT seq FROM alert_notified WHERE alert_id = $1)
    ORDER BY o.seq";

const TOLD: &str = "SELECT DISTINCT ON (o.group_key, o.channel, n.alert_id)
        o.group_key, o.channel, n.alert_id, n.state, o.queued_at
    FROM alerts AS a
    JOIN alert_notified AS n ON n.alert_id = a.alert_id
    JOIN alert_outbox AS o ON o.seq = n.seq
    WHERE a.settled_at IS NULL
    ORDER BY o.group_key, o.channel, n.alert_id, o.seq DESC";

async fn note_attempt(transaction: &Transaction<'_>, attempt: &NewAttempt) -> Result<(), Error> {
    let (at, outcome) = (Micros::of(attempt.at), attempt.outcome.as_str());
    let error = attempt.error.as_deref().map(|text| text.replace('\0', " "));
    let number = i32::try_from(attempt.attempt).unwrap_or(i32::MAX);
    let changed = match &attempt.outcome {
        AttemptOutcome::Failed { due_at } => {
            let failed = "UPDATE alert_outbox SET attempts = $2, error = $3, due_at = $4
                 WHERE seq = $1 AND done_at IS NULL AND attempts = $2 - 1";
            transaction
                .execute(
                    failed,
                    &[&attempt.seq, &number, &error, &Micros::of(*due_at)],
                )
                .await?
        }
        AttemptOutcome::Sent | AttemptOutcome::GivenUp(_) => {
            let done = "UPDATE alert_outbox
                 SET attempts = $2, error = coalesce($3, error), done_at = $4, outcome = $5
                 WHERE seq = $1 AND done_at IS NULL AND attempts = $2 - 1";
            transaction
                .execute(done, &[&attempt.seq, &number, &error, &at, &outcome])
                .await?
        }
    };
    if changed == 0 {
        return Ok(());
    }
    if attempt.attempt <= ATTEMPTS_KEPT_MAX {
        let keep = "INSERT INTO notification_attempts
                 (seq, attempt, at, took_millis, outcome, error)
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
        let took = i64::try_from(attempt.took.as_millis()).unwrap_or(i64::MAX);
        transaction
            .execute(keep, &[&attempt.seq, &number, &at, &took, &outcome, &error])
            .await?;
    }
    if let AttemptOutcome::GivenUp(given_up) = &attempt.outcome {
        insert_dead_letters(transaction, std::slice::from_ref(&given_up.dead_letter)).await?;
        send(transaction, &given_up.message).await?;
    }
    Ok(())
}

/// Writes the part of a batch that is about people; the notifications of it that are new.
pub(super) async fn write_notices(
    transaction: &Transaction<'_>,
    batch: &AlertBatch,
) -> Result<Vec<Row>, Error> {
    write_events(transaction, &batch.events).await?;
    for (alert_id, at) in &batch.settled {
        let settle = transaction
            .prepare_cached(
                "UPDATE alerts SET settled_at = $2 WHERE alert_id = $1 AND settled_at IS NULL",
            )
            .await?;
        transaction
            .execute(&settle, &[alert_id, &Micros::of(*at)])
            .await?;
    }
    let mut new = Vec::with_capacity(batch.notifications.len());
    for notification in &batch.notifications {
        let Some(row) = send(transaction, &notification.message).await? else {
            continue;
        };
        let seq: i64 = row.try_get(0)?;
        let group = "UPDATE alert_outbox SET group_key = $2, queued_at = $3 WHERE seq = $1";
        let queued_at = Micros::of(notification.queued_at);
        transaction
            .execute(group, &[&seq, &notification.group_key, &queued_at])
            .await?;
        let (alerts, states): (Vec<&str>, Vec<&str>) = notification
            .alerts
            .iter()
            .map(|(alert_id, state)| (alert_id.as_str(), *state))
            .unzip();
        let tell = "INSERT INTO alert_notified (alert_id, seq, state)
             SELECT alert_id, $2, state FROM UNNEST($1::text[], $3::text[]) AS n (alert_id, state)
             ON CONFLICT DO NOTHING";
        transaction.execute(tell, &[&alerts, &seq, &states]).await?;
        new.push(row);
    }
    Ok(new)
}

async fn write_events(
    transaction: &Transaction<'_>,
    events: &[NewAlertEvent],
) -> Result<(), Error> {
    for event in events {
        let insert = transaction
            .prepare_cached(
                "INSERT INTO alert_events (alert_id, at, kind, detail)
                 SELECT $1, $2, $3, $4
                 WHERE $5 OR (SELECT count(*) FROM alert_events WHERE alert_id = $1) < $6
                 ON CONFLICT DO NOTHING",
            )
            .await?;
        transaction
            .execute(
                &insert,
                &[
                    &event.alert_id,
                    &Micros::of(event.at),
                    &event.kind.as_str(),
                    &event.detail.replace('\0', " "),
                    &event.kind.is_kept(),
                    &i64::from(ALERT_EVENTS_MAX),
                ],
            )
            .await?;
    }
    Ok(())
}

/// Deletes messages and silences that ended before `before`.
pub(super) async fn prune(transaction: &Transaction<'_>, before: Timestamp) -> Result<u64, Error> {
    let before = Micros::of(before);
    let old = "SELECT seq FROM alert_outbox AS o WHERE done_at < $1 AND NOT EXISTS
             (SELECT FROM alert_notified AS n JOIN alerts AS a ON a.alert_id = n.alert_id
              WHERE n.seq = o.seq AND a.settled_at IS NULL)
         LIMIT 5000";
    let seqs = transaction
        .query(old, &[&before])
        .await?
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<Vec<i64>, _>>()?;
    let mut deleted = 0;
    // The messages themselves last: it is they that are counted.
    for table in ["notification_attempts", "alert_notified", "alert_outbox"] {
        let delete = format!("DELETE FROM {table} WHERE seq = ANY($1)");
        deleted = transaction.execute(&delete, &[&seqs]).await?;
    }
    transaction
        .execute("DELETE FROM silences WHERE ends_at < $1", &[&before])
        .await?;
    Ok(deleted)
}

fn stored_attempt(row: &Row) -> Result<(i64, StoredAttempt), Error> {
    let (attempt, millis): (i32, i64) = (row.try_get(0)?, row.try_get(2)?);
    let stored = StoredAttempt {
        attempt: attempt.unsigned_abs(),
        at: row.try_get(1)?,
        took: Duration::from_millis(millis.unsigned_abs()),
        outcome: row.try_get(3)?,
        error: row.try_get(4)?,
    };
    Ok((row.try_get(5)?, stored))
}
