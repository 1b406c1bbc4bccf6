//! What alerting counts.

use std::time::Duration;

use fleet_shared::model::{RejectReason, Severity};
use fleet_shared::telemetry::Metrics;
use fleet_store::MQTT_CHANNEL;
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use crate::engine::{Change, Evaluated};
use crate::route::Kind;
use crate::state::TransitionKind;

/// Alerting's own metrics.
#[derive(Clone)]
pub(crate) struct AlertingMetrics {
    evaluations: IntCounter,
    failures: IntCounter,
    stale: IntCounter,
    refused: IntCounterVec,
    alerts: IntCounterVec,
    latency: Histogram,
    sensors: IntGauge,
    active: IntGauge,
    reloads: IntCounterVec,
    notifications: IntCounterVec,
    notifying: IntGauge,
}

impl AlertingMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let alerts = metrics.counter_vec(
            "alerting_alerts_total",
            "Alerts that began or ended, durable.",
            &["severity", "state"],
        );
        for severity in Severity::ALL {
            for kind in [TransitionKind::Firing, TransitionKind::Resolved] {
                alerts.with_label_values(&[severity.as_str(), kind.as_str()]);
            }
        }
        let refused = metrics.counter_vec(
            "alerting_refused_total",
            "Messages that are no readings or statuses, by reason.",
            &["reason"],
        );
        for reason in RejectReason::ALL {
            refused.with_label_values(&[reason.as_str()]);
        }
        refused.with_label_values(&["too_many_sensors"]);
        let reloads = metrics.counter_vec(
            "alerting_reloads_total",
            "Changed files of rules and routes, by whether they were taken.",
            &["outcome"],
        );
        for outcome in ["taken", "refused"] {
            reloads.with_label_values(&[outcome]);
        }
        let notifications = metrics.counter_vec(
            "alerting_notifications_total",
            "Notifications by channel and what became of the attempt.",
            &["channel", "outcome"],
        );
        for channel in Kind::NAMES {
            for outcome in ["sent", "failed", "given_up", "suppressed"] {
                notifications.with_label_values(&[channel, outcome]);
            }
        }
        Self {
            notifications,
            notifying: metrics.gauge(
                "alerting_notifying",
                "Alerts about which something may still be notified.",
            ),
            evaluations: metrics.counter(
                "alerting_evaluations_total",
                "Rules evaluated, one for each message and rule that looks at it.",
            ),
            failures: metrics.counter(
                "alerting_evaluation_failures_total",
                "Evaluations that failed, such as a division by zero.",
            ),
            stale: metrics.counter(
                "alerting_stale_total",
                "Messages not newer than the last one of their sensor, and not evaluated.",
            ),
            refused,
            alerts,
            latency: metrics.histogram(
                "alerting_latency_seconds",
                "From the receipt of a reading to the broker's acknowledgement of its alert.",
                &[
                    0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
                ],
            ),
            sensors: metrics.gauge("alerting_sensors", "Sensors that rules have a state for."),
            active: metrics.gauge(
                "alerting_active",
                "1 in the process that evaluates, 0 in one that stands by.",
            ),
            reloads,
        }
    }

    pub(crate) fn evaluated(&self, evaluated: Evaluated) {
        self.evaluations.inc_by(evaluated.evaluations.into());
        self.failures.inc_by(evaluated.failures.into());
        if evaluated.stale {
            self.stale.inc();
        }
        if evaluated.refused {
            self.refused("too_many_sensors");
        }
    }

    /// What became of a notification: `sent`, `failed` (and is tried again), `given_up`, or
    /// `suppressed`; for an Alertmanager also `reminded` and `skipped`. Of what is published to the
    /// broker, `mqtt`, only what is given up.
    pub(crate) fn notified(&self, channel: &str, outcome: &str) {
        // A name from the store is one of a channel that was in the file once.
        let known = Kind::NAMES
            .into_iter()
            .chain([MQTT_CHANNEL])
            .find(|name| *name == channel);
        let labels = [known.unwrap_or("other"), outcome];
        self.notifications.with_label_values(&labels).inc();
    }

    pub(crate) fn notifying(&self, alerts: usize) {
        let alerts = i64::try_from(alerts).unwrap_or(i64::MAX);
        self.notifying.set(alerts);
    }

    pub(crate) fn refused(&self, reason: &str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    pub(crate) fn changed(&self, change: &Change) {
        let severity = change.rule.severity.as_str();
        for (transition, _) in &change.transitions {
            self.alerts
                .with_label_values(&[severity, transition.kind.as_str()])
                .inc();
        }
    }

    pub(crate) fn told(&self, latency: Duration) {
        self.latency.observe(latency.as_secs_f64());
    }

    pub(crate) fn sensors(&self, count: usize) {
        self.sensors.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(crate) fn active(&self, active: bool) {
        self.active.set(active.into());
    }

    pub(crate) fn reloaded(&self, taken: bool) {
        let outcome = if taken { "taken" } else { "refused" };
        self.reloads.with_label_values(&[outcome]).inc();
    }
}
