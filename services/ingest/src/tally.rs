//! What a worker has done since its last report.

use std::time::Duration;

use fleet_shared::report::{Delays, IngestReport};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::commit::Committed;

/// Counts between two reports.
#[derive(Debug)]
pub(crate) struct Tally {
    since: Instant,
    stored: u64,
    dead_letters: u64,
    delays: Delays,
}

impl Tally {
    pub(crate) fn new(since: Instant) -> Self {
        Self {
            since,
            stored: 0,
            dead_letters: 0,
            delays: Delays::default(),
        }
    }

    pub(crate) fn committed(&mut self, committed: &Committed) {
        self.stored += committed.stored;
        self.dead_letters += committed.dead_letters.len() as u64;
        for seconds in &committed.delivery_seconds {
            // A device whose clock is ahead has a delay below zero: none.
            let delay = Duration::try_from_secs_f64(*seconds).unwrap_or_default();
            self.delays.record(delay);
        }
    }

    /// What was done until `now`; counting begins anew.
    pub(crate) fn report(&mut self, instance: &str, group: &str, now: Instant) -> IngestReport {
        let done = std::mem::replace(self, Self::new(now));
        IngestReport {
            instance: instance.to_owned(),
            group: group.to_owned(),
            at: Timestamp::now(),
            seconds: now.duration_since(done.since).as_secs_f64(),
            stored: done.stored,
            dead_letters: done.dead_letters,
            queue: 0,
            window: 0,
            delivery_us: done.delays,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_covers_what_came_since_the_last() {
        let start = Instant::now();
        let mut tally = Tally::new(start);
        tally.committed(&Committed {
            stored: 2,
            delivery_seconds: vec![0.010, -3.0],
            ..Committed::default()
        });
        let report = tally.report("i", "g", start + Duration::from_secs(5));
        assert_eq!((report.stored, report.delivery_us.count()), (2, 2));
        assert!((report.seconds - 5.0).abs() < 1e-9);
        let next = tally.report("i", "g", start + Duration::from_secs(10));
        assert_eq!((next.stored, next.delivery_us.count()), (0, 0));
        assert!((next.seconds - 5.0).abs() < 1e-9);
    }
}
