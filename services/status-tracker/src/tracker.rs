//! The actor: moves messages and keeps time; [`Presence`](crate::presence) decides.

mod letters;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use fleet_shared::health::{Check, Observe};
use fleet_shared::model::to_micros;
use fleet_shared::session::{
    ConnectionError, ConnectionEvent, Inbound, Options, Properties, Publish, Session,
};
use fleet_shared::telemetry::Metrics;
use fleet_shared::topic::{self, templates};
use fleet_store::{DeadLetter, DeviceTransition, Recorded, Store, StoreError};
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::api::{DeviceBody, SummaryBody};
use crate::command::Requests;
use crate::event::Hub;
use crate::fleet::{Fleet, REPAIRED_BY};
use crate::member;
use crate::metrics::TrackerMetrics;
use crate::presence::{Now, Transition};
use letters::Letters;

/// How often changes go out to listeners.
const TICK: Duration = Duration::from_millis(250);

/// Ticks in a sweep.
const TICKS_PER_SWEEP: u32 = 4;

/// Transitions in one transaction.
const BATCH_MAX: usize = 5_000;

/// Transitions that wait for the store before we stop reading: all devices of a large fleet, once.
const WAITING_MAX: usize = 200_000;

/// Changed devices told one by one in a tick; when more change, listeners look at all of them anew.
const CHANGES_TOLD_MAX: usize = 200;

/// Readings told in a tick.
const READINGS_TOLD_MAX: u32 = 10;

/// Pause before the store is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// Why the tracker can no longer do its work.
#[derive(Debug, thiserror::Error)]
pub enum TrackerError {
    /// The session gave up.
    #[error("the MQTT session failed")]
    Session(#[source] Arc<ConnectionError>),
    /// The store cannot take anything until somebody changes something.
    #[error("the store refused transitions for good")]
    Store(#[source] StoreError),
}

/// What a tracker is made of.
pub(crate) struct Setup {
    pub(crate) options: Options,
    pub(crate) fleet: Fleet,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) hub: Hub,
    pub(crate) registry: Metrics,
    pub(crate) mqtt_check: Check,
    pub(crate) store_check: Arc<Check>,
    pub(crate) failures: mpsc::Sender<TrackerError>,
}

/// What is read from the store now and then, for the summary.
#[derive(Clone, Debug, Default)]
pub(crate) struct StoreFacts {
    /// Dead letters by reason, the most frequent first.
    pub(crate) dead_letters: Option<Vec<(String, u64)>>,
    /// Critical, warning, info: how many fire, and since when the first of them.
    pub(crate) firing: Option<[(u64, Option<Timestamp>); 3]>,
}

/// Follows every device of the fleet.
pub(crate) struct Tracker {
    pub(crate) fleet: Fleet,
    pub(crate) requests: Requests,
    pub(crate) session: Option<Session>,
    pub(crate) client_id: String,
    pub(crate) broker: String,
    pub(crate) connected_since: Option<Timestamp>,
    pub(crate) store_facts: StoreFacts,
    pub(crate) store: Arc<dyn Store>,
    setup: Option<(Options, Metrics)>,
    hub: Hub,
    metrics: TrackerMetrics,
    mqtt_check: Check,
    store_check: Arc<Check>,
    failures: mpsc::Sender<TrackerError>,
    started: Instant,
    waiting: Vec<DeviceTransition>,
    writing: bool,
    letters: Letters,
    held: Option<oneshot::Sender<()>>,
    flushed: Vec<oneshot::Sender<()>>,
    changed: BTreeSet<Arc<str>>,
    readings_told: u32,
    ticks: u32,
}

impl Tracker {
    pub(crate) fn new(setup: Setup) -> Self {
        Self {
            fleet: setup.fleet,
            requests: Requests::default(),
            session: None,
            client_id: setup.options.client_id.to_string(),
            broker: setup.options.broker.to_string(),
            connected_since: None,
            store_facts: StoreFacts::default(),
            store: setup.store,
            metrics: TrackerMetrics::new(&setup.registry),
            setup: Some((setup.options, setup.registry)),
            hub: setup.hub,
            mqtt_check: setup.mqtt_check,
            store_check: setup.store_check,
            failures: setup.failures,
            started: Instant::now(),
            waiting: Vec::new(),
            writing: false,
            letters: Letters::default(),
            held: None,
            flushed: Vec::new(),
            changed: BTreeSet::new(),
            readings_told: 0,
            ticks: 0,
        }
    }

    /// The moment, on both clocks. The steady one does not start at zero, which means never.
    pub(crate) fn now(&self) -> Now {
        Now {
            at: to_micros(Timestamp::now()),
            uptime: self.started.elapsed() + Duration::from_secs(1),
        }
    }

    fn note(&mut self, transition: &Transition) {
        self.metrics.transition(transition.online);
        self.waiting.push(DeviceTransition {
            device_id: transition.device_id.to_string(),
            at: transition.at,
            online: transition.online,
            reason: transition.reason.to_string(),
            session_id: transition.session_id,
        });
        self.metrics.waiting(self.waiting.len());
    }

    /// Hands what waits to the store, one transaction at a time.
    fn store_waiting(&mut self, ctx: &mut Context<Self>) {
        if self.writing {
            return;
        }
        if self.waiting.is_empty() {
            if self.letters.is_empty() {
                for flushed in self.flushed.drain(..) {
                    // Who waited may have run out of time.
                    flushed.send(()).ok();
                }
            }
            return;
        }
        self.writing = true;
        let count = self.waiting.len().min(BATCH_MAX);
        let batch: Arc<[DeviceTransition]> = self.waiting.drain(..count).collect();
        let (store, check) = (self.store.clone(), self.store_check.clone());
        let work = async move {
            let recorded = record(store.as_ref(), batch.clone(), &check).await;
            (batch, recorded)
        };
        ctx.spawn(
            work.into_actor(self)
                .map(|(batch, recorded), tracker, ctx| {
                    tracker.writing = false;
                    match recorded {
                        Ok(recorded) => tracker.adopt(&batch, &recorded),
                        // The receiver is gone, or told already, only when the service is ending anyway.
                        Err(error) => drop(tracker.failures.try_send(TrackerError::Store(error))),
                    }
                    tracker.metrics.waiting(tracker.waiting.len());
                    if tracker.waiting.len() < WAITING_MAX
                        && let Some(held) = tracker.held.take()
                    {
                        held.send(()).ok();
                    }
                    tracker.store_waiting(ctx);
                }),
        );
    }

    /// Hands the dead letters that wait to the store, and publishes those that are new to it.
    fn store_letters(&mut self, ctx: &mut Context<Self>) {
        let Some(batch) = self.letters.take() else {
            return;
        };
        let (store, check) = (self.store.clone(), self.store_check.clone());
        let work = async move {
            let new = letters::write(store.as_ref(), batch.clone(), &check).await;
            (batch, new)
        };
        ctx.spawn(work.into_actor(self).map(|(batch, new), tracker, ctx| {
            tracker.letters.answered();
            let all = batch.dead_letters.len();
            match new {
                Ok(new) => {
                    tracker.metrics.lettered("stored", new.len());
                    tracker.metrics.lettered("known", all - new.len());
                    let new = |letter: &&DeadLetter| new.contains(&letter.id);
                    for letter in batch.dead_letters.iter().filter(new) {
                        tracker.announce(letter);
                    }
                }
                // Presence needs no dead letters, so it goes on.
                Err(error) => {
                    tracker.metrics.lettered("dropped", all);
                    let chain = format!("{:#}", anyhow::Error::new(error));
                    tracing::error!(error = %chain, letters = all, "the store refused dead letters for good");
                }
            }
            tracker.store_letters(ctx);
            tracker.store_waiting(ctx);
        }));
    }

    /// Publishes a dead letter. It is durable by now: this is for whoever listens.
    fn announce(&self, letter: &DeadLetter) {
        if let (Some(session), Some(publish)) = (&self.session, letters::publish(letter)) {
            session.fire(publish, |outcome| {
                if let Err(error) = outcome {
                    tracing::debug!(%error, "a dead letter is stored but not published");
                }
            });
        }
    }

    fn adopt(&mut self, batch: &[DeviceTransition], recorded: &[Recorded]) {
        for (transition, recorded) in batch.iter().zip(recorded) {
            if let Recorded::Known { since } = recorded {
                let presence = &mut self.fleet.presence;
                presence.adopt_since(&transition.device_id, transition.online, *since);
            }
        }
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        self.ticks += 1;
        let now = self.now();
        if self.ticks.is_multiple_of(TICKS_PER_SWEEP) {
            let swept = self.fleet.presence.sweep(now);
            for transition in &swept.transitions {
                self.note(transition);
            }
            self.changed.extend(swept.changed);
            self.repair(&swept.repairs, now);
            self.metrics.devices(self.fleet.presence.counts());
            self.fleet.note_trend(now);
            if self.hub.listeners() > 0 {
                let summary = SummaryBody::of(self, now);
                self.hub.send("summary", &summary);
            }
        }
        self.tell(now);
        self.store_waiting(ctx);
        self.store_letters(ctx);
    }

    fn tell(&mut self, now: Now) {
        self.readings_told = 0;
        let changed = std::mem::take(&mut self.changed);
        if changed.len() > CHANGES_TOLD_MAX {
            self.hub
                .send("reset", &serde_json::json!({"changed": changed.len()}));
            return;
        }
        for device_id in changed {
            match self.fleet.presence.view(&device_id, now) {
                Some(view) => self.hub.send("device", &DeviceBody::of(&view, &self.fleet)),
                None => self
                    .hub
                    .send("removed", &serde_json::json!({"device_id": &*device_id})),
            }
        }
    }

    /// Publishes what the broker should remember instead of a late message of an older session.
    fn repair(&self, devices: &[Arc<str>], now: Now) {
        let Some(session) = &self.session else { return };
        for device_id in devices {
            let Some(view) = self.fleet.presence.view(device_id, now) else {
                continue;
            };
            let Ok(topic) = topic::device_status(device_id) else {
                continue;
            };
            let properties = Properties {
                user: vec![(REPAIRED_BY.into(), self.client_id.clone().into())],
                ..Properties::default()
            };
            let publish = Publish::new(topic, templates::DEVICE_STATUS, view.retained())
                .retain(true)
                .properties(properties);
            let (metrics, device_id) = (self.metrics.clone(), device_id.clone());
            session.fire(publish, move |outcome| {
                metrics.repaired(outcome.is_ok());
                match outcome {
                    Ok(()) => tracing::info!(%device_id, "retained status repaired"),
                    Err(error) => {
                        tracing::warn!(%device_id, %error, "retained status could not be repaired");
                    }
                }
            });
        }
    }
}

/// Records until the store has taken it or refuses for good.
async fn record(
    store: &dyn Store,
    batch: Arc<[DeviceTransition]>,
    check: &Check,
) -> Result<Vec<Recorded>, StoreError> {
    loop {
        match store.record_transitions(batch.clone()).await {
            Err(error) if error.is_transient() => {
                let chain = format!("{:#}", anyhow::Error::new(error));
                tracing::warn!(error = %chain, retry_in = ?RETRY, "the store did not take transitions");
                check.down(chain);
                tokio::time::sleep(RETRY).await;
            }
            answer => {
                if answer.is_ok() {
                    check.up();
                }
                return answer;
            }
        }
    }
}

impl Actor for Tracker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some((options, registry)) = self.setup.take() {
            let tracker = ctx.address();
            let (inbound, events) = (tracker.clone().recipient(), tracker.recipient());
            self.session = Some(Session::start(options, &registry, inbound, events));
        }
        ctx.run_interval(TICK, Self::tick);
    }
}

impl Handler<Inbound> for Tracker {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, inbound: Inbound, ctx: &mut Self::Context) -> Self::Result {
        let now = self.now();
        let mut tickets = Vec::new();
        for message in inbound.messages {
            let took = self.fleet.take(&message, now);
            tickets.extend(message.ticket);
            if let Some(transition) = &took.transition {
                self.note(transition);
            }
            if let Some(reason) = took.refused {
                self.metrics.refused(reason);
                if let Some(flaw) = took.flaw
                    && !self.letters.push(&message, reason, flaw, now.at)
                {
                    self.metrics.lettered("dropped", 1);
                }
            }
            if let Some(correlation_id) = took.answer {
                self.requests.answered(&correlation_id, &message);
            }
            if let Some(alert) = took.alert {
                self.hub.send("alert", &alert);
            }
            if let Some(reading) = took.reading
                && self.readings_told < READINGS_TOLD_MAX
                && self.hub.listeners() > 0
            {
                self.readings_told += 1;
                self.hub.send("reading", &reading);
            }
            self.changed.extend(took.changed);
        }
        // What is lost with us is found again in what the broker retains.
        if let Some(session) = &self.session
            && !tickets.is_empty()
        {
            session.acknowledge(tickets);
        }
        if self.waiting.len() < WAITING_MAX {
            return Box::pin(std::future::ready(()));
        }
        self.store_waiting(ctx);
        let (held, room) = oneshot::channel();
        self.held = Some(held);
        Box::pin(async move {
            // An error means that the tracker stops, and then nothing more is to be read.
            drop(room.await);
        })
    }
}

impl Handler<ConnectionEvent> for Tracker {
    type Result = ();

    fn handle(&mut self, event: ConnectionEvent, _: &mut Self::Context) {
        match event {
            ConnectionEvent::Up {
                session_present, ..
            } => {
                tracing::info!(session_present, "connected to the broker");
                let now = self.now();
                self.fleet.presence.link_up(now);
                self.connected_since = Some(now.at);
                self.mqtt_check.up();
                if let (Some(session), Some(status)) =
                    (&self.session, member::publish(&self.client_id, true))
                {
                    session.fire(status, |outcome| {
                        if let Err(error) = outcome {
                            tracing::warn!(%error, "our status is not published");
                        }
                    });
                }
            }
            ConnectionEvent::Down { error, retry_in } => {
                self.fleet.presence.link_down();
                self.connected_since = None;
                let chain = format!("{:#}", anyhow::Error::new(error));
                tracing::warn!(error = %chain, ?retry_in, "no connection to the broker");
                self.mqtt_check.down(chain);
            }
            ConnectionEvent::Failed { error } => {
                self.fleet.presence.link_down();
                self.connected_since = None;
                self.mqtt_check.down(error.to_string());
                // The receiver is gone, or told already, only when the service is ending anyway.
                drop(self.failures.try_send(TrackerError::Session(error)));
            }
        }
    }
}

/// Looks at or changes what the tracker knows, on its thread; used by the API.
pub(crate) struct Ask<T>(Question<T>);

type Question<T> = Box<dyn FnOnce(&mut Tracker, Now) -> T + Send>;

impl<T> Ask<T> {
    pub(crate) fn new(ask: impl FnOnce(&mut Tracker, Now) -> T + Send + 'static) -> Self {
        Self(Box::new(ask))
    }
}

impl<T: Send + 'static> Message for Ask<T> {
    type Result = T;
}

impl Handler<Observe> for Tracker {
    type Result = ResponseFuture<serde_json::Value>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        let state = serde_json::json!({
            "client_id": self.client_id,
            "devices": self.fleet.presence.counts().iter().sum::<usize>(),
            "transitions_waiting": self.waiting.len(),
            "writing": self.writing,
            "listeners": self.hub.listeners(),
            "reading_held": self.held.is_some(),
        });
        Observe::answer(state, self.session.clone())
    }
}

impl<T: Send + 'static> Handler<Ask<T>> for Tracker {
    type Result = MessageResult<Ask<T>>;

    fn handle(&mut self, Ask(ask): Ask<T>, _: &mut Self::Context) -> Self::Result {
        let now = self.now();
        MessageResult(ask(self, now))
    }
}

/// Store everything that waits; answered when it is durable.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Flush;

impl Handler<Flush> for Tracker {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Flush, ctx: &mut Self::Context) -> Self::Result {
        let (flushed, done) = oneshot::channel();
        self.flushed.push(flushed);
        self.store_letters(ctx);
        self.store_waiting(ctx);
        Box::pin(async move {
            // An error means that the tracker is gone, and what waited with it.
            drop(done.await);
        })
    }
}
