//! When a notification is tried again, and when not.

use std::time::Duration;

use jiff::Timestamp;

/// Attempts at one notification; with the pauses between them more than an hour.
pub(crate) const ATTEMPTS_MAX: u32 = 16;

/// Longest time that a receiver's `Retry-After` is heeded for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// Pauses between attempts: twice as long each time, with jitter.
#[derive(Clone, Copy, Debug)]
pub struct Pause {
    /// The first.
    pub first: Duration,
    /// The longest.
    pub max: Duration,
}

impl Default for Pause {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            max: Duration::from_secs(600),
        }
    }
}

impl Pause {
    /// The pause after `attempt` attempts; `chance` is from 0 to 1. Between half of the doubled pause
    /// and all of it, so that receivers that came back are not overrun, and never none at all.
    #[must_use]
    pub fn after(&self, attempt: u32, chance: f64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(30);
        let full = self.first.saturating_mul(1 << doublings).min(self.max);
        full.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }
}

/// What a receiver's answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// It has the notification.
    Taken,
    /// It may take it later, at once again or after so long.
    Later(Option<Duration>),
    /// It will not take it.
    Refused,
}

impl Response {
    /// By the status code of an HTTP response (RFC 9110, RFC 6585).
    #[must_use]
    pub fn of_status(status: u16, retry_after: Option<Duration>) -> Self {
        match status {
            200..=299 => Self::Taken,
            408 | 425 | 429 | 500..=599 => Self::Later(retry_after),
            _ => Self::Refused,
        }
    }
}

/// Reads a `Retry-After` header: seconds, or an HTTP date.
#[must_use]
pub fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let span = match value.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = jiff::fmt::rfc2822::parse(value).ok()?;
            let until = date.timestamp().duration_since(now);
            Duration::try_from(until).unwrap_or_default()
        }
    };
    Some(span.min(RETRY_AFTER_MAX))
}

/// A bound on messages a minute: a full bucket of them at the start, filled again evenly.
#[derive(Clone, Debug)]
pub struct Bucket {
    per_minute: f64,
    tokens: f64,
    at: Timestamp,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn new(per_minute: u32, now: Timestamp) -> Self {
        Self {
            per_minute: f64::from(per_minute),
            tokens: f64::from(per_minute),
            at: now,
        }
    }

    /// Takes one; else how long until there is one.
    ///
    /// # Errors
    /// The time to wait.
    pub fn take(&mut self, now: Timestamp) -> Result<(), Duration> {
        let passed = now.duration_since(self.at).as_secs_f64().max(0.0);
        self.at = self.at.max(now);
        self.tokens = (self.tokens + passed * self.per_minute / 60.0).min(self.per_minute);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        let wait = (1.0 - self.tokens) * 60.0 / self.per_minute;
        Err(Duration::from_secs_f64(wait).max(Duration::from_millis(10)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_sum_up_to_more_than_an_hour() {
        let pause = Pause::default();
        assert_eq!(pause.after(1, 1.0), Duration::from_secs(1));
        assert_eq!(pause.after(4, 1.0), Duration::from_secs(8));
        assert_eq!(pause.after(4, 0.0), Duration::from_secs(4));
        assert_eq!(pause.after(u32::MAX, 1.0), Duration::from_secs(600));
        let all: Duration = (1..ATTEMPTS_MAX).map(|n| pause.after(n, 0.5)).sum();
        assert!(all > Duration::from_secs(3_000), "{all:?}");
    }

    #[test]
    fn what_a_receiver_says_decides() {
        assert_eq!(Response::of_status(204, None), Response::Taken);
        assert_eq!(Response::of_status(500, None), Response::Later(None));
        let soon = Some(Duration::from_secs(2));
        assert_eq!(Response::of_status(429, soon), Response::Later(soon));
        for refused in [301, 400, 401, 404, 410] {
            assert_eq!(Response::of_status(refused, None), Response::Refused);
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
        let now: Timestamp = "2015-10-21T07:27:00Z".parse().unwrap();
        assert_eq!(retry_after("120", now), Some(Duration::from_secs(120)));
        let date = "Wed, 21 Oct 2015 07:28:00 GMT";
        assert_eq!(retry_after(date, now), Some(Duration::from_secs(60)));
        assert_eq!(retry_after(date, at(0)), Some(Duration::ZERO));
        assert_eq!(retry_after("99999999", now), Some(RETRY_AFTER_MAX));
        assert_eq!(retry_after("soon", now), None);
    }

    #[test]
    fn a_bucket_lets_no_more_through_than_its_rate() {
        let mut bucket = Bucket::new(6, at(0));
        for _ in 0..6 {
            assert_eq!(bucket.take(at(0)), Ok(()));
        }
        assert_eq!(bucket.take(at(0)), Err(Duration::from_secs(10)));
        assert_eq!(bucket.take(at(10)), Ok(()));
        assert!(bucket.take(at(10)).is_err());
        let hour: usize = (0..3_600)
            .filter(|second| bucket.take(at(*second)).is_ok())
            .count();
        assert!(hour <= 366, "{hour}");
    }
}
