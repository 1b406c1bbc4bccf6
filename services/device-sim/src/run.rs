//! What all devices of a run share.

use std::sync::Mutex;
use std::time::Duration;

use fleet_shared::model::to_micros;
use fleet_shared::session::{ConnectionError, PublishError};
use fleet_shared::telemetry::{Metrics, Tracer};
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::chaos::Wrong;
use crate::latency::Latency;
use crate::ledger::{
    Course, DeadLetterEntry, Ledger, LinkEntry, LinkFault, NewEntry, OpenEntry, OpenReason,
    WithheldEntry, payload_hash,
};
use crate::schedule::{self, Action};
use crate::sensor::Measurement;
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
    /// Begins the spans of readings.
    pub(crate) tracer: Tracer,
    /// Told when a device has finished.
    pub(crate) finished: Notify,
    ledger: Option<Ledger>,
    complaints: Mutex<Complaints>,
}

/// When a reading was due and when it was handed to its session, since the start of the run.
#[derive(Clone, Copy, Debug, Default)]
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
        tracer: Tracer,
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
            tracer,
            finished: Notify::new(),
            ledger,
            complaints: Mutex::default(),
        }
    }

    /// The time since the start of the run.
    pub(crate) fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }

    /// The timestamp of a step that is due then.
    pub(crate) fn time_of(&self, due: Duration) -> Timestamp {
        to_micros(schedule::after(self.start, due))
    }

    /// The present, on the clock that the timestamps of the run follow.
    pub(crate) fn now(&self) -> Timestamp {
        self.time_of(self.origin.elapsed())
    }

    /// The times of a step that is handed over at `at`; a reading is counted. In a run without times of its own, it is
    /// due when it is handed over.
    pub(crate) fn hand_over(&self, due: Duration, at: Duration, action: &Action) -> HandedOver {
        let due = if self.paced { due } else { at };
        if matches!(action, Action::Measure(_)) {
            self.tally.published();
            self.latency.handed_over(at.saturating_sub(due));
        }
        HandedOver { due, at }
    }

    /// Enters an acknowledged reading in the ledger, and how long that took in the latencies.
    pub(crate) fn acknowledged(&self, measurement: &Measurement, handed_over: HandedOver) {
        let now = self.elapsed();
        self.latency
            .acknowledged(now.saturating_sub(handed_over.due));
        if self.ledger.is_none() {
            return;
        }
        let time = |since| to_micros(schedule::after(self.began, since));
        let course = Course {
            intended_at: self.paced.then(|| time(handed_over.due)),
            published_at: Some(time(handed_over.at)),
            intents: measurement.intents,
        };
        let channel = &measurement.sensor.channel;
        let entry = NewEntry {
            sensor_id: &measurement.sensor.id,
            kind: &channel.kind,
            timestamp: measurement.timestamp,
            value: measurement.value,
            qos: channel.qos,
            topic: &channel.topic,
            acknowledged_at: time(now),
        };
        self.enter(|ledger| ledger.append_with(&entry, &course));
    }

    /// Enters a reading of which nobody knows whether the broker has it.
    pub(crate) fn left_open(&self, measurement: &Measurement, open: OpenReason) {
        let channel = &measurement.sensor.channel;
        self.enter(|ledger| {
            ledger.append_other(&OpenEntry {
                open,
                sensor_id: measurement.sensor.id.to_string(),
                kind: channel.kind.to_string(),
                timestamp: measurement.timestamp,
                value: measurement.value,
                qos: channel.qos,
                topic: channel.topic.to_string(),
            })
        });
    }

    /// Enters a reading that is kept back.
    pub(crate) fn withheld(&self, measurement: &Measurement) {
        self.enter(|ledger| {
            ledger.append_other(&WithheldEntry {
                withheld: "missing".to_owned(),
                sensor_id: measurement.sensor.id.to_string(),
                kind: measurement.sensor.channel.kind.to_string(),
                timestamp: measurement.timestamp,
            })
        });
    }

    /// Enters what is done to a connection, from `at` since the start of the run on.
    pub(crate) fn link_fault(&self, device: &str, link: LinkFault, at: Duration, lasts: Duration) {
        self.enter(|ledger| {
            ledger.append_other(&LinkEntry {
                link,
                device_id: device.to_owned(),
                at: to_micros(schedule::after(self.began, at)),
                lasts_ms: u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX),
            })
        });
    }

    /// Enters a message that must be refused and is acknowledged.
    pub(crate) fn wrong_acknowledged(&self, wrong: &Wrong) {
        self.enter(|ledger| {
            ledger.append_other(&DeadLetterEntry {
                dead_letter: wrong.reason,
                intent: format!("malformed:{}", wrong.reason),
                topic: wrong.topic.to_string(),
                payload_hash: payload_hash(&wrong.payload),
                payload_bytes: wrong.payload.len() as u64,
                sensor_id: wrong.of.sensor.id.to_string(),
                kind: wrong.of.sensor.channel.kind.to_string(),
                timestamp: wrong.of.timestamp,
                qos: wrong.qos(),
                acknowledged_at: Timestamp::now(),
            })
        });
    }

    fn enter(&self, append: impl FnOnce(&Ledger) -> serde_json::Result<()>) {
        if let Some(ledger) = &self.ledger
            && let Err(error) = append(ledger)
        {
            tracing::error!(%error, "a ledger entry cannot be encoded");
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
