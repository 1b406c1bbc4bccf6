//! How instants and qualities are written in SQLite's tables.

use fleet_shared::model::Quality;
use jiff::Timestamp;

const MICROS_PER_MINUTE: i64 = 60_000_000;

/// An instant as the key has it: the minute since the epoch, and the microsecond in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instant {
    pub(super) minute: i64,
    pub(super) offset: i64,
}

impl Instant {
    pub(super) fn of(at: Timestamp) -> Self {
        let micros = at.as_microsecond();
        Self {
            minute: micros.div_euclid(MICROS_PER_MINUTE),
            offset: micros.rem_euclid(MICROS_PER_MINUTE),
        }
    }

    /// Microseconds since the epoch; out of range only where the table was written by others.
    pub(super) fn micros(self) -> Option<i64> {
        self.minute
            .checked_mul(MICROS_PER_MINUTE)?
            .checked_add(self.offset)
    }
}

/// RFC 3339 in UTC with six decimals always, so that instants sort as text.
pub(super) fn instant_text(at: Timestamp) -> String {
    format!("{at:.6}")
}

pub(super) fn quality_code(quality: Quality) -> i64 {
    match quality {
        Quality::Good => 1,
        Quality::Fair => 2,
        Quality::Poor => 3,
    }
}

pub(super) fn quality_of_code(code: i64) -> Option<Quality> {
    match code {
        1 => Some(Quality::Good),
        2 => Some(Quality::Fair),
        3 => Some(Quality::Poor),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_before_the_epoch_keep_a_positive_offset() {
        let at = Timestamp::from_microsecond(-1).unwrap();
        let instant = Instant::of(at);
        assert_eq!((instant.minute, instant.offset), (-1, 59_999_999));
        assert_eq!(instant.micros(), Some(-1));
    }

    #[test]
    fn instant_text_has_six_decimals_always() {
        let at: Timestamp = "2026-11-23T07:00:00.5Z".parse().unwrap();
        assert_eq!(instant_text(at), "2026-11-23T07:00:00.500000Z");
    }
}
