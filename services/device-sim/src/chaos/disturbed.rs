//! A plan with what goes wrong laid over it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use fleet_shared::model::to_micros;
use fleet_shared::session::QoS;
use jiff::{SignedDuration, Timestamp};
use rand::RngExt;
use rand_pcg::Pcg32;

use super::Chaos;
use super::file::{ChaosFile, WrongKind};
use super::intent::Intent;
use super::wrong::Wrong;
use crate::bounds::Span;
use crate::schedule::{Action, Intervals, Plan, Step, Steps, between};
use crate::seed;
use crate::sensor::Measurement;

/// Steps of one device that are held back at most; beyond it nothing more is. Ten minutes of a
/// device with ten readings a second, all held back.
const WAITING_MAX: usize = 6_000;
/// Another value for a reading comes so long after it: the first is stored by then, if ingest runs.
const CONFLICT_AFTER: Duration = Duration::from_secs(5);

/// The steps of a device that suffers, in order of their due times.
pub struct Disturbed {
    plan: Plan,
    file: Arc<ChaosFile>,
    end: Duration,
    rng: Pcg32,
    waiting: BinaryHeap<Reverse<Waiting>>,
    count: u64,
    tracks: HashMap<Box<str>, Track>,
    offset: SignedDuration,
    jumps: Beat,
    drops: Beat,
    storms: Beat,
    half_opens: Beat,
    slow_readers: Beat,
}

/// Something that comes back again and again, by a chance of its own.
struct Beat {
    rng: Pcg32,
    due: Duration,
}

/// A step that is held back; of two for the same time the earlier one goes first.
struct Waiting {
    due: Duration,
    count: u64,
    action: Action,
}

/// What a sensor is in the middle of.
#[derive(Clone, Copy, Debug, Default)]
struct Track {
    stuck: Option<(Duration, f64)>,
    /// Until when, from when, and how far in an hour.
    drift: Option<(Duration, Duration, f64)>,
    /// The last timestamp of a burst.
    last: Option<Timestamp>,
}

impl Disturbed {
    pub(super) fn new(plan: Plan, chaos: &Chaos, number: u32, end: Option<Duration>) -> Self {
        let stream = |stream| seed::stream(chaos.seed, number, stream);
        let file = Arc::clone(&chaos.file);
        let mut skew = stream(2);
        let offset = match file.clock.skew {
            Some(it) if it.chance.draw(&mut skew) => wrong_clock(&mut skew, it.back, it.ahead),
            _ => SignedDuration::ZERO,
        };
        let beat = |number, first: &dyn Fn(&mut Pcg32) -> Option<Duration>| {
            let mut rng = stream(number);
            let due = first(&mut rng).unwrap_or(Duration::MAX);
            Beat { rng, due }
        };
        let jumps = beat(3, &|rng| Some(file.clock.jump?.every.draw(rng)));
        let drops = beat(4, &|rng| Some(file.connection.drop?.every.draw(rng)));
        // Storms hit all devices at one time; only how a device takes it is its own.
        let storms = beat(5, &|_| Some(file.connection.storm?.every.0));
        let half_opens = beat(6, &|rng| Some(file.connection.half_open?.every.draw(rng)));
        let slow_readers = beat(7, &|rng| Some(file.connection.slow_reader?.every.draw(rng)));
        Self {
            plan,
            end: end.unwrap_or(Duration::MAX),
            rng: stream(1),
            waiting: BinaryHeap::new(),
            count: 0,
            tracks: HashMap::new(),
            offset,
            jumps,
            drops,
            storms,
            half_opens,
            slow_readers,
            file,
        }
    }

    /// Holds an action back until `due`.
    fn hold(&mut self, due: Duration, action: Action) {
        self.count += 1;
        // What is left at the end of the schedule goes then. The last microsecond is still in it.
        let last = self.end.saturating_sub(Duration::from_micros(1));
        self.waiting.push(Reverse(Waiting {
            due: due.min(last),
            count: self.count,
            action,
        }));
    }

    fn has_room(&self) -> bool {
        self.waiting.len() < WAITING_MAX
    }

    /// When something is done to the connection.
    fn next_fault(&self) -> Duration {
        let single = self.half_opens.due.min(self.slow_readers.due);
        self.drops.due.min(self.storms.due).min(single)
    }

    /// Cuts the connection off, or disturbs it, if that is due before `until`.
    fn cut_off(&mut self, until: Duration) {
        if let Some(drop) = self.file.connection.drop
            && self.drops.due <= until
        {
            let (due, rng) = (self.drops.due, &mut self.drops.rng);
            let away = drop.away.draw(rng);
            self.drops.due = due.saturating_add(away + drop.every.draw(rng));
            self.hold(due, Action::Drop { away });
        }
        if let Some(it) = self.file.connection.half_open
            && self.half_opens.due <= until
        {
            let (due, rng) = (self.half_opens.due, &mut self.half_opens.rng);
            let lasts = it.lasts.draw(rng);
            self.half_opens.due = due.saturating_add(lasts + it.every.draw(rng));
            self.hold(due, Action::HalfOpen { lasts });
        }
        if let Some(it) = self.file.connection.slow_reader
            && self.slow_readers.due <= until
        {
            let (due, rng) = (self.slow_readers.due, &mut self.slow_readers.rng);
            let (lasts, pause) = (it.lasts.draw(rng), it.pause.draw(rng));
            self.slow_readers.due = due.saturating_add(lasts + it.every.draw(rng));
            self.hold(due, Action::SlowReader { lasts, pause });
        }
        if let Some(storm) = self.file.connection.storm
            && self.storms.due <= until
        {
            let (due, rng) = (self.storms.due, &mut self.storms.rng);
            let hit = storm.chance.draw(rng);
            let (after, away) = (
                between(rng, Duration::ZERO, storm.within.0),
                storm.away.draw(rng),
            );
            self.storms.due = due.saturating_add(storm.every.0);
            if hit {
                self.hold(due.saturating_add(after), Action::Drop { away });
            }
        }
    }

    /// What becomes of a step.
    fn disturb(&mut self, step: Step) {
        match step.action {
            Action::Measure(measurement) => self.spoil(step.due, measurement),
            action => self.hold(step.due, action),
        }
    }

    fn spoil(&mut self, due: Duration, mut reading: Measurement) {
        self.set_clock(due, &mut reading);
        let file = Arc::clone(&self.file);
        let readings = &file.readings;
        if readings.missing.is_some_and(|it| it.draw(&mut self.rng)) {
            return self.hold(due, Action::Withhold(reading));
        }
        self.change_value(due, &mut reading);
        if let Some(wrong) = &file.wrong
            && wrong.chance.draw(&mut self.rng)
        {
            let kind = wrong.kinds[self.rng.random_range(0..wrong.kinds.len())];
            self.add_wrong(due, kind, &reading);
        }
        if let Some(it) = readings.duplicate
            && it.chance.draw(&mut self.rng)
            && self.has_room()
        {
            let mut again = reading.clone();
            again.intents = again.intents.with(Intent::Duplicate);
            let after = it.after.draw(&mut self.rng);
            self.hold(due.saturating_add(after), Action::Measure(again));
        }
        if let Some(it) = readings.burst
            && it.chance.draw(&mut self.rng)
            && self.has_room()
        {
            let readings = it.readings.draw(&mut self.rng);
            self.burst(due, readings, &reading);
        }
        let mut after = Duration::ZERO;
        if let Some(it) = readings.reorder
            && it.chance.draw(&mut self.rng)
            && self.has_room()
        {
            reading.intents = reading.intents.with(Intent::Reordered);
            after = it.after.draw(&mut self.rng);
        }
        self.hold(due.saturating_add(after), Action::Measure(reading));
    }

    fn set_clock(&mut self, due: Duration, reading: &mut Measurement) {
        if let Some(jump) = self.file.clock.jump {
            while self.jumps.due <= due {
                let rng = &mut self.jumps.rng;
                self.offset = wrong_clock(rng, jump.back, jump.ahead);
                self.jumps.due = self.jumps.due.saturating_add(jump.every.draw(rng));
                // What a burst has taken is a matter of the clock before.
                self.tracks.values_mut().for_each(|track| track.last = None);
            }
        }
        if !self.offset.is_zero()
            && let Ok(shown) = reading.timestamp.checked_add(self.offset)
        {
            // A reading is never dated before 1970, or it would be refused.
            reading.timestamp = to_micros(shown.max(Timestamp::UNIX_EPOCH));
            reading.intents = reading.intents.with(Intent::Clock);
        }
        if let Some(Track {
            last: Some(last), ..
        }) = self.tracks.get(&reading.sensor.id)
        {
            reading.timestamp = reading.timestamp.max(later(*last, 1));
        }
    }

    fn change_value(&mut self, due: Duration, reading: &mut Measurement) {
        let rng = &mut self.rng;
        let file = &self.file.readings;
        if file.stuck.is_none() && file.drift.is_none() && file.spike.is_none() {
            return;
        }
        let track = self.tracks.entry(reading.sensor.id.clone()).or_default();
        if let Some((_, from, per_hour)) = track.drift.filter(|(until, ..)| due < *until) {
            reading.value += per_hour * due.saturating_sub(from).as_secs_f64() / 3_600.0;
            reading.intents = reading.intents.with(Intent::Drift);
        } else if let Some(it) = file.drift
            && it.chance.draw(rng)
        {
            let until = due.saturating_add(it.lasts.draw(rng));
            track.drift = Some((until, due, it.per_hour.draw(rng)));
        }
        if let Some((_, value)) = track.stuck.filter(|(until, _)| due < *until) {
            reading.value = value;
            reading.intents = reading.intents.with(Intent::Stuck);
        } else if let Some(it) = file.stuck
            && it.chance.draw(rng)
        {
            let until = due.saturating_add(it.lasts.draw(rng));
            track.stuck = Some((until, reading.value));
        }
        if let Some(it) = file.spike
            && it.chance.draw(rng)
        {
            reading.value *= it.times.draw(rng);
            reading.intents = reading.intents.with(Intent::Spike);
        }
        // A value beyond all numbers would be refused.
        reading.value = reading.value.clamp(f64::MIN, f64::MAX);
    }

    fn burst(&mut self, due: Duration, readings: u32, first: &Measurement) {
        for number in 1..=readings {
            let mut reading = first.clone();
            reading.timestamp = later(first.timestamp, i64::from(number));
            reading.intents = reading.intents.with(Intent::Burst);
            self.hold(due, Action::Measure(reading));
        }
        let track = self.tracks.entry(first.sensor.id.clone()).or_default();
        track.last = Some(later(first.timestamp, i64::from(readings)));
    }

    fn add_wrong(&mut self, due: Duration, kind: WrongKind, reading: &Measurement) {
        let after = match kind {
            // At QoS 0 the reading itself may be lost, and then there is nothing to contradict.
            WrongKind::Conflict if reading.sensor.channel.qos == QoS::AtMostOnce => return,
            WrongKind::Conflict if !self.has_room() => return,
            WrongKind::Conflict => CONFLICT_AFTER,
            _ => Duration::ZERO,
        };
        let wrong = Box::new(Wrong::new(kind, reading));
        self.hold(due.saturating_add(after), Action::Wrong(wrong));
    }
}

impl Iterator for Disturbed {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        loop {
            let next = self.plan.due();
            let waiting = self.waiting.peek().map(|Reverse(waiting)| waiting.due);
            let until = match (waiting, next) {
                (None, None) => return None,
                (waiting, next) => waiting
                    .unwrap_or(Duration::MAX)
                    .min(next.unwrap_or(Duration::MAX)),
            };
            let cut_off = self.next_fault();
            if until >= cut_off && cut_off < Duration::MAX {
                self.cut_off(until);
                continue;
            }
            if waiting == Some(until) {
                let Reverse(Waiting { due, action, .. }) = self.waiting.pop()?;
                return Some(Step { due, action });
            }
            if let Some(step) = self.plan.next() {
                self.disturb(step);
            }
        }
    }
}

impl Steps for Disturbed {
    fn due(&mut self) -> Option<Duration> {
        let next = self.plan.due();
        let waiting = self.waiting.peek().map(|Reverse(waiting)| waiting.due);
        let first = [next, waiting].into_iter().flatten().min()?;
        Some(first.min(self.next_fault()))
    }

    fn set_intervals(&mut self, now: Duration, intervals: Intervals) -> bool {
        self.plan.set_intervals(now, intervals)
    }
}

/// How wrong a clock is: at most so far behind or ahead, in whole microseconds.
fn wrong_clock(rng: &mut Pcg32, back: Span, ahead: Span) -> SignedDuration {
    let micros = |span: Span| i64::try_from(span.0.as_micros()).unwrap_or(i64::MAX);
    SignedDuration::from_micros(rng.random_range(-micros(back)..=micros(ahead)))
}

/// So many microseconds later.
fn later(time: Timestamp, micros: i64) -> Timestamp {
    time.checked_add(SignedDuration::from_micros(micros))
        .unwrap_or(Timestamp::MAX)
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.count).cmp(&(other.due, other.count))
    }
}
