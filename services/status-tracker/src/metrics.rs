//! What the tracker counts.

use fleet_shared::model::RejectReason;
use fleet_shared::telemetry::Metrics;
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec};

use crate::presence::State;

/// The tracker's own metrics.
#[derive(Clone)]
pub(crate) struct TrackerMetrics {
    devices: IntGaugeVec,
    transitions: IntCounterVec,
    refused: IntCounterVec,
    letters: IntCounterVec,
    repairs: IntCounterVec,
    waiting: IntGauge,
}

impl TrackerMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let this = Self {
            devices: metrics.gauge_vec("status_devices", "Devices by state.", &["state"]),
            transitions: metrics.counter_vec(
                "status_transitions_total",
                "Transitions of devices, by what they are now.",
                &["to"],
            ),
            refused: metrics.counter_vec(
                "status_messages_refused_total",
                "Messages that were not believed or could not be read, by reason.",
                &["reason"],
            ),
            letters: metrics.counter_vec(
                "status_dead_letters_total",
                "Messages of devices that were refused and are to be kept, by outcome.",
                &["outcome"],
            ),
            repairs: metrics.counter_vec(
                "status_repairs_total",
                "Retained statuses published anew because they were wrong, by outcome.",
                &["outcome"],
            ),
            waiting: metrics.gauge(
                "status_transitions_waiting",
                "Transitions that wait for the store.",
            ),
        };
        // A series that begins with its first event has no rate at that event.
        this.devices([0; 4]);
        for to in ["online", "offline"] {
            this.transitions.with_label_values(&[to]);
        }
        for reason in RejectReason::ALL {
            this.refused.with_label_values(&[reason.as_str()]);
        }
        this.refused.with_label_values(&["unknown_device"]);
        for outcome in ["stored", "known", "dropped"] {
            this.letters.with_label_values(&[outcome]);
        }
        for outcome in ["done", "failed"] {
            this.repairs.with_label_values(&[outcome]);
        }
        this
    }

    pub(crate) fn devices(&self, counts: [usize; 4]) {
        for (state, count) in State::ALL.into_iter().zip(counts) {
            let gauge = self.devices.with_label_values(&[state.as_str()]);
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    pub(crate) fn transition(&self, online: bool) {
        let to = if online { "online" } else { "offline" };
        self.transitions.with_label_values(&[to]).inc();
    }

    pub(crate) fn refused(&self, reason: &str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    /// So many dead letters are `stored`, were `known` to the store, or were `dropped`.
    pub(crate) fn lettered(&self, outcome: &str, count: usize) {
        let letters = self.letters.with_label_values(&[outcome]);
        letters.inc_by(count as u64);
    }

    pub(crate) fn repaired(&self, done: bool) {
        let outcome = if done { "done" } else { "failed" };
        self.repairs.with_label_values(&[outcome]).inc();
    }

    pub(crate) fn waiting(&self, transitions: usize) {
        self.waiting
            .set(i64::try_from(transitions).unwrap_or(i64::MAX));
    }
}
