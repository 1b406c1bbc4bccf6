//! Prometheus metrics, found again by name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

/// The metrics of a process; cheap to clone.
///
/// Asking twice for a name gives the same series, so that several workers in one process count
/// together. Asking for it as another kind or with other labels is a mistake in the program, and
/// panics with the name.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    known: Arc<Mutex<HashMap<String, Known>>>,
}

#[derive(Clone)]
struct Known {
    labels: Vec<String>,
    metric: Metric,
}

#[derive(Clone)]
enum Metric {
    Counter(IntCounterVec),
    Gauge(IntGaugeVec),
    Histogram(HistogramVec),
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// An empty registry that also reports the process's CPU time, memory and file descriptors.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        #[cfg(target_os = "linux")]
        register(
            &registry,
            prometheus::process_collector::ProcessCollector::for_self(),
        );
        Self {
            registry,
            known: Arc::default(),
        }
    }

    /// Sets `fleet_build_info{service,version}` to 1, for joins in queries.
    pub fn build_info(&self, service: &str, version: &str) {
        self.gauge_vec(
            "fleet_build_info",
            "The service and version that run.",
            &["service", "version"],
        )
        .with_label_values(&[service, version])
        .set(1);
    }

    /// A counter without labels.
    #[must_use]
    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.counter_vec(name, help, &[])
            .with_label_values(&[] as &[&str])
    }

    /// A counter with labels; each label's values must be a small closed set.
    #[must_use]
    pub fn counter_vec(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        let metric = self.get_or_create(name, labels, |registry| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels).expect(VALID);
            register(registry, counter.clone());
            Metric::Counter(counter)
        });
        match metric {
            Metric::Counter(counter) => counter,
            _ => panic!("metric {name} is registered, but not as a counter"),
        }
    }

    /// A gauge without labels.
    #[must_use]
    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.gauge_vec(name, help, &[])
            .with_label_values(&[] as &[&str])
    }

    /// A gauge with labels; each label's values must be a small closed set.
    #[must_use]
    pub fn gauge_vec(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        let metric = self.get_or_create(name, labels, |registry| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), labels).expect(VALID);
            register(registry, gauge.clone());
            Metric::Gauge(gauge)
        });
        match metric {
            Metric::Gauge(gauge) => gauge,
            _ => panic!("metric {name} is registered, but not as a gauge"),
        }
    }

    /// A histogram without labels; `buckets` are upper bounds in the unit that ends the name,
    /// ascending. The buckets of the first call hold.
    #[must_use]
    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.histogram_vec(name, help, buckets, &[])
            .with_label_values(&[] as &[&str])
    }

    /// A histogram with labels; see [`Metrics::histogram`] and [`Metrics::counter_vec`].
    #[must_use]
    pub fn histogram_vec(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        labels: &[&str],
    ) -> HistogramVec {
        let metric = self.get_or_create(name, labels, |registry| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            let histogram = HistogramVec::new(options, labels).expect(VALID);
            register(registry, histogram.clone());
            Metric::Histogram(histogram)
        });
        match metric {
            Metric::Histogram(histogram) => histogram,
            _ => panic!("metric {name} is registered, but not as a histogram"),
        }
    }

    /// Everything in the text format of Prometheus, version 0.0.4.
    #[must_use]
    pub fn encode(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .expect("gathered families are well formed, and a string takes every write")
    }

    fn get_or_create(
        &self,
        name: &str,
        labels: &[&str],
        create: impl FnOnce(&Registry) -> Metric,
    ) -> Metric {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(name) {
            assert_eq!(
                found.labels, labels,
                "metric {name} is registered with other labels"
            );
            return found.metric.clone();
        }
        let metric = create(&self.registry);
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        known.insert(
            name.to_owned(),
            Known {
                labels,
                metric: metric.clone(),
            },
        );
        metric
    }
}

const VALID: &str =
    "names, labels and buckets are literals of the program and follow Prometheus' rules";

fn register(registry: &Registry, collector: impl Collector + 'static) {
    registry
        .register(Box::new(collector))
        .expect("every name is registered once, by the map above the registry");
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_name_is_the_same_series() {
        let metrics = Metrics::new();
        metrics.counter("taken_total", "Taken.").inc_by(2);
        metrics.clone().counter("taken_total", "Taken.").inc();
        metrics
            .counter_vec("stored_total", "Stored.", &["outcome"])
            .with_label_values(&["duplicate"])
            .inc();
        metrics.gauge("queue", "Waiting.").set(-4);
        metrics
            .histogram("commit_seconds", "Commits.", &[0.1, 1.0])
            .observe(0.5);
        let text = metrics.encode();
        for line in [
            "taken_total 3",
            "stored_total{outcome=\"duplicate\"} 1",
            "queue -4",
            "commit_seconds_bucket{le=\"0.1\"} 0",
            "commit_seconds_bucket{le=\"1\"} 1",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} not in:\n{text}"
            );
        }
    }

    #[test]
    fn process_and_build_are_reported() {
        let metrics = Metrics::new();
        metrics.build_info("ingest", "0.1.0");
        metrics.build_info("ingest", "0.1.0");
        let text = metrics.encode();
        assert!(
            text.contains("fleet_build_info{service=\"ingest\",version=\"0.1.0\"} 1\n"),
            "{text}"
        );
        assert!(
            !cfg!(target_os = "linux") || text.contains("process_resident_memory_bytes"),
            "{text}"
        );
    }

    #[test]
    #[should_panic(expected = "metric stored_total is registered with other labels")]
    fn other_labels_for_a_name_are_a_mistake() {
        let metrics = Metrics::new();
        drop(metrics.counter_vec("stored_total", "Stored.", &["outcome"]));
        drop(metrics.counter_vec("stored_total", "Stored.", &["reason"]));
    }

    #[test]
    #[should_panic(expected = "metric queue is registered, but not as a counter")]
    fn other_kind_for_a_name_is_a_mistake() {
        let metrics = Metrics::new();
        drop(metrics.gauge("queue", "Waiting."));
        drop(metrics.counter("queue", "Waiting."));
    }
}
