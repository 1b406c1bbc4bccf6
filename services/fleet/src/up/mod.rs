//! `fleet up`: broker, devices and ingest in one process.

mod args;
mod census;
mod view;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use device_sim::{Scenario, Summary, simulate};
use fleet_shared::config::{ConfigError, DatabaseArgs, DatabaseUrl, MqttArgs};
use fleet_shared::service::Host;
use fleet_store::{OpenOptions, Store};
use ingest::{Drain, Intake};
use jiff::Timestamp;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

pub use args::{BrokerChoice, UpArgs};

use crate::broker::EmbeddedBroker;
use crate::place::{ledger_file, store_file};
use args::{embedded_mqtt, external_mqtt};
use census::Census;
use view::{End, Facts, View};

/// Client id of the first ingest worker, apart from that of an `ingest` on the same host.
const INGEST_CLIENT_ID: &str = "fleet-up-ingest";
/// Devices and ingest drain one after the other, and each gets this share of the drain timeout;
/// the rest is for the store and the broker.
const DRAIN_SHARE: f64 = 0.42;
/// How often the workers' connections are looked at before the devices start.
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
    let (broker, mqtt) = broker(&args)?;
    let database_url = DatabaseUrl::Sqlite(store_file(&args.data_dir));
    let store = fleet_store::open(&database_url, OpenOptions::writer("fleet-up"))
        .await
        .with_context(|| format!("opening the store {database_url}"))?;
    let outcome = run_services(&args, &host, mqtt, Arc::clone(&store)).await;
    store.close().await.context("closing the store")?;
    if let Some(broker) = broker {
        broker.stop(host.drain_timeout().mul_f64(0.5 - DRAIN_SHARE));
    }
    outcome
}

/// Starts the broker, or says how to reach the other one.
fn broker(args: &UpArgs) -> anyhow::Result<(Option<EmbeddedBroker>, MqttArgs)> {
    match &args.broker {
        BrokerChoice::Url(url) => Ok((None, external_mqtt(url.clone())?)),
        BrokerChoice::Embedded => {
            let broker = EmbeddedBroker::start(args.mqtt_addr, &args.data_dir)
                .map_err(|error| ConfigError::Usage(format!("{:#}", anyhow::Error::new(error))))?;
            let mqtt = embedded_mqtt(broker.local_addr())?;
            tracing::info!(addr = %broker.local_addr(), "embedded broker listens");
            Ok((Some(broker), mqtt))
        }
    }
}

/// Runs ingest and the devices: ingest is there before the first reading and after the last.
async fn run_services(
    args: &UpArgs,
    host: &Host,
    mqtt: MqttArgs,
    store: Arc<dyn Store>,
) -> anyhow::Result<()> {
    let slice = host.drain_timeout().mul_f64(DRAIN_SHARE);
    let mut view = View::new(facts(args, &mqtt), args.summary_interval);

    let (ingest_host, stop_ingest) = host.part("ingest", slice);
    let config = ingest_config(args, &mqtt);
    let mut ingest = actix_rt::spawn(ingest::run_with_store(config, ingest_host, store));
    tokio::select! {
        () = workers_subscribed(host, args.ingest) => {}
        () = host.stopping() => {}
        ended = &mut ingest => return ended.context("ingest panicked")?.context("starting ingest"),
    }

    let (sim_host, stop_sim) = host.part("device-sim", slice);
    let options = mqtt.options("device-sim", host.instance())?;
    let mut devices = actix_rt::spawn(simulate(scenario(args), options, sim_host));
    view.started(Timestamp::now());
    let mut ended_early = None;
    let summary = tokio::select! {
        () = host.stopping() => None,
        summary = &mut devices => Some(summary),
        ended = &mut ingest => {
            ended_early = Some(ended);
            None
        }
        () = show(&mut view, host) => None,
    };

    stop_sim.stop();
    let summary = match summary {
        Some(summary) => summary,
        None => devices.await,
    };
    stop_ingest.stop();
    let ended = match ended_early {
        Some(ended) => ended,
        None => ingest.await,
    };
    let census = Census::of(&host.metrics().encode());
    view.show(&census, Timestamp::now(), Instant::now());
    ended
        .context("ingest panicked")?
        .context("running ingest")?;
    let summary = summary
        .context("the simulator panicked")?
        .context("running the devices")?;
    view.ended(&end(&summary, &census), Timestamp::now());
    Ok(())
}

/// Resolves when every worker has its connection and its subscriptions, which its readiness check
/// `mqtt-{number}` tells: a reading that is published before would go to nobody.
async fn workers_subscribed(host: &Host, workers: u16) {
    loop {
        let checks = host.health().snapshot().checks;
        let up = checks
            .iter()
            .filter(|check| check.name.starts_with("mqtt") && check.up);
        if up.count() >= usize::from(workers) {
            return;
        }
        sleep(LOOK).await;
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

fn facts(args: &UpArgs, mqtt: &MqttArgs) -> Facts {
    let program = std::env::args_os().next().unwrap_or_else(|| "fleet".into());
    Facts {
        broker: mqtt.mqtt_url.to_string(),
        data_dir: args.data_dir.display().to_string(),
        devices: args.devices,
        workers: args.ingest,
        program: program.to_string_lossy().into_owned(),
    }
}

fn scenario(args: &UpArgs) -> Scenario {
    Scenario {
        devices: args.devices,
        duration: args.duration,
        seed: args.seed,
        ledger: Some(ledger_file(&args.data_dir)),
        output: device_sim::Output::Nothing,
        ..Scenario::default()
    }
}

fn ingest_config(args: &UpArgs, mqtt: &MqttArgs) -> ingest::Config {
    ingest::Config {
        common: args.common.clone(),
        mqtt: MqttArgs {
            mqtt_client_id: Some(INGEST_CLIENT_ID.to_owned()),
            ..mqtt.clone()
        },
        database: DatabaseArgs {
            database_url: DatabaseUrl::Sqlite(store_file(&args.data_dir)),
            database_password_file: None,
        },
        intake: Intake {
            sessions: args.ingest,
            // The embedded broker ends with this process, and its sessions with it; they are taken
            // to their end. Another broker keeps the last one's, as for any ingest.
            drain: match args.broker {
                BrokerChoice::Embedded => Drain::End,
                BrokerChoice::Url(_) => Drain::Auto,
            },
            ..Intake::default()
        },
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
    }
}
