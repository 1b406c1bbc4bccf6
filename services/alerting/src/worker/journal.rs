//! When it is noted what was evaluated and changed nothing.

use std::time::Duration;

use fleet_store::AlertMarks;
use tokio::time::Instant;

use crate::engine::Engine;

/// Longest time that a message waits for its acknowledgement because it changed nothing.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// Without a further message for so long the broker may be waiting for acknowledgements.
const QUIET: Duration = Duration::from_millis(10);

/// Messages that wait; a quarter of what the broker sends without an acknowledgement.
const WAITING_MAX: usize = 2_500;

/// Bytes of entries after which the whole takes their place, if it is not larger itself.
const ENTRIES_MAX: usize = 4 * 1024 * 1024;

/// Decides when an entry is written, and which are whole ones.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// The first message that waits.
    since: Option<Instant>,
    heard_at: Option<Instant>,
    /// A timer runs.
    waits: bool,
    /// Bytes of the last whole entry; none before one was written.
    whole: Option<usize>,
    /// Bytes of the entries since.
    entries: usize,
}

impl Journal {
    /// Messages came.
    pub(super) fn heard(&mut self, now: Instant) {
        self.since.get_or_insert(now);
        self.heard_at = Some(now);
    }

    /// Whether an entry is to be written, for so many messages that wait for it.
    pub(super) fn is_due(&self, waiting: usize, now: Instant) -> bool {
        let passed =
            |at: Option<Instant>, limit| at.is_none_or(|at| now.duration_since(at) >= limit);
        waiting >= WAITING_MAX || passed(self.since, WAIT_MAX) || passed(self.heard_at, QUIET)
    }

    /// How long until it is to be asked again; none if a timer runs.
    pub(super) fn wait(&mut self, now: Instant) -> Option<Duration> {
        if self.waits {
            return None;
        }
        self.waits = true;
        let heard_at = self.heard_at.unwrap_or(now);
        let left = (heard_at + QUIET).saturating_duration_since(now);
        Some(left.max(Duration::from_millis(1)))
    }

    /// The timer has run.
    pub(super) fn woken(&mut self) {
        self.waits = false;
    }

    /// The next entry.
    pub(super) fn entry(&mut self, engine: &mut Engine) -> AlertMarks {
        self.since = None;
        let replaces = match self.whole {
            None => true,
            Some(whole) => self.entries >= ENTRIES_MAX.max(2 * whole),
        };
        let body = engine.take_marks(replaces);
        if replaces {
            self.whole = Some(body.len());
            self.entries = 0;
        } else {
            self.entries += body.len();
        }
        AlertMarks { body, replaces }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::rule::RuleSet;

    #[test]
    fn an_entry_is_due_when_many_wait_or_one_waits_long_or_it_is_quiet() {
        let (mut journal, start) = (Journal::default(), Instant::now());
        journal.heard(start);
        let ms = |ms| start + Duration::from_millis(ms);
        assert!(!journal.is_due(1, ms(9)));
        assert!(journal.is_due(1, ms(10)));
        journal.heard(ms(95));
        assert!(!journal.is_due(2_499, ms(99)));
        assert!(journal.is_due(2_500, ms(99)));
        assert!(journal.is_due(1, ms(100)));
        assert_eq!(journal.wait(ms(100)), Some(Duration::from_millis(5)));
        assert_eq!(journal.wait(ms(100)), None);
        journal.woken();
        assert_eq!(journal.wait(ms(200)), Some(Duration::from_millis(1)));
    }

    #[test]
    fn the_first_entry_is_whole_and_so_is_one_after_many() {
        let rules = RuleSet::parse("groups: []").unwrap();
        let mut engine = Engine::new(Arc::new(rules));
        let mut journal = Journal::default();
        assert!(journal.entry(&mut engine).replaces);
        assert!(!journal.entry(&mut engine).replaces);
        journal.entries = ENTRIES_MAX;
        assert!(journal.entry(&mut engine).replaces);
        assert_eq!(journal.entries, 0);
    }
}
