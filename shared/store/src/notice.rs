//! What is told about alerts, and what people answer: pages, stories, notifications and their
//! attempts, acknowledgements, silences.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use crate::alert::{NewOutgoing, Outgoing, StoredAlert, StoredOutgoing};
use crate::{DeadLetter, Silence, StoreFuture};

/// Events kept of one alert; further ones are left out, except [`EventKind::is_kept`].
pub const ALERT_EVENTS_MAX: u32 = 64;

/// Attempts kept of one notification; further ones are counted in its row only.
pub const ATTEMPTS_KEPT_MAX: u32 = 50;

/// The part of [`AlertStore`](crate::AlertStore) that is about people.
pub trait Notices: Send + Sync {
    /// Notes that `by` has taken note of an alert; who was first stays. Answers the alert as it is
    /// then, none if there is no such alert.
    fn acknowledge_alert<'a>(
        &'a self,
        alert_id: &'a str,
        at: Timestamp,
        by: &'a str,
    ) -> StoreFuture<'a, Option<StoredAlert>>;

    /// Up to `limit` alerts that pass `filter`, newest first, after the alert `after`: pass
    /// [`AlertCursor::of`] the last one of a page to get the next, none to begin.
    fn alert_page<'a>(
        &'a self,
        filter: &'a AlertFilter,
        after: Option<&'a AlertCursor>,
        limit: u32,
    ) -> StoreFuture<'a, Vec<StoredAlert>>;

    /// Everything that is known about one alert.
    fn alert_story<'a>(&'a self, alert_id: &'a str) -> StoreFuture<'a, Option<AlertStory>>;

    /// Keeps a silence; false, and nothing is kept, if [`SILENCES_MAX`](crate::SILENCES_MAX) are
    /// there that have not ended. One of the same id stays as it is.
    fn create_silence<'a>(&'a self, silence: &'a Silence) -> StoreFuture<'a, bool>;

    /// Silences that end after `ended_after`, oldest first: `Timestamp::now()` leaves out those that
    /// have ended.
    fn silences(&self, ended_after: Timestamp) -> StoreFuture<'_, Vec<Silence>>;

    /// Deletes a silence; false if there is none.
    fn delete_silence(&self, id: Uuid) -> StoreFuture<'_, bool>;

    /// What whoever begins to notify has to know.
    fn unsettled(&self) -> StoreFuture<'_, Unsettled>;

    /// Acknowledged alerts about which something may still be notified.
    fn acknowledgements(&self) -> StoreFuture<'_, Vec<Acknowledgement>>;

    /// Up to `limit` notifications for `channel` that are not done with, those due first first, each
    /// with when it is due.
    fn notifications_for<'a>(
        &'a self,
        channel: &'a str,
        limit: u32,
    ) -> StoreFuture<'a, Vec<(Outgoing, Timestamp)>>;

    /// Notes an attempt to send a notification and what follows from it, in one transaction. An
    /// attempt that is noted already, or on what is done with, changes nothing.
    fn note_attempt<'a>(&'a self, attempt: &'a NewAttempt) -> StoreFuture<'a, ()>;
}

/// Which alerts are wanted; all without.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlertFilter {
    /// In this state only.
    pub state: Option<AlertPhase>,
    /// Of this severity only: `critical`, `warning` or `info`.
    pub severity: Option<String>,
    /// About this sensor only.
    pub sensor_id: Option<String>,
}

/// What people distinguish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertPhase {
    /// Not resolved, whether acknowledged or not.
    Firing,
    /// Not resolved, and somebody has taken note.
    Acknowledged,
    /// It has ended.
    Resolved,
}

impl AlertPhase {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Firing, Self::Acknowledged, Self::Resolved];

    /// As queries and flags write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Acknowledged => "acknowledged",
            Self::Resolved => "resolved",
        }
    }

    /// As a condition of SQL.
    pub(crate) const fn condition(self) -> &'static str {
        match self {
            Self::Firing => "resolved_at IS NULL",
            Self::Acknowledged => "resolved_at IS NULL AND acknowledged_at IS NOT NULL",
            Self::Resolved => "resolved_at IS NOT NULL",
        }
    }
}

/// A place in the order of alerts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertCursor {
    /// When the alert there began.
    pub fired_at: Timestamp,
    /// Its name.
    pub alert_id: String,
}

impl AlertCursor {
    /// The place of an alert.
    #[must_use]
    pub fn of(alert: &StoredAlert) -> Self {
        Self {
            fired_at: alert.alert.fired_at,
            alert_id: alert.alert.alert_id.clone(),
        }
    }
}

/// An alert with all that led to it and followed from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertStory {
    /// The alert.
    pub alert: StoredAlert,
    /// Its inputs and states, its routes and what suppressed it, in the order of their happening; at
    /// most about [`ALERT_EVENTS_MAX`].
    pub events: Vec<AlertEvent>,
    /// What was or is to be sent about it, to the broker and to receivers, in order.
    pub messages: Vec<StoryMessage>,
}

/// Something that happened to an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertEvent {
    /// When; in the time of the readings for states, by the clock for the rest.
    pub at: Timestamp,
    /// What, one of [`EventKind`].
    pub kind: String,
    /// A JSON object of the alerting service.
    pub detail: String,
}

/// What can happen to an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The condition began to hold.
    Pending,
    /// It fires.
    Firing,
    /// The condition is cleared, and it fires on for a while.
    Clearing,
    /// The condition holds again before that while was over.
    FiringAgain,
    /// It ended.
    Resolved,
    /// Somebody took note of it.
    Acknowledged,
    /// It was given to a route.
    Routed,
    /// It would have been told, but for a silence, another alert, or the time of day.
    Suppressed,
    /// What suppressed it is over.
    Released,
}

impl EventKind {
    /// As it is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Firing => "firing",
            Self::Clearing => "clearing",
            Self::FiringAgain => "firing_again",
            Self::Resolved => "resolved",
            Self::Acknowledged => "acknowledged",
            Self::Routed => "routed",
            Self::Suppressed => "suppressed",
            Self::Released => "released",
        }
    }

    /// Whether it is kept however many there are: these happen once.
    #[must_use]
    pub const fn is_kept(self) -> bool {
        matches!(
            self,
            Self::Pending | Self::Firing | Self::Resolved | Self::Acknowledged
        )
    }
}

/// An event on its way into the store; a second one of the same alert, time and kind is not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAlertEvent {
    /// The alert.
    pub alert_id: String,
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: EventKind,
    /// A JSON object.
    pub detail: String,
}

/// A message about an alert, and the attempts to send it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoryMessage {
    /// The message and what became of it.
    pub stored: StoredOutgoing,
    /// The group of alerts it is about; none for one to the broker.
    pub group_key: Option<String>,
    /// What it says of this alert: `firing` or `resolved`; none for one to the broker.
    pub says: Option<String>,
    /// Attempts in order, at most [`ATTEMPTS_KEPT_MAX`]; none for one to the broker.
    pub attempts: Vec<StoredAttempt>,
}

/// An attempt to send a notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAttempt {
    /// From 1.
    pub attempt: u32,
    /// When it ended.
    pub at: Timestamp,
    /// How long it took.
    pub took: Duration,
    /// `sent`, `failed` or `given_up`.
    pub outcome: String,
    /// What the receiver or the network said.
    pub error: Option<String>,
}

/// A notification on its way into the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNotification {
    /// The message.
    pub message: NewOutgoing,
    /// The group of alerts it is about.
    pub group_key: String,
    /// When it was decided on.
    pub queued_at: Timestamp,
    /// The alerts it is about, and what it says of each: `firing` or `resolved`.
    pub alerts: Vec<(String, &'static str)>,
}

/// What is still to be notified, or may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unsettled {
    /// Alerts that fire, or whose end was not told to everybody yet.
    pub alerts: Vec<StoredAlert>,
    /// What was last told of them, to whom.
    pub told: Vec<Told>,
    /// Group and channel of notifications that are not done with.
    pub waiting: Vec<(String, String)>,
}

/// The last notification of a group and channel that was about an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The group.
    pub group_key: String,
    /// The channel.
    pub channel: String,
    /// The alert.
    pub alert_id: String,
    /// `firing` or `resolved`.
    pub state: String,
    /// When it was decided on.
    pub at: Timestamp,
}

/// Who took note of an alert, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The alert.
    pub alert_id: String,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: String,
}

/// An attempt on its way into the store.
#[derive(Clone, Debug, PartialEq)]
pub struct NewAttempt {
    /// The message.
    pub seq: i64,
    /// Its number, from 1: one more than the attempts of the message before it.
    pub attempt: u32,
    /// When it ended.
    pub at: Timestamp,
    /// How long it took.
    pub took: Duration,
    /// What went wrong, if anything did.
    pub error: Option<String>,
    /// What follows.
    pub outcome: AttemptOutcome,
}

/// What follows from an attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum AttemptOutcome {
    /// The receiver has it.
    Sent,
    /// Another one, when it is due.
    Failed {
        /// When.
        due_at: Timestamp,
    },
    /// No other one.
    GivenUp(Box<GivenUp>),
}

/// What takes the place of a notification that is given up.
#[derive(Clone, Debug, PartialEq)]
pub struct GivenUp {
    /// What is kept.
    pub dead_letter: DeadLetter,
    /// What the broker is told.
    pub message: NewOutgoing,
}

impl AttemptOutcome {
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Failed { .. } => "failed",
            Self::GivenUp(_) => "given_up",
        }
    }
}
