//! Alerts: their rows, the state behind them, what is still to be sent, and who may write.

use std::sync::Arc;
use std::time::Duration;

use fleet_shared::config::DatabaseUrl;
use jiff::Timestamp;

use crate::notice::{NewAlertEvent, NewNotification, Notices};
use crate::{OpenOptions, StoreError, StoreFuture, postgres, sqlite};

/// The channel of what is published to the broker; other channels are receivers of notifications.
pub const MQTT_CHANNEL: &str = "mqtt";

/// What alerting keeps. Everything of an [`AlertBatch`] is committed together, and only by who holds
/// the lease.
pub trait AlertStore: Notices {
    /// Takes the lease `name` for `ttl` if it is free, has run out, or was held by `holder` before.
    /// None while somebody else holds it. Every success has an epoch of its own, higher than all
    /// before it.
    fn acquire_lease<'a>(
        &'a self,
        name: &'a str,
        holder: &'a str,
        ttl: Duration,
    ) -> StoreFuture<'a, Option<Lease>>;

    /// Holds a lease for `ttl` from now; false if somebody else has it.
    fn renew_lease<'a>(&'a self, lease: &'a Lease, ttl: Duration) -> StoreFuture<'a, bool>;

    /// Lets a lease go, so that the next need not wait for its end.
    fn release_lease<'a>(&'a self, lease: &'a Lease) -> StoreFuture<'a, ()>;

    /// Commits `batch` in one transaction if `lease` is still held. What is there already stays as it
    /// is: writing a batch again changes nothing.
    fn write_alerts<'a>(
        &'a self,
        batch: Arc<AlertBatch>,
        lease: &'a Lease,
    ) -> StoreFuture<'a, Written>;

    /// What was written as [`AlertBatch::marks`] under the lease of that name, or under any, oldest
    /// first.
    fn alert_marks<'a>(&'a self, lease: Option<&'a str>) -> StoreFuture<'a, Vec<String>>;

    /// The stored states of all rules and sensors.
    fn alert_states(&self) -> StoreFuture<'_, Vec<AlertState>>;

    /// Up to `limit` messages not yet sent that are due by `due_by`, in the order in which they were
    /// written: those to the broker, or the notifications.
    fn outbox_due(
        &self,
        to_broker: bool,
        due_by: Timestamp,
        limit: u32,
    ) -> StoreFuture<'_, Vec<Outgoing>>;

    /// Notes that messages are done with, and how: `sent`, `given_up` or `suppressed`.
    fn outbox_done<'a>(
        &'a self,
        seqs: &'a [i64],
        outcome: &'static str,
        at: Timestamp,
    ) -> StoreFuture<'a, ()>;

    /// Notes an attempt that failed, and when the next is due.
    fn outbox_failed<'a>(
        &'a self,
        seq: i64,
        error: &'a str,
        due_at: Timestamp,
    ) -> StoreFuture<'a, ()>;

    /// Deletes messages that were done with before `before`, except what was said last about alerts
    /// that still fire, and silences that ended before it; tells how many messages went.
    fn prune_outbox(&self, before: Timestamp) -> StoreFuture<'_, u64>;

    /// One alert.
    fn alert<'a>(&'a self, alert_id: &'a str) -> StoreFuture<'a, Option<StoredAlert>>;

    /// Up to `limit` alerts, newest first; only those that fire if `firing`.
    fn alerts(&self, firing: bool, limit: u32) -> StoreFuture<'_, Vec<StoredAlert>>;

    /// How many alerts fire of each severity that has one.
    fn firing(&self) -> StoreFuture<'_, Vec<Firing>>;

    /// Everything that was or is to be sent about one alert, in order.
    fn outbox_of<'a>(&'a self, alert_id: &'a str) -> StoreFuture<'a, Vec<StoredOutgoing>>;
}

/// Alerts of one severity that fire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firing {
    /// The severity.
    pub severity: String,
    /// How many.
    pub count: u64,
    /// When the oldest began.
    pub since: Timestamp,
}

/// The right to do a job that only one may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The job.
    pub name: String,
    /// Who does it.
    pub holder: String,
    /// Grows with every holder.
    pub epoch: i64,
}

/// Changes that belong together.
#[derive(Clone, Debug, Default)]
pub struct AlertBatch {
    /// States to keep; a later one of the same rule and sensor replaces an earlier one.
    pub states: Vec<AlertState>,
    /// Rule and sensor of states to forget.
    pub forgotten: Vec<(String, String)>,
    /// Alerts that began.
    pub fired: Vec<NewAlert>,
    /// Alerts that ended, and when.
    pub resolved: Vec<(String, Timestamp)>,
    /// What is to be sent.
    pub outbox: Vec<NewOutgoing>,
    /// What is to be sent to receivers; answered after `outbox`.
    pub notifications: Vec<NewNotification>,
    /// What happened to alerts, to explain them by.
    pub events: Vec<NewAlertEvent>,
    /// Alerts about whose end nothing more is to be notified, and since when.
    pub settled: Vec<(String, Timestamp)>,
    /// How far messages were evaluated that changed nothing.
    pub marks: Option<AlertMarks>,
}

/// An entry of a journal that belongs to a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertMarks {
    /// JSON of the alerting service.
    pub body: String,
    /// Whether it stands for all entries before it, which are deleted.
    pub replaces: bool,
}

impl AlertBatch {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
            && self.forgotten.is_empty()
            && self.fired.is_empty()
            && self.resolved.is_empty()
            && self.outbox.is_empty()
            && self.notifications.is_empty()
            && self.events.is_empty()
            && self.settled.is_empty()
            && self.marks.is_none()
    }

    /// The newest state of each rule and sensor: a statement may touch a row once.
    pub(crate) fn newest_states(&self) -> Vec<&AlertState> {
        let mut seen = std::collections::HashSet::new();
        let newest = self.states.iter().rev();
        newest
            .filter(|state| seen.insert((&state.rule, &state.sensor_id)))
            .collect()
    }
}

/// Where one rule is with one sensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertState {
    /// The rule.
    pub rule: String,
    /// The sensor.
    pub sensor_id: String,
    /// JSON of the alerting service.
    pub state: String,
    /// When it was written.
    pub updated_at: Timestamp,
}

/// An alert that began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAlert {
    /// Its name.
    pub alert_id: String,
    /// The rule.
    pub rule: String,
    /// `critical`, `warning` or `info`.
    pub severity: String,
    /// The sensor.
    pub sensor_id: String,
    /// A sentence for people.
    pub message: String,
    /// When it began, in event time.
    pub fired_at: Timestamp,
    /// A JSON object of strings, without spaces between them; its `state` follows that of the alert.
    pub metadata: String,
}

/// What the metadata of an alert holds while it fires, and what takes its place when it is over.
///
/// The text is replaced and not the member of an object: neither database has to be able to read it,
/// and it is exact, for within the strings of JSON no quote stands without its backslash.
pub(crate) const METADATA_STATES: [&str; 2] = [r#""state":"firing""#, r#""state":"resolved""#];

/// An alert as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAlert {
    /// How it began.
    pub alert: NewAlert,
    /// When it ended.
    pub resolved_at: Option<Timestamp>,
    /// When somebody took note of it.
    pub acknowledged_at: Option<Timestamp>,
    /// Who that was.
    pub acknowledged_by: Option<String>,
}

/// A message on its way into the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOutgoing {
    /// The same whoever writes it: a second one of the same name is not written.
    pub name: String,
    /// The alert it is about.
    pub alert_id: String,
    /// [`MQTT_CHANNEL`], or a receiver.
    pub channel: String,
    /// JSON of the alerting service.
    pub body: String,
    /// When it is to be sent.
    pub due_at: Timestamp,
}

/// A message in the outbox that is not yet sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Its place in the order.
    pub seq: i64,
    /// Its name.
    pub name: String,
    /// The alert it is about.
    pub alert_id: String,
    /// [`MQTT_CHANNEL`], or a receiver.
    pub channel: String,
    /// JSON of the alerting service.
    pub body: String,
    /// Attempts so far.
    pub attempts: u32,
}

/// A message in the outbox and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredOutgoing {
    /// The message.
    pub message: Outgoing,
    /// When it is to be sent next, or was.
    pub due_at: Timestamp,
    /// When it was done with.
    pub done_at: Option<Timestamp>,
    /// `sent`, `given_up` or `suppressed`.
    pub outcome: Option<String>,
    /// What the last attempt that failed was told.
    pub error: Option<String>,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is durable; these messages of it are new, in order.
    Done(Vec<Outgoing>),
    /// Nothing was written: the lease is somebody else's.
    Fenced,
}

/// Opens the alerts of the store at `url`, as [`open`](crate::open) does.
pub async fn open_alerts(
    url: &DatabaseUrl,
    options: OpenOptions,
) -> Result<Arc<dyn AlertStore>, StoreError> {
    match url {
        DatabaseUrl::Sqlite(path) => Ok(Arc::new(
            sqlite::SqliteAlerts::open(path.clone(), options).await?,
        )),
        DatabaseUrl::Postgres(url) => {
            Ok(Arc::new(postgres::PostgresStore::open(url, options).await?))
        }
    }
}
