//! What ingest counts.

use std::time::Duration;

use fleet_shared::model::RejectReason;
use fleet_shared::telemetry::Metrics;
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use crate::commit::Committed;

/// Ingest's own metrics; the workers of a process share the series.
#[derive(Clone)]
pub(crate) struct IngestMetrics {
    stored: IntCounter,
    duplicate: IntCounter,
    conflict: IntCounter,
    dead_letter: IntCounter,
    reasons: IntCounterVec,
    session: IntCounter,
    unannounced: IntCounter,
    commit_seconds: Histogram,
    batch_readings: Histogram,
    delivery_seconds: Histogram,
    queue: IntGauge,
    retries: IntCounter,
}

impl IngestMetrics {
    /// The metrics as the worker `session` of the process sees them.
    pub(crate) fn new(metrics: &Metrics, session: usize) -> Self {
        let readings = metrics.counter_vec(
            "ingest_readings_total",
            "Messages that are durable and acknowledged, by what became of them.",
            &["outcome"],
        );
        let reasons = metrics.counter_vec(
            "ingest_dead_letters_total",
            "Dead letters, by reason.",
            &["reason"],
        );
        for reason in RejectReason::ALL {
            reasons.with_label_values(&[reason.as_str()]);
        }
        Self {
            stored: readings.with_label_values(&["stored"]),
            duplicate: readings.with_label_values(&["duplicate"]),
            conflict: readings.with_label_values(&["conflict"]),
            dead_letter: readings.with_label_values(&["dead_letter"]),
            reasons,
            session: metrics
                .counter_vec(
                    "ingest_session_messages_total",
                    "Messages made durable, by MQTT session of the process.",
                    &["session"],
                )
                .with_label_values(&[&session.to_string()]),
            unannounced: metrics.counter(
                "ingest_dead_letters_unannounced_total",
                "Dead letters that are stored but could not be published.",
            ),
            commit_seconds: metrics.histogram(
                "ingest_commit_seconds",
                "From handing a batch to the store until it is durable, retries included.",
                &[
                    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
                    10.0, 60.0,
                ],
            ),
            batch_readings: metrics.histogram(
                "ingest_batch_readings",
                "Messages a batch.",
                &[
                    1.0, 5.0, 10.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0,
                ],
            ),
            delivery_seconds: metrics.histogram(
                "ingest_delivery_seconds",
                "From a reading's timestamp to its commit.",
                &[
                    0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0,
                    60.0, 300.0, 3_600.0,
                ],
            ),
            queue: metrics.gauge(
                "ingest_queue_messages",
                "Messages received and not durable yet.",
            ),
            retries: metrics.counter(
                "ingest_store_retries_total",
                "Batches that the store did not take and that were tried again.",
            ),
        }
    }

    pub(crate) fn queued(&self, change: i64) {
        self.queue.add(change);
    }

    pub(crate) fn retried(&self) {
        self.retries.inc();
    }

    pub(crate) fn unannounced(&self) {
        self.unannounced.inc();
    }

    pub(crate) fn committed(&self, committed: &Committed, messages: usize, took: Duration) {
        let refused = committed.dead_letters.len() as u64 - committed.conflicts;
        self.stored.inc_by(committed.stored);
        self.duplicate.inc_by(committed.duplicates);
        self.conflict.inc_by(committed.conflicts);
        self.dead_letter.inc_by(refused);
        for letter in &committed.dead_letters {
            self.reasons.with_label_values(&[&letter.reason]).inc();
        }
        self.session.inc_by(messages as u64);
        self.commit_seconds.observe(took.as_secs_f64());
        self.batch_readings.observe(messages as f64);
        let local = self.delivery_seconds.local();
        for seconds in &committed.delivery_seconds {
            local.observe(*seconds);
        }
        local.flush();
    }
}
