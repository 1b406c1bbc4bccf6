//! Takes readings from MQTT and stores each once: durable before acknowledged.
//!
//! A worker a session receives batches of messages, decodes them, collects them into transactions
//! and acknowledges when a transaction is durable. Kill it between any two lines: what was not
//! acknowledged is delivered again, and what was stored already is found to be a duplicate.

mod commit;
mod config;
mod decode;
mod mapping;
mod metrics;
mod pending;
mod retention;
mod tally;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use anyhow::Context as _;
use fleet_shared::config::ConfigError;
use fleet_shared::health::Check;
use fleet_shared::member::{Membership, leave};
use fleet_shared::model::Limits;
use fleet_shared::service::Host;
use fleet_shared::session::{Options, QoS, Subscription};
use fleet_shared::topic::{self, TopicFilter};
use fleet_store::{OpenOptions, Store};
use tokio::sync::mpsc;
use tokio::time::Instant;

pub use commit::{Committed, Watch, commit};
pub use config::{Config, Intake};
pub use decode::{Readings, Rejection, Rules, decode};
pub use fleet_shared::member::Drain;
pub use mapping::{MappingError, Mappings};
pub use pending::{Load, Origin, Pending, Traced};
pub use worker::WorkerError;

use metrics::IngestMetrics;
use worker::{Setup, Worker};

/// How often the store is asked for a sign of life, so that readiness follows it without traffic.
const PING_EVERY: Duration = Duration::from_secs(5);

/// Ceiling of the first pause before a reconnect: the group wants to be back at a restarted broker
/// before the devices are, which may not queue for it until then.
const RECONNECT_FIRST: Duration = Duration::from_millis(50);

/// Kept of the drain timeout for the goodbye itself.
const GOODBYE: Duration = Duration::from_millis(1_500);

/// Runs ingest until the host stops: opens the store, then [`run_with_store`].
///
/// # Errors
/// A setting that cannot be used, a store that refuses for good, or a session that gave up.
pub async fn run(config: Config, host: Host) -> anyhow::Result<()> {
    let url = config.database.url()?;
    // What is wrong with a setting is said before anything is waited for.
    let prepared = Prepared::of(&config, &host)?;
    let check = host.health().check("store");
    let mut options = OpenOptions::writer(host.name());
    options.pool_size = usize::from(config.intake.sessions) * 2 + 1;
    let store = tokio::select! {
        store = open_store(&url, options, &check) => store?,
        () = host.stopping() => return Ok(()),
    };
    drop(check);
    let outcome = work(config, host, store.clone(), prepared).await;
    store.close().await.context("closing the store")?;
    outcome
}

/// Part of the linger in which messages gather in the socket, so that the session wakes up for many
/// at once: waking up is most of the cost of a reading where few come at a time.
fn gather(intake: &config::Intake) -> Duration {
    intake.batch_linger / 2
}

/// Opens the store, and waits for it while it is away: a pod may start before its database.
async fn open_store(
    url: &fleet_shared::config::DatabaseUrl,
    options: OpenOptions,
    check: &Check,
) -> anyhow::Result<Arc<dyn Store>> {
    let mut pause = Duration::from_millis(250);
    loop {
        match fleet_store::open(url, options.clone()).await {
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

/// Runs ingest on a store that is open, until the host stops.
///
/// # Errors
/// A setting that cannot be used, a store that refuses for good, or a session that gave up.
pub async fn run_with_store(
    config: Config,
    host: Host,
    store: Arc<dyn Store>,
) -> anyhow::Result<()> {
    let prepared = Prepared::of(&config, &host)?;
    work(config, host, store, prepared).await
}

/// What the settings come to.
struct Prepared {
    mappings: Arc<Mappings>,
    options: Options,
}

impl Prepared {
    fn of(config: &Config, host: &Host) -> anyhow::Result<Self> {
        let mappings = Arc::new(load_mappings(&config.intake.mapping)?);
        let options = session_options(config, host, &mappings)?;
        Ok(Self { mappings, options })
    }
}

async fn work(
    config: Config,
    host: Host,
    store: Arc<dyn Store>,
    prepared: Prepared,
) -> anyhow::Result<()> {
    let Prepared { mappings, options } = prepared;
    let check = Arc::new(host.health().check("store"));
    check.up();
    let (failures, mut failed) = mpsc::unbounded_channel();
    let mut workers = Vec::new();
    for index in 0..usize::from(config.intake.sessions) {
        let setup = Setup {
            options: worker_options(&options, index, &config.intake.group),
            group: config.intake.group.clone(),
            rules: Rules {
                limits: Limits {
                    payload_max: config.intake.payload_max as usize,
                    ..Limits::default()
                },
                max_clock_skew: config.intake.max_clock_skew,
                mappings: mappings.clone(),
            },
            // The other part of the linger is spent where messages arrive.
            pending: Pending::new(
                config.intake.batch_max as usize,
                config.intake.batch_linger - gather(&config.intake),
            ),
            store: store.clone(),
            registry: host.metrics().clone(),
            metrics: IngestMetrics::new(host.metrics(), index),
            store_check: check.clone(),
            failures: failures.clone(),
            tracer: host.tracer().clone(),
        };
        let check = host.health().check(format!("mqtt-{index}"));
        let arbiter = Arbiter::new();
        let worker =
            Worker::start_in_arbiter(&arbiter.handle(), move |_| Worker::new(setup, check));
        let turns = host
            .health()
            .event_loop(format!("session-{index}"), arbiter.handle());
        let shown = host
            .health()
            .actor(format!("worker-{index}"), worker.clone().recipient());
        workers.push((worker, arbiter, (turns, shown)));
    }
    drop(failures);
    tracing::info!(
        sessions = workers.len(),
        group = %config.intake.group,
        filters = ?config.intake.filter,
        store = %store.backend(),
        "ingest started"
    );

    let outcome = tokio::select! {
        () = host.stopping() => Ok(()),
        Some(error) = failed.recv() => Err(anyhow::Error::new(error)),
        () = watch_store(&store, &check) => Ok(()),
        () = retention::keep(&store, config.intake.retain) => Ok(()),
    };
    if outcome.is_ok() {
        let until = Instant::now() + host.drain_time(GOODBYE);
        let leaving = workers.iter().map(|(worker, ..)| {
            let worker = worker.clone();
            actix::spawn(leave(worker, config.intake.drain, until))
        });
        for left in leaving.collect::<Vec<_>>() {
            left.await.context("a worker's drain panicked")?;
        }
    }
    for (_, arbiter, watched) in workers {
        drop(watched);
        arbiter.stop();
    }
    outcome
}

/// Asks the store for a sign of life, for ever.
async fn watch_store(store: &Arc<dyn Store>, check: &Check) {
    loop {
        tokio::time::sleep(PING_EVERY).await;
        match store.ping().await {
            Ok(()) => check.up(),
            Err(error) => check.down(format!("{:#}", anyhow::Error::new(error))),
        }
    }
}

fn load_mappings(names: &[String]) -> Result<Mappings, ConfigError> {
    Mappings::load(names).map_err(|error| {
        ConfigError::value(
            "--mapping",
            names.join(","),
            format!("{:#}", anyhow::Error::new(error)),
        )
    })
}

fn session_options(config: &Config, host: &Host, mappings: &Mappings) -> anyhow::Result<Options> {
    let intake = &config.intake;
    let mut options = config.mqtt.options(host.name(), host.instance())?;
    options.receive_maximum = config.mqtt.receive_maximum_or(config::RECEIVE_MAXIMUM);
    options.reconnect.first = RECONNECT_FIRST;
    options.gather = gather(intake);
    if topic::service_status("ingest", &intake.group).is_err() {
        let expected = "a group's name is one topic level, without wildcards";
        return Err(ConfigError::value("--group (INGEST_GROUP)", &intake.group, expected).into());
    }
    for filter in &intake.filter {
        let shared = format!("$share/{}/{filter}", intake.group);
        let flag = if TopicFilter::parse(filter.as_str()).is_ok() {
            ("--group (INGEST_GROUP)", &intake.group)
        } else {
            ("--filter (INGEST_FILTER)", filter)
        };
        TopicFilter::parse(shared.as_str())
            .map_err(|error| ConfigError::value(flag.0, flag.1, format!("{error}")))?;
        options
            .subscriptions
            .push(Subscription::new(shared, QoS::ExactlyOnce));
    }
    for filter in mappings.filters() {
        let shared = format!("$share/{}/{filter}", intake.group);
        options
            .subscriptions
            .push(Subscription::new(shared, QoS::ExactlyOnce));
    }
    options
        .subscriptions
        .push(Membership::subscription("ingest"));
    Ok(options)
}

/// The options of one of the process's workers: a client id of its own, and a will that tells the
/// others when it vanishes.
fn worker_options(base: &Options, index: usize, group: &str) -> Options {
    let mut options = base.clone();
    if index > 0 {
        options.client_id = format!("{}-{index}", base.client_id).into();
    }
    options.will = Membership::will("ingest", &options.client_id, group);
    options
}
