//! When a simulated device says what: a schedule of steps, each due at a time fixed beforehand.
//!
//! The schedule is open-loop. It does not know how fast the broker takes the publishes, so a slow
//! broker makes publishes late and never fewer.

use std::sync::Arc;
use std::time::Duration;

use fleet_shared::model::Quality;
use jiff::{SignedDuration, Timestamp};
use rand::RngExt;
use rand_pcg::Pcg32;

use crate::sensor::{Measurement, Sensor};

/// What a device does next, and when.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Since the start of the run. Never smaller than that of the step before.
    pub due: Duration,
    /// What is to be done then.
    pub action: Action,
}

/// What a device does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Publishes a reading.
    Measure(Measurement),
    /// Publishes the status of the device.
    Report {
        /// Strength of its radio signal in dBm.
        signal_strength: i32,
    },
}

/// The steps of one device, in order of their due times.
pub type Plan = Box<dyn Iterator<Item = Step> + Send>;

/// Pause between two steps of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// Always the same.
    Every(Duration),
    /// Uniformly random within the bounds, both included.
    Between(Duration, Duration),
}

impl Timing {
    /// The average pause.
    #[must_use]
    pub fn mean(self) -> Duration {
        match self {
            Self::Every(pause) => pause,
            Self::Between(low, high) => (low + high) / 2,
        }
    }

    /// The same with every pause divided by `factor`, but at least a microsecond: two readings of
    /// one sensor need different timestamps.
    #[must_use]
    pub fn faster(self, factor: f64) -> Self {
        let scale = |pause: Duration| {
            let micros = pause.as_secs_f64() * 1e6 / factor;
            // A float beyond the range of the integer saturates, and no such pause ever ends.
            Duration::from_micros((micros as u64).max(1))
        };
        match self {
            Self::Every(pause) => Self::Every(scale(pause)),
            Self::Between(low, high) => Self::Between(scale(low), scale(high)),
        }
    }

    pub(crate) fn draw(self, rng: &mut Pcg32) -> Duration {
        match self {
            Self::Every(pause) => pause,
            Self::Between(low, high) => between(rng, low, high),
        }
    }
}

/// What a source says at each of its steps.
#[derive(Clone, Debug, PartialEq)]
pub enum Signal {
    /// A value that varies around a base, from a sensor on a battery that slowly drains.
    Around {
        /// Who measures.
        sensor: Arc<Sensor>,
        /// Middle of the values.
        base: f64,
        /// Largest distance from the middle.
        spread: f64,
        /// Charge at the start of the run in percent.
        battery_percent: u8,
    },
    /// The value 1 each time something happens.
    Event {
        /// Who notices.
        sensor: Arc<Sensor>,
    },
    /// 1 and 0 in turn.
    Toggle {
        /// Who tells.
        sensor: Arc<Sensor>,
        /// The state before the next step.
        open: bool,
        /// Charge of its battery in percent.
        battery_percent: u8,
    },
    /// The status of the device itself.
    Status {
        /// Weakest and strongest signal in dBm.
        signal_strength: (i32, i32),
    },
}

/// A battery loses one percent in this time.
const DRAIN_PERCENT: Duration = Duration::from_secs(3_600);
/// A draining battery is changed before it falls below this charge.
const BATTERY_MIN_PERCENT: u8 = 80;

impl Signal {
    fn say(&mut self, due: Duration, at: Timestamp, rng: &mut Pcg32) -> Action {
        let measurement = |sensor: &Arc<Sensor>, value, battery_percent| {
            Action::Measure(Measurement {
                sensor: Arc::clone(sensor),
                value,
                timestamp: at,
                battery_percent,
                quality: Some(Quality::Good),
            })
        };
        match self {
            Self::Around {
                sensor,
                base,
                spread,
                battery_percent,
            } => {
                let value = *base + rng.random_range(-*spread..=*spread);
                let rounded = (value * 100.0).round() / 100.0;
                measurement(sensor, rounded, Some(drained(*battery_percent, due)))
            }
            Self::Event { sensor } => measurement(sensor, 1.0, None),
            Self::Toggle {
                sensor,
                open,
                battery_percent,
            } => {
                *open = !*open;
                measurement(sensor, f64::from(u8::from(*open)), Some(*battery_percent))
            }
            Self::Status {
                signal_strength: (weakest, strongest),
            } => Action::Report {
                signal_strength: rng.random_range(*weakest..=*strongest),
            },
        }
    }
}

/// Charge after `due`, of a battery that is replaced by a full one before it gets too low.
fn drained(start_percent: u8, due: Duration) -> u8 {
    let cycle = u64::from(100 - BATTERY_MIN_PERCENT) + 1;
    let lost = due.as_secs() / DRAIN_PERCENT.as_secs() + u64::from(100 - start_percent.min(100));
    // The remainder is below the cycle of 21, so it fits.
    100 - u8::try_from(lost % cycle).unwrap_or(0)
}

/// One sensor, or the status, of a device: its chance, its rhythm and what it says.
#[derive(Clone, Debug)]
pub struct Source {
    rng: Pcg32,
    due: Duration,
    timing: Timing,
    signal: Signal,
}

impl Source {
    /// A source whose first step is due at `first` since the start of the run.
    #[must_use]
    pub fn new(rng: Pcg32, first: Duration, timing: Timing, signal: Signal) -> Self {
        Self {
            rng,
            due: whole_micros(first),
            timing,
            signal,
        }
    }

    fn step(&mut self, start: Timestamp) -> Step {
        let due = self.due;
        let action = self.signal.say(due, after(start, due), &mut self.rng);
        let pause = self.timing.draw(&mut self.rng);
        self.due = due.saturating_add(pause);
        Step { due, action }
    }
}

/// The endless or bounded schedule of one device with several sources.
#[derive(Clone, Debug)]
pub struct Schedule {
    start: Timestamp,
    end: Duration,
    sources: Vec<Source>,
}

impl Schedule {
    /// Steps of all `sources` that are due before `end`, in order; of two that are due at the
    /// same time the earlier source comes first. Timestamps count from `start`.
    #[must_use]
    pub fn new(start: Timestamp, end: Option<Duration>, sources: Vec<Source>) -> Self {
        Self {
            start,
            end: end.unwrap_or(Duration::MAX),
            sources,
        }
    }
}

impl Iterator for Schedule {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        // A device has a handful of sources, so a scan is cheaper than a heap.
        let next = self.sources.iter_mut().min_by_key(|source| source.due)?;
        (next.due < self.end).then(|| next.step(self.start))
    }
}

/// Uniformly random, both bounds included, in whole microseconds.
pub(crate) fn between(rng: &mut Pcg32, low: Duration, high: Duration) -> Duration {
    let micros = |pause: Duration| u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
    let (low, high) = (micros(low), micros(high));
    Duration::from_micros(rng.random_range(low..=high.max(low)))
}

/// Timestamps are kept at microsecond precision everywhere, so the schedule has no finer grain.
fn whole_micros(due: Duration) -> Duration {
    Duration::new(due.as_secs(), due.subsec_micros() * 1_000)
}

/// `start + due`; the last representable time when that is beyond it.
pub(crate) fn after(start: Timestamp, due: Duration) -> Timestamp {
    SignedDuration::try_from(due)
        .ok()
        .and_then(|due| start.checked_add(due).ok())
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_battery_drains_and_is_replaced_before_it_gets_low() {
        let hours = |hours: u64| Duration::from_secs(hours * 3_600);
        assert_eq!(drained(100, hours(0)), 100);
        assert_eq!(drained(85, hours(5)), 80);
        assert_eq!(drained(85, hours(6)), 100);
        assert_eq!(drained(101, hours(0)), 100);
    }

    #[test]
    fn a_faster_timing_keeps_a_microsecond() {
        let timing = Timing::Every(Duration::from_secs(5));
        assert_eq!(
            timing.faster(2.0),
            Timing::Every(Duration::from_millis(2_500))
        );
        assert_eq!(timing.faster(1e12), Timing::Every(Duration::from_micros(1)));
    }

    #[test]
    fn a_time_beyond_the_calendar_is_the_last_one() {
        assert_eq!(after(Timestamp::UNIX_EPOCH, Duration::MAX), Timestamp::MAX);
    }
}
