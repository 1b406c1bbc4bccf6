//! What a worker of ingest tells of itself every few seconds, for the fleet at a glance.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::session::{Publish, QoS};
use crate::topic::{self, TopicError, templates};

/// How often a worker reports.
pub const REPORT_EVERY: Duration = Duration::from_secs(5);

/// Buckets a doubling: a percentile is at most a ninth too high.
const STEPS: u64 = 8;

/// Longest delay that is told apart, in microseconds: a day.
const DELAY_MAX_US: u64 = 86_400_000_000;

/// Published with QoS 0, not retained, on `fleet/services/ingest/{instance}/report`: what became of
/// the messages since the report before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IngestReport {
    /// Which worker: the client id of its session.
    pub instance: String,
    /// The group whose readings it shares.
    pub group: String,
    /// When it was written.
    pub at: Timestamp,
    /// What it covers, in seconds.
    pub seconds: f64,
    /// New rows.
    pub stored: u64,
    /// Messages that became dead letters.
    pub dead_letters: u64,
    /// Messages received and not durable yet.
    pub queue: u64,
    /// Most messages the broker may have under way to it.
    pub window: u64,
    /// From a reading's timestamp to its commit: pairs of a bucket's upper end, in microseconds, and
    /// the readings in it, in rising order.
    pub delivery_us: Delays,
}

impl IngestReport {
    /// As it is published.
    ///
    /// # Errors
    /// If the instance cannot be a topic level.
    pub fn publish(&self) -> Result<Publish, TopicError> {
        let topic = topic::service_report("ingest", &self.instance)?;
        let json = serde_json::to_vec(self).expect("strings, times and numbers always serialize");
        Ok(Publish::new(topic, templates::SERVICE_REPORT, json).qos(QoS::AtMostOnce))
    }
}

/// How long things took, in buckets that grow by an eighth: exact enough for percentiles, small, and
/// those of several workers can be added up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct Delays {
    /// By bucket, up to the last that is not empty; 282 at most.
    counts: Vec<u64>,
}

impl Delays {
    /// Notes one.
    pub fn record(&mut self, delay: Duration) {
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.add(micros, 1);
    }

    /// Notes all of `other` too.
    pub fn merge(&mut self, other: &Self) {
        for (upper, count) in other.buckets() {
            self.add(upper, count);
        }
    }

    /// How many were noted.
    #[must_use]
    pub fn count(&self) -> u64 {
        let counts = self.counts.iter();
        counts.fold(0, |sum, it| sum.saturating_add(*it))
    }

    /// The delay in milliseconds that `percent` of them do not exceed; none of nothing.
    #[must_use]
    pub fn percentile_ms(&self, percent: f64) -> Option<f64> {
        let rank = (self.count() as f64 * percent / 100.0).ceil().max(1.0);
        let mut seen = 0_u64;
        let found = self.buckets().find(|(_, count)| {
            seen = seen.saturating_add(*count);
            seen as f64 >= rank
        });
        found.map(|(upper, _)| upper as f64 / 1_000.0)
    }

    fn add(&mut self, micros: u64, count: u64) {
        if count == 0 {
            return;
        }
        let place = place(micros);
        if place >= self.counts.len() {
            self.counts.resize(place + 1, 0);
        }
        self.counts[place] = self.counts[place].saturating_add(count);
    }

    /// Upper ends in microseconds, included, and counts of the buckets that are not empty.
    fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let counts = self.counts.iter().enumerate();
        counts
            .filter(|(_, count)| **count > 0)
            .map(|(place, count)| (upper_end(place), *count))
    }
}

/// The bucket of a delay: those up to eight have one each, then each doubling is cut in eight.
fn place(micros: u64) -> usize {
    let micros = micros.min(DELAY_MAX_US);
    let Some(below) = micros.checked_sub(1).filter(|below| *below >= STEPS) else {
        return micros as usize;
    };
    let shift = below.ilog2() - STEPS.ilog2();
    (STEPS * u64::from(shift) + (below >> shift) + 1) as usize
}

/// The longest delay of a bucket; [`place`] finds the bucket again from it.
fn upper_end(place: usize) -> u64 {
    let place = place as u64;
    let Some(beyond) = place.checked_sub(STEPS + 1) else {
        return place;
    };
    (STEPS + beyond % STEPS + 1) << (beyond / STEPS)
}

impl From<Vec<(u64, u64)>> for Delays {
    fn from(pairs: Vec<(u64, u64)>) -> Self {
        let mut delays = Self::default();
        for (upper, count) in pairs {
            delays.add(upper, count);
        }
        delays
    }
}

impl From<Delays> for Vec<(u64, u64)> {
    fn from(delays: Delays) -> Self {
        delays.buckets().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_bucket_is_at_most_an_eighth_wide_and_stays_where_it_is(micros in 0..DELAY_MAX_US) {
            let upper = upper_end(place(micros));
            prop_assert!(upper >= micros);
            prop_assert!((upper - micros) as f64 <= micros as f64 / 8.0 + 1.0, "{micros} {upper}");
            prop_assert_eq!(place(upper), place(micros));
        }
    }

    #[test]
    fn percentiles_of_several_workers_are_those_of_all_their_readings() {
        let (mut one, mut other) = (Delays::default(), Delays::default());
        for ms in 1..=90 {
            one.record(Duration::from_millis(ms));
        }
        for ms in 91..=100 {
            other.record(Duration::from_millis(ms));
        }
        one.merge(&other);
        assert_eq!(one.count(), 100);
        let near = |percent, ms: f64| {
            let found = one.percentile_ms(percent).unwrap();
            assert!(found >= ms && found <= ms * 1.13, "{found} for {ms}");
        };
        near(50.0, 50.0);
        near(99.0, 99.0);
        assert_eq!(Delays::default().percentile_ms(50.0), None);
    }

    #[test]
    fn the_longest_delay_is_a_day_and_the_number_of_buckets_is_bounded() {
        let mut delays = Delays::default();
        for power in 0..64 {
            for part in 0..64 {
                let micros = (1_u64 << power).saturating_add((1_u64 << power) / 64 * part);
                delays.record(Duration::from_micros(micros));
            }
        }
        let longest = upper_end(place(DELAY_MAX_US)) as f64 / 1_000.0;
        assert_eq!(delays.percentile_ms(100.0), Some(longest));
        assert!(delays.counts.len() < 300, "{}", delays.counts.len());
    }

    #[test]
    fn a_report_comes_back_as_it_was_sent() {
        let mut delivery_us = Delays::default();
        delivery_us.record(Duration::from_micros(1_234));
        let report = IngestReport {
            instance: "ingest-0".to_owned(),
            group: "ingest".to_owned(),
            at: Timestamp::UNIX_EPOCH,
            seconds: 5.0,
            stored: 1,
            dead_letters: 0,
            queue: 3,
            window: 1_000,
            delivery_us,
        };
        let publish = report.publish().unwrap();
        assert!(!publish.retain);
        let text = std::str::from_utf8(&publish.payload).unwrap();
        assert!(text.contains("\"delivery_us\":[[1280,1]]"), "{text}");
        assert_eq!(serde_json::from_str::<IngestReport>(text).unwrap(), report);
    }
}
