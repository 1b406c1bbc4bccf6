//! When a run that should be over has waited long enough.

use std::time::Duration;

use crate::tally::Count;

/// Notices that nothing is settled any more although something waits.
///
/// It looks at progress and not at the whole time: a slow broker may take as long as it needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stall {
    schedule_end: Option<Duration>,
    limit: Duration,
    settled: u64,
    since: Duration,
}

impl Stall {
    /// Looks from `schedule_end` on; never, when the schedule is endless.
    pub(crate) fn new(schedule_end: Option<Duration>, limit: Duration) -> Self {
        Self {
            schedule_end,
            limit,
            settled: 0,
            since: Duration::ZERO,
        }
    }

    /// Whether nothing was settled for the limit, at `elapsed` since the start of the run.
    pub(crate) fn is_stalled(&mut self, count: &Count, elapsed: Duration) -> bool {
        let Some(end) = self.schedule_end else {
            return false;
        };
        if count.settled() != self.settled || elapsed < end {
            self.settled = count.settled();
            self.since = elapsed;
        }
        elapsed >= end && elapsed.saturating_sub(self.since) >= self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    fn settled(acknowledged: u64) -> Count {
        Count {
            published: 100,
            acknowledged,
            ..Count::default()
        }
    }

    #[test]
    fn progress_puts_the_stall_off() {
        let mut stall = Stall::new(Some(second(10)), second(30));
        assert!(!stall.is_stalled(&settled(0), second(9)));
        assert!(!stall.is_stalled(&settled(0), second(38)));
        assert!(!stall.is_stalled(&settled(1), second(39)));
        assert!(!stall.is_stalled(&settled(1), second(68)));
        assert!(stall.is_stalled(&settled(1), second(69)));
    }

    #[test]
    fn an_endless_run_never_stalls() {
        let mut stall = Stall::new(None, second(30));
        assert!(!stall.is_stalled(&settled(0), second(1_000_000)));
    }
}
