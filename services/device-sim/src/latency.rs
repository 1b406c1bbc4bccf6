//! How long readings take from the time they are due to their acknowledgement.
//!
//! It is counted from the schedule and not from the moment of sending: a publish that had to wait
//! because the broker was slow has waited for the broker, and the figures say so.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fleet_shared::telemetry::Metrics;
use hdrhistogram::Histogram;
use prometheus::IntCounter;
use serde::Serialize;

/// A reading handed to its session so long after it was due is late. Timers are a few milliseconds
/// off by themselves on a busy machine.
const LATE_AFTER: Duration = Duration::from_millis(100);
/// Longest time that is told apart, in microseconds: an hour. Longer ones count as that.
const MICROS_MAX: u64 = 3_600_000_000;
/// Digits of a figure that are right.
const DIGITS: u8 = 3;
/// Bounds of the Prometheus histogram in seconds: from a broker on the same machine to one that was
/// away for a minute.
const BUCKETS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0,
];

/// Latencies of a run.
pub(crate) struct Latency {
    /// None only if its constants were wrong; a test makes one.
    micros: Option<Mutex<Histogram<u64>>>,
    late: AtomicU64,
    seconds: prometheus::Histogram,
    late_total: IntCounter,
}

/// What became of the schedule's times. In milliseconds, from due to acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Times {
    /// Half of the readings took at most this.
    pub p50_ms: f64,
    /// 90 of a hundred did.
    pub p90_ms: f64,
    /// 99 of a hundred did.
    pub p99_ms: f64,
    /// 999 of a thousand did.
    pub p999_ms: f64,
    /// The longest.
    pub max_ms: f64,
    /// Readings that were handed to their session more than 100 ms after they were due.
    pub late: u64,
}

impl Latency {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let micros = Histogram::new_with_bounds(1, MICROS_MAX, DIGITS);
        Self {
            micros: micros.ok().map(Mutex::new),
            late: AtomicU64::new(0),
            seconds: metrics.histogram(
                "sim_publish_latency_seconds",
                "Time from when a reading was due to its acknowledgement.",
                &BUCKETS,
            ),
            late_total: metrics.counter(
                "sim_publishes_late_total",
                "Readings handed to their session more than 100 ms after they were due.",
            ),
        }
    }

    /// A reading is handed to its session, so long after it was due.
    pub(crate) fn handed_over(&self, behind: Duration) {
        if behind > LATE_AFTER {
            self.late.fetch_add(1, Ordering::Relaxed);
            self.late_total.inc();
        }
    }

    /// A reading is acknowledged, so long after it was due.
    pub(crate) fn acknowledged(&self, took: Duration) {
        self.seconds.observe(took.as_secs_f64());
        if let Some(micros) = &self.micros {
            let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            let mut micros = micros.lock().unwrap_or_else(PoisonError::into_inner);
            micros.saturating_record(took);
        }
    }

    /// The figures so far; zeros when nothing was acknowledged.
    pub(crate) fn times(&self) -> Times {
        let mut times = Times {
            late: self.late.load(Ordering::Relaxed),
            ..Times::default()
        };
        if let Some(micros) = &self.micros {
            let micros = micros.lock().unwrap_or_else(PoisonError::into_inner);
            let at = |quantile| micros.value_at_quantile(quantile) as f64 / 1_000.0;
            times.p50_ms = at(0.5);
            times.p90_ms = at(0.9);
            times.p99_ms = at(0.99);
            times.p999_ms = at(0.999);
            times.max_ms = micros.max() as f64 / 1_000.0;
        }
        times
    }
}

impl std::fmt::Debug for Latency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.times().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_reading_counts_from_when_it_was_due() {
        let latency = Latency::new(&Metrics::new());
        for took in 1..=1_000 {
            latency.handed_over(Duration::from_millis(took));
            latency.acknowledged(Duration::from_millis(took));
        }
        let times = latency.times();
        assert_eq!(times.late, 900);
        for (found, wanted) in [
            (times.p50_ms, 500.0),
            (times.p90_ms, 900.0),
            (times.p99_ms, 990.0),
            (times.p999_ms, 999.0),
            (times.max_ms, 1_000.0),
        ] {
            assert!((found / wanted - 1.0).abs() < 0.002, "{found} {wanted}");
        }
    }

    #[test]
    fn an_endless_wait_is_the_longest_there_is() {
        let latency = Latency::new(&Metrics::new());
        latency.acknowledged(Duration::MAX);
        assert!(latency.times().max_ms >= 3_599_000.0);
    }
}
