//! What the API answers.

use std::sync::Arc;

use fleet_store::{Bucket, DeviceTransition, StoredAlert, StoredDeadLetter};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::fleet::{Fleet, Member};
use crate::presence::{DeviceView, Now, State};
use crate::sensor::Sensor;
use crate::tracker::Tracker;

/// Bytes of a dead letter's payload that are shown.
const EXCERPT_BYTES: usize = 512;

/// A device.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeviceBody {
    device_id: String,
    online: bool,
    state: State,
    /// When it came to be on or offline.
    #[schema(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// When it was last heard, by the tracker's clock.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_seen: Option<Timestamp>,
    /// Why it is as it is.
    reason: Option<String>,
    firmware_version: Option<String>,
    /// In dBm.
    signal_strength: Option<i16>,
    uptime_seconds: Option<u32>,
    battery_percent: Option<u8>,
    /// The newest connection.
    session_id: Option<Uuid>,
    /// Its clock less the tracker's.
    clock_skew_ms: Option<i32>,
    /// Silence after which it counts as offline.
    silence_limit_ms: u64,
    location: Option<String>,
    /// What its sensors measure.
    types: Vec<String>,
}

impl DeviceBody {
    pub(crate) fn of(view: &DeviceView, fleet: &Fleet) -> Self {
        let mut types: Vec<String> = Vec::new();
        let (mut location, mut battery) = (None, None);
        for (_, sensor) in fleet.sensors.of(&view.device_id) {
            types.push(sensor.kind.to_string());
            location.get_or_insert_with(|| sensor.location.to_string());
            battery = battery.or(sensor.battery_percent);
        }
        types.sort_unstable();
        types.dedup();
        Self {
            device_id: view.device_id.to_string(),
            online: view.online,
            state: view.state,
            since: view.since,
            last_seen: view.last_seen,
            reason: view.reason.as_deref().map(ToOwned::to_owned),
            firmware_version: view.firmware_version.as_deref().map(ToOwned::to_owned),
            signal_strength: view.signal_strength,
            uptime_seconds: view.uptime_seconds,
            battery_percent: battery,
            session_id: view.session_id,
            clock_skew_ms: view.clock_skew_ms,
            silence_limit_ms: view.silence_limit_ms,
            location,
            types,
        }
    }

    /// Whether it passes the filters of a list.
    pub(crate) fn passes(
        &self,
        state: Option<State>,
        location: Option<&str>,
        kind: Option<&str>,
    ) -> bool {
        state.is_none_or(|state| self.state == state)
            && location.is_none_or(|wanted| {
                self.location.as_deref().is_some_and(|it| {
                    it.strip_prefix(wanted)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                })
            })
            && kind.is_none_or(|wanted| self.types.iter().any(|it| it == wanted))
    }

    pub(crate) fn id(&self) -> &str {
        &self.device_id
    }
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    /// Give it as `cursor` to get the next page; absent on the last.
    pub(crate) next_cursor: Option<String>,
}

/// The fleet at a glance.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SummaryBody {
    /// When this was so.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    devices: DeviceCounts,
    readings: Readings,
    /// From a reading's timestamp to its arrival here; absent before the first.
    delivery_ms: Option<Percentiles>,
    /// Firing alerts; absent when the store did not tell.
    alerts: Option<AlertCounts>,
    /// Absent when the store did not tell.
    dead_letters: Option<u64>,
    services: Vec<Member>,
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
    /// Since this replica started.
    total: u64,
    sensors: usize,
}

#[derive(Debug, Serialize, ToSchema)]
struct Percentiles {
    p50: u32,
    p99: u32,
}

#[derive(Debug, Serialize, ToSchema)]
struct AlertCounts {
    critical: u64,
    warning: u64,
    info: u64,
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
    backend: String,
    /// Whether it answered when it was last asked.
    up: bool,
}

impl SummaryBody {
    pub(crate) fn of(tracker: &mut Tracker, now: Now) -> Self {
        let rate = tracker.fleet.sensors.rate(now.at);
        let fleet = &tracker.fleet;
        let [online, offline, flapping, unknown] = fleet.presence.counts();
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
                total: fleet.sensors.traffic().total(),
                sensors: fleet.sensors.len(),
            },
            delivery_ms: fleet
                .sensors
                .traffic()
                .percentiles_ms()
                .map(|(p50, p99)| Percentiles { p50, p99 }),
            alerts: tracker
                .store_facts
                .firing
                .map(|[critical, warning, info]| AlertCounts {
                    critical,
                    warning,
                    info,
                }),
            dead_letters: tracker.store_facts.dead_letters,
            services: fleet.members.values().cloned().collect(),
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

/// A device went on or off.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TransitionBody {
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    online: bool,
    reason: String,
    session_id: Option<Uuid>,
}

impl From<DeviceTransition> for TransitionBody {
    fn from(row: DeviceTransition) -> Self {
        Self {
            at: row.at,
            online: row.online,
            reason: row.reason,
            session_id: row.session_id,
        }
    }
}

impl TransitionBody {
    pub(crate) fn cursor(&self) -> String {
        self.at.as_microsecond().to_string()
    }
}

/// A sensor and its newest reading.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SensorBody {
    sensor_id: String,
    /// The device it belongs to, told from its name.
    device_id: Option<String>,
    #[serde(rename = "type")]
    kind: String,
    unit: String,
    location: String,
    value: f64,
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
    battery_percent: Option<u8>,
}

impl SensorBody {
    pub(crate) fn of(id: &Arc<str>, sensor: &Sensor) -> Self {
        Self {
            sensor_id: id.to_string(),
            device_id: sensor.device_id.as_deref().map(ToOwned::to_owned),
            kind: sensor.kind.to_string(),
            unit: sensor.unit.to_string(),
            location: sensor.location.to_string(),
            value: sensor.value,
            timestamp: sensor.timestamp,
            battery_percent: sensor.battery_percent,
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.sensor_id
    }
}

/// A sensor's past in buckets.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReadingsBody {
    pub(crate) sensor_id: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// Empty if the sensor was not heard since this replica started.
    pub(crate) unit: String,
    pub(crate) points: Vec<BucketBody>,
}

/// Readings of a part of the span.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BucketBody {
    /// Start of the part.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    min: f64,
    mean: f64,
    max: f64,
    count: u64,
}

impl From<Bucket> for BucketBody {
    fn from(bucket: Bucket) -> Self {
        Self {
            at: bucket.at,
            min: bucket.min,
            mean: bucket.mean,
            max: bucket.max,
            count: bucket.count,
        }
    }
}

/// A message that could not be used.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeadLetterBody {
    pub(crate) id: Uuid,
    service: String,
    topic: String,
    reason: String,
    detail: String,
    #[schema(value_type = String, format = DateTime)]
    received_at: Timestamp,
    /// The payload's beginning, what is no text replaced.
    payload: String,
    payload_bytes: usize,
}

impl From<StoredDeadLetter> for DeadLetterBody {
    fn from(letter: StoredDeadLetter) -> Self {
        let shown = &letter.payload[..letter.payload.len().min(EXCERPT_BYTES)];
        Self {
            id: letter.id,
            service: letter.service,
            topic: letter.topic,
            reason: letter.reason,
            detail: letter.detail,
            received_at: letter.received_at,
            payload: String::from_utf8_lossy(shown).into_owned(),
            payload_bytes: letter.payload.len(),
        }
    }
}

/// An alert.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AlertBody {
    alert_id: String,
    rule: String,
    severity: String,
    sensor_id: String,
    message: String,
    #[schema(value_type = String, format = DateTime)]
    fired_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    resolved_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    acknowledged_at: Option<Timestamp>,
    #[schema(value_type = Object)]
    metadata: Value,
}

impl From<StoredAlert> for AlertBody {
    fn from(row: StoredAlert) -> Self {
        Self {
            alert_id: row.alert.alert_id,
            rule: row.alert.rule,
            severity: row.alert.severity,
            sensor_id: row.alert.sensor_id,
            message: row.alert.message,
            fired_at: row.alert.fired_at,
            resolved_at: row.resolved_at,
            acknowledged_at: row.acknowledged_at,
            metadata: serde_json::from_str(&row.alert.metadata).unwrap_or_default(),
        }
    }
}

/// Configuration of a device.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConfigBody {
    /// What it should be; absent if nothing is asked for.
    #[schema(value_type = Option<Object>)]
    pub(crate) desired: Option<Value>,
    /// What is in force, as the device says.
    #[schema(value_type = Option<Object>)]
    pub(crate) reported: Option<Value>,
    /// Whether the device does what is asked.
    pub(crate) in_sync: bool,
}

impl ConfigBody {
    /// In sync means that every desired key is reported with the same value.
    pub(crate) fn new(desired: Option<Value>, reported: Option<Value>) -> Self {
        let in_sync = match (&desired, &reported) {
            (None, _) => true,
            (Some(Value::Object(desired)), Some(Value::Object(reported))) => desired
                .iter()
                .all(|(key, value)| reported.get(key) == Some(value)),
            (desired, reported) => desired == reported,
        };
        Self {
            desired,
            reported,
            in_sync,
        }
    }
}

/// A device's answer to a command.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AnswerBody {
    pub(crate) correlation_id: Uuid,
    /// From the request to its answer.
    pub(crate) elapsed_ms: u64,
    #[schema(value_type = Object)]
    pub(crate) answer: Value,
}
