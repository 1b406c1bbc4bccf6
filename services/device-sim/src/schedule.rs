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

use crate::bounds::Bounds;
use crate::chaos::{Intents, Wrong};
use crate::profile::Activity;
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
    /// Publishes the status of the device, and its telemetry.
    Report {
        /// Strength of its radio signal in dBm.
        signal_strength: i32,
        /// Charge of its battery, if it has one.
        battery_percent: Option<u8>,
    },
    /// Publishes a message that must be refused.
    Wrong(Box<Wrong>),
    /// Keeps a reading to itself.
    Withhold(Measurement),
    /// Vanishes without DISCONNECT and connects again after a while.
    Drop {
        /// The while.
        away: Duration,
    },
    /// Leaves its connection open and dead for a while, then vanishes and connects again.
    HalfOpen {
        /// The while.
        lasts: Duration,
    },
    /// Reads slowly for a while.
    SlowReader {
        /// The while.
        lasts: Duration,
        /// Pause between two reads.
        pause: Duration,
    },
}

/// The steps of one device, in order of their due times.
pub trait Steps: Iterator<Item = Step> + Send {
    /// When the next step is due at the earliest; nothing when there is none any more. Until it is
    /// drawn, [`Steps::set_intervals`] may still change it.
    fn due(&mut self) -> Option<Duration>;

    /// Changes the pauses from `now` on, since the start of the run, of what is not drawn yet.
    /// False when the times of the schedule are fixed.
    fn set_intervals(&mut self, now: Duration, intervals: Intervals) -> bool;
}

/// As [`Steps`], of any kind.
pub type Plan = Box<dyn Steps>;

/// Pauses that somebody has set on a device; without one it keeps to its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Intervals {
    /// Between two readings of each of its sensors.
    pub readings: Option<Duration>,
    /// Between two reports of its status.
    pub status: Option<Duration>,
}

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

/// What all sensors of one kind have in common: their rhythm and how they draw what they say.
#[derive(Clone, Debug, PartialEq)]
pub struct Voice {
    /// Pause between two readings, at the peak of the day.
    pub timing: Timing,
    /// Makes pauses longer at other times; without it every hour is alike.
    pub activity: Option<Activity>,
    /// What it measures.
    pub curve: Curve,
    /// Padding of a payload; none without.
    pub padding_bytes: Option<Bounds<u32>>,
}

impl Voice {
    fn pause(&self, at: Timestamp, rng: &mut Pcg32) -> Duration {
        let pause = self.timing.draw(rng);
        let Some(Activity { least, peak_hour }) = self.activity else {
            return pause;
        };
        let middle = f64::midpoint(least, 1.0);
        let factor = middle + (1.0 - middle) * of_day(at, peak_hour);
        let pause = pause.as_secs_f64() / factor.max(least);
        Duration::try_from_secs_f64(pause).map_or(Duration::MAX, whole_micros)
    }
}

/// How devices tell their status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reporting {
    /// Pause between two reports.
    pub timing: Timing,
    /// Weakest and strongest signal in dBm.
    pub signal_strength: (i32, i32),
}

/// How the values of a sensor go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Curve {
    /// Around the base of the sensor.
    Around {
        /// Largest distance from the base.
        spread: f64,
    },
    /// Around a wave over the day with the base in its middle.
    Wave {
        /// How far the wave goes from the base.
        amplitude: f64,
        /// Hour of its top, in UTC.
        peak_hour: f64,
        /// Largest distance from the wave.
        spread: f64,
    },
    /// The value 1 each time something happens.
    Event,
    /// 1 and 0 in turn.
    Toggle,
}

impl Curve {
    fn value(&self, base: f64, open: &mut bool, at: Timestamp, rng: &mut Pcg32) -> f64 {
        let mut around = |middle: f64, spread: f64| {
            let value = middle + rng.random_range(-spread..=spread);
            (value * 100.0).round() / 100.0
        };
        match *self {
            Self::Around { spread } => around(base, spread),
            Self::Wave {
                amplitude,
                peak_hour,
                spread,
            } => around(base + amplitude * of_day(at, peak_hour), spread),
            Self::Event => 1.0,
            Self::Toggle => {
                *open = !*open;
                f64::from(u8::from(*open))
            }
        }
    }
}

/// Where the day stands between 1, at the peak hour, and -1, twelve hours off it.
fn of_day(at: Timestamp, peak_hour: f64) -> f64 {
    let hour = at.as_second().rem_euclid(86_400) as f64 / 3_600.0;
    ((hour - peak_hour) * std::f64::consts::TAU / 24.0).cos()
}

/// Charge of a sensor's battery at the start of the run, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Battery {
    /// It has none.
    None,
    /// It keeps its charge.
    Steady(u8),
    /// It loses a percent an hour and is replaced before it gets low.
    Draining(u8),
}

/// A battery loses one percent in this time.
const DRAIN_PERCENT: Duration = Duration::from_secs(3_600);
/// A draining battery is changed before it falls below this charge.
const BATTERY_MIN_PERCENT: u8 = 80;

impl Battery {
    fn percent(self, due: Duration) -> Option<u8> {
        match self {
            Self::None => None,
            Self::Steady(percent) => Some(percent),
            Self::Draining(percent) => Some(drained(percent, due)),
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
    speaker: Speaker,
}

#[derive(Clone, Debug)]
enum Speaker {
    Sensor {
        voice: Arc<Voice>,
        sensor: Arc<Sensor>,
        base: f64,
        battery: Battery,
        /// The state of a toggle before the next step.
        open: bool,
    },
    Status {
        reporting: Arc<Reporting>,
        battery: Battery,
    },
}

impl Source {
    /// A sensor whose first step is due at `first` since the start of the run, with values around
    /// `base` if they are around something.
    #[must_use]
    pub fn sensor(
        rng: Pcg32,
        first: Duration,
        voice: Arc<Voice>,
        sensor: Arc<Sensor>,
        base: f64,
        battery: Battery,
    ) -> Self {
        let speaker = Speaker::Sensor {
            voice,
            sensor,
            base,
            battery,
            open: false,
        };
        Self {
            rng,
            due: whole_micros(first),
            speaker,
        }
    }

    /// The status of the device, first due at `first`; its battery is that of its sensors.
    #[must_use]
    pub fn status(
        rng: Pcg32,
        first: Duration,
        reporting: Arc<Reporting>,
        battery: Battery,
    ) -> Self {
        Self {
            rng,
            due: whole_micros(first),
            speaker: Speaker::Status { reporting, battery },
        }
    }

    /// What it draws its power from.
    #[must_use]
    pub fn battery(&self) -> Battery {
        match self.speaker {
            Speaker::Sensor { battery, .. } | Speaker::Status { battery, .. } => battery,
        }
    }

    fn step(&mut self, start: Timestamp, intervals: Intervals) -> Step {
        let due = self.due;
        let (action, pause) = self.say(after(start, due));
        let pause = self.interval(intervals).unwrap_or(pause);
        // At least a microsecond: two readings of one sensor need different timestamps.
        self.due = due.saturating_add(pause.max(Duration::from_micros(1)));
        Step { due, action }
    }

    /// The pause that is set for this source.
    fn interval(&self, intervals: Intervals) -> Option<Duration> {
        match self.speaker {
            Speaker::Sensor { .. } => intervals.readings,
            Speaker::Status { .. } => intervals.status,
        }
    }

    /// Brings the next step forward to within a pause of `now`; a later one is no reason to leave
    /// out what was due.
    fn hurry(&mut self, now: Duration, intervals: Intervals) {
        let pause = self
            .interval(intervals)
            .unwrap_or_else(|| match &self.speaker {
                Speaker::Sensor { voice, .. } => voice.timing.mean(),
                Speaker::Status { reporting, .. } => reporting.timing.mean(),
            });
        self.due = self.due.min(whole_micros(now.saturating_add(pause)));
    }

    /// What is said, and how long there is silence after it.
    fn say(&mut self, at: Timestamp) -> (Action, Duration) {
        let rng = &mut self.rng;
        match &mut self.speaker {
            Speaker::Sensor {
                voice,
                sensor,
                base,
                battery,
                open,
            } => {
                let value = voice.curve.value(*base, open, at, rng);
                let padding_bytes = voice
                    .padding_bytes
                    .map_or(0, |bytes| bytes.draw_skewed(rng));
                let action = Action::Measure(Measurement {
                    sensor: Arc::clone(sensor),
                    value,
                    timestamp: at,
                    battery_percent: battery.percent(self.due),
                    quality: Some(Quality::Good),
                    padding_bytes,
                    intents: Intents::default(),
                });
                (action, voice.pause(at, rng))
            }
            Speaker::Status { reporting, battery } => {
                let (weakest, strongest) = reporting.signal_strength;
                let signal_strength = rng.random_range(weakest..=strongest);
                let pause = reporting.timing.draw(rng);
                let action = Action::Report {
                    signal_strength,
                    battery_percent: battery.percent(self.due),
                };
                (action, pause)
            }
        }
    }
}

/// The endless or bounded schedule of one device with several sources.
#[derive(Clone, Debug)]
pub struct Schedule {
    start: Timestamp,
    end: Duration,
    intervals: Intervals,
    /// When the last step was due that was drawn, perhaps ahead of its time.
    drawn: Duration,
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
            intervals: Intervals::default(),
            drawn: Duration::ZERO,
            sources,
        }
    }

    /// The source that speaks next, and whether that is before the end.
    fn next_source(&mut self) -> Option<&mut Source> {
        // A device has a handful of sources, so a scan is cheaper than a heap.
        let next = self.sources.iter_mut().min_by_key(|source| source.due)?;
        (next.due < self.end).then_some(next)
    }
}

impl Iterator for Schedule {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let (start, intervals) = (self.start, self.intervals);
        let step = self.next_source()?.step(start, intervals);
        self.drawn = step.due;
        Some(step)
    }
}

impl Steps for Schedule {
    fn due(&mut self) -> Option<Duration> {
        self.next_source().map(|next| next.due)
    }

    fn set_intervals(&mut self, now: Duration, intervals: Intervals) -> bool {
        let changed =
            |source: &Source| source.interval(intervals) != source.interval(self.intervals);
        let now = now.max(self.drawn);
        for source in self.sources.iter_mut().filter(|source| changed(source)) {
            source.hurry(now, intervals);
        }
        self.intervals = intervals;
        true
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
