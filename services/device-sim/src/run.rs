//! What all devices of a run share.

use std::sync::Mutex;
use std::time::Duration;

use fleet_shared::model::to_micros;
use fleet_shared::session::{ConnectionError, PublishError};
use fleet_shared::telemetry::Metrics;
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::ledger::{Ledger, NewEntry};
use crate::schedule;
use crate::tally::Tally;

/// Thousands of devices lose one broker at the same time: one line in so long says it.
const COMPLAIN_AFTER: Duration = Duration::from_secs(1);

/// What all devices of a run share.
#[derive(Debug)]
pub(crate) struct Run {
    /// What the timestamps of live readings count from.
    pub(crate) start: Timestamp,
    /// The same moment on the clock by which steps are due.
    pub(crate) origin: Instant,
    /// The counters.
    pub(crate) tally: Tally,
    /// The series of the process.
    pub(crate) metrics: Metrics,
    /// Told when a device has finished.
    pub(crate) finished: Notify,
    ledger: Option<Ledger>,
    complaints: Mutex<Complaints>,
}

/// When the last complaint of each kind was logged.
#[derive(Debug, Default)]
struct Complaints {
    link: Option<Instant>,
    publish: Option<Instant>,
}

impl Run {
    pub(crate) fn new(start: Timestamp, metrics: &Metrics, ledger: Option<Ledger>) -> Self {
        Self {
            start,
            origin: Instant::now(),
            tally: Tally::new(metrics),
            metrics: metrics.clone(),
            finished: Notify::new(),
            ledger,
            complaints: Mutex::default(),
        }
    }

    /// The timestamp of a step that is due then.
    pub(crate) fn time_of(&self, due: Duration) -> Timestamp {
        to_micros(schedule::after(self.start, due))
    }

    /// The present, on the clock that the timestamps of the run follow.
    pub(crate) fn now(&self) -> Timestamp {
        self.time_of(self.origin.elapsed())
    }

    /// Enters an acknowledged reading in the ledger.
    pub(crate) fn record(&self, entry: &NewEntry<'_>) {
        let Some(ledger) = &self.ledger else {
            return;
        };
        if let Err(error) = ledger.append(entry) {
            tracing::error!(sensor = entry.sensor_id, %error, "a ledger entry cannot be encoded");
        }
    }

    /// Whether the ledger could not be written, so that the run is worth nothing.
    pub(crate) fn ledger_failed(&self) -> bool {
        self.ledger.as_ref().is_some_and(Ledger::has_failed)
    }

    /// A device has said all of its schedule, and all of it is settled.
    pub(crate) fn device_finished(&self) {
        self.tally.device_finished();
        self.finished.notify_one();
    }

    /// Logs a lost connection, unless another was logged just now.
    pub(crate) fn link_lost(
        &self,
        device: &str,
        error: &ConnectionError,
        retry_in: Option<Duration>,
    ) {
        if self.may_complain(|complaints| &mut complaints.link) {
            let reason = chain(error);
            let connected = self.tally.count().connected;
            tracing::warn!(
                device,
                reason,
                ?retry_in,
                connected,
                "a device is not connected"
            );
        }
    }

    /// Logs a failed publish, unless another was logged just now. One that was given up because
    /// the session was stopped is no failure of anybody.
    pub(crate) fn publish_failed(&self, error: &PublishError) {
        if *error != PublishError::Stopped
            && self.may_complain(|complaints| &mut complaints.publish)
        {
            let failed = self.tally.count().failed;
            tracing::warn!(%error, failed, "a publish failed");
        }
    }

    fn may_complain(&self, last: fn(&mut Complaints) -> &mut Option<Instant>) -> bool {
        let mut complaints = self
            .complaints
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let last = last(&mut complaints);
        let now = Instant::now();
        let may = last.is_none_or(|last| now - last >= COMPLAIN_AFTER);
        if may {
            *last = Some(now);
        }
        may
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
