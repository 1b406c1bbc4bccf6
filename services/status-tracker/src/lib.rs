//! Tracks the presence of every device, and is the read side of the fleet.
//!
//! Each replica holds the full view: it takes every status, will and heartbeat, and
//! [`presence`] decides from them who is there. Transitions are stored once however many replicas
//! see them. Around it are an HTTP API, live events, commands to devices and the dashboard.

mod api;
mod command;
mod config;
mod event;
mod fleet;
mod member;
mod metrics;
pub mod presence;
mod sensor;
mod services;
mod tracker;
mod trend;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use anyhow::Context as _;
use fleet_shared::config::{ConfigError, DatabaseUrl, secret};
use fleet_shared::health::Check;
use fleet_shared::service::Host;
use fleet_shared::session::{Options, QoS, Retained, Stop, Subscription};
use fleet_shared::topic;
use fleet_store::{AlertStore, DeadLetterCount, OpenOptions, Store, StoreError};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;

pub use api::openapi;
pub use config::{Config, HttpArgs, Tracking};
pub use tracker::TrackerError;

use event::Hub;
use fleet::Fleet;
use presence::Presence;
use tracker::{Ask, Flush, Setup, StoreFacts, Tracker};

/// QoS 1 messages in flight to us unless set otherwise: a status takes microseconds.
const RECEIVE_MAXIMUM: u16 = 10_000;

/// Rows of the store read at once at the start.
const PAGE: u32 = 5_000;

/// Offline transitions within the flap window that are read at the start.
const OFFLINES_MAX: u32 = 1_000_000;

/// How often the store is asked for what the summary shows of it.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Kept of the drain timeout for the goodbye itself.
const GOODBYE: Duration = Duration::from_millis(1_500);

/// Runs the tracker until the host stops.
///
/// # Errors
/// A setting that cannot be used, an address that cannot be listened on, a store that refuses for
/// good, or a session that gave up.
pub async fn run(config: Config, host: Host) -> anyhow::Result<()> {
    run_listening(config, host, |_| ()).await
}

/// As [`run`], and calls `listening` with the address of the API once it is there: for a program
/// that asked for any free port.
///
/// # Errors
/// As [`run`].
pub async fn run_listening(
    config: Config,
    host: Host,
    listening: impl FnOnce(SocketAddr),
) -> anyhow::Result<()> {
    let options = session_options(&config, &host)?;
    let token = secret(
        config.http.api_token.as_ref(),
        "--api-token (API_TOKEN)",
        config.http.api_token_file.as_deref(),
        "--api-token-file (API_TOKEN_FILE)",
    )?;
    if config.http.require_token && token.is_none() {
        let remedy = "there is no token to ask for; set API_TOKEN or API_TOKEN_FILE";
        return Err(ConfigError::setting("--require-token", remedy).into());
    }
    let url = config.database.url()?;
    let store_check = Arc::new(host.health().check("store"));
    let (store, alerts) = tokio::select! {
        opened = open(&url, &host, &store_check) => opened?,
        () = host.stopping() => return Ok(()),
    };
    let presence = recall(store.as_ref(), &config.tracking).await?;
    store_check.up();

    let hub = Hub::new(Timestamp::now().as_microsecond().unsigned_abs());
    // One failure ends the service; a second has nothing to add.
    let (failures, mut failed) = mpsc::channel(1);
    let tracker = Tracker::new(Setup {
        options,
        fleet: Fleet::new(presence, config.tracking.sensors_max as usize),
        store: store.clone(),
        hub: hub.clone(),
        registry: host.metrics().clone(),
        mqtt_check: host.health().check("mqtt"),
        store_check: store_check.clone(),
        failures,
    })
    .start();
    let _shown = host.health().actor("tracker", tracker.clone().recipient());
    let api = api::Api::new(
        &config.http,
        token,
        tracker.clone(),
        store.clone(),
        alerts.clone(),
        hub,
        host.tracer().clone(),
    );
    let server = api::serve(config.http.http_addr, config.http.tls()?.as_ref(), api)?;
    tracing::info!(addr = %server.addr, store = %store.backend(), "API and dashboard listen");
    listening(server.addr);

    let outcome = tokio::select! {
        () = host.stopping() => Ok(()),
        Some(error) = failed.recv() => Err(anyhow::Error::new(error)),
        () = look(&tracker, &store, &alerts, &store_check) => Ok(()),
    };
    let until = Instant::now() + host.drain_time(GOODBYE);
    server.handle.stop(false).await;
    leave(&tracker, until).await;
    store.close().await.context("closing the store")?;
    outcome
}

/// Says goodbye to the broker and stores what waits.
async fn leave(tracker: &Addr<Tracker>, until: Instant) {
    let known = tracker
        .send(Ask::new(|tracker, _| {
            (tracker.session.clone(), tracker.client_id.clone())
        }))
        .await;
    if let Ok((Some(session), client_id)) = known {
        // To a broker that is away the last will says it.
        if let Some(status) = member::publish(&client_id, false)
            && session.observe().await.connected
        {
            let limit = until.min(Instant::now() + GOODBYE);
            let published = tokio::time::timeout_at(limit, session.publish(status)).await;
            if published.is_err() {
                tracing::debug!("the broker did not take our goodbye in time");
            }
        }
        let left = until.saturating_duration_since(Instant::now());
        session.stop(Stop::KeepSession, left).await;
    }
    if tokio::time::timeout_at(until, tracker.send(Flush))
        .await
        .is_err()
    {
        tracing::warn!(
            "the store did not take every transition in time; the next replica to start finds them again"
        );
    }
}

/// Opens the store, and waits for it while it is away.
async fn open(
    url: &DatabaseUrl,
    host: &Host,
    check: &Check,
) -> anyhow::Result<(Arc<dyn Store>, Arc<dyn AlertStore>)> {
    let mut pause = Duration::from_millis(250);
    loop {
        match open_both(url, host.name()).await {
            Ok(both) => return Ok(both),
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

async fn open_both(
    url: &DatabaseUrl,
    name: &str,
) -> Result<(Arc<dyn Store>, Arc<dyn AlertStore>), StoreError> {
    let store = fleet_store::open(url, OpenOptions::writer(name)).await?;
    let alerts = fleet_store::open_alerts(url, OpenOptions::writer(name)).await?;
    Ok((store, alerts))
}

/// What the store knows of every device, before the first connection.
async fn recall(store: &dyn Store, tracking: &Tracking) -> anyhow::Result<Presence> {
    let mut presence = Presence::new(tracking.settings());
    let mut after = None;
    loop {
        let page = store.newest_transitions(after, PAGE).await;
        let page = page.context("reading the devices' last transitions")?;
        for row in &page {
            presence.recall(&row.device_id, row.online, row.at, row.session_id);
        }
        match page.into_iter().next_back() {
            Some(last) => after = Some(last.device_id),
            None => break,
        }
    }
    let window = Timestamp::now()
        .checked_sub(tracking.flap_window)
        .unwrap_or(Timestamp::UNIX_EPOCH);
    let recent = store.transitions_since(window, OFFLINES_MAX).await;
    for row in recent.context("reading the recent transitions")? {
        if !row.online {
            presence.recall_offline(&row.device_id, row.at);
        }
    }
    Ok(presence)
}

/// Asks the store now and then for what the summary shows of it, and whether it is there.
async fn look(
    tracker: &Addr<Tracker>,
    store: &Arc<dyn Store>,
    alerts: &Arc<dyn AlertStore>,
    check: &Check,
) {
    loop {
        let facts = StoreFacts {
            dead_letters: match store.count_dead_letters().await {
                Ok(counts) => {
                    check.up();
                    Some(by_reason(counts))
                }
                Err(error) => {
                    check.down(format!("{:#}", anyhow::Error::new(error)));
                    None
                }
            },
            firing: alerts.firing().await.ok().map(|firing| {
                ["critical", "warning", "info"].map(|severity| {
                    let of = firing.iter().find(|it| it.severity == severity);
                    of.map_or((0, None), |of| (of.count, Some(of.since)))
                })
            }),
        };
        let told = tracker.send(Ask::new(move |tracker, _| tracker.store_facts = facts));
        if told.await.is_err() {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Dead letters of all services by reason, the most frequent first.
fn by_reason(counts: Vec<DeadLetterCount>) -> Vec<(String, u64)> {
    let mut sums = BTreeMap::<String, u64>::new();
    for of in counts {
        *sums.entry(of.reason).or_default() += of.count;
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    sums
}

fn session_options(config: &Config, host: &Host) -> anyhow::Result<Options> {
    let mut options = config.mqtt.options(host.name(), host.instance())?;
    options.receive_maximum = config.mqtt.receive_maximum_or(RECEIVE_MAXIMUM);
    let client_id = options.client_id.to_string();
    topic::response(&client_id, "id").map_err(|error| {
        ConfigError::value(
            "--mqtt-client-id (MQTT_CLIENT_ID)",
            &client_id,
            format!("answers to commands need a topic of it: {error}"),
        )
    })?;
    options.will = member::will(&client_id);
    for (filter, qos) in [
        ("devices/+/status", QoS::AtLeastOnce),
        ("devices/+/telemetry", QoS::AtMostOnce),
        ("devices/+/config", QoS::AtLeastOnce),
        ("devices/+/config/reported", QoS::AtLeastOnce),
        ("fleet/services/+/+/status", QoS::AtLeastOnce),
        ("fleet/services/+/+/report", QoS::AtMostOnce),
        ("alerts/#", QoS::AtLeastOnce),
        ("sensors/#", QoS::AtMostOnce),
        ("responses/+/+", QoS::AtLeastOnce),
    ] {
        options.subscriptions.push(Subscription {
            retained: Retained::Always,
            ..Subscription::new(filter, qos)
        });
    }
    Ok(options)
}
