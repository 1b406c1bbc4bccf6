//! What happened when: a run in at most some hundred steps, whatever its length.

use std::collections::BTreeMap;

/// Steps of a timeline at most; beyond, two and two become one.
const STEPS_MAX: usize = 600;
/// Width of a step at first: a second, in microseconds.
const SECOND: i64 = 1_000_000;
/// Lowest latency that is told apart, in microseconds.
const LOWEST_MICROS: f64 = 100.0;
/// Each class of latencies is so many times the one before: 48 of them reach seven hours.
const FACTOR: f64 = 1.5;
/// Classes of latencies.
const CLASSES: usize = 48;

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Readings that the broker acknowledged.
    pub(super) acknowledged: u64,
    /// Those of them that are missing in the store.
    pub(super) missing: u64,
    /// Readings that reached the store.
    pub(super) stored: u64,
    /// Faults that were made on purpose.
    pub(super) faults: u64,
    latencies: [u32; CLASSES],
}

impl Default for Step {
    fn default() -> Self {
        Self {
            acknowledged: 0,
            missing: 0,
            stored: 0,
            faults: 0,
            latencies: [0; CLASSES],
        }
    }
}

impl Step {
    /// How long a reading was on its way to the store.
    pub(super) fn delivered(&mut self, micros: i64) {
        let latency = &mut self.latencies[class(micros)];
        *latency = latency.saturating_add(1);
    }

    /// The latency, in milliseconds, that a share of the readings did not exceed.
    pub(super) fn quantile_ms(&self, quantile: f64) -> Option<f64> {
        let total: u64 = self.latencies.iter().map(|count| u64::from(*count)).sum();
        let wanted = (total as f64 * quantile).ceil().max(1.0) as u64;
        let mut seen = 0;
        let class = self.latencies.iter().position(|count| {
            seen += u64::from(*count);
            seen >= wanted
        })?;
        (total > 0).then(|| upper_ms(class))
    }

    fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.missing += other.missing;
        self.stored += other.stored;
        self.faults += other.faults;
        for (own, other) in self.latencies.iter_mut().zip(other.latencies) {
            *own = own.saturating_add(other);
        }
    }
}

fn class(micros: i64) -> usize {
    let times = (micros as f64 / LOWEST_MICROS).max(1.0);
    // Above zero and far below the range of the integer.
    ((times.ln() / FACTOR.ln()) as usize).min(CLASSES - 1)
}

/// Upper end of a class.
fn upper_ms(class: usize) -> f64 {
    let exponent = i32::try_from(class + 1).unwrap_or(i32::MAX);
    LOWEST_MICROS * FACTOR.powi(exponent) / 1_000.0
}

/// The steps of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Timeline {
    /// Microseconds a step.
    width: i64,
    steps: BTreeMap<i64, Step>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self {
            width: SECOND,
            steps: BTreeMap::new(),
        }
    }
}

impl Timeline {
    /// The step of an instant, in microseconds since 1970.
    pub(super) fn at(&mut self, micros: i64) -> &mut Step {
        loop {
            let index = micros.div_euclid(self.width);
            let first = self.steps.first_key_value().map_or(index, |(at, _)| *at);
            let last = self.steps.last_key_value().map_or(index, |(at, _)| *at);
            let span = last.max(index).saturating_sub(first.min(index));
            if usize::try_from(span).is_ok_and(|span| span < STEPS_MAX) {
                return self.steps.entry(index).or_default();
            }
            self.coarsen();
        }
    }

    fn coarsen(&mut self) {
        self.width = self.width.saturating_mul(2);
        for (index, step) in std::mem::take(&mut self.steps) {
            self.steps
                .entry(index.div_euclid(2))
                .or_default()
                .add(&step);
        }
    }

    /// Seconds a step.
    pub(super) fn width_seconds(&self) -> f64 {
        self.width as f64 / 1e6
    }

    /// All steps from the first to the last, with empty ones between; each with the microsecond at
    /// which it begins.
    pub(super) fn steps(&self) -> Vec<(i64, Step)> {
        let (Some((first, _)), Some((last, _))) =
            (self.steps.first_key_value(), self.steps.last_key_value())
        else {
            return Vec::new();
        };
        (*first..=*last)
            .map(|index| {
                let step = self.steps.get(&index).cloned().unwrap_or_default();
                (index.saturating_mul(self.width), step)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_timeline_stays_small_and_loses_nothing(
            times in prop::collection::vec(-4_000_000_000_000_000..4_000_000_000_000_000_i64, 1..200),
        ) {
            let mut timeline = Timeline::default();
            for time in &times {
                timeline.at(*time).acknowledged += 1;
            }
            let steps = timeline.steps();
            prop_assert!(steps.len() <= STEPS_MAX);
            let total: u64 = steps.iter().map(|(_, step)| step.acknowledged).sum();
            prop_assert_eq!(total, times.len() as u64);
        }
    }

    #[test]
    fn a_quantile_is_right_within_its_class() {
        let mut step = Step::default();
        assert_eq!(step.quantile_ms(0.5), None);
        for millis in 1..=1_000 {
            step.delivered(millis * 1_000);
        }
        for (quantile, wanted) in [(0.5, 500.0), (0.99, 990.0)] {
            let found = step.quantile_ms(quantile).unwrap();
            assert!(
                (1.0..=FACTOR).contains(&(found / wanted)),
                "{found} {wanted}"
            );
        }
        step.delivered(i64::MAX);
        step.delivered(-5);
    }
}
