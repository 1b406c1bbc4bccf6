//! The active process: takes messages, asks the engine, makes changes durable, publishes them, and
//! only then lets go of them.
//!
//! ```text
//!  intake session ──▶ Engine ──▶ batch ──▶ store ──▶ acknowledge
//!   (of the group)    (pure)               outbox ──▶ outlet session ──▶ note as sent
//! ```
//!
//! The intake has the client id of the group, with subscriptions that the broker keeps: whoever is
//! active next gets what the last one did not acknowledge. The outlet has a client id of the group
//! too, but no session: connecting with it ends the publishing of whoever was active before.

mod journal;
mod past;
mod publishing;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::prelude::*;
use fleet_shared::health::{Check, Observe};
use fleet_shared::member::ServiceStatus;
use fleet_shared::model::{Limits, SensorReading, StatusMessage};
use fleet_shared::session::{
    ConnectionError, ConnectionEvent, Inbound, Message as MqttMessage, Options, Session, Stop,
    Ticket,
};
use fleet_shared::telemetry::{Metrics, Span, TraceContext, Tracer};
use fleet_shared::topic::FleetTopic;
use fleet_store::{AlertBatch, AlertStore, Lease, Outgoing, StoreError, StoreFuture, Written};
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use self::journal::Journal;
use self::publishing::{Outcome, Outlet, Published};
use crate::engine::{Change, Engine, Evaluated, SavedTrack};
use crate::fault::{FaultPoint, pass};
use crate::metrics::AlertingMetrics;
use crate::notify::notifier::AlertsChanged;
use crate::outbox::{self, Recovery, alert_name};
use crate::request::Desk;
use crate::rule::RuleSet;
use crate::share::{AlertStateMessage, Elsewhere, Part};
use crate::status;

/// How often the clock is looked at; an alert that only the clock decides is late by this at most.
const TICK: Duration = Duration::from_secs(1);

/// Rows of the outbox read at once when it is behind.
const SWEEP_ROWS: u32 = 1_000;

/// Changes that wait for the store before reading stops.
const WAITING_MAX: usize = 10_000;

/// Pauses between attempts while the store is away.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Reason code of a DISCONNECT because another client has the same client id (section 3.14.2.1).
const SESSION_TAKEN_OVER: u8 = 0x8E;

/// Why the active process is not active any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    /// Another process has the group's session at the broker.
    #[error("another client connected with the client id of the group")]
    TakenOver,
    /// Another process has the lease.
    #[error("the lease is held by another process")]
    Fenced,
    /// A session gave up.
    #[error("an MQTT session failed")]
    Session(#[source] Arc<ConnectionError>),
    /// The store cannot take anything until somebody changes something.
    #[error("the store refused a change for good; its message was not acknowledged")]
    Store(#[source] StoreError),
}

/// What the worker is made of.
pub(crate) struct Setup {
    pub(crate) intake: Options,
    pub(crate) outlet: Options,
    pub(crate) instance: String,
    pub(crate) group: String,
    pub(crate) part: Part,
    /// The readings of all sensors come here, and to no other group.
    pub(crate) takes_all: bool,
    pub(crate) lease: Lease,
    pub(crate) store: Arc<dyn AlertStore>,
    pub(crate) engine: Engine,
    pub(crate) batch: AlertBatch,
    pub(crate) unpublished: Vec<Outgoing>,
    pub(crate) registry: Metrics,
    pub(crate) metrics: AlertingMetrics,
    pub(crate) check: Check,
    pub(crate) desk: Desk,
    pub(crate) max_clock_skew: Duration,
    /// Who tells people.
    pub(crate) notifier: Recipient<AlertsChanged>,
    /// Set by others when they have put something into the outbox for the broker.
    pub(crate) outbox_grew: Arc<AtomicBool>,
    pub(crate) fault_point: Option<FaultPoint>,
    pub(crate) ended: mpsc::UnboundedSender<Ended>,
    pub(crate) tracer: Tracer,
}

/// When a message may be acknowledged.
enum Fate {
    /// Now.
    Done,
    /// With the batch that its changes are in, or that it was evaluated.
    WaitsForStore,
    /// Once it is noted as published.
    Held,
}

/// The actor: keeps the order of things, decides nothing about an alert.
pub(crate) struct Worker {
    setup: Setup,
    intake: Option<Session>,
    outlet: Option<Session>,
    /// Held until it is known what was published before us.
    recovery: Option<Recovery>,
    batch: AlertBatch,
    /// Of the messages behind `batch`.
    tickets: Vec<Ticket>,
    since: Option<Instant>,
    journal: Journal,
    writing: bool,
    /// What is on its way.
    in_flight: HashMap<i64, Outgoing>,
    /// What the broker refused and is due again later.
    refused: HashSet<i64>,
    /// Published, to be noted in the store.
    published: Vec<(i64, String)>,
    /// Our own alerts as they came back, not acknowledged before they are noted as published: until
    /// then they are the only proof of it.
    echoes: HashMap<String, Vec<Ticket>>,
    noting: bool,
    /// The outbox holds messages that are not in flight.
    behind: bool,
    sweeping: bool,
    held: Option<oneshot::Sender<()>>,
    flushed: Vec<oneshot::Sender<()>>,
    outcomes: Option<mpsc::UnboundedSender<(i64, Outcome)>>,
    /// Looks into the past so far; the last one counts.
    look: u64,
    /// Alerts that fire in groups with which the work is shared.
    elsewhere: Elsewhere,
    /// The memory of the last reading, for the next: most change nothing and are not kept.
    scratch: SensorReading,
}

impl Worker {
    pub(crate) fn new(mut setup: Setup) -> Self {
        let unpublished = std::mem::take(&mut setup.unpublished);
        Self {
            batch: std::mem::take(&mut setup.batch),
            setup,
            intake: None,
            outlet: None,
            recovery: Some(Recovery::new(unpublished)),
            tickets: Vec::new(),
            since: None,
            journal: Journal::default(),
            writing: false,
            in_flight: HashMap::new(),
            refused: HashSet::new(),
            published: Vec::new(),
            echoes: HashMap::new(),
            noting: false,
            behind: false,
            sweeping: false,
            held: None,
            flushed: Vec::new(),
            outcomes: None,
            look: 0,
            elsewhere: Elsewhere::default(),
            scratch: SensorReading::blank(),
        }
    }

    fn end(&self, ended: Ended) {
        // The receiver is gone only when the worker is being stopped anyway.
        self.setup.ended.send(ended).ok();
    }

    /// A session lost its connection: what went wrong, unless another process has taken it over.
    fn lost(&self, error: Arc<ConnectionError>) -> Option<String> {
        if let ConnectionError::Disconnected { code, .. } = &*error
            && *code == SESSION_TAKEN_OVER
        {
            self.end(Ended::TakenOver);
            return None;
        }
        Some(format!("{:#}", anyhow::Error::new(error)))
    }

    fn take(&mut self, message: &MqttMessage, now: Timestamp) -> Fate {
        let topic = message.topic.as_str();
        let mut changes = Vec::new();
        let mut adopted = false;
        let mut counts = false;
        let mut span = Span::off();
        match FleetTopic::parse(topic) {
            Some(FleetTopic::Sensor { .. }) if self.setup.engine.looks_at(topic) => {
                span = self.span(message);
                let mut reading = std::mem::replace(&mut self.scratch, SensorReading::blank());
                match self.reading(&mut reading, topic, &message.payload, now) {
                    Ok(()) => {
                        adopted = self.adopt(topic, &reading.sensor_id, now);
                        let engine = &mut self.setup.engine;
                        let evaluated = engine.reading(topic, &reading, now, &mut changes);
                        counts = self.evaluated(evaluated, &mut span);
                    }
                    Err(reason) => {
                        span.fail(reason, "it is not evaluated");
                        self.setup.metrics.refused(reason);
                    }
                }
                self.scratch = reading;
            }
            Some(FleetTopic::DeviceStatus { device_id }) if !message.payload.is_empty() => {
                span = self.span(message);
                match StatusMessage::parse(device_id, &message.payload) {
                    Ok(mut status) => {
                        status.distrust_clock(now, self.setup.max_clock_skew);
                        adopted = self.adopt(topic, &status.device_id, now);
                        let engine = &mut self.setup.engine;
                        let evaluated = engine.status(topic, &status, now, &mut changes);
                        counts = self.evaluated(evaluated, &mut span);
                    }
                    Err(error) => {
                        span.fail(error.reason(), "it is not evaluated");
                        self.setup.metrics.refused(error.reason());
                    }
                }
            }
            Some(FleetTopic::Alert { .. }) => {
                return self.came_back(message);
            }
            Some(FleetTopic::ServiceStatus { .. }) => self.heard_of_peer(&message.payload),
            Some(FleetTopic::AlertingState { rule, sensor_id }) => {
                self.heard_of_alert(rule, sensor_id, &message.payload);
            }
            Some(FleetTopic::AlertingRequest { name }) if !message.retain => {
                self.requested(name, message);
            }
            _ => {}
        }
        span.set("fleet.changes", changes.len() as i64);
        let entered = span.enter();
        self.changed(&changes, span.context(), now);
        drop(entered);
        if counts || adopted {
            Fate::WaitsForStore
        } else {
            Fate::Done
        }
    }

    /// Counts an evaluation; whether a rule looked at the message at all.
    fn evaluated(&self, evaluated: Evaluated, span: &mut Span) -> bool {
        span.set("fleet.evaluations", i64::from(evaluated.evaluations));
        self.setup.metrics.evaluated(evaluated);
        evaluated.evaluations > 0
    }

    /// The span of an evaluation, if it is traced.
    fn span(&self, message: &MqttMessage) -> Span {
        let tracer = &self.setup.tracer;
        if !tracer.is_on() && message.properties.is_none() {
            return Span::off();
        }
        let mut span = tracer.process(&message.topic, message.trace_context().as_ref());
        if span.is_recording() {
            span.set("messaging.client.id", self.setup.instance.clone());
            span.set("messaging.consumer.group.name", self.setup.group.clone());
            span.set("messaging.message.body.size", message.payload.len() as i64);
        }
        span
    }

    /// An alert came on the group's session, most likely our own.
    fn came_back(&mut self, message: &MqttMessage) -> Fate {
        let Some(name) = alert_name(&message.payload) else {
            return Fate::Done;
        };
        let in_doubt = match &mut self.recovery {
            Some(recovery) => recovery.heard(&name),
            None => false,
        };
        if in_doubt {
            self.echoes.entry(name.clone()).or_default();
        }
        match self.echoes.get_mut(&name) {
            Some(tickets) => {
                tickets.extend(message.ticket);
                Fate::Held
            }
            None => Fate::Done,
        }
    }

    /// The state of an alert that fires was announced by this group or another, or that it ended.
    fn heard_of_alert(&mut self, rule: &str, sensor_id: &str, payload: &[u8]) {
        self.elsewhere.remove(rule, sensor_id);
        let Ok(state) = serde_json::from_slice::<AlertStateMessage>(payload) else {
            // An empty payload: it fires no more.
            return;
        };
        let Some(saved) = state.saved.filter(|_| state.group != self.setup.group) else {
            return;
        };
        self.setup.engine.disown(rule, sensor_id);
        if !self.elsewhere.add(rule, sensor_id, saved) {
            self.setup.metrics.refused("too_many_alerts_elsewhere");
        }
    }

    /// Goes on from what another group knows of a sensor whose messages now come here. Whether there
    /// was anything.
    fn adopt(&mut self, topic: &str, sensor_id: &str, now: Timestamp) -> bool {
        if !self.setup.engine.looks_at(topic) {
            return false;
        }
        let engine = &mut self.setup.engine;
        let taken = self.elsewhere.take(sensor_id, |rule| engine.found(rule));
        let mut adopted = false;
        for (rule, saved) in taken {
            let track = SavedTrack {
                rule,
                sensor_id: sensor_id.to_owned(),
                saved,
            };
            if let Some(change) = engine.adopt(track, now) {
                tracing::info!(rule = %change.rule.name, sensor_id, "an alert of another group is now ours");
                outbox::add_adopted(&mut self.batch, &change, &self.setup.group, now);
                self.since.get_or_insert_with(Instant::now);
                adopted = true;
            }
        }
        adopted
    }

    fn requested(&self, name: &str, message: &MqttMessage) {
        let setup = &self.setup;
        if let Some(outlet) = &self.outlet
            && !setup.desk.take(name, message, &setup.engine, outlet)
        {
            setup.metrics.refused("no_response_topic");
        }
    }

    fn reading(
        &self,
        reading: &mut SensorReading,
        topic: &str,
        payload: &[u8],
        now: Timestamp,
    ) -> Result<(), &'static str> {
        let checked = reading.read(payload, &Limits::default()).and_then(|()| {
            reading.check_topic(topic)?;
            reading.check_clock(now, self.setup.max_clock_skew)
        });
        checked.map_err(|error| error.reason())
    }

    fn changed(&mut self, changes: &[Change], trace: Option<&TraceContext>, now: Timestamp) {
        for change in changes {
            self.setup.metrics.changed(change);
            outbox::add(&mut self.batch, change, &self.setup.group, trace, now);
            for (transition, _) in &change.transitions {
                tracing::info!(
                    rule = %change.rule.name,
                    sensor_id = %change.sensor_id,
                    state = transition.kind.as_str(),
                    severity = %change.rule.severity,
                    "alert"
                );
                pass(self.setup.fault_point, FaultPoint::Received);
            }
        }
        if !changes.is_empty() {
            self.since.get_or_insert_with(Instant::now);
        }
    }

    /// A status of this group came; ours with our epoch says that nothing older is to come.
    fn heard_of_peer(&mut self, payload: &[u8]) {
        let Ok(status) = serde_json::from_slice::<ServiceStatus>(payload) else {
            return;
        };
        let is_ours = status.group.as_ref() == Some(&self.setup.group)
            && status.instance == self.setup.instance;
        if !is_ours || status.epoch != Some(self.setup.lease.epoch) {
            return;
        }
        let Some(recovery) = self.recovery.take() else {
            return;
        };
        let (publish, published) = recovery.end();
        tracing::info!(
            publish = publish.len(),
            published_before = published.len(),
            "active, and everything published before is known"
        );
        self.setup.check.up();
        self.published.extend(published);
        self.publish(publish);
    }

    /// Asks for our own status on the intake, through the outlet.
    fn publish_marker(&self) {
        let (epoch, setup) = (self.setup.lease.epoch, &self.setup);
        let status = status::of(&setup.instance, &setup.group, true, Some(epoch));
        if let (Some(outlet), Ok(publish)) = (&self.outlet, status.publish()) {
            outlet.fire(publish, |outcome| {
                if let Err(error) = outcome {
                    tracing::warn!(%error, "the status is not published");
                }
            });
        }
    }

    fn write(&mut self, ctx: &mut Context<Self>) {
        let marks_due = self.setup.engine.has_marks() && self.marks_due();
        if self.writing || (self.batch.is_empty() && !marks_due) {
            return;
        }
        self.writing = true;
        if self.setup.engine.has_marks() {
            self.batch.marks = Some(self.journal.entry(&mut self.setup.engine));
        }
        let batch = Arc::new(std::mem::take(&mut self.batch));
        let tickets = std::mem::take(&mut self.tickets);
        let since = self.since.take().unwrap_or_else(Instant::now);
        let (store, lease) = (self.setup.store.clone(), self.setup.lease.clone());
        let notifier = self.setup.notifier.clone();
        let work = async move {
            let write = || store.write_alerts(batch.clone(), &lease);
            let written = persist("write alerts", write).await?;
            if let Written::Done(new) = &written {
                tell(&notifier, &batch, new).await;
            }
            Ok(written)
        };
        let written = work.into_actor(self).map(move |result, worker, ctx| {
            worker.writing = false;
            match result {
                Ok(Written::Done(new)) => worker.written(new, tickets, since),
                Ok(Written::Fenced) => worker.end(Ended::Fenced),
                Err(error) => worker.end(Ended::Store(error)),
            }
            worker.go_on(ctx);
        });
        ctx.spawn(written);
    }

    fn marks_due(&self) -> bool {
        !self.flushed.is_empty() || self.journal.is_due(self.tickets.len(), Instant::now())
    }

    /// Sees to it that what was evaluated is noted soon, also when nothing more comes.
    fn note_marks_later(&mut self, ctx: &mut Context<Self>) {
        if !self.setup.engine.has_marks() {
            return;
        }
        if let Some(wait) = self.journal.wait(Instant::now()) {
            ctx.run_later(wait, |worker, ctx| {
                worker.journal.woken();
                worker.go_on(ctx);
                worker.note_marks_later(ctx);
            });
        }
    }

    fn written(&mut self, new: Vec<Outgoing>, tickets: Vec<Ticket>, since: Instant) {
        let told = new.iter().any(|message| message.name.ends_with("/alert"));
        if told {
            pass(self.setup.fault_point, FaultPoint::Persisted);
        }
        match &mut self.recovery {
            Some(recovery) => recovery.hold(new),
            None if self.sweeping => self.behind = true,
            None => self.publish_since(new, since),
        }
        if told {
            pass(self.setup.fault_point, FaultPoint::Publishing);
        }
        self.acknowledge(tickets);
        if told {
            pass(self.setup.fault_point, FaultPoint::Acknowledged);
        }
    }

    fn acknowledge(&self, tickets: Vec<Ticket>) {
        if let Some(session) = &self.intake
            && !tickets.is_empty()
        {
            session.acknowledge(tickets);
        }
    }

    /// Starts whatever can be started, and tells who waits.
    fn go_on(&mut self, ctx: &mut Context<Self>) {
        self.write(ctx);
        self.note(ctx);
        if self.batch.states.len() <= WAITING_MAX
            && let Some(held) = self.held.take()
        {
            // A session that has ended does not wait any more.
            held.send(()).ok();
        }
        let idle = !self.writing && !self.noting && self.in_flight.is_empty();
        let noted = self.batch.is_empty() && !self.setup.engine.has_marks();
        if idle && noted && self.published.is_empty() {
            for flushed in self.flushed.drain(..) {
                flushed.send(()).ok();
            }
        }
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        let now = Timestamp::now();
        let (mut changes, mut forgotten) = (Vec::new(), Vec::new());
        self.setup.engine.tick(now, &mut changes, &mut forgotten);
        self.changed(&changes, None, now);
        self.batch.forgotten.extend(forgotten);
        self.setup.metrics.sensors(self.setup.engine.sensors());
        self.behind |= self.setup.outbox_grew.swap(false, Ordering::Relaxed);
        self.behind |= !self.refused.is_empty();
        self.sweep(ctx);
        self.go_on(ctx);
    }
}

/// Tells the notifier what began and ended; it finds by itself what this does not tell.
async fn tell(notifier: &Recipient<AlertsChanged>, batch: &AlertBatch, new: &[Outgoing]) {
    let new: HashSet<&str> = new
        .iter()
        .filter_map(|message| message.name.strip_suffix("/firing/alert"))
        .collect();
    let fired = batch
        .fired
        .iter()
        .filter(|alert| new.contains(alert.alert_id.as_str()));
    let changed = AlertsChanged {
        fired: fired.cloned().collect(),
        resolved: batch.resolved.clone(),
    };
    if !changed.fired.is_empty() || !changed.resolved.is_empty() {
        // One that has stopped reads the store when it begins again.
        notifier.send(changed).await.ok();
    }
}

/// Does `work` again and again for as long as the store is away.
pub(crate) async fn persist<'a, T: 'a>(
    what: &'static str,
    work: impl Fn() -> StoreFuture<'a, T>,
) -> Result<T, StoreError> {
    let mut pause = RETRY.0;
    let mut attempt = 0_u32;
    loop {
        match work().await {
            Err(error) if error.is_transient() => {
                attempt += 1;
                if attempt % 10 == 1 {
                    let error = format!("{:#}", anyhow::Error::new(error));
                    tracing::warn!(%error, attempt, retry_in = ?pause, "cannot {what}; it is tried until it works");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY.1);
            }
            other => return other,
        }
    }
}

impl Actor for Worker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let (sender, mut outcomes) = mpsc::unbounded_channel();
        self.outcomes = Some(sender);
        let worker = ctx.address();
        actix::spawn(async move {
            while let Some(first) = outcomes.recv().await {
                let mut all = vec![first];
                while let Ok(next) = outcomes.try_recv() {
                    all.push(next);
                }
                if worker.send(Published(all)).await.is_err() {
                    return;
                }
            }
        });
        let registry = &self.setup.registry;
        let outlet = Outlet(ctx.address().recipient()).start();
        self.outlet = Some(Session::start(
            self.setup.outlet.clone(),
            registry,
            outlet.clone().recipient(),
            outlet.recipient(),
        ));
        self.intake = Some(Session::start(
            self.setup.intake.clone(),
            registry,
            ctx.address().recipient(),
            ctx.address().recipient(),
        ));
        ctx.run_interval(TICK, |worker, ctx| worker.tick(ctx));
        self.look_back(ctx);
        self.go_on(ctx);
    }
}

impl Handler<Inbound> for Worker {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, inbound: Inbound, ctx: &mut Self::Context) -> Self::Result {
        let now = Timestamp::now();
        let mut at_once = Vec::with_capacity(inbound.messages.len());
        for message in &inbound.messages {
            match self.take(message, now) {
                Fate::Done => at_once.extend(message.ticket),
                Fate::WaitsForStore => self.tickets.extend(message.ticket),
                Fate::Held => {}
            }
        }
        self.acknowledge(at_once);
        self.journal.heard(Instant::now());
        self.go_on(ctx);
        self.note_marks_later(ctx);
        if self.batch.states.len() <= WAITING_MAX {
            return Box::pin(std::future::ready(()));
        }
        let (held, released) = oneshot::channel();
        self.held = Some(held);
        // An error means that the worker is gone, and with it what was to be waited for.
        Box::pin(async move { drop(released.await) })
    }
}

impl Handler<ConnectionEvent> for Worker {
    type Result = ();

    fn handle(&mut self, event: ConnectionEvent, _: &mut Self::Context) {
        match event {
            ConnectionEvent::Up {
                session_present, ..
            } => {
                tracing::info!(session_present, "the group's session is connected");
                if !session_present {
                    // What came meanwhile comes no more: there would be a hole.
                    self.forget_past();
                    self.setup.engine.forget_windows();
                }
                if self.recovery.is_some() {
                    self.publish_marker();
                } else {
                    self.setup.check.up();
                }
            }
            ConnectionEvent::Down { error, retry_in } => {
                let Some(error) = self.lost(error) else {
                    return;
                };
                tracing::warn!(%error, ?retry_in, "no connection to the broker");
                self.setup.check.down(error);
            }
            ConnectionEvent::Failed { error } => self.end(Ended::Session(error)),
        }
    }
}

impl Handler<Observe> for Worker {
    type Result = ResponseFuture<serde_json::Value>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        let sessions = [
            ("intake", self.intake.clone()),
            ("outlet", self.outlet.clone()),
        ];
        let mut state = serde_json::json!({
            "epoch": self.setup.lease.epoch,
            "recovering": self.recovery.is_some(),
            "sensors": self.setup.engine.sensors(),
            "waiting_states": self.batch.states.len(),
            "writing": self.writing,
            "in_flight": self.in_flight.len(),
            "outbox_behind": self.behind,
        });
        Box::pin(async move {
            for (name, session) in sessions {
                if let Some(session) = session {
                    state[name] = serde_json::json!(session.observe().await);
                }
            }
            state
        })
    }
}

/// Puts other rules in force.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ReplaceRules(pub(crate) Arc<RuleSet>);

impl Handler<ReplaceRules> for Worker {
    type Result = ();

    fn handle(&mut self, ReplaceRules(rules): ReplaceRules, ctx: &mut Self::Context) {
        let now = Timestamp::now();
        let mut changes = Vec::new();
        self.setup.engine.replace_rules(rules, now, &mut changes);
        self.changed(&changes, None, now);
        self.go_on(ctx);
    }
}

/// Stops: what is received is made durable, what is durable is published. False if the time did not
/// suffice; the next process then does the rest.
#[derive(Message)]
#[rtype(result = "bool")]
pub(crate) struct StopWorker {
    /// Keep to the order of things; else only let go of the broker, at once.
    pub(crate) gracefully: bool,
    pub(crate) limit: Duration,
}

impl Handler<StopWorker> for Worker {
    type Result = ResponseActFuture<Self, bool>;

    fn handle(&mut self, stop: StopWorker, ctx: &mut Self::Context) -> Self::Result {
        let (flushed, done) = oneshot::channel();
        let sessions = (self.intake.take(), self.outlet.clone());
        if stop.gracefully {
            self.flushed.push(flushed);
            self.go_on(ctx);
        }
        let work = async move {
            let until = Instant::now() + stop.limit;
            let how = if stop.gracefully {
                Stop::KeepSession
            } else {
                Stop::Abandon
            };
            let (intake, outlet) = sessions;
            // The broker keeps what is not acknowledged for whoever is next.
            if let Some(intake) = intake {
                intake.stop(how, stop.limit).await;
            }
            let complete = !stop.gracefully
                || matches!(tokio::time::timeout_at(until, done).await, Ok(Ok(())));
            if let Some(outlet) = outlet {
                let rest = until.saturating_duration_since(Instant::now());
                outlet.stop(how, rest.max(Duration::from_millis(200))).await;
            }
            complete
        };
        Box::pin(work.into_actor(self).map(|complete, _, ctx| {
            ctx.stop();
            complete
        }))
    }
}
