//! What was received and is not in the store yet.

use std::time::Duration;

use fleet_shared::session::Ticket;
use fleet_shared::telemetry::Span;
use fleet_store::{Batch, DeadLetter, NewReading};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::decode::Readings;

/// A batch for the store and the tickets to hand back when it is durable, in arrival order.
#[derive(Debug, Default)]
pub struct Load {
    /// What to store.
    pub batch: Batch,
    /// What to acknowledge then; shorter than the batch, as QoS 0 has no tickets.
    pub tickets: Vec<Ticket>,
    /// Of each reading, what a conflict would have to be dead-lettered with.
    pub origins: Vec<Origin>,
    /// Of the messages that are traced, which are few, their spans.
    pub traced: Vec<Traced>,
}

/// The span of a message, open until the message is durable.
#[derive(Debug)]
pub struct Traced {
    /// From the receipt on.
    pub span: Span,
    /// The place in the batch of the message's last reading; none of a dead letter.
    pub reading: Option<usize>,
}

/// What is needed of a reading's message besides the reading.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The payload as it came: a reading may yet become a dead letter.
    pub payload: fleet_shared::session::Bytes,
    /// The topic it came on.
    pub topic: fleet_shared::session::ByteString,
    /// The broker said that it had delivered it before.
    pub redelivered: bool,
}

/// Collects messages into batches by size and time.
///
/// Pure: it is told the time, and says when a batch is due.
#[derive(Debug)]
pub struct Pending {
    load: Load,
    since: Option<Instant>,
    batch_max: usize,
    linger: Duration,
}

impl Pending {
    /// Batches of at most `batch_max`, waiting for more no longer than `linger`.
    pub fn new(batch_max: usize, linger: Duration) -> Self {
        Self {
            load: Load::default(),
            since: None,
            batch_max: batch_max.max(1),
            linger,
        }
    }

    /// Messages that wait for the store.
    pub fn len(&self) -> usize {
        self.load.batch.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A message with readings arrived: all of them go into one batch, and its ticket with them.
    pub fn readings(
        &mut self,
        readings: Readings,
        origin: Origin,
        received_at: Timestamp,
        ticket: Option<Ticket>,
        now: Instant,
    ) {
        let mut add = |reading, origin| {
            self.load.batch.readings.push(NewReading {
                reading,
                received_at,
            });
            self.load.origins.push(origin);
        };
        match readings {
            Readings::One(reading) => add(reading, origin),
            Readings::Several(readings) => {
                for reading in readings {
                    add(reading, origin.clone());
                }
            }
        }
        self.added(ticket, now);
    }

    /// A message arrived that is no reading.
    pub fn dead_letter(&mut self, letter: DeadLetter, ticket: Option<Ticket>, now: Instant) {
        self.load.batch.dead_letters.push(letter);
        self.added(ticket, now);
    }

    /// The message that was added last is traced.
    pub fn traced(&mut self, span: Span, is_reading: bool) {
        let last = self.load.batch.readings.len().checked_sub(1);
        self.load.traced.push(Traced {
            span,
            reading: last.filter(|_| is_reading),
        });
    }

    fn added(&mut self, ticket: Option<Ticket>, now: Instant) {
        self.load.tickets.extend(ticket);
        self.since.get_or_insert(now);
    }

    /// When the batch is due: at once when it is full, else when it has lingered; never when empty.
    pub fn due(&self) -> Option<Instant> {
        let since = self.since?;
        if self.len() >= self.batch_max {
            return Some(since);
        }
        Some(since + self.linger)
    }

    /// Takes what waits; it may be more than `batch_max` by one socket read.
    pub fn take(&mut self) -> Load {
        self.since = None;
        let next = Load {
            batch: Batch {
                readings: Vec::with_capacity(self.load.batch.readings.len()),
                dead_letters: Vec::new(),
            },
            tickets: Vec::with_capacity(self.load.tickets.len()),
            origins: Vec::with_capacity(self.load.origins.len()),
            traced: Vec::new(),
        };
        std::mem::replace(&mut self.load, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> DeadLetter {
        DeadLetter {
            id: uuid::Uuid::nil(),
            service: "ingest".into(),
            topic: "t".into(),
            payload: vec![],
            reason: "malformed".into(),
            detail: String::new(),
            received_at: Timestamp::UNIX_EPOCH,
            redelivered: false,
        }
    }

    #[test]
    fn nothing_is_due_while_nothing_waits() {
        let mut pending = Pending::new(10, Duration::from_millis(5));
        assert_eq!(pending.due(), None);
        pending.dead_letter(letter(), None, Instant::now());
        assert_eq!(pending.take().batch.len(), 1);
        assert_eq!(pending.due(), None);
    }

    #[test]
    fn batch_is_due_a_linger_after_its_first_message() {
        let start = Instant::now();
        let mut pending = Pending::new(10, Duration::from_millis(5));
        pending.dead_letter(letter(), None, start);
        pending.dead_letter(letter(), None, start + Duration::from_millis(4));
        assert_eq!(pending.due(), Some(start + Duration::from_millis(5)));
    }

    #[test]
    fn full_batch_is_due_at_once() {
        let start = Instant::now();
        let mut pending = Pending::new(2, Duration::from_secs(5));
        pending.dead_letter(letter(), None, start);
        pending.dead_letter(letter(), None, start);
        assert_eq!(pending.due(), Some(start));
    }
}
