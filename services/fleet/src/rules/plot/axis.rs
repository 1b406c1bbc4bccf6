//! Round numbers beside an axis.

use jiff::{SignedDuration, Timestamp};

/// Most marks on an axis of time.
const TIMES_MAX: i64 = 9;

/// Steps of time that people count in, in seconds.
const STEPS: [i64; 18] = [
    1, 5, 15, 30, 60, 300, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 172_800,
    604_800, 2_592_000, 31_536_000,
];

/// The axis of time that all panels share.
pub(super) struct TimeAxis {
    from: Timestamp,
    span: f64,
    left: f64,
    width: f64,
    step: i64,
}

impl TimeAxis {
    pub(super) fn new(from: Timestamp, to: Timestamp, left: f64, width: f64) -> Self {
        let span = to.duration_since(from);
        let fits = |step: &i64| span.as_secs() / step <= TIMES_MAX;
        Self {
            from,
            span: span.as_secs_f64().max(1e-6),
            left,
            width,
            step: STEPS.into_iter().find(fits).unwrap_or(10 * 31_536_000),
        }
    }

    /// Where an instant stands, kept within the axis.
    pub(super) fn x(&self, at: Timestamp) -> f64 {
        let share = at.duration_since(self.from).as_secs_f64() / self.span;
        self.left + self.width * share.clamp(0.0, 1.0)
    }

    /// Where a column of the trace stands.
    pub(super) fn column(&self, column: usize) -> f64 {
        self.left + column as f64 + 0.5
    }

    /// Round instants and what to write below them.
    pub(super) fn marks(&self) -> Vec<(f64, String)> {
        let first = (self.from.as_second() + self.step - 1).div_euclid(self.step) * self.step;
        let form = match self.step {
            ..60 => "%H:%M:%S",
            60..86_400 => "%d %b %H:%M",
            _ => "%d %b %Y",
        };
        let end = self
            .from
            .saturating_add(SignedDuration::from_secs_f64(self.span));
        let end = end.map_or(Timestamp::MAX, |end| end).as_second();
        (0..=TIMES_MAX)
            .map(|n| first + n * self.step)
            .take_while(|second| *second <= end)
            .filter_map(|second| Timestamp::from_second(second).ok())
            .map(|at| (self.x(at), at.strftime(form).to_string()))
            .collect()
    }
}

/// An axis of values, from the lowest to the highest and a little beyond.
pub(super) struct ValueAxis {
    low: f64,
    high: f64,
    step: f64,
    top: f64,
    height: f64,
}

impl ValueAxis {
    pub(super) fn new(low: f64, high: f64, top: f64, height: f64) -> Self {
        let room = if high > low {
            (high - low) * 0.06
        } else {
            low.abs().max(1.0) * 0.1
        };
        let (low, high) = (low - room, high + room);
        let rough = (high - low) / 5.0;
        let unit = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .map(|times| times * unit)
            .into_iter()
            .find(|step| *step >= rough);
        Self {
            low,
            high,
            step: step.unwrap_or(unit * 10.0),
            top,
            height,
        }
    }

    /// Where a value stands.
    pub(super) fn y(&self, value: f64) -> f64 {
        let share = (value - self.low) / (self.high - self.low);
        self.top + self.height * (1.0 - share.clamp(0.0, 1.0))
    }

    /// Round values and how they are written.
    pub(super) fn marks(&self) -> Vec<(f64, String)> {
        let decimals = (-self.step.log10().floor()).clamp(0.0, 12.0) as usize;
        let first = (self.low / self.step).ceil();
        (0..12)
            .map(|n| (first + f64::from(n)) * self.step)
            .take_while(|value| *value <= self.high)
            // Not a negative zero.
            .map(|value| (self.y(value), format!("{:.decimals$}", value + 0.0)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round() {
        let axis = ValueAxis::new(19.0, 23.2, 0.0, 100.0);
        let values: Vec<String> = axis.marks().into_iter().map(|(_, text)| text).collect();
        assert_eq!(values, ["19", "20", "21", "22", "23"]);
        let axis = ValueAxis::new(0.004, 0.0041, 0.0, 100.0);
        assert_eq!(axis.marks().len(), 3);
        let axis = ValueAxis::new(5.0, 5.0, 0.0, 100.0);
        assert!((axis.y(5.0) - 50.0).abs() < 1e-9);

        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let axis = TimeAxis::new(
            time("2015-02-04T17:51:00Z"),
            time("2015-02-10T09:33:00Z"),
            0.0,
            960.0,
        );
        let times: Vec<String> = axis.marks().into_iter().map(|(_, text)| text).collect();
        assert_eq!(times[0], "05 Feb 2015");
        assert_eq!(times.len(), 6);
    }
}
