//! One task a channel: sends what the outbox holds for it, and notes each attempt.
//!
//! The outbox is the queue: a task keeps a few messages in memory and nothing else. Channels know
//! nothing of each other, so one that stalls costs the others nothing.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::Recipient;
use fleet_shared::telemetry::{Span, SpanKind, TraceContext, Tracer};
use fleet_store::replay::NOTIFICATIONS;
use fleet_store::{AlertStore, AttemptOutcome, NewAttempt, Outgoing};
use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use super::channel::{SEND_TIMEOUT, SendError, Transport};
use super::dispatch::Decision;
use super::notification::Notification;
use super::notifier::Delivered;
use super::retry::{ATTEMPTS_MAX, Bucket, Pause, Response};
use crate::dead_letter;
use crate::fault::{FaultPoint, pass};
use crate::metrics::AlertingMetrics;
use crate::route::Channel;
use crate::worker::persist;

/// Messages of a channel on their way at once.
const CONCURRENCY: usize = 4;

/// Messages read from the outbox at once.
const ROWS: u32 = 64;

/// Longest time without a look into the outbox, should a wake-up be lost.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// How long connections and the system's authorities are kept; files of our own that have changed
/// are read at once.
const TRANSPORT_KEPT: Duration = Duration::from_secs(60);

/// Reminders that wait; a further one is left out, for the next comes in a minute.
pub(crate) const REMINDERS_MAX: usize = 64;

/// What every sender has.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) store: Arc<dyn AlertStore>,
    pub(crate) metrics: AlertingMetrics,
    pub(crate) delivered: Recipient<Delivered>,
    /// Set when the outbox has something for the broker.
    pub(crate) outbox_grew: Arc<AtomicBool>,
    pub(crate) fault_point: Option<FaultPoint>,
    pub(crate) pause: Pause,
    pub(crate) tracer: Tracer,
}

/// Sends for one channel until `stop`, and what is on its way to its end.
pub(crate) async fn run(
    desk: Desk,
    channel: Arc<Channel>,
    wake: Arc<Notify>,
    mut reminders: mpsc::Receiver<Decision>,
    mut stop: watch::Receiver<bool>,
) {
    let mut bucket = Bucket::new(channel.rate_per_minute, Timestamp::now());
    let mut built: Option<Built> = None;
    loop {
        if *stop.borrow() {
            return;
        }
        let read = || desk.store.notifications_for(&channel.name, ROWS);
        let waiting = match persist("read the notifications", read).await {
            Ok(waiting) => waiting,
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::new(error));
                tracing::error!(channel = channel.name, %error, "nothing is sent on this channel");
                return;
            }
        };
        let now = Timestamp::now();
        let mut next = LOOK_EVERY;
        let mut ready = Vec::new();
        for (message, due_at) in waiting {
            if due_at > now {
                let wait = Duration::try_from(due_at.duration_since(now)).unwrap_or_default();
                next = next.min(wait + Duration::from_millis(1));
                break;
            }
            if ready.len() == CONCURRENCY {
                next = Duration::ZERO;
                break;
            }
            match bucket.take(now) {
                Ok(()) => ready.push(message),
                Err(wait) => {
                    next = next.min(wait);
                    break;
                }
            }
        }
        if !ready.is_empty() {
            let is_usable = match &mut built {
                Some((at, Ok(transport))) => {
                    at.elapsed() < TRANSPORT_KEPT && !transport.is_outdated()
                }
                _ => false,
            };
            if !is_usable {
                built = Some(rebuilt(built.take(), &channel));
            }
            if let Some((_, transport)) = &built {
                let transport = transport.as_ref();
                let sending = ready
                    .into_iter()
                    .map(|message| send_one(&desk, &channel, transport, message));
                join_all(sending).await;
            }
            continue;
        }
        tokio::select! {
            () = tokio::time::sleep(next) => {}
            () = wake.notified() => {}
            Some(reminder) = reminders.recv() => remind(&desk, &channel, reminder).await,
            // An error means that whoever would stop it is gone.
            _ = stop.changed() => return,
        }
    }
}

async fn send_one(
    desk: &Desk,
    channel: &Channel,
    transport: Result<&Transport, &SendError>,
    message: Outgoing,
) {
    let started = Instant::now();
    let mut notification = serde_json::from_str::<Notification>(&message.body);
    let mut span = Span::off();
    if let Ok(notification) = &mut notification {
        span = self::span(desk, channel, &message, notification);
        // What the receiver does belongs to this attempt.
        let context = span.context().map(TraceContext::traceparent);
        notification.traceparent = context.or(notification.traceparent.take());
    }
    let result = match (&notification, transport) {
        (Err(error), _) => Err(SendError::refused(format!(
            "the message cannot be read: {error}"
        ))),
        (_, Err(error)) => Err(SendError {
            what: error.what.clone(),
            response: error.response.clone(),
        }),
        (Ok(notification), Ok(transport)) => {
            let send = transport.send(&message.name, notification, Timestamp::now());
            // A little more than the channel's own limit, which says more about what was late.
            let send = tokio::time::timeout(SEND_TIMEOUT + Duration::from_secs(1), send);
            span.scope(send)
                .await
                .unwrap_or_else(|_| Err(SendError::later("no answer in time")))
        }
    };
    if let Err(error) = &result {
        span.fail("not_taken", error.what.clone());
    }
    span.end();
    if result.is_ok() {
        pass(desk.fault_point, FaultPoint::Notified);
    }
    let attempt = attempt(&message, channel, started.elapsed(), &result, &desk.pause);
    let outcome = match attempt.outcome {
        AttemptOutcome::Sent => "sent",
        AttemptOutcome::Failed { .. } => "failed",
        AttemptOutcome::GivenUp(_) => "given_up",
    };
    desk.metrics.notified(channel.kind.as_str(), outcome);
    if let Err(error) = &result {
        tracing::warn!(
            channel = channel.name,
            id = message.name,
            attempt = attempt.attempt,
            outcome,
            error = error.what,
            "a notification was not taken"
        );
    } else {
        tracing::info!(channel = channel.name, id = message.name, "notified");
    }
    let noted = persist("note an attempt to notify", || {
        desk.store.note_attempt(&attempt)
    })
    .await;
    if let Err(error) = noted {
        let error = format!("{:#}", anyhow::Error::new(error));
        tracing::error!(channel = channel.name, id = message.name, %error, "an attempt is not noted");
        // Nothing is gained by sending it over and over.
        tokio::time::sleep(LOOK_EVERY).await;
        return;
    }
    match attempt.outcome {
        AttemptOutcome::Failed { .. } => return,
        AttemptOutcome::GivenUp(_) => desk.outbox_grew.store(true, Ordering::Relaxed),
        AttemptOutcome::Sent => {}
    }
    if let Ok(notification) = notification {
        let delivered = Delivered {
            group_key: notification.group_key,
            channel: channel.name.clone(),
        };
        // Not awaited here: the notifier may be waiting for this very task to end. One that has
        // stopped reads the store when it begins again.
        let delivery = desk.delivered.send(delivered);
        actix::spawn(async move { delivery.await.ok() });
    }
}

/// The span of one attempt, in the trace of the reading that is told about.
fn span(desk: &Desk, channel: &Channel, message: &Outgoing, notification: &Notification) -> Span {
    let parent = notification.traceparent.as_deref();
    let parent = parent.and_then(|parent| TraceContext::parse(parent, None).ok());
    let kind = channel.kind.as_str();
    let mut span = desk.tracer.span(SpanKind::Client, parent.as_ref(), || {
        format!("notify {kind}").into()
    });
    span.set("fleet.receiver", notification.receiver.clone());
    span.set("fleet.alerts", notification.alerts.len() as i64);
    span.set("fleet.attempt", i64::from(message.attempts) + 1);
    span
}

/// What a channel sends with, made when.
type Built = (Instant, Result<Transport, SendError>);

/// A new one, or the former if its files cannot be used now: they may be half replaced.
fn rebuilt(former: Option<Built>, channel: &Arc<Channel>) -> Built {
    let made = match (Transport::new(channel.clone()), former) {
        (Err(error), Some((_, Ok(former)))) => {
            let receiver = &channel.receiver;
            tracing::warn!(receiver, %error, "changed files of a receiver cannot be used; the former stay in force");
            Ok(former)
        }
        (made, _) => made,
    };
    (Instant::now(), made)
}

async fn remind(desk: &Desk, channel: &Arc<Channel>, reminder: Decision) {
    let sent = match Transport::new(channel.clone()) {
        Ok(transport) => {
            let now = Timestamp::now();
            let name = reminder.name();
            transport.send(&name, &reminder.notification, now).await
        }
        Err(error) => Err(error),
    };
    let outcome = match sent {
        Ok(()) => "reminded",
        Err(error) => {
            let error = error.what;
            tracing::warn!(
                channel = channel.name,
                error,
                "what fires was not told again"
            );
            "failed"
        }
    };
    desk.metrics.notified(channel.kind.as_str(), outcome);
}

/// What is noted of an attempt, and what follows from it.
fn attempt(
    message: &Outgoing,
    channel: &Channel,
    took: Duration,
    result: &Result<(), SendError>,
    pause: &Pause,
) -> NewAttempt {
    let now = Timestamp::now();
    let number = message.attempts + 1;
    let outcome = match result {
        Ok(()) => AttemptOutcome::Sent,
        Err(SendError {
            response: Response::Later(after),
            ..
        }) if number < ATTEMPTS_MAX => {
            let chance = rand::random::<f64>();
            let wait = pause.after(number, chance).max(after.unwrap_or_default());
            let due_at = now.checked_add(wait).unwrap_or(Timestamp::MAX);
            AttemptOutcome::Failed { due_at }
        }
        Err(error) => {
            let reason = match error.response {
                Response::Later(_) => "too_many_attempts",
                Response::Taken | Response::Refused => "refused",
            };
            unnotified(message, &channel.name, reason, &error.what, now)
        }
    };
    NewAttempt {
        seq: message.seq,
        attempt: number,
        at: now,
        took,
        error: result.as_ref().err().map(|error| error.what.clone()),
        outcome,
    }
}

/// What takes the place of a notification that is given up.
fn unnotified(
    message: &Outgoing,
    channel: &str,
    reason: &'static str,
    detail: &str,
    now: Timestamp,
) -> AttemptOutcome {
    let topic = format!("{NOTIFICATIONS}{channel}");
    dead_letter::given_up(message, topic, &message.body, reason, detail, now)
}

/// Gives up what waits for channels that are not there any more.
pub(crate) async fn give_up_orphans(desk: Desk, channels: HashSet<String>) {
    for channel in channels {
        loop {
            let read = || desk.store.notifications_for(&channel, ROWS);
            let waiting = match persist("read the notifications", read).await {
                Ok(waiting) if !waiting.is_empty() => waiting,
                Ok(_) => break,
                Err(error) => {
                    tracing::error!(channel, %error, "what waits for a receiver that is gone stays");
                    return;
                }
            };
            for (message, _) in waiting {
                let detail = "its receiver is not in the file of routes any more";
                let now = Timestamp::now();
                let attempt = NewAttempt {
                    seq: message.seq,
                    attempt: message.attempts + 1,
                    at: now,
                    took: Duration::ZERO,
                    error: Some(detail.to_owned()),
                    outcome: unnotified(&message, &channel, "no_receiver", detail, now),
                };
                let kind = channel.rsplit('/').nth(1).unwrap_or("log");
                desk.metrics.notified(kind, "given_up");
                tracing::warn!(channel, id = message.name, "given up: {detail}");
                let note = || desk.store.note_attempt(&attempt);
                if let Err(error) = persist("give up a notification", note).await {
                    tracing::error!(channel, %error, "what waits for a receiver that is gone stays");
                    return;
                }
            }
            desk.outbox_grew.store(true, Ordering::Relaxed);
        }
    }
}
