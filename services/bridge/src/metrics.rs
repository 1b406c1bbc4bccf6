//! What the bridge counts.

use std::time::Duration;

use fleet_shared::telemetry::Metrics;
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use crate::reason::Reason;

/// The bridge's own metrics.
#[derive(Clone)]
pub(crate) struct BridgeMetrics {
    to_kafka: [IntCounter; 2],
    to_mqtt: [IntCounter; 2],
    reasons: IntCounterVec,
    delivery_seconds: Histogram,
    in_flight: IntGauge,
    in_flight_bytes: IntGauge,
    commands_in_flight: IntGauge,
}

impl BridgeMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let records = metrics.counter_vec(
            "bridge_records_total",
            "Messages and records that are durable on the other side and acknowledged on theirs.",
            &["direction", "outcome"],
        );
        let of = |direction: &str| {
            ["delivered", "dead_letter"]
                .map(|outcome| records.with_label_values(&[direction, outcome]))
        };
        let reasons = metrics.counter_vec(
            "bridge_dead_letters_total",
            "Dead letters of both directions, by reason.",
            &["reason"],
        );
        for reason in Reason::ALL {
            reasons.with_label_values(&[reason.as_str()]);
        }
        Self {
            to_kafka: of("mqtt_to_kafka"),
            to_mqtt: of("kafka_to_mqtt"),
            reasons,
            delivery_seconds: metrics.histogram(
                "bridge_delivery_seconds",
                "From a message's arrival to Kafka's delivery report.",
                &[
                    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0,
                ],
            ),
            in_flight: metrics.gauge(
                "bridge_in_flight_messages",
                "Messages received and not durable in Kafka yet.",
            ),
            in_flight_bytes: metrics.gauge(
                "bridge_in_flight_bytes",
                "Bytes of the records that stand for them.",
            ),
            commands_in_flight: metrics.gauge(
                "bridge_commands_in_flight",
                "Commands published and not acknowledged by the broker yet.",
            ),
        }
    }

    pub(crate) fn under_way(&self, messages: usize, bytes: usize) {
        self.in_flight.set(messages as i64);
        self.in_flight_bytes.set(bytes as i64);
    }

    pub(crate) fn delivered(&self, took: &[Duration]) {
        self.to_kafka[0].inc_by(took.len() as u64);
        let local = self.delivery_seconds.local();
        for took in took {
            local.observe(took.as_secs_f64());
        }
        local.flush();
    }

    pub(crate) fn message_lettered(&self, reason: Reason) {
        self.to_kafka[1].inc();
        self.reasons.with_label_values(&[reason.as_str()]).inc();
    }

    pub(crate) fn command_delivered(&self) {
        self.to_mqtt[0].inc();
    }

    pub(crate) fn command_lettered(&self, reason: Reason) {
        self.to_mqtt[1].inc();
        self.reasons.with_label_values(&[reason.as_str()]).inc();
    }

    pub(crate) fn commands_under_way(&self, commands: usize) {
        self.commands_in_flight.set(commands as i64);
    }
}
