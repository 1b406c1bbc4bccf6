//! The last hour of the fleet in a few numbers, kept in memory for the dashboard.

use std::collections::VecDeque;

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

/// Minutes kept.
const MINUTES: usize = 60;

/// Samples kept: a quarter of an hour.
const SAMPLES: usize = 180;

/// Seconds between two samples.
const SAMPLE_SECONDS: i64 = 5;

/// The most devices of a minute that were not online.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Minute {
    /// Its start.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    offline: usize,
    flapping: usize,
}

/// Rates and delays at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Sample {
    /// When that was.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) at: Timestamp,
    /// Readings published a second.
    pub(crate) published: f64,
    /// Readings stored a second; absent if ingest did not say.
    pub(crate) stored: Option<f64>,
    /// From reading to commit, median, in milliseconds.
    pub(crate) p50: Option<f64>,
    /// The same at the 99th percentile.
    pub(crate) p99: Option<f64>,
}

/// What was, since this replica started.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(crate) struct Trend {
    /// The last hour, the oldest first; minutes without a replica to see them are absent.
    #[schema(value_type = Vec<Minute>)]
    minutes: VecDeque<Minute>,
    /// The last quarter of an hour, every 5 s, the oldest first.
    #[schema(value_type = Vec<Sample>)]
    samples: VecDeque<Sample>,
}

impl Trend {
    /// Notes how it is now; called about once a second.
    pub(crate) fn note(&mut self, offline: usize, flapping: usize, sample: Sample) {
        let second = sample.at.as_second();
        let start = Timestamp::from_second(second - second.rem_euclid(60)).unwrap_or(sample.at);
        match self.minutes.back_mut() {
            Some(minute) if minute.at >= start => {
                minute.offline = minute.offline.max(offline);
                minute.flapping = minute.flapping.max(flapping);
            }
            _ => {
                self.minutes.push_back(Minute {
                    at: start,
                    offline,
                    flapping,
                });
            }
        }
        let oldest = second - MINUTES as i64 * 60;
        while self.minutes.len() > MINUTES
            || self
                .minutes
                .front()
                .is_some_and(|it| it.at.as_second() <= oldest)
        {
            self.minutes.pop_front();
        }
        let due = self
            .samples
            .back()
            .is_none_or(|last| second - last.at.as_second() >= SAMPLE_SECONDS);
        if due {
            if self.samples.len() == SAMPLES {
                self.samples.pop_front();
            }
            self.samples.push_back(sample);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_of_minutes_and_a_quarter_of_samples_are_kept() {
        let mut trend = Trend::default();
        for second in 0..2 * 3_600 {
            let sample = Sample {
                at: Timestamp::from_second(second).unwrap(),
                published: second as f64,
                stored: None,
                p50: None,
                p99: None,
            };
            // Three devices are offline for one second of each minute.
            trend.note(if second % 60 == 30 { 3 } else { 0 }, 1, sample);
        }
        assert_eq!(
            (trend.minutes.len(), trend.samples.len()),
            (MINUTES, SAMPLES)
        );
        assert!(
            trend
                .minutes
                .iter()
                .all(|it| it.offline == 3 && it.flapping == 1)
        );
        assert_eq!(trend.minutes[0].at.as_second(), 3_600);
        let gaps = trend.samples.iter().zip(trend.samples.iter().skip(1));
        assert!(
            gaps.into_iter()
                .all(|(a, b)| b.at.as_second() - a.at.as_second() == 5)
        );
    }
}
