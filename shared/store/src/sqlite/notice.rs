//! What is told about alerts, in SQLite.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Row, Transaction, params};
use uuid::Uuid;

use super::alert::{ALERTS, SqliteAlerts, instant, outgoing, send, stored_alert, stored_outgoing};
use super::insert;
use super::row::instant_text;
use crate::alert::{Outgoing, StoredAlert};
use crate::notice::{
    ALERT_EVENTS_MAX, ATTEMPTS_KEPT_MAX, Acknowledgement, AlertCursor, AlertEvent, AlertFilter,
    AlertStory, AttemptOutcome, EventKind, NewAlertEvent, NewAttempt, NewNotification, Notices,
    StoredAttempt, StoryMessage, Told, Unsettled,
};
use crate::{SILENCES_MAX, Silence, StoreFuture};

impl Notices for SqliteAlerts {
    fn acknowledge_alert<'a>(
        &'a self,
        alert_id: &'a str,
        at: Timestamp,
        by: &'a str,
    ) -> StoreFuture<'a, Option<StoredAlert>> {
        let (alert_id, by) = (alert_id.to_owned(), by.to_owned());
        Box::pin(self.write("acknowledge an alert", move |transaction| {
            let noted = transaction
                .prepare_cached(
                    "UPDATE alerts SET acknowledged_at = ?2, acknowledged_by = ?3
                     WHERE alert_id = ?1 AND acknowledged_at IS NULL",
                )?
                .execute(params![alert_id, instant_text(at), by])?;
            if noted > 0 {
                let detail = serde_json::json!({ "by": by }).to_string();
                let event = NewAlertEvent {
                    alert_id: alert_id.clone(),
                    at,
                    kind: EventKind::Acknowledged,
                    detail,
                };
                write_events(transaction, &[event])?;
            }
            alert_of(transaction, &alert_id)
        }))
    }

    fn alert_page<'a>(
        &'a self,
        filter: &'a AlertFilter,
        after: Option<&'a AlertCursor>,
        limit: u32,
    ) -> StoreFuture<'a, Vec<StoredAlert>> {
        let (filter, after) = (filter.clone(), after.cloned());
        Box::pin(self.read("read alerts", move |transaction| {
            let phase = filter.state.map_or("TRUE", |phase| phase.condition());
            let after_at = after.as_ref().map(|after| instant_text(after.fired_at));
            let after_id = after.map(|after| after.alert_id);
            transaction
                .prepare_cached(&format!(
                    "{ALERTS} WHERE {phase} AND (?1 IS NULL OR severity = ?1)
                     AND (?2 IS NULL OR (fired_at, alert_id) < (?2, ?3))
                     AND (?5 IS NULL OR sensor_id = ?5)
                     ORDER BY fired_at DESC, alert_id DESC LIMIT ?4"
                ))?
                .query_map(
                    params![filter.severity, after_at, after_id, limit, filter.sensor_id],
                    stored_alert,
                )?
                .collect()
        }))
    }

    fn alert_story<'a>(&'a self, alert_id: &'a str) -> StoreFuture<'a, Option<AlertStory>> {
        let alert_id = alert_id.to_owned();
        Box::pin(self.read("read an alert's story", move |transaction| {
            let Some(alert) = alert_of(transaction, &alert_id)? else {
                return Ok(None);
            };
            let events = transaction
                .prepare_cached(
                    "SELECT at, kind, detail FROM alert_events WHERE alert_id = ?1 ORDER BY seq",
                )?
                .query_map([&alert_id], |row| {
                    Ok(AlertEvent {
                        at: instant(row, 0)?,
                        kind: row.get(1)?,
                        detail: row.get(2)?,
                    })
                })?
                .collect::<rusqlite::Result<_>>()?;
            let mut messages: Vec<StoryMessage> = transaction
                .prepare_cached(
                    "SELECT o.seq, name, o.alert_id, channel, body, attempts, due_at, done_at,
                            outcome, error, group_key, n.state
                     FROM alert_outbox AS o
                     LEFT JOIN alert_notified AS n ON n.seq = o.seq AND n.alert_id = ?1
                     WHERE o.seq IN (SELECT seq FROM alert_outbox WHERE alert_id = ?1
                                     UNION SELECT seq FROM alert_notified WHERE alert_id = ?1)
                     ORDER BY o.seq",
                )?
                .query_map([&alert_id], |row| {
                    Ok(StoryMessage {
                        stored: stored_outgoing(row)?,
                        group_key: row.get(10)?,
                        says: row.get(11)?,
                        attempts: Vec::new(),
                    })
                })?
                .collect::<rusqlite::Result<_>>()?;
            let mut attempts = transaction.prepare_cached(
                "SELECT attempt, at, took_millis, outcome, error FROM notification_attempts
                 WHERE seq = ?1 ORDER BY attempt",
            )?;
            for message in &mut messages {
                message.attempts = attempts
                    .query_map([message.stored.message.seq], stored_attempt)?
                    .collect::<rusqlite::Result<_>>()?;
            }
            Ok(Some(AlertStory {
                alert,
                events,
                messages,
            }))
        }))
    }

    fn create_silence<'a>(&'a self, silence: &'a Silence) -> StoreFuture<'a, bool> {
        let silence = silence.clone();
        Box::pin(self.write("keep a silence", move |transaction| {
            let known: u32 = transaction
                .prepare_cached("SELECT count(*) FROM silences WHERE ends_at > ?1")?
                .query_row([instant_text(Timestamp::now())], |row| row.get(0))?;
            if known >= SILENCES_MAX {
                return Ok(false);
            }
            let matchers = serde_json::to_string(&silence.matchers)
                .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
            transaction
                .prepare_cached(
                    "INSERT INTO silences
                         (id, matchers, starts_at, ends_at, created_by, comment, created_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
                )?
                .execute(params![
                    silence.id.to_string(),
                    matchers,
                    instant_text(silence.starts_at),
                    instant_text(silence.ends_at),
                    silence.created_by,
                    silence.comment,
                    instant_text(silence.created_at),
                ])?;
            Ok(true)
        }))
    }

    fn silences(&self, ended_after: Timestamp) -> StoreFuture<'_, Vec<Silence>> {
        Box::pin(self.read("read silences", move |transaction| {
            transaction
                .prepare_cached(
                    "SELECT id, matchers, starts_at, ends_at, created_by, comment, created_at
                     FROM silences WHERE ends_at > ?1 ORDER BY id",
                )?
                .query_map([instant_text(ended_after)], silence_of)?
                .collect()
        }))
    }

    fn delete_silence(&self, id: Uuid) -> StoreFuture<'_, bool> {
        Box::pin(self.write("delete a silence", move |transaction| {
            let deleted = transaction
                .prepare_cached("DELETE FROM silences WHERE id = ?1")?
                .execute([id.to_string()])?;
            Ok(deleted > 0)
        }))
    }

    fn unsettled(&self) -> StoreFuture<'_, Unsettled> {
        Box::pin(self.read("read what is to be notified", |transaction| {
            let alerts = transaction
                .prepare_cached(&format!(
                    "{ALERTS} WHERE settled_at IS NULL ORDER BY fired_at, alert_id"
                ))?
                .query_map([], stored_alert)?
                .collect::<rusqlite::Result<_>>()?;
            let told = transaction
                .prepare_cached(
                    // The other columns come from the row with the highest number.
                    "SELECT o.group_key, o.channel, n.alert_id, n.state, o.queued_at, max(o.seq)
                     FROM alerts AS a
                     JOIN alert_notified AS n ON n.alert_id = a.alert_id
                     JOIN alert_outbox AS o ON o.seq = n.seq
                     WHERE a.settled_at IS NULL
                     GROUP BY o.group_key, o.channel, n.alert_id",
                )?
                .query_map([], |row| {
                    Ok(Told {
                        group_key: row.get(0)?,
                        channel: row.get(1)?,
                        alert_id: row.get(2)?,
                        state: row.get(3)?,
                        at: instant(row, 4)?,
                    })
                })?
                .collect::<rusqlite::Result<_>>()?;
            let waiting = transaction
                .prepare_cached(
                    "SELECT DISTINCT group_key, channel FROM alert_outbox
                     WHERE done_at IS NULL AND channel <> 'mqtt' AND group_key IS NOT NULL",
                )?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<rusqlite::Result<_>>()?;
            Ok(Unsettled {
                alerts,
                told,
                waiting,
            })
        }))
    }

    fn acknowledgements(&self) -> StoreFuture<'_, Vec<Acknowledgement>> {
        Box::pin(self.read("read acknowledgements", |transaction| {
            transaction
                .prepare_cached(
                    "SELECT alert_id, acknowledged_at, coalesce(acknowledged_by, '') FROM alerts
                     WHERE settled_at IS NULL AND acknowledged_at IS NOT NULL",
                )?
                .query_map([], |row| {
                    Ok(Acknowledgement {
                        alert_id: row.get(0)?,
                        at: instant(row, 1)?,
                        by: row.get(2)?,
                    })
                })?
                .collect()
        }))
    }

    fn notifications_for<'a>(
        &'a self,
        channel: &'a str,
        limit: u32,
    ) -> StoreFuture<'a, Vec<(Outgoing, Timestamp)>> {
        let channel = channel.to_owned();
        Box::pin(self.read("read notifications", move |transaction| {
            transaction
                .prepare_cached(
                    "SELECT seq, name, alert_id, channel, body, attempts, due_at FROM alert_outbox
                     WHERE done_at IS NULL AND channel = ?1 AND channel <> 'mqtt'
                     ORDER BY due_at, seq LIMIT ?2",
                )?
                .query_map(params![channel, limit], |row| {
                    Ok((outgoing(row)?, instant(row, 6)?))
                })?
                .collect()
        }))
    }

    fn note_attempt<'a>(&'a self, attempt: &'a NewAttempt) -> StoreFuture<'a, ()> {
        let attempt = attempt.clone();
        Box::pin(self.write("note an attempt to notify", move |transaction| {
            note_attempt(transaction, &attempt)
        }))
    }
}

fn note_attempt(transaction: &Transaction<'_>, attempt: &NewAttempt) -> rusqlite::Result<()> {
    let (at, outcome) = (instant_text(attempt.at), attempt.outcome.as_str());
    let changed = match &attempt.outcome {
        AttemptOutcome::Failed { due_at } => transaction
            .prepare_cached(
                "UPDATE alert_outbox SET attempts = ?2, error = ?3, due_at = ?4
                 WHERE seq = ?1 AND done_at IS NULL AND attempts = ?2 - 1",
            )?
            .execute(params![
                attempt.seq,
                attempt.attempt,
                attempt.error,
                instant_text(*due_at)
            ])?,
        AttemptOutcome::Sent | AttemptOutcome::GivenUp(_) => transaction
            .prepare_cached(
                "UPDATE alert_outbox
                 SET attempts = ?2, error = coalesce(?3, error), done_at = ?4, outcome = ?5
                 WHERE seq = ?1 AND done_at IS NULL AND attempts = ?2 - 1",
            )?
            .execute(params![
                attempt.seq,
                attempt.attempt,
                attempt.error,
                at,
                outcome
            ])?,
    };
    if changed == 0 {
        return Ok(());
    }
    if attempt.attempt <= ATTEMPTS_KEPT_MAX {
        transaction
            .prepare_cached(
                "INSERT INTO notification_attempts (seq, attempt, at, took_millis, outcome, error)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
            )?
            .execute(params![
                attempt.seq,
                attempt.attempt,
                at,
                i64::try_from(attempt.took.as_millis()).unwrap_or(i64::MAX),
                outcome,
                attempt.error
            ])?;
    }
    if let AttemptOutcome::GivenUp(given_up) = &attempt.outcome {
        insert::dead_letter(transaction, &given_up.dead_letter)?;
        send(transaction, &given_up.message)?;
    }
    Ok(())
}

/// Writes the part of a batch that is about people; the notifications of it that are new.
pub(super) fn write_notices(
    transaction: &Transaction<'_>,
    notifications: &[NewNotification],
    events: &[NewAlertEvent],
    settled: &[(String, Timestamp)],
) -> rusqlite::Result<Vec<Outgoing>> {
    write_events(transaction, events)?;
    let mut settle = transaction.prepare_cached(
        "UPDATE alerts SET settled_at = ?2 WHERE alert_id = ?1 AND settled_at IS NULL",
    )?;
    for (alert_id, at) in settled {
        settle.execute(params![alert_id, instant_text(*at)])?;
    }
    let mut group = transaction
        .prepare_cached("UPDATE alert_outbox SET group_key = ?2, queued_at = ?3 WHERE seq = ?1")?;
    let mut tell = transaction.prepare_cached(
        "INSERT INTO alert_notified (alert_id, seq, state) VALUES (?1, ?2, ?3)
                         ON CONFLICT DO NOTHING",
    )?;
    let mut new = Vec::with_capacity(notifications.len());
    for notification in notifications {
        let Some(message) = send(transaction, &notification.message)? else {
            continue;
        };
        group.execute(params![
            message.seq,
            notification.group_key,
            instant_text(notification.queued_at)
        ])?;
        for (alert_id, state) in &notification.alerts {
            tell.execute(params![alert_id, message.seq, state])?;
        }
        new.push(message);
    }
    Ok(new)
}

fn write_events(transaction: &Transaction<'_>, events: &[NewAlertEvent]) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached(
        "INSERT INTO alert_events (alert_id, at, kind, detail)
         SELECT ?1, ?2, ?3, ?4
         WHERE ?5 OR (SELECT count(*) FROM alert_events WHERE alert_id = ?1) < ?6
         ON CONFLICT DO NOTHING",
    )?;
    for event in events {
        insert.execute(params![
            event.alert_id,
            instant_text(event.at),
            event.kind.as_str(),
            event.detail,
            event.kind.is_kept(),
            ALERT_EVENTS_MAX
        ])?;
    }
    Ok(())
}

/// Deletes messages and silences that ended before `before`.
pub(super) fn prune(transaction: &Transaction<'_>, before: Timestamp) -> rusqlite::Result<u64> {
    let before = instant_text(before);
    let seqs: Vec<i64> = transaction
        .prepare_cached(
            "SELECT seq FROM alert_outbox AS o WHERE done_at < ?1 AND NOT EXISTS
                 (SELECT 1 FROM alert_notified AS n JOIN alerts AS a ON a.alert_id = n.alert_id
                  WHERE n.seq = o.seq AND a.settled_at IS NULL)
             LIMIT 5000",
        )?
        .query_map([&before], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for table in ["notification_attempts", "alert_notified", "alert_outbox"] {
        let mut delete =
            transaction.prepare_cached(&format!("DELETE FROM {table} WHERE seq = ?1"))?;
        for seq in &seqs {
            delete.execute([seq])?;
        }
    }
    transaction
        .prepare_cached("DELETE FROM silences WHERE ends_at < ?1")?
        .execute([&before])?;
    Ok(seqs.len() as u64)
}

fn alert_of(
    transaction: &Transaction<'_>,
    alert_id: &str,
) -> rusqlite::Result<Option<StoredAlert>> {
    transaction
        .prepare_cached(&format!("{ALERTS} WHERE alert_id = ?1"))?
        .query_row([alert_id], stored_alert)
        .optional()
}

fn stored_attempt(row: &Row<'_>) -> rusqlite::Result<StoredAttempt> {
    let millis: i64 = row.get(2)?;
    Ok(StoredAttempt {
        attempt: row.get(0)?,
        at: instant(row, 1)?,
        took: Duration::from_millis(millis.unsigned_abs()),
        outcome: row.get(3)?,
        error: row.get(4)?,
    })
}

fn silence_of(row: &Row<'_>) -> rusqlite::Result<Silence> {
    let unreadable = |column: usize, error: Box<dyn std::error::Error + Send + Sync>| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error)
    };
    let (id, matchers): (String, String) = (row.get(0)?, row.get(1)?);
    Ok(Silence {
        id: id.parse().map_err(|error| unreadable(0, Box::new(error)))?,
        matchers: serde_json::from_str(&matchers)
            .map_err(|error| unreadable(1, Box::new(error)))?,
        starts_at: instant(row, 2)?,
        ends_at: instant(row, 3)?,
        created_by: row.get(4)?,
        comment: row.get(5)?,
        created_at: instant(row, 6)?,
    })
}
