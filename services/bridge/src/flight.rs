//! What was handed to Kafka, or to the broker as a dead letter, and is not durable yet.

use fleet_shared::session::Ticket;
use tokio::time::Instant;

/// One message under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// To be handed back once it is durable; absent at QoS 0.
    pub(crate) ticket: Option<Ticket>,
    pub(crate) size: usize,
    pub(crate) since: Instant,
    /// It was refused in a batch, and went again by itself.
    pub(crate) alone: bool,
}

/// Messages under way, by slot: the producer carries a slot's number for us.
///
/// Pure. It needs no order: the session sends acknowledgements in the order of arrival whatever the
/// order of the tickets. Each has a number by which what has to go again goes in order.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    slots: Vec<Option<(u64, Entry)>>,
    free: Vec<usize>,
    bytes: usize,
    next: u64,
}

impl Flight {
    /// Takes one up and gives its slot.
    pub(crate) fn add(&mut self, entry: Entry) -> usize {
        self.bytes += entry.size;
        let numbered = Some((self.next, entry));
        self.next += 1;
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = numbered;
                slot
            }
            None => {
                self.slots.push(numbered);
                self.slots.len() - 1
            }
        }
    }

    /// It is durable, or was never sent; none if the slot is empty.
    pub(crate) fn remove(&mut self, slot: usize) -> Option<Entry> {
        let (_, entry) = self.slots.get_mut(slot)?.take()?;
        self.bytes -= entry.size;
        self.free.push(slot);
        Some(entry)
    }

    /// The entry of a slot.
    pub(crate) fn get_mut(&mut self, slot: usize) -> Option<&mut Entry> {
        let (_, entry) = self.slots.get_mut(slot)?.as_mut()?;
        Some(entry)
    }

    /// How many were added before the one of a slot.
    pub(crate) fn number(&self, slot: usize) -> Option<u64> {
        let (number, _) = self.slots.get(slot)?.as_ref()?;
        Some(*number)
    }

    /// How many are under way.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Their bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_used_again_and_counted() {
        let entry = |size| Entry {
            ticket: None,
            size,
            since: Instant::now(),
            alone: false,
        };
        let mut flight = Flight::default();
        let (a, b) = (flight.add(entry(3)), flight.add(entry(4)));
        assert_eq!((flight.len(), flight.bytes()), (2, 7));
        assert_eq!(flight.remove(a).map(|entry| entry.size), Some(3));
        assert!(flight.remove(a).is_none());
        assert!(flight.remove(99).is_none());
        assert_eq!(flight.add(entry(5)), a);
        assert_eq!((flight.number(b), flight.number(a)), (Some(1), Some(2)));
        flight.remove(b);
        flight.remove(a);
        assert_eq!((flight.len(), flight.bytes()), (0, 0));
    }
}
