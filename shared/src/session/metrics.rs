//! The three metrics that the field knows, per session.

use prometheus::{IntCounter, IntCounterVec, IntGauge};

use super::message::{ByteString, Message, QoS, Subscription};
use crate::telemetry::Metrics;
use crate::topic;

/// Counters of one session; the series are shared by all sessions of the process.
pub(super) struct SessionMetrics {
    published: IntCounterVec,
    received: IntCounterVec,
    status: IntGauge,
    disconnected: IntGauge,
    by_label: Vec<(&'static str, QoS, IntCounter)>,
    by_filter: Vec<(ByteString, IntCounter)>,
    connected: bool,
}

impl SessionMetrics {
    pub(super) fn new(metrics: &Metrics, subscriptions: &[Subscription]) -> Self {
        let received = metrics.counter_vec(
            "mqtt_messages_received_total",
            "Messages received, by the filter that asked for them.",
            &["topic"],
        );
        let mut this = Self {
            published: metrics.counter_vec(
                "mqtt_messages_published_total",
                "Messages published and acknowledged (QoS 0: written to the socket), by topic template.",
                &["topic", "qos"],
            ),
            status: metrics.gauge(
                "mqtt_connection_status",
                "1 while every MQTT session of the process is connected, else 0.",
            ),
            disconnected: metrics.gauge(
                "mqtt_sessions_disconnected",
                "MQTT sessions of the process without a connection.",
            ),
            by_label: Vec::new(),
            by_filter: Vec::new(),
            received,
            connected: false,
        };
        for subscription in subscriptions {
            this.subscribed(subscription);
        }
        this.disconnected.inc();
        this.update_status();
        this
    }

    /// Received messages are counted under this subscription from here on.
    pub(super) fn subscribed(&mut self, subscription: &Subscription) {
        let filter = &subscription.filter;
        if !self.by_filter.iter().any(|(known, _)| known == filter) {
            let label = subscription.label.unwrap_or(filter);
            let counter = self.received.with_label_values(&[label]);
            // Thousands of sessions in one process: the text is shared, and nothing is spare.
            self.by_filter.reserve_exact(1);
            self.by_filter.push((filter.clone(), counter));
        }
    }

    pub(super) fn published(&mut self, done: impl Iterator<Item = (&'static str, QoS)>) {
        for (label, qos) in done {
            let known = self
                .by_label
                .iter()
                .find(|(known, at, _)| *at == qos && std::ptr::eq(*known, label));
            if let Some((_, _, counter)) = known {
                counter.inc();
            } else {
                let counter = self.published.with_label_values(&[label, qos.as_str()]);
                counter.inc();
                self.by_label.push((label, qos, counter));
            }
        }
    }

    pub(super) fn received(&self, messages: &[Message]) {
        if let [(_, counter)] = self.by_filter.as_slice() {
            counter.inc_by(messages.len() as u64);
            return;
        }
        for message in messages {
            let found = self
                .by_filter
                .iter()
                .find(|(filter, _)| topic::matches(without_share(filter), &message.topic));
            match found {
                Some((_, counter)) => counter.inc(),
                // A filter of an earlier run that the broker's session still has.
                None => self.received.with_label_values(&["other"]).inc(),
            }
        }
    }

    pub(super) fn connected(&mut self, connected: bool) {
        if self.connected == connected {
            return;
        }
        self.connected = connected;
        if connected {
            self.disconnected.dec();
        } else {
            self.disconnected.inc();
        }
        self.update_status();
    }

    /// Sessions on several threads change the tally: whoever sets the status looks again, so the
    /// last one sets it right.
    fn update_status(&self) {
        let mut disconnected = self.disconnected.get();
        loop {
            self.status.set(i64::from(disconnected == 0));
            let again = self.disconnected.get();
            if again == disconnected {
                return;
            }
            disconnected = again;
        }
    }
}

impl Drop for SessionMetrics {
    /// A session that was stopped is neither connected nor missing.
    fn drop(&mut self) {
        if !self.connected {
            self.disconnected.dec();
            self.update_status();
        }
    }
}

/// The filter of `$share/{group}/{filter}`, or the whole (MQTT 5, section 4.8.2).
fn without_share(filter: &str) -> &str {
    filter
        .strip_prefix("$share/")
        .and_then(|rest| rest.split_once('/'))
        .map_or(filter, |(_, filter)| filter)
}
