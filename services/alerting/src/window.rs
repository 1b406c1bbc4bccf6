//! The last while of a series, for rules that look at more than one reading.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

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
    /// The first reading ever put in: before a window's length from it, the window says nothing.
    since: Option<Timestamp>,
}

impl Window {
    /// Puts in a reading that is newer than all others, and forgets those older than `span`.
    pub fn push(&mut self, at: Timestamp, value: f64, span: Duration) {
        self.since.get_or_insert(at);
        self.samples.push_back((at, value));
        self.forget(at, span);
    }

    /// When the newest reading was measured.
    #[must_use]
    pub fn newest(&self) -> Option<Timestamp> {
        self.samples.back().map(|(at, _)| *at)
    }

    /// Puts before its readings those of a window that ended where this one began.
    pub fn follow(&mut self, past: Self, span: Duration) {
        let newest = self.newest().or(past.newest());
        let mut samples = past.samples;
        samples.extend(self.samples.drain(..));
        self.samples = samples;
        self.since = past.since.or(self.since);
        if let Some(newest) = newest {
            self.forget(newest, span);
        }
    }

    /// Forgets what is older than `span` or more than is kept.
    fn forget(&mut self, newest: Timestamp, span: Duration) {
        while self
            .samples
            .front()
            .is_some_and(|(oldest, _)| is_outside(*oldest, newest, span))
            || self.samples.len() > SAMPLES_MAX
        {
            self.samples.pop_front();
        }
    }

    /// The answer over the last `span`, both ends included; none until it was watched for so long,
    /// so that a restart makes no averages of a single reading.
    #[must_use]
    pub fn answer(&self, function: Function, span: Duration) -> Option<f64> {
        let (newest_at, newest) = *self.samples.back()?;
        if !is_full(self.since?, newest_at, span) {
            return None;
        }
        let within = || {
            let samples = self.samples.iter().rev();
            samples
                .take_while(move |(at, _)| !is_outside(*at, newest_at, span))
                .map(|(_, value)| *value)
        };
        let count = within().count() as f64;
        match function {
            Function::Avg => Some(within().sum::<f64>() / count),
            Function::Min => within().reduce(f64::min),
            Function::Max => within().reduce(f64::max),
            Function::Count => Some(count),
            Function::Rate => {
                let inside = |(at, _): &&(Timestamp, f64)| !is_outside(*at, newest_at, span);
                let (oldest_at, oldest) = *self.samples.iter().find(inside)?;
                let seconds = newest_at.duration_since(oldest_at).as_secs_f64();
                (seconds > 0.0).then(|| (newest - oldest) / seconds)
            }
        }
    }
}

fn is_outside(at: Timestamp, newest: Timestamp, span: Duration) -> bool {
    newest.duration_since(at).unsigned_abs() > span
}

fn is_full(since: Timestamp, newest: Timestamp, span: Duration) -> bool {
    newest.duration_since(since).unsigned_abs() >= span
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
    fn a_window_that_follows_another_is_as_if_it_had_been_one() {
        let all = [
            (0, 9.0),
            (30, 1.0),
            (60, 2.0),
            (90, 3.0),
            (100, 4.0),
            (110, 5.0),
        ];
        for cut in 0..=all.len() {
            let (mut one, mut past, mut live) =
                (Window::default(), Window::default(), Window::default());
            for (second, value) in all {
                one.push(at(second), value, SPAN);
            }
            for (second, value) in &all[..cut] {
                past.push(at(*second), *value, SPAN);
            }
            for (second, value) in &all[cut..] {
                live.push(at(*second), *value, SPAN);
            }
            live.follow(past, SPAN);
            for function in [
                Function::Avg,
                Function::Min,
                Function::Count,
                Function::Rate,
            ] {
                assert_eq!(
                    live.answer(function, SPAN),
                    one.answer(function, SPAN),
                    "{cut}"
                );
            }
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut window = Window::default();
        for second in 0..5_000 {
            window.push(at(second), 0.0, Duration::from_secs(86_400));
        }
        assert_eq!(window.samples.len(), SAMPLES_MAX);
        let past = window.clone();
        window.follow(past, Duration::from_secs(86_400 * 2));
        assert_eq!(window.samples.len(), SAMPLES_MAX);
    }
}
