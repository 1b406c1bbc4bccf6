//! MQTT to Kafka and Kafka to MQTT: each record is durable on the other side before it is
//! acknowledged on its own.
//!
//! ```text
//!  MQTT session ──▶ Intake ──▶ producer ──▶ Kafka          Kafka ──▶ consumer thread ──▶ MQTT session
//!        ▲            │            │ delivery report         ▲              │              of its own
//!        └── PUBACK ◀─┴── dead letter or ◀──┘                └── offset ◀───┴── PUBACK, or dead letter
//! ```

mod answer;
mod commands;
mod config;
mod error;
mod flight;
mod intake;
mod kafka;
mod letter;
mod message_id;
mod metrics;
mod outlet;
mod reason;
mod record;
mod renewal;
pub mod route;
#[cfg(test)]
mod testing;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use anyhow::Context as _;
use fleet_shared::config::ConfigError;
use fleet_shared::health::{Check, Watched};
use fleet_shared::member::{GetSession, Link, Membership, leave};
use fleet_shared::service::Host;
use fleet_shared::session::{
    Message, Options, Publish, QoS, Retained, Session, Stop, Subscription,
};
use tokio::sync::mpsc;
use tokio::time::Instant;

pub use commands::CommandRecord;
pub use config::{BridgeArgs, Compression, Config};
pub use error::BridgeError;
pub use reason::Reason;
pub use route::Routes;

use intake::{Intake, Open, Renew};
use kafka::{Clients, Reports, Source};
use metrics::BridgeMetrics;
use outlet::Outlet;
use record::Encoder;

/// The record that a message becomes: its Kafka topic, its key and its size in bytes; nothing when no
/// route wants it. For fuzzing: it must not panic on anything.
///
/// # Errors
/// Why Kafka could not take it.
pub fn routed(
    routes: &Routes,
    message: &Message,
    size_max: usize,
) -> Option<Result<(String, String, usize), String>> {
    let route = routes.find(&message.topic)?;
    let mut encoder = Encoder::new(size_max);
    let record = encoder.routed(message, route);
    Some(match record {
        Ok(record) => Ok((record.topic.to_owned(), record.key.to_owned(), record.size)),
        Err(refusal) => Err(refusal.detail),
    })
}

/// The publish that a record of Kafka asks for. For fuzzing: it must not panic on anything.
///
/// # Errors
/// Why it is no command.
pub fn command(record: &CommandRecord<'_>, client_id: &str) -> Result<Publish, String> {
    commands::request::publish(record, client_id).map_err(|refusal| refusal.detail)
}

/// How often Kafka is asked for a sign of life, so that readiness follows it without traffic.
const PING_EVERY: Duration = Duration::from_secs(5);

/// Ceiling of the first pause before a reconnect: the group wants to be back at a restarted broker
/// before the devices are, which may not queue for it until then.
const RECONNECT_FIRST: Duration = Duration::from_millis(50);

/// Kept of the drain timeout for the goodbye itself.
const GOODBYE: Duration = Duration::from_millis(1_500);

/// How long clients of Kafka may take to end, once there is nothing left to do.
const CLOSE_MAX: Duration = Duration::from_secs(3);

/// Of the drain timeout, at most this for commands under way.
const COMMANDS_END: Duration = Duration::from_secs(4);

/// Runs the bridge until the host stops.
///
/// # Errors
/// A setting that cannot be used, a session that gave up, or Kafka refusing for good.
pub async fn run(config: Config, host: Host) -> anyhow::Result<()> {
    // Before any client: OpenSSL is not to take itself apart when the process ends, for a client that
    // still works then crashes.
    openssl_sys::init();
    let routes = Arc::new(load_routes(&config.bridge)?);
    let options = session_options(&config, &host, &routes)?;
    let reports = Arc::<Reports>::default();
    // All are there from the start: it is not ready before its subscriptions stand.
    let checks = ["mqtt", "mqtt-out"].map(|name| host.health().check(name));
    let mut source = Source::new(
        config.bridge.clone(),
        options.client_id.to_string(),
        reports.clone(),
        Arc::new(host.health().check("kafka")),
    );
    let parts = Parts {
        routes,
        options,
        reports,
        checks,
    };
    let clients = source.make()?;
    let outcome = serve(&config, &host, parts, &mut source, clients).await;
    // Connections are closed in order, if that does not take long.
    if tokio::time::timeout(CLOSE_MAX, source.closed())
        .await
        .is_err()
    {
        tracing::warn!("clients of Kafka did not end in time");
    }
    outcome
}

/// What a bridge is made of, besides its clients of Kafka.
struct Parts {
    routes: Arc<Routes>,
    options: Options,
    reports: Arc<Reports>,
    /// Of the session that subscribes, and of the one that publishes.
    checks: [Check; 2],
}

/// Carries messages both ways until the host stops. The clients end beside, in `source`.
async fn serve(
    config: &Config,
    host: &Host,
    parts: Parts,
    source: &mut Source,
    mut clients: Clients,
) -> anyhow::Result<()> {
    let Parts {
        routes,
        options,
        reports,
        checks: [subscribed, publishing],
    } = parts;
    let client_id = options.client_id.to_string();
    let (failures, mut failed) = mpsc::unbounded_channel();
    let metrics = BridgeMetrics::new(host.metrics());
    let (outlet, _outlet_shown) = start_outlet(&options, host, publishing, &failures).await?;
    let arbiter = Arbiter::new();
    let _turns = host.health().event_loop("intake", arbiter.handle());
    let setup = intake::Setup {
        group: config.bridge.group.clone(),
        routes: routes.clone(),
        size_max: config.bridge.record_max as usize,
        producers: clients.producers.clone(),
        reports,
        outlet: outlet.clone(),
        link: Link::new(client_id.clone(), subscribed),
        registry: host.metrics().clone(),
        metrics: metrics.clone(),
        failures: failures.clone(),
        options,
    };
    let intake = Intake::start_in_arbiter(&arbiter.handle(), move |_| Intake::new(setup));
    let _intake_shown = host.health().actor("intake", intake.clone().recipient());
    let consumer = |clients: &Clients| match routes.commands() {
        None => Ok(None),
        Some(of) => commands::Consumer::start(commands::Setup {
            config: clients.consumer.clone(),
            routes: of.clone(),
            client_id: client_id.clone(),
            session: outlet.clone(),
            producer: clients.producers.alone.clone(),
            reports: clients.command_reports.clone(),
            reachable: clients.reachable.clone(),
            metrics: metrics.clone(),
            failures: failures.clone(),
        })
        .map(Some),
    };
    let mut commands = None;
    let mut open = false;
    let outcome = loop {
        let other = tokio::select! {
            () = host.stopping() => break Ok(()),
            Some(error) = failed.recv() => break Err(anyhow::Error::new(error)),
            prepared = kafka::prepare(&routes, &clients), if !open => {
                if let Err(error) = prepared {
                    break Err(error.into());
                }
                open = true;
                source.require(kafka::wanted(&routes).into_keys().collect());
                intake.send(Open).await?;
                commands = consumer(&clients)?;
                tracing::info!(
                    routes = routes.all().len(),
                    commands = commands.is_some(),
                    group = %config.bridge.group,
                    kafka = %config.bridge.kafka_brokers,
                    "bridge started"
                );
                continue;
            }
            never = watch_kafka(&clients), if open => never,
            // What keeps us from Kafka may be a file that is mended meanwhile.
            other = source.renewed() => other,
        };
        let renewing = async {
            if let Some(commands) = commands.take() {
                commands.stop(commands_end(host)).await;
            }
            intake.send(Renew(other.producers.clone())).await
        };
        tokio::select! {
            renewed = renewing => renewed?,
            Some(error) = failed.recv() => break Err(anyhow::Error::new(error)),
            // The intake goes on with it while it drains.
            () = host.stopping() => break Ok(()),
        }
        source.retire(std::mem::replace(&mut clients, other));
        // They were tried, and have answered.
        clients.reachable.up();
        if open {
            commands = consumer(&clients)?;
        }
    };
    if outcome.is_ok() {
        let until = Instant::now() + host.drain_time(GOODBYE);
        if let Some(commands) = commands {
            commands.stop(commands_end(host)).await;
        }
        leave(intake, config.bridge.drain, until).await;
        outlet.stop(Stop::EndSession, GOODBYE / 2).await;
    } else if let Some(commands) = commands {
        commands.stop(Duration::ZERO).await;
    }
    arbiter.stop();
    source.retire(clients);
    // The intake has producers too.
    source.end(move || drop(arbiter.join()));
    outcome
}

/// Time for commands under way to end.
fn commands_end(host: &Host) -> Duration {
    COMMANDS_END.min(host.drain_timeout() / 4)
}

/// Asks Kafka for a sign of life, for ever.
async fn watch_kafka(clients: &Clients) -> ! {
    loop {
        tokio::time::sleep(PING_EVERY).await;
        match kafka::ping(&clients.producers.batched).await {
            Ok(()) => clients.reachable.up(),
            Err(error) => clients.unanswered(&error).await,
        }
    }
}

/// The session for commands and dead letters. The broker need not keep it: what it has not
/// acknowledged is published again from the other side.
async fn start_outlet(
    options: &Options,
    host: &Host,
    check: Check,
    failures: &mpsc::UnboundedSender<BridgeError>,
) -> anyhow::Result<(Session, Watched)> {
    let mut options = options.clone();
    options.client_id = format!("{}-out", options.client_id).into();
    options.session_expiry = Duration::ZERO;
    options.clean_start = true;
    options.subscriptions.clear();
    options.will = None;
    let link = Link::new(options.client_id.to_string(), check);
    let outlet = Outlet::new(options, host.metrics().clone(), link, failures.clone()).start();
    let shown = host.health().actor("outlet", outlet.clone().recipient());
    let session = outlet.send(GetSession).await?;
    let session = session.context("the session for publishing has not started")?;
    Ok((session, shown))
}

fn load_routes(args: &BridgeArgs) -> Result<Routes, ConfigError> {
    const FLAG: &str = "--routes (BRIDGE_ROUTES)";
    let shown = args.routes.as_ref().map(|path| path.display().to_string());
    let text = match &args.routes {
        None => route::DEFAULT_ROUTES.to_owned(),
        Some(path) => std::fs::read_to_string(path).map_err(|error| {
            ConfigError::value(
                FLAG,
                path.display(),
                format!("cannot read the file: {error}"),
            )
        })?,
    };
    Routes::parse(&text, &args.group).map_err(|errors| {
        let all: Vec<_> = errors.iter().map(ToString::to_string).collect();
        match shown {
            Some(path) => ConfigError::value(FLAG, path, all.join("; ")),
            // The file that ships has no error, so it is the group that makes no filter.
            None => ConfigError::value("--group (BRIDGE_GROUP)", &args.group, all.join("; ")),
        }
    })
}

fn session_options(config: &Config, host: &Host, routes: &Routes) -> anyhow::Result<Options> {
    let mut options = config.mqtt.options(host.name(), host.instance())?;
    options.receive_maximum = config.mqtt.receive_maximum_or(config::RECEIVE_MAXIMUM);
    options.reconnect.first = RECONNECT_FIRST;
    for route in routes.all() {
        let mut subscription = Subscription::new(route.filter.as_str(), QoS::ExactlyOnce);
        if route.filter.share_group().is_none() {
            // Once: a reconnect is no reason to write every retained message again.
            subscription.retained = Retained::IfNew;
        }
        options.subscriptions.push(subscription);
    }
    if routes.commands().is_some() {
        options
            .subscriptions
            .push(Subscription::new("responses/+/+", QoS::AtLeastOnce));
    }
    options
        .subscriptions
        .push(Membership::subscription("bridge"));
    options.will = Membership::will("bridge", &options.client_id, &config.bridge.group);
    Ok(options)
}
