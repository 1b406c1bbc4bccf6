//! How the process lives: stands by, is active, and hands over.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use actix::prelude::*;
use anyhow::Context as _;
use fleet_shared::config::{ConfigError, DatabaseUrl};
use fleet_shared::health::Check;
use fleet_shared::service::Host;
use fleet_shared::session::{Options, QoS, Retained, Session, Stop, Subscription};
use fleet_shared::topic::{self, TopicFilter};
use fleet_store::{AlertBatch, AlertStore, Lease, OpenOptions, StoreError};
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::config::Config;
use crate::engine::{Engine, SavedTrack};
use crate::metrics::AlertingMetrics;
use crate::notify::notifier::{
    AlertsChanged, Notifier, NotifierSetup, ReplaceRoutes, StopNotifier,
};
use crate::presence::{GoodBye, Presence, Use};
use crate::request::Desk;
use crate::route::Routes;
use crate::rule::RuleSet;
use crate::share::{self, Part};
use crate::status;
use crate::worker::{Ended, ReplaceRules, Setup, StopWorker, Worker};
use crate::{outbox, reload};

/// QoS 1 and 2 messages in flight to the intake unless set otherwise. Those that change nothing are
/// acknowledged at once, so this is room for bursts of changes.
const RECEIVE_MAXIMUM: u16 = 10_000;

/// How often a process that stands by asks for the lease, and the store is asked for a sign of life.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// Messages of the outbox that are read when becoming active.
const UNPUBLISHED_MAX: u32 = 100_000;

/// Messages that were sent are kept so long, to explain an alert by.
const OUTBOX_KEPT: Duration = Duration::from_secs(30 * 86_400);

/// Kept of the drain timeout for the goodbye itself.
const GOODBYE: Duration = Duration::from_millis(1_500);

/// What the process is made of while it lives.
struct Service {
    config: Config,
    host: Host,
    store: Arc<dyn AlertStore>,
    database: DatabaseUrl,
    options: Options,
    instance: String,
    metrics: AlertingMetrics,
    rules: watch::Receiver<Arc<RuleSet>>,
    routes: watch::Receiver<Arc<Routes>>,
}

/// How worker and notifier know of each other.
struct Told {
    notifier: Recipient<AlertsChanged>,
    outbox_grew: Arc<AtomicBool>,
}

/// Runs alerting until the host stops.
///
/// # Errors
/// A setting or a file that cannot be used, a store that refuses for good, or a session that gave up.
pub async fn run(config: Config, host: Host) -> anyhow::Result<()> {
    let metrics = AlertingMetrics::new(host.metrics());
    let options = checked_options(&config, &host)?;
    let url = config.database.url()?;
    let (rules, current) = watch::channel(Arc::new(reload::load(config.watch.rules.as_deref())?));
    let routes = reload::load_routes(config.watch.routes.as_deref())?;
    let (routes, current_routes) = watch::channel(Arc::new(routes));
    let check = host.health().check("store");
    let store = tokio::select! {
        store = open_store(&url, host.name(), &check) => store?,
        () = host.stopping() => return Ok(()),
    };
    check.up();
    let instance = options.client_id.to_string();
    let presence = Presence {
        instance: instance.clone(),
        group: config.watch.group.clone(),
        check: host.health().check("mqtt"),
        session: None,
    }
    .start();
    let _shown = host
        .health()
        .actor("presence", presence.clone().recipient());
    let mut own = options.clone();
    own.will = status::of(&instance, &config.watch.group, true, None)
        .will()
        .ok();
    let session = Session::start(
        own,
        host.metrics(),
        presence.clone().recipient(),
        presence.clone().recipient(),
    );
    presence.send(Use(session.clone())).await?;
    let file: Option<PathBuf> = config.watch.rules.clone();
    let routes_file: Option<PathBuf> = config.watch.routes.clone();
    let service = Service {
        config,
        host,
        store,
        database: url,
        options,
        instance,
        metrics: metrics.clone(),
        rules: current,
        routes: current_routes,
    };
    let outcome = tokio::select! {
        outcome = service.live() => outcome,
        () = reload::keep("rules", file, RuleSet::load, &rules, &metrics) => Ok(()),
        () = reload::keep("routes", routes_file, Routes::load, &routes, &metrics) => Ok(()),
    };
    presence.send(GoodBye).await?;
    session.stop(Stop::KeepSession, GOODBYE).await;
    outcome
}

/// Opens the store, and waits for it while it is away: a pod may start before its database.
async fn open_store(
    url: &DatabaseUrl,
    name: &str,
    check: &Check,
) -> anyhow::Result<Arc<dyn AlertStore>> {
    let mut pause = Duration::from_millis(250);
    loop {
        match fleet_store::open_alerts(url, OpenOptions::writer(name)).await {
            Ok(store) => return Ok(store),
            Err(error) if error.is_transient() => {
                let chain = format!("{:#}", anyhow::Error::new(error));
                tracing::warn!(error = %chain, retry_in = ?pause, "the store is not there yet");
                check.down(chain);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
            Err(error) => return Err(error).with_context(|| format!("opening {url}")),
        }
    }
}

fn checked_options(config: &Config, host: &Host) -> anyhow::Result<Options> {
    let group = &config.watch.group;
    let is_level = topic::service_status("alerting", group).is_ok()
        && TopicFilter::parse(format!("$share/{group}/x")).is_ok();
    if !is_level {
        let expected = "it names a client: one topic level, without wildcards";
        return Err(ConfigError::value("--group (ALERTING_GROUP)", group, expected).into());
    }
    for filter in &config.watch.filter {
        if share::subscription(filter).is_none() {
            let expected = "it names topics under `sensors/` or `devices/+/status`, with or without `$share/NAME/` before them";
            return Err(ConfigError::value("--filter (ALERTING_FILTER)", filter, expected).into());
        }
    }
    if config.watch.lease < Duration::from_secs(1) {
        let lease = fleet_shared::config::format_duration(config.watch.lease);
        let expected = "a second is the least that can be kept";
        return Err(ConfigError::value("--lease (ALERTING_LEASE)", lease, expected).into());
    }
    let options = config.mqtt.options(host.name(), host.instance())?;
    let taken = [group.clone(), outlet_id(group)];
    if taken.iter().any(|id| *id == *options.client_id) {
        let expected =
            "the group's own sessions have that client id: give another, such as alerting-1";
        let id = options.client_id.to_string();
        return Err(ConfigError::value("--mqtt-client-id (MQTT_CLIENT_ID)", &id, expected).into());
    }
    Ok(options)
}

fn outlet_id(group: &str) -> String {
    format!("{group}-out")
}

impl Service {
    /// Stands by and is active in turns.
    async fn live(self) -> anyhow::Result<()> {
        loop {
            // A process that stands by is ready; one that is about to be active is not yet.
            let standby = self.host.health().check("lease");
            let Some(lease) = self.wait_for_lease(&standby).await? else {
                return Ok(());
            };
            let intake = self.host.health().check("intake");
            drop(standby);
            tracing::info!(epoch = lease.epoch, "becoming active");
            self.metrics.active(true);
            let outcome = self.lead(&lease, intake).await;
            self.metrics.active(false);
            match outcome? {
                Some(ended) => {
                    tracing::warn!(reason = %ended, "not active any more, standing by");
                }
                None => return Ok(()),
            }
        }
    }

    /// The lease, or none when the host stops first.
    async fn wait_for_lease(&self, standby: &Check) -> anyhow::Result<Option<Lease>> {
        let (group, ttl) = (&self.config.watch.group, self.config.watch.lease);
        let name = format!("alerting/{group}");
        let mut told = false;
        loop {
            match self.store.acquire_lease(&name, &self.instance, ttl).await {
                Ok(Some(lease)) => return Ok(Some(lease)),
                Ok(None) => {
                    standby.up();
                    if !told {
                        tracing::info!("another process is active, standing by");
                        told = true;
                    }
                }
                Err(error) if error.is_transient() => {
                    let error = format!("{:#}", anyhow::Error::new(error));
                    tracing::warn!(%error, "the store does not answer");
                }
                Err(error) => return Err(error).context("asking for the lease"),
            }
            tokio::select! {
                () = tokio::time::sleep(ASK_EVERY) => {}
                () = self.host.stopping() => return Ok(None),
            }
        }
    }

    /// Is active until the host stops, or something else ends it, which is answered.
    async fn lead(&self, lease: &Lease, check: Check) -> anyhow::Result<Option<Ended>> {
        let (ended, mut endings) = mpsc::unbounded_channel();
        let mut rules = self.rules.clone();
        let current = rules.borrow_and_update().clone();
        let mut routes = self.routes.clone();
        let current_routes = routes.borrow_and_update().clone();
        let outbox_grew = Arc::new(AtomicBool::new(false));
        let notifier = Notifier::new(NotifierSetup {
            store: self.store.clone(),
            instance: self.instance.clone(),
            lease_ttl: self.config.watch.lease,
            routes: current_routes,
            metrics: self.metrics.clone(),
            outbox_grew: outbox_grew.clone(),
            fault_point: self.config.watch.fault_point,
            ended: ended.clone(),
            tracer: self.host.tracer().clone(),
        })
        .start();
        let told = Told {
            notifier: notifier.clone().recipient(),
            outbox_grew,
        };
        let setup = self.setup(current, lease, check, told, ended).await?;
        let worker = Worker::new(setup).start();
        let _shown = self
            .host
            .health()
            .actor("worker", worker.clone().recipient());
        let mut lost = std::pin::pin!(self.keep_lease(lease));
        let outcome = loop {
            tokio::select! {
                () = self.host.stopping() => break None,
                Some(ended) = endings.recv() => break Some(ended),
                ended = &mut lost => break Some(ended),
                Ok(()) = rules.changed() => {
                    let changed = rules.borrow_and_update().clone();
                    worker.send(ReplaceRules(changed)).await?;
                }
                Ok(()) = routes.changed() => {
                    let changed = routes.borrow_and_update().clone();
                    notifier.send(ReplaceRoutes(changed)).await?;
                }
            }
        };
        let stop = StopWorker {
            gracefully: outcome.is_none(),
            limit: match outcome {
                None => self.host.drain_time(GOODBYE),
                Some(_) => Duration::from_secs(1),
            },
        };
        let (gracefully, limit) = (stop.gracefully, stop.limit);
        let begun = Instant::now();
        let complete = worker.send(stop).await?;
        let limit = limit
            .saturating_sub(begun.elapsed())
            .max(Duration::from_millis(200));
        let told = notifier.send(StopNotifier { gracefully, limit }).await?;
        let complete = complete && told;
        if outcome.is_none() {
            tracing::info!(complete, "drained");
            if let Err(error) = self.store.release_lease(lease).await {
                tracing::debug!(%error, "the lease is left to run out");
            }
        }
        match outcome {
            Some(Ended::Session(error)) => Err(Ended::Session(error).into()),
            Some(Ended::Store(error)) => Err(Ended::Store(error).into()),
            other => Ok(other),
        }
    }

    /// Renews the lease until that fails for good, or for so long that another may have it.
    async fn keep_lease(&self, lease: &Lease) -> Ended {
        let ttl = self.config.watch.lease;
        let mut held_until = Instant::now() + ttl;
        let mut prune_at = Instant::now();
        loop {
            tokio::time::sleep(ttl / 4).await;
            let asked = Instant::now();
            match tokio::time::timeout(ttl / 4, self.store.renew_lease(lease, ttl)).await {
                Ok(Ok(true)) => held_until = asked + ttl,
                Ok(Ok(false)) => return Ended::Fenced,
                Ok(Err(_)) | Err(_) if Instant::now() + ttl / 4 < held_until => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the lease cannot be renewed");
                    return Ended::Fenced;
                }
                Err(_) => return Ended::Fenced,
            }
            if Instant::now() >= prune_at {
                prune_at = Instant::now() + Duration::from_secs(600);
                self.prune().await;
            }
        }
    }

    async fn prune(&self) {
        let before = Timestamp::now()
            .checked_sub(OUTBOX_KEPT)
            .unwrap_or(Timestamp::UNIX_EPOCH);
        if let Err(error) = self.store.prune_outbox(before).await {
            tracing::debug!(%error, "old messages are not deleted this time");
        }
    }

    async fn setup(
        &self,
        rules: Arc<RuleSet>,
        lease: &Lease,
        check: Check,
        told: Told,
        ended: mpsc::UnboundedSender<Ended>,
    ) -> Result<Setup, StoreError> {
        let now = Timestamp::now();
        let mut batch = AlertBatch::default();
        let mut tracks = Vec::new();
        let group = &self.config.watch.group;
        let part = Part::new(group, &self.config.watch.filter);
        for state in self.store.alert_states().await? {
            let Some(saved) = part.state(&state) else {
                continue;
            };
            match saved {
                Ok(saved) => tracks.push(SavedTrack {
                    rule: state.rule,
                    sensor_id: state.sensor_id,
                    saved,
                }),
                Err(error) => {
                    tracing::warn!(rule = %state.rule, sensor_id = %state.sensor_id, %error, "a stored state cannot be read and is forgotten");
                    batch.forgotten.push((state.rule, state.sensor_id));
                }
            }
        }
        let mut gone = Vec::new();
        // A sensor may come from another group, with messages that this group had been sent before.
        let own = share::is_all(&self.config.watch.filter).then_some(lease.name.as_str());
        let marks = self.store.alert_marks(own).await?;
        let engine = Engine::restore(rules, tracks, &marks, now, &mut gone);
        for track in gone {
            outbox::add_gone(&mut batch, track, group, now);
        }
        let mut unpublished = self
            .store
            .outbox_due(true, Timestamp::MAX, UNPUBLISHED_MAX)
            .await?;
        unpublished.retain(|message| part.publishes(message));
        Ok(Setup {
            intake: self.intake_options(),
            outlet: self.outlet_options(),
            instance: self.instance.clone(),
            group: self.config.watch.group.clone(),
            part,
            takes_all: share::is_all(&self.config.watch.filter),
            lease: lease.clone(),
            store: self.store.clone(),
            engine,
            batch,
            unpublished,
            registry: self.host.metrics().clone(),
            metrics: self.metrics.clone(),
            check,
            desk: Desk::new(self.database.clone()),
            max_clock_skew: self.config.watch.max_clock_skew,
            notifier: told.notifier,
            outbox_grew: told.outbox_grew,
            fault_point: self.config.watch.fault_point,
            ended,
            tracer: self.host.tracer().clone(),
        })
    }

    fn intake_options(&self) -> Options {
        let mut options = self.options.clone();
        options.client_id = self.config.watch.group.clone().into();
        options.receive_maximum = self.config.mqtt.receive_maximum_or(RECEIVE_MAXIMUM);
        let subscription = |filter: &str, retained| Subscription {
            retained,
            ..Subscription::new(filter, QoS::ExactlyOnce)
        };
        let filters = &self.config.watch.filter;
        // They were checked before anything was started.
        options.subscriptions = filters
            .iter()
            .filter_map(|it| share::subscription(it))
            .collect();
        options.subscriptions.extend([
            subscription("alerts/#", Retained::Never),
            subscription("fleet/services/alerting/+/status", Retained::Never),
        ]);
        options.subscriptions.extend(if share::is_all(filters) {
            vec![subscription("fleet/alerting/requests/+", Retained::Never)]
        } else {
            // One of the groups answers; each knows of the alerts of the others.
            vec![
                subscription("$share/alerting/fleet/alerting/requests/+", Retained::IfNew),
                subscription("fleet/alerting/state/+/+", Retained::Always),
            ]
        });
        options
    }

    fn outlet_options(&self) -> Options {
        let mut options = self.options.clone();
        options.client_id = outlet_id(&self.config.watch.group).into();
        // What the last one had half published is forgotten by the broker; the store knows better.
        options.clean_start = true;
        options.session_expiry = Duration::ZERO;
        options
    }
}
