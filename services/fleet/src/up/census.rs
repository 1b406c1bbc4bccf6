//! Reads the numbers of the summary out of the process's metrics.

/// What the metrics say at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Census {
    /// Simulated devices that are connected.
    pub(crate) devices_connected: u64,
    /// New rows.
    pub(crate) stored: u64,
    /// Readings that were stored before.
    pub(crate) duplicates: u64,
    /// Readings whose key was stored with another value.
    pub(crate) conflicts: u64,
    /// Messages that are no readings.
    pub(crate) dead_letters: u64,
    /// Alerts that began in this run.
    pub(crate) alerts_fired: u64,
    /// Alerts that ended in this run.
    pub(crate) alerts_resolved: u64,
    /// Messages made durable by each ingest worker, in the order of their numbers.
    pub(crate) workers: Vec<u64>,
    /// Seconds from a reading's timestamp to its commit: half and 99 % of them are below; none
    /// before the first.
    pub(crate) delivery: Option<[f64; 2]>,
}

impl Census {
    /// Reads Prometheus' text format.
    pub(crate) fn of(metrics: &str) -> Self {
        let mut census = Self::default();
        let mut workers = Vec::new();
        let mut buckets = Vec::new();
        for line in metrics.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let Ok(value) = value.parse::<f64>() else {
                continue;
            };
            // Counters hold whole numbers below 2^53.
            let count = value as u64;
            match name {
                "sim_devices" if label(labels, "state") == Some("connected") => {
                    census.devices_connected = count;
                }
                "ingest_readings_total" => match label(labels, "outcome") {
                    Some("stored") => census.stored = count,
                    Some("duplicate") => census.duplicates = count,
                    Some("conflict") => census.conflicts = count,
                    Some("dead_letter") => census.dead_letters = count,
                    _ => {}
                },
                "alerting_alerts_total" => match label(labels, "state") {
                    Some("firing") => census.alerts_fired += count,
                    Some("resolved") => census.alerts_resolved += count,
                    _ => {}
                },
                "ingest_session_messages_total" => {
                    let number = label(labels, "session").and_then(|text| text.parse::<u32>().ok());
                    workers.extend(number.map(|number| (number, count)));
                }
                "ingest_delivery_seconds_bucket" => {
                    let bound = label(labels, "le").and_then(|text| text.parse().ok());
                    buckets.extend(bound.map(|bound: f64| (bound, value)));
                }
                _ => {}
            }
        }
        workers.sort_unstable();
        census.workers = workers.into_iter().map(|(_, count)| count).collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        census.delivery = quantile(&buckets, 0.5)
            .zip(quantile(&buckets, 0.99))
            .map(<[f64; 2]>::from);
        census
    }
}

/// The value of a label; ours hold no quotes and no commas.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    labels.trim_end_matches('}').split(',').find_map(|pair| {
        pair.strip_prefix(name)?
            .strip_prefix("=\"")?
            .strip_suffix('"')
    })
}

/// The value below which the share `q` of a histogram lies, from cumulative buckets, evenly spread
/// within its bucket; the highest finite bound when it lies above.
fn quantile(buckets: &[(f64, f64)], q: f64) -> Option<f64> {
    let total = buckets.last()?.1;
    if total <= 0.0 {
        return None;
    }
    let rank = q * total;
    let at = buckets.iter().position(|(_, count)| *count >= rank)?;
    let (lower, below) = match at.checked_sub(1) {
        Some(before) => buckets[before],
        None => (0.0, 0.0),
    };
    let (upper, count) = buckets[at];
    if upper.is_infinite() {
        return Some(lower);
    }
    Some(lower + (upper - lower) * (rank - below) / (count - below))
}

#[cfg(test)]
mod tests {
    use fleet_shared::telemetry::Metrics;

    use super::*;

    #[test]
    fn numbers_come_from_the_series_of_the_services() {
        let metrics = Metrics::new();
        let readings = metrics.counter_vec("ingest_readings_total", "Readings.", &["outcome"]);
        for (outcome, count) in [
            ("stored", 90),
            ("duplicate", 4),
            ("conflict", 3),
            ("dead_letter", 2),
        ] {
            readings.with_label_values(&[outcome]).inc_by(count);
        }
        let sessions =
            metrics.counter_vec("ingest_session_messages_total", "Messages.", &["session"]);
        for (session, count) in [("10", 7), ("2", 50), ("0", 42)] {
            sessions.with_label_values(&[session]).inc_by(count);
        }
        let alerts =
            metrics.counter_vec("alerting_alerts_total", "Alerts.", &["severity", "state"]);
        for (severity, state, count) in [
            ("critical", "firing", 3),
            ("info", "firing", 2),
            ("info", "resolved", 1),
        ] {
            alerts.with_label_values(&[severity, state]).inc_by(count);
        }
        let devices = metrics.gauge_vec("sim_devices", "Devices.", &["state"]);
        devices.with_label_values(&["connected"]).set(8);
        devices.with_label_values(&["connecting"]).set(2);
        let delivery = metrics.histogram("ingest_delivery_seconds", "Delivery.", &[0.01, 0.1, 1.0]);
        (0..90).for_each(|_| delivery.observe(0.05));
        (0..10).for_each(|_| delivery.observe(0.5));
        let census = Census::of(&metrics.encode());
        let [p50, p99] = census.delivery.unwrap();
        assert!(
            (p50 - 0.06).abs() < 1e-9 && (p99 - 0.91).abs() < 1e-9,
            "{p50} {p99}"
        );
        let expected = Census {
            devices_connected: 8,
            stored: 90,
            duplicates: 4,
            conflicts: 3,
            dead_letters: 2,
            alerts_fired: 5,
            alerts_resolved: 1,
            workers: vec![42, 50, 7],
            delivery: census.delivery,
        };
        assert_eq!(census, expected);
    }

    #[test]
    fn nothing_measured_is_no_delivery_and_too_slow_is_the_last_bound() {
        assert_eq!(Census::of("").delivery, None);
        assert_eq!(Census::of("rubbish\nsim_devices{\n # \n").delivery, None);
        assert_eq!(quantile(&[(1.0, 0.0), (f64::INFINITY, 0.0)], 0.5), None);
        assert_eq!(
            quantile(&[(1.0, 0.0), (f64::INFINITY, 5.0)], 0.5),
            Some(1.0)
        );
    }
}
