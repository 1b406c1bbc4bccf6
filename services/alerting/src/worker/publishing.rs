//! What leaves: publishes from the outbox to the broker, and what becomes of them.

use std::time::Duration;

use actix::prelude::*;
use fleet_shared::session::{ConnectionEvent, Inbound, PublishError};
use fleet_store::{AttemptOutcome, MQTT_CHANNEL, NewAttempt, Outgoing};
use jiff::Timestamp;
use tokio::time::Instant;

use super::{Ended, SWEEP_ROWS, Worker, persist};
use crate::dead_letter;
use crate::fault::{FaultPoint, pass};
use crate::notify::{ATTEMPTS_MAX, Pause};
use crate::outbox::{MqttBody, is_alert};

/// Publishes on their way at most; more wait in the store.
const IN_FLIGHT_MAX: usize = 5_000;

/// What became of a publish.
pub(super) enum Outcome {
    /// The broker has it.
    Published,
    /// It is published again soon: the session could not take it or has stopped.
    Again,
    /// The broker refuses it, for as long as nobody changes what a client may do.
    Refused(PublishError),
    /// No broker can take it.
    Never(PublishError),
}

impl Outcome {
    fn of(outcome: Result<(), PublishError>) -> Self {
        match outcome {
            Ok(()) => Self::Published,
            Err(error @ PublishError::Refused { .. }) => Self::Refused(error),
            Err(error @ PublishError::Invalid { .. }) => Self::Never(error),
            Err(_) => Self::Again,
        }
    }
}

impl Worker {
    pub(super) fn publish(&mut self, messages: Vec<Outgoing>) {
        self.publish_since(messages, Instant::now());
    }

    pub(super) fn publish_since(&mut self, messages: Vec<Outgoing>, since: Instant) {
        let (Some(outlet), Some(outcomes)) = (&self.outlet, &self.outcomes) else {
            return;
        };
        let mut publishes = Vec::with_capacity(messages.len());
        for message in messages {
            if message.channel != MQTT_CHANNEL {
                continue;
            }
            if self.in_flight.len() >= IN_FLIGHT_MAX {
                self.behind = true;
                break;
            }
            let seq = message.seq;
            let body = match serde_json::from_str::<MqttBody>(&message.body) {
                Ok(body) => body,
                Err(error) => {
                    tracing::error!(seq, %error, "a message of the outbox cannot be read and is left there");
                    continue;
                }
            };
            let (outcomes, is_alert) = (outcomes.clone(), is_alert(&body.topic));
            let fault_point = self.setup.fault_point;
            let metrics = self.setup.metrics.clone();
            let mut span = self.setup.tracer.send(&body.topic, body.trace().as_ref());
            span.set("messaging.client.id", self.setup.instance.clone());
            span.set("fleet.outbox.attempts", i64::from(message.attempts));
            let context = span.context().cloned();
            let done = move |outcome: Result<(), PublishError>| {
                if let Err(error) = &outcome {
                    span.fail(error.kind(), error.to_string());
                }
                span.end();
                if outcome.is_ok() && is_alert {
                    metrics.told(since.elapsed());
                    pass(fault_point, FaultPoint::Published);
                }
                // Nobody listens once the worker has stopped; the store remembers.
                outcomes.send((seq, Outcome::of(outcome))).ok();
            };
            if is_alert {
                self.echoes.entry(message.name.clone()).or_default();
            }
            self.in_flight.insert(seq, message);
            let publish = body.publish().trace(context.as_ref());
            publishes.push((publish, Box::new(done) as _));
        }
        if !publishes.is_empty() {
            outlet.fire_all(publishes);
        }
    }

    /// Notes in the store what is published.
    pub(super) fn note(&mut self, ctx: &mut Context<Self>) {
        if self.noting || self.published.is_empty() {
            return;
        }
        self.noting = true;
        let published = std::mem::take(&mut self.published);
        let seqs: Vec<i64> = published.iter().map(|(seq, _)| *seq).collect();
        let store = self.setup.store.clone();
        let work = async move {
            let note = || store.outbox_done(&seqs, "sent", Timestamp::now());
            persist("note what is published", note).await
        };
        let noted = work.into_actor(self).map(move |result, worker, ctx| {
            worker.noting = false;
            match result {
                Ok(()) => {
                    let names = published.iter().map(|(_, name)| name);
                    let echoes = names.filter_map(|name| worker.echoes.remove(name));
                    let tickets = echoes.flatten().collect();
                    worker.acknowledge(tickets);
                    pass(worker.setup.fault_point, FaultPoint::Noted);
                }
                Err(error) => worker.end(Ended::Store(error)),
            }
            worker.go_on(ctx);
        });
        ctx.spawn(noted);
    }

    /// Publishes what was left in the store, once nothing is on its way.
    pub(super) fn sweep(&mut self, ctx: &mut Context<Self>) {
        let busy = self.sweeping || self.writing || self.noting || self.recovery.is_some();
        if !self.behind || busy || !self.in_flight.is_empty() || !self.published.is_empty() {
            return;
        }
        self.sweeping = true;
        let store = self.setup.store.clone();
        let work = async move {
            let due = || store.outbox_due(true, Timestamp::now(), SWEEP_ROWS);
            persist("read the outbox", due).await
        };
        let swept = work.into_actor(self).map(|result, worker, ctx| {
            worker.sweeping = false;
            match result {
                Ok(mut messages) => {
                    let is_page = messages.len() == SWEEP_ROWS as usize;
                    messages.retain(|message| worker.setup.part.publishes(message));
                    worker.behind = is_page && !messages.is_empty();
                    worker.publish(messages);
                }
                Err(error) => worker.end(Ended::Store(error)),
            }
            worker.go_on(ctx);
        });
        ctx.spawn(swept);
    }

    /// Notes that a publish did not succeed: it is due again later, or given up as a dead letter, so
    /// that what can never be published does not stand before everything else for ever.
    fn set_aside(
        &mut self,
        message: &Outgoing,
        error: &PublishError,
        is_final: bool,
        ctx: &mut Context<Self>,
    ) {
        let (seq, number, now) = (message.seq, message.attempts + 1, Timestamp::now());
        tracing::warn!(seq, name = message.name, attempt = number, %error, "not published");
        let is_final = is_final || number >= ATTEMPTS_MAX;
        let outcome = if is_final {
            self.refused.remove(&seq);
            let echoes = self.echoes.remove(&message.name).unwrap_or_default();
            self.acknowledge(echoes);
            self.setup.metrics.notified(MQTT_CHANNEL, "given_up");
            let (topic, payload) = match serde_json::from_str::<MqttBody>(&message.body) {
                Ok(body) => (body.topic, body.payload),
                Err(_) => (String::new(), message.body.clone()),
            };
            dead_letter::given_up(
                message,
                topic,
                &payload,
                error.kind(),
                &error.to_string(),
                now,
            )
        } else {
            self.refused.insert(seq);
            let wait = Pause::default().after(number, rand::random());
            AttemptOutcome::Failed {
                due_at: now.checked_add(wait).unwrap_or(Timestamp::MAX),
            }
        };
        let attempt = NewAttempt {
            seq,
            attempt: number,
            at: now,
            took: Duration::ZERO,
            error: Some(error.to_string()),
            outcome,
        };
        let is_letter = is_final && dead_letter::is_letter(message);
        let store = self.setup.store.clone();
        let work = async move {
            let note = || match is_letter {
                true => store.outbox_done(std::slice::from_ref(&seq), "given_up", now),
                false => store.note_attempt(&attempt),
            };
            persist("note that a message was not published", note).await
        };
        let noted = work.into_actor(self).map(|result, worker, ctx| {
            match result {
                // Its dead letter, if there is one, waits in the outbox.
                Ok(()) => worker.behind = true,
                Err(error) => worker.end(Ended::Store(error)),
            }
            worker.go_on(ctx);
        });
        ctx.spawn(noted);
    }
}

/// Outcomes of publishes.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Published(pub(super) Vec<(i64, Outcome)>);

impl Handler<Published> for Worker {
    type Result = ();

    fn handle(&mut self, Published(outcomes): Published, ctx: &mut Self::Context) {
        for (seq, outcome) in outcomes {
            let Some(message) = self.in_flight.remove(&seq) else {
                self.behind = true;
                continue;
            };
            match outcome {
                Outcome::Published => {
                    self.refused.remove(&seq);
                    self.published.push((seq, message.name));
                }
                Outcome::Again => self.behind = true,
                Outcome::Refused(error) => self.set_aside(&message, &error, false, ctx),
                Outcome::Never(error) => self.set_aside(&message, &error, true, ctx),
            }
        }
        self.go_on(ctx);
    }
}

/// Passes on what happens to the outlet.
pub(super) struct Outlet(pub(super) Recipient<OutletEvent>);

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct OutletEvent(ConnectionEvent);

impl Actor for Outlet {
    type Context = Context<Self>;
}

impl Handler<Inbound> for Outlet {
    type Result = ();

    fn handle(&mut self, _: Inbound, _: &mut Self::Context) {}
}

impl Handler<ConnectionEvent> for Outlet {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, event: ConnectionEvent, _: &mut Self::Context) -> Self::Result {
        let passed = self.0.send(OutletEvent(event));
        // A worker that has stopped need not know.
        Box::pin(async move { passed.await.unwrap_or_default() })
    }
}

impl Handler<OutletEvent> for Worker {
    type Result = ();

    fn handle(&mut self, OutletEvent(event): OutletEvent, _: &mut Self::Context) {
        match event {
            ConnectionEvent::Up { .. } => {}
            ConnectionEvent::Down { error, retry_in } => {
                let Some(error) = self.lost(error) else {
                    return;
                };
                tracing::warn!(%error, ?retry_in, "no connection to publish on");
            }
            ConnectionEvent::Failed { error } => self.end(Ended::Session(error)),
        }
    }
}
