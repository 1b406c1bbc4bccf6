//! The last while of a series, for rules that look at more than one reading.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use crate::state::after;

/// Readings remembered for each series; of a sensor that says more within its window the oldest are
/// forgotten.
const SAMPLES_MAX: usize = 1_024;

/// What is asked of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// Mean of the values.
    Avg,
    /// Smallest value.
    Min,
    /// Largest value.
    Max,
    /// Number of readings.
    Count,
    /// Change of the value in one second, from the oldest reading to the newest.
    Rate,
}

impl Function {
    /// The function a condition calls by that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "avg" => Some(Self::Avg),
            "min" => Some(Self::Min),
            "max" => Some(Self::Max),
            "count" => Some(Self::Count),
            "rate" => Some(Self::Rate),
            _ => None,
        }
    }

    /// The name a condition calls it by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Avg => "avg",
            Self::Min => "min",
            Self::Max => "max",
            Self::Count => "count",
            Self::Rate => "rate",
        }
    }
}

/// The newest readings of one series, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Window {
    samples: VecDeque<(Timestamp, f64)>,
    /// The reading that is evaluated. What the store knows of later ones does not count for it.
    now: Option<Timestamp>,
    /// The first reading ever put in: before a window's length from it, the window says nothing.
    since: Option<Timestamp>,
    /// The first of those that were put in afterwards, while not all of them are there.
    remembered: Option<Timestamp>,
}

impl Window {
    /// Puts in the reading that is evaluated, and forgets those older than `span`.
    pub fn push(&mut self, at: Timestamp, value: f64, span: Duration) {
        self.now = Some(at);
        self.since = Some(self.since.map_or(at, |since| since.min(at)));
        self.put(at, value);
        while self
            .samples
            .front()
            .is_some_and(|(oldest, _)| is_outside(*oldest, at, span))
        {
            self.samples.pop_front();
        }
    }

    /// Puts in a reading out of the store, unless it is there. It counts once all of the past is
    /// there: see [`Window::has_remembered`].
    pub fn remember(&mut self, at: Timestamp, value: f64, span: Duration) {
        if self.remembered.is_none_or(|first| at < first) {
            self.remembered = Some(at);
        }
        if !self.now.is_some_and(|now| is_outside(at, now, span)) {
            self.put(at, value);
        }
    }

    /// All of the past is there that there is: the window was watched since then.
    pub fn has_remembered(&mut self) {
        if let Some(first) = self.remembered.take() {
            self.since = Some(self.since.map_or(first, |since| since.min(first)));
        }
    }

    /// Puts in a reading at its place in time; the one that is there already stays.
    fn put(&mut self, at: Timestamp, value: f64) {
        if self.samples.back().is_none_or(|(newest, _)| *newest < at) {
            self.samples.push_back((at, value));
        } else {
            let place = self.samples.partition_point(|(known, _)| *known < at);
            if self
                .samples
                .get(place)
                .is_none_or(|(known, _)| *known != at)
            {
                self.samples.insert(place, (at, value));
            }
        }
        if self.samples.len() > SAMPLES_MAX {
            self.samples.pop_front();
        }
    }

    /// The answer over the last `span`, both ends included; none until it was watched for so long,
    /// so that a restart makes no averages of a single reading.
    #[must_use]
    pub fn answer(&self, function: Function, span: Duration) -> Option<f64> {
        let now = self.now?;
        if !is_full(self.since?, now, span) {
            return None;
        }
        let within = || {
            let samples = self.samples.iter().rev();
            samples
                .skip_while(move |(at, _)| *at > now)
                .take_while(move |(at, _)| !is_outside(*at, now, span))
        };
        let values = || within().map(|(_, value)| *value);
        let count = within().count() as f64;
        match function {
            Function::Avg => Some(values().sum::<f64>() / count),
            Function::Min => values().reduce(f64::min),
            Function::Max => values().reduce(f64::max),
            Function::Count => Some(count),
            Function::Rate => {
                let (newest_at, newest) = within().next()?;
                let (oldest_at, oldest) = self
                    .samples
                    .iter()
                    .find(|(at, _)| !is_outside(*at, now, span))?;
                let seconds = newest_at.duration_since(*oldest_at).as_secs_f64();
                (seconds > 0.0).then(|| (newest - oldest) / seconds)
            }
        }
    }
}

/// Whether a reading is older than the window that ends at `now`.
fn is_outside(at: Timestamp, now: Timestamp, span: Duration) -> bool {
    after(at, span) < now
}

fn is_full(since: Timestamp, now: Timestamp, span: Duration) -> bool {
    after(since, span) <= now
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(60);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    #[test]
    fn a_window_says_nothing_before_it_is_full() {
        let mut window = Window::default();
        for second in [0, 30, 59] {
            window.push(at(second), 1.0, SPAN);
            assert_eq!(window.answer(Function::Avg, SPAN), None);
        }
        window.push(at(60), 5.0, SPAN);
        assert_eq!(window.answer(Function::Avg, SPAN), Some(2.0));
        assert_eq!(window.answer(Function::Count, SPAN), Some(4.0));
    }

    #[test]
    fn every_function_looks_at_the_last_span_only() {
        let mut window = Window::default();
        for (second, value) in [(0, 100.0), (60, 4.0), (90, 1.0), (120, 10.0)] {
            window.push(at(second), value, SPAN);
        }
        let answers = [
            Function::Avg,
            Function::Min,
            Function::Max,
            Function::Count,
            Function::Rate,
        ]
        .map(|function| window.answer(function, SPAN).unwrap());
        assert_eq!(answers, [5.0, 1.0, 10.0, 3.0, 0.1]);
    }

    #[test]
    fn a_rate_of_one_reading_is_none() {
        let mut window = Window::default();
        window.push(at(0), 1.0, SPAN);
        window.push(at(500), 2.0, SPAN);
        assert_eq!(window.answer(Function::Rate, SPAN), None);
    }

    #[test]
    fn a_past_that_is_looked_up_counts_once_it_is_whole() {
        let past = [(0, 9.0), (30, 1.0), (60, 2.0), (90, 3.0)];
        let mut window = Window::default();
        // What comes meanwhile is newer, and may be found in the store as well.
        window.push(at(100), 4.0, SPAN);
        for (second, value) in past {
            window.remember(at(second), value, SPAN);
            assert_eq!(window.answer(Function::Avg, SPAN), None);
        }
        window.remember(at(100), 4.0, SPAN);
        window.push(at(110), 5.0, SPAN);
        assert_eq!(window.answer(Function::Count, SPAN), None);
        window.has_remembered();
        assert_eq!(window.answer(Function::Count, SPAN), Some(4.0));
        assert_eq!(window.answer(Function::Avg, SPAN), Some(3.5));

        let mut watched = Window::default();
        for (second, value) in past.into_iter().chain([(100, 4.0), (110, 5.0)]) {
            watched.push(at(second), value, SPAN);
        }
        for function in [Function::Min, Function::Max, Function::Rate] {
            assert_eq!(
                window.answer(function, SPAN),
                watched.answer(function, SPAN)
            );
        }
    }

    #[test]
    fn a_reading_is_evaluated_without_what_came_after_it_and_counts_once() {
        let mut window = Window::default();
        for (second, value) in [(0, 1.0), (30, 2.0), (60, 3.0), (90, 40.0)] {
            window.remember(at(second), value, SPAN);
        }
        window.has_remembered();
        window.push(at(60), 3.0, SPAN);
        assert_eq!(window.answer(Function::Count, SPAN), Some(3.0));
        assert_eq!(window.answer(Function::Max, SPAN), Some(3.0));
        window.push(at(60), 3.0, SPAN);
        assert_eq!(window.answer(Function::Count, SPAN), Some(3.0));
        window.push(at(90), 40.0, SPAN);
        assert_eq!(window.answer(Function::Max, SPAN), Some(40.0));
    }

    #[test]
    fn a_past_shorter_than_the_window_says_nothing_yet() {
        let mut window = Window::default();
        window.remember(at(30), 1.0, SPAN);
        window.has_remembered();
        window.push(at(60), 1.0, SPAN);
        assert_eq!(window.answer(Function::Avg, SPAN), None);
        window.push(at(90), 4.0, SPAN);
        assert_eq!(window.answer(Function::Avg, SPAN), Some(2.0));
    }

    #[test]
    fn memory_is_bounded() {
        let mut window = Window::default();
        for second in 0..5_000 {
            window.push(at(second), 0.0, Duration::from_secs(86_400));
        }
        assert_eq!(window.samples.len(), SAMPLES_MAX);
        for second in -5_000..0 {
            window.remember(at(second), 0.0, Duration::from_secs(86_400));
        }
        assert_eq!(window.samples.len(), SAMPLES_MAX);
    }
}
