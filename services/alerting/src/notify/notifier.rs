//! The actor: keeps time, asks the core, makes its decisions durable, and wakes who sends.
//!
//! Groups may share a database, and people are told of all of its alerts: a lease says who does it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use fleet_store::{
    Acknowledgement, AlertBatch, AlertStore, Lease, NewAlert, Silence, StoreError, StoredAlert,
    Unsettled, Written,
};
use jiff::Timestamp;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::channel::SEND_TIMEOUT;
use super::dispatch::{Decision, Decisions, Dispatch};
use super::sender::{self, Desk, REMINDERS_MAX};
use crate::metrics::AlertingMetrics;
use crate::route::Routes;
use crate::worker::{Ended, persist};

/// How often the core is asked whether something is due.
const TICK: Duration = Duration::from_millis(250);

/// How often the alerts of the store are read again: those of other groups, and those of whose commit
/// the worker was not told. More seldom where reading takes long, by this factor.
const RECONCILE_EVERY: Duration = Duration::from_secs(2);
const RECONCILE_REST: u32 = 20;

/// How often somebody who does not notify asks whether he may.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// The right to notify: of all groups that share a database one process has it.
const LEASE: &str = "alerting-notifications";

/// What the notifier is made of.
pub(crate) struct NotifierSetup {
    pub(crate) store: Arc<dyn AlertStore>,
    pub(crate) instance: String,
    pub(crate) lease_ttl: Duration,
    pub(crate) routes: Arc<Routes>,
    pub(crate) metrics: AlertingMetrics,
    pub(crate) outbox_grew: Arc<std::sync::atomic::AtomicBool>,
    pub(crate) fault_point: Option<crate::fault::FaultPoint>,
    pub(crate) ended: mpsc::UnboundedSender<Ended>,
    pub(crate) tracer: fleet_shared::telemetry::Tracer,
}

/// A task that sends for one channel.
struct Task {
    wake: Arc<Notify>,
    reminders: mpsc::Sender<Decision>,
    handle: JoinHandle<()>,
}

/// Tells people about alerts, in the active process only.
pub(crate) struct Notifier {
    setup: NotifierSetup,
    /// The right to notify, if it is ours.
    lease: Option<Lease>,
    held_until: Instant,
    /// When it is asked for or renewed next.
    ask_at: Instant,
    asking: bool,
    /// None until the store was read, and while another process notifies.
    dispatch: Option<Dispatch>,
    tasks: HashMap<String, Task>,
    stop: watch::Sender<bool>,
    busy: bool,
    /// Routes are being exchanged.
    reloading: bool,
    reconcile_at: Instant,
    /// Sentences about silences that cannot be used, so that each is logged once.
    unusable: HashSet<String>,
}

/// Alerts that began and ended, durable by now.
#[derive(Message, Debug, Default)]
#[rtype(result = "()")]
pub(crate) struct AlertsChanged {
    pub(crate) fired: Vec<NewAlert>,
    pub(crate) resolved: Vec<(String, Timestamp)>,
}

/// A notification has arrived or was given up.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Delivered {
    pub(crate) group_key: String,
    pub(crate) channel: String,
}

/// Puts other routes in force.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ReplaceRoutes(pub(crate) Arc<Routes>);

/// Stops: what is on its way gets there, or, if that is not wanted, is let go of.
#[derive(Message)]
#[rtype(result = "bool")]
pub(crate) struct StopNotifier {
    pub(crate) gracefully: bool,
    pub(crate) limit: Duration,
}

impl Notifier {
    pub(crate) fn new(setup: NotifierSetup) -> Self {
        Self {
            setup,
            lease: None,
            held_until: Instant::now(),
            ask_at: Instant::now(),
            asking: false,
            dispatch: None,
            tasks: HashMap::new(),
            stop: watch::Sender::new(false),
            busy: false,
            reloading: false,
            reconcile_at: Instant::now() + RECONCILE_EVERY,
            unusable: HashSet::new(),
        }
    }

    fn end(&self, ended: Ended) {
        // The receiver is gone only when everything is being stopped anyway.
        self.setup.ended.send(ended).ok();
    }

    fn restored(&mut self, unsettled: Unsettled, ctx: &mut Context<Self>) {
        let channels = unsettled.waiting.iter().map(|(_, channel)| channel.clone());
        let channels: HashSet<String> = channels.collect();
        let routes = self.setup.routes.clone();
        tracing::info!(
            alerts = unsettled.alerts.len(),
            waiting = unsettled.waiting.len(),
            channels = routes.channels().len(),
            "notifying"
        );
        self.dispatch = Some(Dispatch::restore(routes, unsettled, Timestamp::now()));
        self.start_tasks(channels, ctx);
    }

    /// Asks for the right to notify, or keeps it.
    fn ask(&mut self, ctx: &mut Context<Self>) {
        if self.asking || Instant::now() < self.ask_at {
            return;
        }
        self.asking = true;
        let (store, held) = (self.setup.store.clone(), self.lease.clone());
        let (instance, ttl) = (self.setup.instance.clone(), self.setup.lease_ttl);
        let asked_at = Instant::now();
        let ask = async move {
            match held {
                Some(lease) => Ok(store.renew_lease(&lease, ttl).await?.then_some(lease)),
                None => store.acquire_lease(LEASE, &instance, ttl).await,
            }
        };
        let asked = ask.into_actor(self).map(move |answer, notifier, ctx| {
            notifier.asking = false;
            let was_held = notifier.lease.is_some();
            match answer {
                Ok(Some(lease)) => {
                    notifier.held_until = asked_at + ttl;
                    notifier.ask_at = asked_at + ttl / 4;
                    notifier.lease = Some(lease);
                    if !was_held {
                        notifier.begin(ctx);
                    }
                }
                Ok(None) => {
                    notifier.ask_at = asked_at + ASK_EVERY;
                    notifier.stand_down();
                }
                // The worker tells of a store that is away; the right may run out meanwhile.
                Err(error) => {
                    tracing::debug!(%error, "the right to notify is not asked for this time");
                    notifier.ask_at = asked_at + ASK_EVERY;
                }
            }
        });
        ctx.spawn(asked);
    }

    /// Lets go of everything at once: somebody else notifies, or may.
    fn stand_down(&mut self) {
        if self.lease.take().is_none() {
            return;
        }
        tracing::warn!("another process notifies from now on");
        self.dispatch = None;
        self.busy = false;
        for (_, task) in self.tasks.drain() {
            task.handle.abort();
        }
    }

    /// Reads the store and begins to notify.
    fn begin(&mut self, ctx: &mut Context<Self>) {
        let store = self.setup.store.clone();
        let read =
            async move { persist("read what is to be notified", || store.unsettled()).await };
        ctx.spawn(read.into_actor(self).map(|read, notifier, ctx| match read {
            Ok(unsettled) if notifier.lease.is_some() => notifier.restored(unsettled, ctx),
            Ok(_) => {}
            Err(error) => notifier.end(Ended::Store(error)),
        }));
    }

    /// Starts a task for each channel; what waits for others is given up.
    fn start_tasks(&mut self, waiting: HashSet<String>, ctx: &mut Context<Self>) {
        self.stop.send_replace(false);
        let desk = Desk {
            store: self.setup.store.clone(),
            metrics: self.setup.metrics.clone(),
            delivered: ctx.address().recipient(),
            outbox_grew: self.setup.outbox_grew.clone(),
            fault_point: self.setup.fault_point,
            pause: super::retry::Pause::default(),
            tracer: self.setup.tracer.clone(),
        };
        let mut orphans = waiting;
        for channel in self.setup.routes.channels() {
            orphans.remove(&channel.name);
            let wake = Arc::new(Notify::new());
            let (reminders, reminded) = mpsc::channel(REMINDERS_MAX);
            let (desk, stop) = (desk.clone(), self.stop.subscribe());
            let run = sender::run(desk, channel.clone(), wake.clone(), reminded, stop);
            let task = Task {
                wake,
                reminders,
                handle: actix::spawn(run),
            };
            self.tasks.insert(channel.name.clone(), task);
        }
        if !orphans.is_empty() {
            let work = sender::give_up_orphans(desk, orphans);
            ctx.spawn(work.into_actor(self));
        }
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        if Instant::now() >= self.held_until {
            self.stand_down();
        }
        self.ask(ctx);
        let Some(dispatch) = &self.dispatch else {
            return;
        };
        self.setup.metrics.notifying(dispatch.alerts());
        if self.busy || self.reloading {
            return;
        }
        if Instant::now() >= self.reconcile_at {
            self.reconcile(ctx);
        } else if dispatch.due_at().is_some_and(|at| at <= Timestamp::now()) {
            self.look(ctx);
        }
    }

    /// Reads what people have said, asks the core, and makes its answer durable.
    fn look(&mut self, ctx: &mut Context<Self>) {
        self.busy = true;
        let store = self.setup.store.clone();
        let read = async move {
            let silences = || store.silences(Timestamp::now());
            let silences = persist("read the silences", silences).await?;
            let acknowledged = || store.acknowledgements();
            let acknowledged = persist("read the acknowledgements", acknowledged).await?;
            Ok::<_, StoreError>((silences, acknowledged))
        };
        let look = read.into_actor(self).map(|read, notifier, ctx| match read {
            Ok((silences, acknowledged)) => notifier.decide(silences, acknowledged, ctx),
            Err(error) => notifier.end(Ended::Store(error)),
        });
        ctx.spawn(look);
    }

    fn decide(
        &mut self,
        silences: Vec<Silence>,
        acknowledged: Vec<Acknowledgement>,
        ctx: &mut Context<Self>,
    ) {
        let Some(dispatch) = &mut self.dispatch else {
            return;
        };
        for sentence in dispatch.set_silences(silences) {
            if self.unusable.len() < 1_000 && self.unusable.insert(sentence.clone()) {
                tracing::warn!("{sentence}: it silences nothing, delete it");
            }
        }
        dispatch.acknowledged(acknowledged);
        let decisions = dispatch.flush(Timestamp::now());
        for kind in &decisions.suppressed {
            self.setup.metrics.notified(kind, "suppressed");
        }
        if decisions.is_empty() {
            self.busy = false;
            return;
        }
        let notifications = decisions.notifications.iter().map(Decision::outgoing);
        let batch = Arc::new(AlertBatch {
            notifications: notifications.collect(),
            events: decisions.events.clone(),
            settled: decisions.settled.clone(),
            ..AlertBatch::default()
        });
        let Some(lease) = self.lease.clone() else {
            return;
        };
        let store = self.setup.store.clone();
        let write = async move {
            if batch.is_empty() {
                return Ok(Written::Done(Vec::new()));
            }
            let write = || store.write_alerts(batch.clone(), &lease);
            persist("write notifications", write).await
        };
        let written = write.into_actor(self).map(|written, notifier, _| {
            notifier.busy = false;
            match written {
                Ok(Written::Done(_)) => notifier.send(decisions),
                Ok(Written::Fenced) => notifier.stand_down(),
                Err(error) => notifier.end(Ended::Store(error)),
            }
        });
        ctx.spawn(written);
    }

    /// Wakes who sends what was decided; it is durable by now.
    fn send(&self, decisions: Decisions) {
        for decision in &decisions.notifications {
            if let Some(task) = self.tasks.get(&decision.channel) {
                task.wake.notify_one();
            }
        }
        for reminder in decisions.reminders {
            if let Some(task) = self.tasks.get(&reminder.channel)
                && task.reminders.try_send(reminder).is_err()
            {
                self.setup.metrics.notified("alertmanager", "skipped");
            }
        }
    }

    /// Takes from the store what the worker did not tell, because the answer of a commit was lost.
    fn reconcile(&mut self, ctx: &mut Context<Self>) {
        self.busy = true;
        let begun = Instant::now();
        let store = self.setup.store.clone();
        let read =
            async move { persist("read what is to be notified", || store.unsettled()).await };
        let read = read.into_actor(self).map(move |read, notifier, _| {
            notifier.busy = false;
            let rest = begun.elapsed().saturating_mul(RECONCILE_REST);
            notifier.reconcile_at = Instant::now() + RECONCILE_EVERY.max(rest);
            match read {
                Ok(unsettled) => notifier.take(unsettled.alerts),
                Err(error) => notifier.end(Ended::Store(error)),
            }
        });
        ctx.spawn(read);
    }

    fn take(&mut self, alerts: Vec<StoredAlert>) {
        let now = Timestamp::now();
        let Some(dispatch) = &mut self.dispatch else {
            return;
        };
        let mut refused = 0_usize;
        for alert in alerts {
            if !dispatch.take(alert, now) {
                refused += 1;
            }
        }
        if refused > 0 {
            tracing::error!(
                refused,
                "too many alerts are to be notified at once: these wait"
            );
        }
    }

    /// Ends all tasks; true if they ended by themselves within `limit`.
    fn stop_tasks(
        &mut self,
        gracefully: bool,
        limit: Duration,
    ) -> impl Future<Output = bool> + 'static {
        self.stop.send_replace(true);
        let tasks: Vec<Task> = self.tasks.drain().map(|(_, task)| task).collect();
        async move {
            let until = Instant::now() + limit;
            let mut complete = true;
            for mut task in tasks {
                let ended = gracefully
                    && tokio::time::timeout_at(until, &mut task.handle)
                        .await
                        .is_ok();
                if !ended {
                    task.handle.abort();
                    complete = false;
                }
            }
            complete
        }
    }
}

impl Actor for Notifier {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.ask(ctx);
        ctx.run_interval(TICK, |notifier, ctx| notifier.tick(ctx));
    }
}

impl Handler<AlertsChanged> for Notifier {
    type Result = ();

    fn handle(&mut self, changed: AlertsChanged, _: &mut Self::Context) {
        let stored = |alert| StoredAlert {
            alert,
            resolved_at: None,
            acknowledged_at: None,
            acknowledged_by: None,
        };
        self.take(changed.fired.into_iter().map(stored).collect());
        let now = Timestamp::now();
        if let Some(dispatch) = &mut self.dispatch {
            for (alert_id, at) in changed.resolved {
                dispatch.resolved(&alert_id, at, now);
            }
        }
    }
}

impl Handler<Delivered> for Notifier {
    type Result = ();

    fn handle(&mut self, delivered: Delivered, _: &mut Self::Context) {
        if let Some(dispatch) = &mut self.dispatch {
            dispatch.delivered(&delivered.group_key, &delivered.channel);
        }
    }
}

impl Handler<ReplaceRoutes> for Notifier {
    type Result = ();

    fn handle(&mut self, ReplaceRoutes(routes): ReplaceRoutes, ctx: &mut Self::Context) {
        self.setup.routes = routes;
        if std::mem::replace(&mut self.reloading, true) {
            // The change under way takes the newest when it gets there.
            return;
        }
        // What is on its way must be noted before another task could take it up.
        let stopped = self.stop_tasks(true, SEND_TIMEOUT + Duration::from_secs(2));
        let store = self.setup.store.clone();
        let stopped = async move {
            stopped.await;
            persist("read what is to be notified", || store.unsettled()).await
        };
        ctx.spawn(stopped.into_actor(self).map(|read, notifier, ctx| {
            notifier.reloading = false;
            let unsettled = match read {
                Ok(unsettled) => unsettled,
                Err(error) => return notifier.end(Ended::Store(error)),
            };
            let Some(dispatch) = &mut notifier.dispatch else {
                return;
            };
            dispatch.replace_routes(notifier.setup.routes.clone(), Timestamp::now());
            let waiting = unsettled.waiting.into_iter().map(|(_, channel)| channel);
            notifier.start_tasks(waiting.collect(), ctx);
        }));
    }
}

impl Handler<StopNotifier> for Notifier {
    type Result = ResponseActFuture<Self, bool>;

    fn handle(&mut self, stop: StopNotifier, _: &mut Self::Context) -> Self::Result {
        self.dispatch = None;
        self.asking = true;
        let stopped = self.stop_tasks(stop.gracefully, stop.limit);
        let (store, lease) = (self.setup.store.clone(), self.lease.take());
        let stopped = async move {
            let complete = stopped.await;
            if let (true, Some(lease)) = (stop.gracefully, lease)
                && let Err(error) = store.release_lease(&lease).await
            {
                tracing::debug!(%error, "the right to notify is left to run out");
            }
            complete
        };
        Box::pin(stopped.into_actor(self).map(|complete, _, ctx| {
            ctx.stop();
            complete
        }))
    }
}
