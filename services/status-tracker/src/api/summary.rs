//! The fleet at a glance.

use actix_web::{HttpRequest, web};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::answer::{Answer, json};
use super::problem::Problem;
use crate::presence::Now;
use crate::services::{Replica, Services};
use crate::tracker::{Ask, Tracker};
use crate::trend::Trend;

/// The fleet at a glance.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SummaryBody {
    /// When this was so.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    devices: DeviceCounts,
    readings: Readings,
    /// From a reading's timestamp to its commit, over the last seconds of all replicas of ingest, in
    /// milliseconds; absent while ingest does not report, or stores nothing.
    delivery_ms: Option<Percentiles>,
    /// Firing alerts; absent when the store did not tell.
    alerts: Option<AlertCounts>,
    /// Dead letters that are kept; absent when the store did not tell.
    dead_letters: Option<u64>,
    /// The same by reason, the most frequent first.
    dead_letter_reasons: Vec<ReasonCount>,
    /// By name, with their replicas.
    services: Vec<ServiceBody>,
    broker: Broker,
    store: StoreBody,
}

#[derive(Debug, Serialize, ToSchema)]
struct DeviceCounts {
    total: usize,
    online: usize,
    offline: usize,
    flapping: usize,
    unknown: usize,
}

#[derive(Debug, Serialize, ToSchema)]
struct Readings {
    /// Published a second, over the last five seconds.
    per_second: f64,
    /// Stored a second, as ingest reports; absent while it does not.
    stored_per_second: Option<f64>,
    /// Published since this replica started.
    total: u64,
    sensors: usize,
}

#[derive(Debug, Serialize, ToSchema)]
struct Percentiles {
    p50: f64,
    p99: f64,
}

#[derive(Debug, Serialize, ToSchema)]
struct AlertCounts {
    critical: u64,
    warning: u64,
    info: u64,
    /// When the first of the gravest that fire began.
    #[schema(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ReasonCount {
    reason: String,
    count: u64,
}

/// A service and its replicas.
#[derive(Debug, Serialize, ToSchema)]
struct ServiceBody {
    service: String,
    /// Replicas that run.
    online: usize,
    /// Those that run and those that are missed: not one that said goodbye, nor one that is offline
    /// for 15 minutes, as long as others run.
    replicas: Vec<ReplicaBody>,
}

/// A replica of a service, as it says itself.
#[derive(Debug, Serialize, ToSchema)]
struct ReplicaBody {
    instance: String,
    online: bool,
    version: String,
    /// When it came to be as it is.
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// The group whose work it shares.
    group: Option<String>,
    /// Of services of which one works while the others stand by: whether this is the one.
    active: Option<bool>,
    /// Its part of the readings its group stored lately, 0 to 1.
    share: Option<f64>,
    /// Readings it stored a second.
    readings_per_second: Option<f64>,
    /// From a reading's timestamp to its commit, 99th percentile, in milliseconds.
    lag_ms: Option<f64>,
    /// Messages received and not durable yet.
    queue: Option<u64>,
    /// Most messages the broker may have under way to it.
    window: Option<u64>,
}

impl ReplicaBody {
    fn of(services: &Services, replica: &Replica, standing_by: bool, now: Now) -> Self {
        let (status, report) = (&replica.status, replica.fresh(now));
        Self {
            instance: status.instance.clone(),
            online: status.online,
            version: status.version.clone(),
            since: status.since,
            group: status.group.clone(),
            active: standing_by.then_some(status.epoch.is_some()),
            share: services.share(replica, now),
            readings_per_second: report.map(|it| it.stored as f64 / it.seconds),
            lag_ms: report.and_then(|it| it.delivery_us.percentile_ms(99.0)),
            queue: report.map(|it| it.queue),
            window: report.map(|it| it.window),
        }
    }
}

impl ServiceBody {
    fn of(services: &Services, service: &str, replicas: &[&Replica], now: Now) -> Self {
        // Only services with a lease have epochs, and then one replica has it.
        let leased = replicas.iter().any(|it| it.status.epoch.is_some());
        let bodies = replicas.iter();
        Self {
            service: service.to_owned(),
            online: replicas.iter().filter(|it| it.status.online).count(),
            replicas: bodies
                .map(|it| ReplicaBody::of(services, it, leased, now))
                .collect(),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct Broker {
    url: String,
    connected: bool,
    #[schema(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
}

#[derive(Debug, Serialize, ToSchema)]
struct StoreBody {
    /// `sqlite`, `postgres` or `timescaledb`.
    backend: String,
    /// Whether it answered when it was last asked.
    up: bool,
}

impl SummaryBody {
    pub(crate) fn of(tracker: &mut Tracker, now: Now) -> Self {
        let rate = tracker.fleet.sensors.rate(now.at);
        let fleet = &tracker.fleet;
        let [online, offline, flapping, unknown] = fleet.presence.counts();
        let intake = fleet.services.intake(now);
        let percentile = |percent| intake.delays.percentile_ms(percent);
        let letters = tracker.store_facts.dead_letters.as_ref();
        let services = fleet.services.iter(now);
        Self {
            at: now.at,
            devices: DeviceCounts {
                total: fleet.presence.len(),
                online,
                offline,
                flapping,
                unknown,
            },
            readings: Readings {
                per_second: rate,
                stored_per_second: intake.stored_per_second,
                total: fleet.sensors.traffic().total(),
                sensors: fleet.sensors.len(),
            },
            delivery_ms: percentile(50.0)
                .zip(percentile(99.0))
                .map(|(p50, p99)| Percentiles { p50, p99 }),
            alerts: tracker.store_facts.firing.map(|firing| {
                let [(critical, _), (warning, _), (info, _)] = firing;
                AlertCounts {
                    critical,
                    warning,
                    info,
                    since: firing.iter().find_map(|(_, since)| *since),
                }
            }),
            dead_letters: letters.map(|it| it.iter().map(|(_, count)| count).sum()),
            dead_letter_reasons: letters
                .into_iter()
                .flatten()
                .map(|(reason, count)| ReasonCount {
                    reason: reason.clone(),
                    count: *count,
                })
                .collect(),
            services: services
                .map(|(name, replicas)| ServiceBody::of(&fleet.services, name, &replicas, now))
                .collect(),
            broker: Broker {
                url: tracker.broker.clone(),
                connected: tracker.connected_since.is_some(),
                since: tracker.connected_since,
            },
            store: StoreBody {
                backend: tracker.store.backend().to_string(),
                up: tracker.store_facts.dead_letters.is_some(),
            },
        }
    }
}

/// The fleet at a glance.
#[utoipa::path(get, path = "/api/v1/summary", tag = "fleet",
    responses((status = 200, body = SummaryBody), (status = 304, description = "As before"), (status = 401, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn summary(request: HttpRequest, api: web::Data<Api>) -> Answer {
    api.guard.read(&request)?;
    let summary = api.tracker.send(Ask::new(SummaryBody::of)).await?;
    json(&request, &summary)
}

/// The last hour in a few numbers, as far as this replica saw it.
#[utoipa::path(get, path = "/api/v1/summary/trend", tag = "fleet",
    responses((status = 200, body = Trend), (status = 304, description = "As before"), (status = 401, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn trend(request: HttpRequest, api: web::Data<Api>) -> Answer {
    api.guard.read(&request)?;
    let ask = Ask::new(|tracker: &mut Tracker, _| tracker.fleet.trend.clone());
    let trend = api.tracker.send(ask).await?;
    json(&request, &trend)
}
