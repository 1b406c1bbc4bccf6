//! What a run has done so far.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fleet_shared::session::QoS;
use fleet_shared::telemetry::Metrics;
use prometheus::{IntCounter, IntCounterVec, IntGauge};

/// What became of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The broker has acknowledged it; at QoS 0 it is written to the socket, and nobody will say
    /// more.
    Done,
    /// The broker refused it, or it could not be sent.
    Failed,
}

/// Where a device stands with its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// On its way to a connection.
    Connecting,
    /// CONNACK has arrived.
    Connected,
    /// Will not connect again.
    Stopped,
}

/// Counters of a run, read by the progress line, the summary and `/metrics`.
///
/// Readings and connections are counted for the run; the Prometheus series are those of the
/// process and hold status messages too.
#[derive(Debug)]
pub(crate) struct Tally {
    published: AtomicU64,
    acknowledged: AtomicU64,
    sent: AtomicU64,
    failed: AtomicU64,
    connected: AtomicU64,
    finished: AtomicU64,
    /// Devices that had a connection.
    ever_connected: AtomicU64,
    /// When a device last had its first connection, in microseconds since the start of the run.
    connected_at: AtomicU64,
    publishes: [[IntCounter; 2]; 3],
    requests: IntCounterVec,
    links: [IntGauge; 3],
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Readings handed to a session.
    pub(crate) published: u64,
    /// Readings that the broker has acknowledged.
    pub(crate) acknowledged: u64,
    /// Readings at QoS 0 that were written to a socket.
    pub(crate) sent: u64,
    /// Readings that did not reach the broker.
    pub(crate) failed: u64,
    /// Devices that are connected.
    pub(crate) connected: u64,
    /// Devices that have said all of their schedule and wait for nothing.
    pub(crate) finished: u64,
}

impl Count {
    /// Readings whose outcome is still open.
    pub(crate) fn outstanding(&self) -> u64 {
        self.published.saturating_sub(self.settled())
    }

    /// Readings whose outcome is known.
    pub(crate) fn settled(&self) -> u64 {
        self.acknowledged + self.sent + self.failed
    }
}

impl Tally {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let publishes = metrics.counter_vec(
            "sim_publishes_total",
            "Publishes of simulated devices by QoS and outcome.",
            &["qos", "outcome"],
        );
        let devices = metrics.gauge_vec(
            "sim_devices",
            "Simulated devices by the state of their connection.",
            &["state"],
        );
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
        let counter = |qos: QoS, outcome| publishes.with_label_values(&[qos.as_str(), outcome]);
        Self {
            published: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            connected: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            ever_connected: AtomicU64::new(0),
            connected_at: AtomicU64::new(0),
            publishes: qos.map(|qos| {
                let done = if qos == QoS::AtMostOnce {
                    "sent"
                } else {
                    "acknowledged"
                };
                [done, "failed"].map(|outcome| counter(qos, outcome))
            }),
            requests: metrics.counter_vec(
                "sim_requests_total",
                "Requests to simulated devices by command and outcome",
                &["command", "outcome"],
            ),
            links: ["connecting", "connected", "stopped"]
                .map(|state| devices.with_label_values(&[state])),
        }
    }

    /// A reading is on its way.
    pub(crate) fn published(&self) {
        self.published.fetch_add(1, Ordering::Relaxed);
    }

    /// The outcome of a reading is known.
    pub(crate) fn reading_settled(&self, qos: QoS, outcome: Outcome) {
        let counter = match (outcome, qos) {
            (Outcome::Failed, _) => &self.failed,
            (Outcome::Done, QoS::AtMostOnce) => &self.sent,
            (Outcome::Done, _) => &self.acknowledged,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.status_settled(qos, outcome);
    }

    /// The outcome of a status message is known.
    pub(crate) fn status_settled(&self, qos: QoS, outcome: Outcome) {
        self.publishes[qos as usize][outcome as usize].inc();
    }

    /// A request was dealt with; both labels are of closed sets.
    pub(crate) fn request(&self, command: &'static str, outcome: &'static str) {
        self.requests.with_label_values(&[command, outcome]).inc();
    }

    /// A device appears, with its connection on its way.
    pub(crate) fn device_started(&self) {
        self.links[Link::Connecting as usize].inc();
    }

    /// A device's connection changes.
    pub(crate) fn link_changed(&self, from: Link, to: Link) {
        self.links[from as usize].dec();
        self.links[to as usize].inc();
        if from == Link::Connected {
            self.connected.fetch_sub(1, Ordering::Relaxed);
        }
        if to == Link::Connected {
            self.connected.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A device has its first connection, so long after the start of the run.
    pub(crate) fn connected_first(&self, elapsed: Duration) {
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        self.connected_at.fetch_max(micros, Ordering::Relaxed);
        self.ever_connected.fetch_add(1, Ordering::Relaxed);
    }

    /// How many devices had a connection, and when the last of them had its first.
    pub(crate) fn ever_connected(&self) -> (u64, Duration) {
        let micros = self.connected_at.load(Ordering::Relaxed);
        let devices = self.ever_connected.load(Ordering::Relaxed);
        (devices, Duration::from_micros(micros))
    }

    /// A device disappears.
    pub(crate) fn device_gone(&self, from: Link) {
        self.links[from as usize].dec();
    }

    /// A device has said all of its schedule, and all of it is settled.
    pub(crate) fn device_finished(&self) {
        self.finished.fetch_add(1, Ordering::Relaxed);
    }

    /// The counters now.
    pub(crate) fn count(&self) -> Count {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Count {
            published: now(&self.published),
            acknowledged: now(&self.acknowledged),
            sent: now(&self.sent),
            failed: now(&self.failed),
            connected: now(&self.connected),
            finished: now(&self.finished),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_counted_by_what_became_of_them() {
        let metrics = Metrics::new();
        let tally = Tally::new(&metrics);
        for _ in 0..4 {
            tally.published();
        }
        tally.reading_settled(QoS::AtMostOnce, Outcome::Done);
        tally.reading_settled(QoS::ExactlyOnce, Outcome::Done);
        tally.reading_settled(QoS::ExactlyOnce, Outcome::Failed);
        tally.status_settled(QoS::AtLeastOnce, Outcome::Done);
        let count = tally.count();
        assert_eq!((count.sent, count.acknowledged, count.failed), (1, 1, 1));
        assert_eq!(count.outstanding(), 1);
        let series = metrics.encode();
        for line in [
            r#"sim_publishes_total{outcome="sent",qos="0"} 1"#,
            r#"sim_publishes_total{outcome="acknowledged",qos="1"} 1"#,
            r#"sim_publishes_total{outcome="failed",qos="2"} 1"#,
        ] {
            assert!(series.contains(line), "{line} in {series}");
        }
    }

    #[test]
    fn devices_are_counted_by_their_connection() {
        let metrics = Metrics::new();
        let tally = Tally::new(&metrics);
        tally.device_started();
        tally.device_started();
        tally.link_changed(Link::Connecting, Link::Connected);
        assert_eq!(tally.count().connected, 1);
        tally.link_changed(Link::Connected, Link::Stopped);
        tally.device_gone(Link::Stopped);
        assert_eq!(tally.count().connected, 0);
        let series = metrics.encode();
        assert!(
            series.contains(r#"sim_devices{state="connecting"} 1"#),
            "{series}"
        );
        assert!(
            series.contains(r#"sim_devices{state="stopped"} 0"#),
            "{series}"
        );
    }
}
