//! How often a device reports, learned from its reports.

use std::time::Duration;

use jiff::Timestamp;

/// Gaps seen before the estimate is used.
const GAPS_MIN: u8 = 3;

/// Intervals of silence that are still normal.
const MISSED_MAX: u32 = 3;

/// Shortest limit: a device that reports many times a second is not gone after one second.
const LIMIT_MIN: Duration = Duration::from_secs(10);

/// The longest gap between a device's statuses, slowly forgotten, so that jitter and one lost
/// message do not shorten it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Interval {
    gap_ms: u32,
    gaps: u8,
}

impl Interval {
    /// A status came that long after the one before on the same connection.
    pub(super) fn saw(&mut self, gap: Duration) {
        let gap_ms = u32::try_from(gap.as_millis()).unwrap_or(u32::MAX);
        self.gap_ms = gap_ms.max(self.gap_ms - self.gap_ms / 8);
        self.gaps = self.gaps.saturating_add(1);
    }

    /// The silence after which the device counts as gone.
    pub(super) fn limit(self, max: Duration) -> Duration {
        if self.gaps < GAPS_MIN {
            return max;
        }
        let gap = Duration::from_millis(u64::from(self.gap_ms));
        (gap * MISSED_MAX).max(LIMIT_MIN).min(max)
    }
}

/// When a device went offline the last three times, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Offlines([u32; 3]);

impl Offlines {
    pub(super) fn push(&mut self, at: Timestamp) {
        let Self([_, second, third]) = *self;
        *self = Self([second, third, seconds(at)]);
    }

    /// Whether all three were within `window` before `now`.
    pub(super) fn within(self, window: Duration, now: Timestamp) -> bool {
        let Self([first, ..]) = self;
        first != 0 && u64::from(seconds(now).saturating_sub(first)) < window.as_secs()
    }
}

fn seconds(at: Timestamp) -> u32 {
    u32::try_from(at.as_second().max(0)).unwrap_or(u32::MAX)
}
