//! What all devices of a run share.

use std::sync::Mutex;
use std::time::Duration;

use fleet_shared::model::to_micros;
use fleet_shared::session::{ConnectionError, PublishError};
use fleet_shared::telemetry::Metrics;
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::latency::Latency;
use crate::ledger::{Course, Ledger, NewEntry};
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
    /// The same moment by the clock of the machine.
    began: Timestamp,
    /// Whether steps are due at times of their own.
    paced: bool,
    /// The counters.
    pub(crate) tally: Tally,
    /// From due to acknowledged.
    pub(crate) latency: Latency,
    /// The series of the process.
    pub(crate) metrics: Metrics,
    /// Told when a device has finished.
    pub(crate) finished: Notify,
    ledger: Option<Ledger>,
    complaints: Mutex<Complaints>,
}

/// When a reading was due and when it was handed to its session, since the start of the run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HandedOver {
    due: Duration,
    at: Duration,
}

/// When the last complaint of each kind was logged.
#[derive(Debug, Default)]
struct Complaints {
    link: Option<Instant>,
    publish: Option<Instant>,
}

impl Run {
    pub(crate) fn new(
        start: Timestamp,
        paced: bool,
        metrics: &Metrics,
        ledger: Option<Ledger>,
    ) -> Self {
        Self {
            start,
            origin: Instant::now(),
            began: to_micros(Timestamp::now()),
            paced,
            latency: Latency::new(metrics),
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

    /// The course of a reading that is handed over now. In a run without times of its own, it is
    /// due when it is handed over.
    pub(crate) fn hand_over(&self, due: Duration) -> HandedOver {
        let at = self.origin.elapsed();
        let due = if self.paced { due } else { at };
        self.latency.handed_over(at.saturating_sub(due));
        HandedOver { due, at }
    }

    /// Enters an acknowledged reading in the ledger, and how long that took in the latencies.
    pub(crate) fn acknowledged(&self, entry: &NewEntry<'_>, handed_over: HandedOver) {
        let took = self.origin.elapsed().saturating_sub(handed_over.due);
        self.latency.acknowledged(took);
        let Some(ledger) = &self.ledger else {
            return;
        };
        let time = |since| to_micros(schedule::after(self.began, since));
        let course = Course {
            intended_at: self.paced.then(|| time(handed_over.due)),
            published_at: Some(time(handed_over.at)),
        };
        if let Err(error) = ledger.append_with(entry, &course) {
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
