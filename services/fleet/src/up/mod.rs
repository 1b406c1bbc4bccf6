//! `fleet up`: broker, devices and every service in one process.

mod args;
mod census;
mod lock;
mod parts;
mod secure;
mod settings;
mod view;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use device_sim::{Summary, simulate};
use fleet_shared::config::{ConfigError, DatabaseUrl, MqttArgs};
use fleet_shared::service::Host;
use fleet_store::{OpenOptions, Store};
use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

pub use args::{BrokerChoice, UpArgs};

use crate::broker::{BrokerOptions, EmbeddedBroker};
use crate::place::store_file;
use args::{embedded_mqtt, external_mqtt};
use census::Census;
use lock::Lock;
use parts::Parts;
use secure::Secured;
use settings::Way;
use view::{End, Facts, View};

/// Devices and services drain one after the other, and each gets this share of the drain timeout;
/// the rest is for the store and the broker.
const DRAIN_SHARE: f64 = 0.42;
/// How often the services' connections are looked at before the devices start.
const LOOK: Duration = Duration::from_millis(20);

/// The command: runs until the host stops or `--duration` is over.
///
/// # Errors
/// A setting that cannot be used, or a part of the fleet that failed.
pub async fn run(args: UpArgs, host: Host) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.data_dir).map_err(|error| {
        let remedy = format!("cannot create the folder ({error}); choose another one");
        ConfigError::value(
            "--data-dir (FLEET_DATA_DIR)",
            args.data_dir.display(),
            remedy,
        )
    })?;
    let _lock = Lock::take(&args.data_dir)?;
    let (broker, way) = broker(&args)?;
    let database_url = DatabaseUrl::Sqlite(store_file(&args.data_dir));
    let store = fleet_store::open(&database_url, OpenOptions::writer("fleet-up"))
        .await
        .with_context(|| format!("opening the store {database_url}"))?;
    let outcome = run_services(&args, &host, way, Arc::clone(&store)).await;
    store.close().await.context("closing the store")?;
    if let Some(broker) = broker {
        broker.stop(host.drain_timeout().mul_f64(0.5 - DRAIN_SHARE));
    }
    outcome
}

/// Starts the broker, or says how to reach the other one.
fn broker(args: &UpArgs) -> anyhow::Result<(Option<EmbeddedBroker>, Way)> {
    let secured = match (&args.broker, args.secure) {
        (BrokerChoice::Url(_), true) => {
            let remedy =
                "it is about the embedded broker; of another one the MQTT_* variables tell";
            return Err(ConfigError::setting("--secure (FLEET_SECURE)", remedy).into());
        }
        (BrokerChoice::Url(url), false) => {
            let mqtt = external_mqtt(url.clone())?;
            let secured = None;
            return Ok((None, Way { mqtt, secured }));
        }
        (BrokerChoice::Embedded, true) => Some(Secured::prepare(args)?),
        (BrokerChoice::Embedded, false) => None,
    };
    let options = BrokerOptions {
        sharing: args.shared_strategy,
        security: secured.as_ref().map(Secured::security),
    };
    let started = EmbeddedBroker::start_with(args.mqtt_addr, &args.data_dir, options);
    let broker =
        started.map_err(|error| ConfigError::Usage(format!("{:#}", anyhow::Error::new(error))))?;
    let mqtt = embedded_mqtt(broker.local_addr())?;
    let mqtt = match &secured {
        None => mqtt,
        Some(secured) => secured.trusting(mqtt),
    };
    tracing::info!(addr = %broker.local_addr(), secure = args.secure, "embedded broker listens");
    Ok((Some(broker), Way { mqtt, secured }))
}

/// Runs the services and the devices: the services are there before the first reading and after the
/// last.
async fn run_services(
    args: &UpArgs,
    host: &Host,
    way: Way,
    store: Arc<dyn Store>,
) -> anyhow::Result<()> {
    let slice = host.drain_timeout().mul_f64(DRAIN_SHARE);
    let mut parts = Parts::default();
    let http_addr = match start_services(args, host, &way, store, &mut parts).await {
        Ok(Some(http_addr)) => http_addr,
        Ok(None) => return parts.stop().await,
        Err(error) => {
            // The others say goodbye while there is a broker. What they tell is a consequence.
            if let Err(later) = parts.stop().await {
                tracing::debug!(
                    error = format!("{later:#}"),
                    "stopping after a failed start"
                );
            }
            return Err(error);
        }
    };

    let mut view = View::new(
        facts(args, host, &way.mqtt, http_addr),
        args.summary_interval,
    );
    let (sim_host, stop_sim) = host.part("device-sim", slice);
    let options = way.mqtt.options("device-sim", host.instance())?;
    let scenario = settings::with_passwords(settings::devices(args), &way);
    let mut devices = actix_rt::spawn(simulate(scenario, options, sim_host));
    view.started(Timestamp::now());
    let mut failed = None;
    let summary = tokio::select! {
        () = host.stopping() => None,
        summary = &mut devices => Some(summary),
        error = parts.ended() => {
            failed = Some(error);
            None
        }
        () = show(&mut view, host) => None,
    };

    stop_sim.stop();
    let summary = match summary {
        Some(summary) => summary,
        None => devices.await,
    };
    let stopped = parts.stop().await;
    let census = Census::of(&host.metrics().encode());
    view.show(&census, Timestamp::now(), Instant::now());
    if let Some(error) = failed {
        return Err(error);
    }
    stopped?;
    let summary = summary
        .context("the simulator panicked")?
        .context("running the devices")?;
    view.ended(&end(&summary, &census), Timestamp::now());
    Ok(())
}

/// Starts the services one after the other, and gives the address of the API; none when the host stops
/// first.
async fn start_services(
    args: &UpArgs,
    host: &Host,
    way: &Way,
    store: Arc<dyn Store>,
    parts: &mut Parts,
) -> anyhow::Result<Option<SocketAddr>> {
    let slice = host.drain_timeout().mul_f64(DRAIN_SHARE);
    let config = settings::ingest(args, way);
    parts.start(host, "ingest", slice, |part| {
        ingest::run_with_store(config, part, store)
    });
    if !started(host, parts, "ingest/mqtt", usize::from(args.ingest)).await? {
        return Ok(None);
    }
    let config = settings::alerting(args, way);
    parts.start(host, "alerting", slice, |part| alerting::run(config, part));
    let config = settings::status_tracker(args, way)?;
    let (sender, http_addr) = oneshot::channel();
    parts.start(host, "status-tracker", slice, |part| {
        status_tracker::run_listening(config, part, |addr| {
            // Whoever waits for it is gone only when everything stops.
            sender.send(addr).ok();
        })
    });
    let all = started(host, parts, "alerting/", 1).await?
        && started(host, parts, "status-tracker/mqtt", 1).await?
        && start_bridge(args, host, way, parts).await?;
    Ok(match all {
        true => http_addr.await.ok(),
        false => None,
    })
}

/// Starts the bridge if there are brokers of Kafka; Kafka itself may come later. False when the host
/// stops first.
#[cfg(feature = "kafka")]
async fn start_bridge(
    args: &UpArgs,
    host: &Host,
    way: &Way,
    parts: &mut Parts,
) -> anyhow::Result<bool> {
    let Some(config) = settings::bridge(args, way)? else {
        return Ok(true);
    };
    let slice = host.drain_timeout().mul_f64(DRAIN_SHARE);
    parts.start(host, "bridge", slice, |part| bridge::run(config, part));
    started(host, parts, "bridge/mqtt", 2).await
}

/// There is none in this program.
#[cfg(not(feature = "kafka"))]
async fn start_bridge(args: &UpArgs, _: &Host, _: &Way, _: &mut Parts) -> anyhow::Result<bool> {
    let Some(brokers) = settings::kafka(args) else {
        return Ok(true);
    };
    let remedy = "this `fleet` was built without its feature `kafka`: build it with \
                  `cargo build -p fleet`, or run `bridge` beside it";
    Err(ConfigError::value("--kafka-brokers (KAFKA_BROKERS)", brokers, remedy).into())
}

/// Waits until `count` readiness checks whose names begin with `prefix` are up, and none of them is
/// down: a reading that is published before a subscription is there would go to nobody. False when
/// the host stops first; an error when a service ends first.
async fn started(
    host: &Host,
    parts: &mut Parts,
    prefix: &str,
    count: usize,
) -> anyhow::Result<bool> {
    let up = async {
        loop {
            let checks = host.health().snapshot().checks;
            let (up, down): (Vec<_>, Vec<_>) = checks
                .iter()
                .filter(|check| check.name.starts_with(prefix))
                .partition(|check| check.up);
            if up.len() >= count && down.is_empty() {
                return;
            }
            sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = up => Ok(true),
        () = host.stopping() => Ok(false),
        error = parts.ended() => Err(error),
    }
}

/// Shows the numbers for ever.
async fn show(view: &mut View, host: &Host) {
    let mut ticks = interval(view.interval());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let census = Census::of(&host.metrics().encode());
        view.show(&census, Timestamp::now(), Instant::now());
    }
}

fn facts(args: &UpArgs, host: &Host, mqtt: &MqttArgs, http_addr: SocketAddr) -> Facts {
    let program = std::env::args_os().next().unwrap_or_else(|| "fleet".into());
    Facts {
        broker: mqtt.mqtt_url.to_string(),
        http: match args.http.tls_cert_file {
            Some(_) => format!("https://{http_addr}"),
            None => format!("http://{http_addr}"),
        },
        admin: host.admin_addr().map(|addr| format!("http://{addr}")),
        data_dir: args.data_dir.display().to_string(),
        secure: args.secure,
        devices: args.devices,
        workers: args.ingest,
        program: program.to_string_lossy().into_owned(),
    }
}

fn end(summary: &Summary, census: &Census) -> End {
    End {
        published: summary.published,
        acknowledged: summary.acknowledged,
        failed: summary.failed,
        stored: census.stored,
        duplicates: census.duplicates,
        conflicts: census.conflicts,
        dead_letters: census.dead_letters,
        alerts_fired: census.alerts_fired,
        alerts_resolved: census.alerts_resolved,
    }
}
