//! One session's worth of intake: receives, decodes, batches, stores, and only then acknowledges.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use fleet_shared::health::{Check, Observe};
use fleet_shared::member::{Flush, GetSession, Leave, Link, Membership};
use fleet_shared::report::{IngestReport, REPORT_EVERY};
use fleet_shared::session::{
    ConnectionError, ConnectionEvent, Gate, Inbound, Message as MqttMessage, Options, Properties,
    Publish, Session, Ticket,
};
use fleet_shared::telemetry::{Metrics, Span, SpanKind, TraceContext, Tracer};
use fleet_shared::topic;
use fleet_store::{Backend, DeadLetter, Store, StoreError};
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

use crate::commit::{Committed, Watch, commit};
use crate::decode::{Rejection, Rules, decode};
use crate::metrics::IngestMetrics;
use crate::pending::{Load, Origin, Pending};
use crate::tally::Tally;

/// Batches of one worker in the store at once: while one waits for the disk the next is built and
/// sent. More would only wait in the store's own queue.
const STORE_BATCHES_MAX: usize = 2;

/// Messages beyond the receive maximum before reading stops. Only QoS 0 can get there, as nothing
/// but the socket holds it back.
const QUEUE_SLACK: usize = 2_000;

/// Why a worker can no longer do its work.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The session gave up.
    #[error("MQTT session `{instance}` failed")]
    Session {
        /// Client id.
        instance: String,
        /// Why.
        #[source]
        source: Arc<ConnectionError>,
    },
    /// The store cannot take anything until somebody changes something.
    #[error("the store refused a batch for good; nothing of it was acknowledged")]
    Store(#[source] StoreError),
}

/// What a worker is made of.
pub(crate) struct Setup {
    pub(crate) options: Options,
    pub(crate) group: String,
    pub(crate) rules: Rules,
    pub(crate) pending: Pending,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) registry: Metrics,
    pub(crate) metrics: IngestMetrics,
    pub(crate) store_check: Arc<Check>,
    pub(crate) failures: mpsc::UnboundedSender<WorkerError>,
    pub(crate) tracer: Tracer,
}

/// The actor: keeps the order of things, decides nothing about a reading.
pub(crate) struct Worker {
    setup: Setup,
    instance: String,
    session: Option<Session>,
    membership: Membership,
    link: Link,
    gate: Gate,
    tally: Tally,
    connected: bool,
    batches: usize,
    in_store: usize,
    timer: Option<SpawnHandle>,
    flushed: Vec<oneshot::Sender<()>>,
}

impl Worker {
    pub(crate) fn new(setup: Setup, mqtt_check: Check) -> Self {
        let instance = setup.options.client_id.to_string();
        Self {
            membership: Membership::new("ingest", &instance, &setup.group),
            link: Link::new(&instance, mqtt_check),
            gate: Gate::new(usize::from(setup.options.receive_maximum) + QUEUE_SLACK),
            tally: Tally::new(Instant::now()),
            connected: false,
            instance,
            session: None,
            batches: 0,
            in_store: 0,
            timer: None,
            flushed: Vec::new(),
            setup,
        }
    }

    fn take(&mut self, message: MqttMessage, received_at: Timestamp, now: Instant) {
        let topic = message.topic.as_str();
        if topic.starts_with("fleet/") {
            // Statuses of the group are asked for. Dead letters of our own come only with a filter
            // that is too wide: to store them would make dead letters of dead letters for ever.
            self.membership.heard(topic, &message.payload);
            self.acknowledge(message.ticket.into_iter().collect());
            return;
        }
        let mut span = self.span(&message);
        let readings = match decode(topic, &message.payload, received_at, &self.setup.rules) {
            Ok(readings) => readings,
            Err(rejection) => {
                span.fail(rejection.reason.as_str(), rejection.detail.clone());
                let letter = dead_letter(&message, rejection, received_at);
                self.setup.pending.dead_letter(letter, message.ticket, now);
                if span.is_recording() {
                    self.setup.pending.traced(span, false);
                }
                return;
            }
        };
        let origin = Origin {
            payload: message.payload,
            topic: message.topic,
            redelivered: message.dup,
        };
        self.setup
            .pending
            .readings(readings, origin, received_at, message.ticket, now);
        if span.is_recording() {
            self.setup.pending.traced(span, true);
        }
    }

    /// The span of a message, if it is traced: from now until it is durable.
    fn span(&self, message: &MqttMessage) -> Span {
        let tracer = &self.setup.tracer;
        if !tracer.is_on() {
            return Span::off();
        }
        let mut span = tracer.process(&message.topic, message.trace_context().as_ref());
        if span.is_recording() {
            span.set("messaging.client.id", self.instance.clone());
            span.set("messaging.consumer.group.name", self.setup.group.clone());
            span.set("messaging.message.body.size", message.payload.len() as i64);
            span.set("fleet.redelivered", message.dup);
        }
        span
    }

    /// The span of a transaction, if anything in it is traced.
    fn commit_span(&self, load: &Load) -> Span {
        if load.traced.is_empty() {
            return Span::off();
        }
        let links = load.traced.iter().filter_map(|it| it.span.context());
        let tracer = &self.setup.tracer;
        let mut span = tracer.batch(SpanKind::Client, "commit readings", links);
        let size = load.batch.len() as i64;
        span.set(
            "db.system.name",
            match self.setup.store.backend() {
                Backend::Sqlite => "sqlite",
                // TimescaleDB is PostgreSQL to whoever talks to it.
                _ => "postgresql",
            },
        );
        span.set("db.operation.batch.size", size);
        span.set("messaging.system", "mqtt");
        span.set("messaging.batch.message_count", size);
        span.set("messaging.client.id", self.instance.clone());
        span
    }

    fn acknowledge(&self, tickets: Vec<Ticket>) {
        if let Some(session) = &self.session
            && !tickets.is_empty()
        {
            session.acknowledge(tickets);
        }
    }

    /// Sends what is due to the store, or comes back when it is.
    fn store_due(&mut self, ctx: &mut Context<Self>, all: bool) {
        while self.batches < STORE_BATCHES_MAX {
            let Some(due) = self.setup.pending.due() else {
                return;
            };
            let now = Instant::now();
            if due > now && !all {
                if self.timer.is_none() {
                    self.timer = Some(ctx.run_later(due - now, |worker, ctx| {
                        worker.timer = None;
                        worker.store_due(ctx, false);
                    }));
                }
                return;
            }
            let load = self.setup.pending.take();
            self.store(load, ctx);
        }
    }

    fn store(&mut self, mut load: Load, ctx: &mut Context<Self>) {
        let tickets = std::mem::take(&mut load.tickets);
        let messages = load.batch.len();
        self.batches += 1;
        self.in_store += messages;
        let store = self.setup.store.clone();
        let watch = StoreWatch {
            check: self.setup.store_check.clone(),
            metrics: self.setup.metrics.clone(),
        };
        let started = Instant::now();
        let mut span = self.commit_span(&load);
        let work = async move {
            let result = span.scope(commit(store.as_ref(), load, &watch)).await;
            if let Err(error) = &result {
                span.fail("store", error.to_string());
            }
            let transaction = span.context().cloned();
            span.end();
            (result, transaction)
        };
        let stored = work
            .into_actor(self)
            .map(move |(result, transaction), worker, ctx| {
                worker.batches -= 1;
                worker.in_store -= messages;
                worker.setup.metrics.queued(-(messages as i64));
                match result {
                    Ok(mut committed) => {
                        worker.acknowledge(tickets);
                        end(&mut committed.traced, transaction.as_ref());
                        worker
                            .setup
                            .metrics
                            .committed(&committed, messages, started.elapsed());
                        worker.tally.committed(&committed);
                        worker.announce(committed);
                    }
                    // The receiver is gone only when the service is ending anyway.
                    Err(error) => drop(worker.setup.failures.send(WorkerError::Store(error))),
                }
                worker.store_due(ctx, !worker.flushed.is_empty());
                worker.release();
            });
        ctx.spawn(stored);
    }

    /// Publishes what became a dead letter. It is durable by now: this is for whoever listens.
    fn announce(&self, committed: Committed) {
        let Some(session) = &self.session else { return };
        for letter in committed.dead_letters {
            let Ok(topic) = topic::dead_letter("ingest") else {
                return;
            };
            let id = letter.id.to_string();
            let properties =
                Properties::dead_letter(&letter.reason, &letter.topic, &letter.detail, &id);
            let label = topic::templates::DEAD_LETTER;
            let publish = Publish::new(topic, label, letter.payload).properties(properties);
            let metrics = self.setup.metrics.clone();
            session.fire(publish, move |outcome| {
                if let Err(error) = outcome {
                    metrics.unannounced();
                    tracing::debug!(%error, "a dead letter is stored but not published");
                }
            });
        }
    }

    /// Lets the session read on and tells who waits for an empty queue.
    fn release(&mut self) {
        let queued = self.setup.pending.len() + self.in_store;
        self.gate.release(queued);
        if queued == 0 {
            for flushed in self.flushed.drain(..) {
                flushed.send(()).ok();
            }
        }
    }

    /// Tells what was done since the last report. Nobody relies on it, so one that is lost is not
    /// missed: the next covers its own time only.
    fn report(&mut self, _: &mut Context<Self>) {
        let queue = (self.setup.pending.len() + self.in_store) as u64;
        let report = self
            .tally
            .report(&self.instance, &self.setup.group, Instant::now());
        let report = IngestReport {
            queue,
            window: u64::from(self.setup.options.receive_maximum),
            ..report
        };
        // While there is no connection it would wait, and then tell of the past.
        if let (true, Some(session), Ok(report)) = (self.connected, &self.session, report.publish())
        {
            session.fire(report, |outcome| {
                if let Err(error) = outcome {
                    tracing::debug!(%error, "a report was not published");
                }
            });
        }
    }
}

impl Actor for Worker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.session = Some(Session::start(
            self.setup.options.clone(),
            &self.setup.registry,
            ctx.address().recipient(),
            ctx.address().recipient(),
        ));
        ctx.run_interval(REPORT_EVERY, Self::report);
    }
}

impl Handler<Inbound> for Worker {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Inbound { messages }: Inbound, ctx: &mut Self::Context) -> Self::Result {
        let (received_at, now) = (Timestamp::now(), Instant::now());
        let before = self.setup.pending.len();
        for message in messages {
            self.take(message, received_at, now);
        }
        let added = self.setup.pending.len() - before;
        self.setup.metrics.queued(added as i64);
        self.store_due(ctx, false);
        self.gate.pass(self.setup.pending.len() + self.in_store)
    }
}

impl Handler<ConnectionEvent> for Worker {
    type Result = ();

    fn handle(&mut self, event: ConnectionEvent, _: &mut Self::Context) {
        let failed = self.link.changed(&event);
        self.connected = matches!(event, ConnectionEvent::Up { .. });
        if let (ConnectionEvent::Up { .. }, Some(session)) = (&event, &self.session) {
            self.membership.announce(session);
        }
        if let Some(source) = failed {
            // The receiver is gone only when the service is ending anyway.
            drop(self.setup.failures.send(WorkerError::Session {
                instance: self.instance.clone(),
                source,
            }));
        }
    }
}

impl Handler<Leave> for Worker {
    type Result = ResponseFuture<bool>;

    fn handle(&mut self, _: Leave, _: &mut Self::Context) -> Self::Result {
        self.membership.leave(self.session.clone())
    }
}

impl Handler<Flush> for Worker {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Flush, ctx: &mut Self::Context) -> Self::Result {
        let (flushed, done) = oneshot::channel();
        self.flushed.push(flushed);
        self.store_due(ctx, true);
        self.release();
        Box::pin(async move {
            // An error means that the worker is gone, and its queue with it.
            drop(done.await);
        })
    }
}

impl Handler<GetSession> for Worker {
    type Result = MessageResult<GetSession>;

    fn handle(&mut self, _: GetSession, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.session.clone())
    }
}

impl Handler<Observe> for Worker {
    type Result = ResponseFuture<serde_json::Value>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        let state = serde_json::json!({
            "client_id": self.instance,
            "waiting_messages": self.setup.pending.len(),
            "messages_in_store": self.in_store,
            "batches_in_store": self.batches,
            "flushing": !self.flushed.is_empty(),
        });
        Observe::answer(state, self.session.clone())
    }
}

/// Keeps readiness and log in step with the store.
struct StoreWatch {
    check: Arc<Check>,
    metrics: IngestMetrics,
}

impl Watch for StoreWatch {
    fn store_away(&self, error: &StoreError, attempt: u32, retry_in: Duration) {
        self.metrics.retried();
        let chain = format!("{:#}", anyhow::Error::new(error.clone()));
        // The first failure is news, and every tenth a reminder.
        if attempt % 10 == 1 {
            tracing::warn!(error = %chain, attempt, ?retry_in, "the store did not take a batch; readings wait at the broker");
        }
        self.check.down(chain);
    }

    fn store_back(&self) {
        self.check.up();
    }
}

/// Ends the spans of messages that are acknowledged, with a link to the transaction they were in.
fn end(traced: &mut Vec<Span>, transaction: Option<&TraceContext>) {
    for mut span in traced.drain(..) {
        if let Some(transaction) = transaction {
            span.link(transaction);
        }
        span.end();
    }
}

fn dead_letter(message: &MqttMessage, rejection: Rejection, received_at: Timestamp) -> DeadLetter {
    DeadLetter {
        id: Uuid::now_v7(),
        service: "ingest".to_owned(),
        topic: message.topic.to_string(),
        payload: message.payload.to_vec(),
        reason: rejection.reason.as_str().to_owned(),
        detail: rejection.detail,
        received_at,
        redelivered: message.dup,
    }
}
