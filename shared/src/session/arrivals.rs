//! Deliveries on their way in: acknowledged late, in batches, in the order of arrival.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU16;

use super::frame::Ack;
use super::message::{QoS, Ticket};

/// A delivery of this connection that is not acknowledged on the wire yet.
#[derive(Debug)]
struct Slot {
    id: NonZeroU16,
    qos: QoS,
    done: bool,
}

/// What we know of a QoS 2 identifier until its PUBREL (section 4.3.3).
#[derive(Debug)]
enum Receipt {
    /// Handed to the consumer under `ticket`; `slot` is its place in this connection's window.
    Held { ticket: Ticket, slot: Option<u32> },
    /// The consumer is done, but the broker has not delivered it again on this connection.
    Done,
    /// PUBREC is sent.
    Recorded,
}

/// Order and state of received publishes with QoS 1 and 2.
#[derive(Debug)]
pub(super) struct Arrivals {
    connection: u32,
    /// Sequence number of the front slot.
    front: u32,
    window: VecDeque<Slot>,
    receipts: HashMap<NonZeroU16, Receipt>,
}

/// What to do with an arrived publish.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Hand it over with this ticket.
    Deliver(Ticket),
    /// The consumer has it already.
    Known,
    /// Its PUBREC is sent already and goes again.
    Repeat,
}

impl Arrivals {
    pub(super) fn new() -> Self {
        Self {
            connection: 0,
            front: 0,
            window: VecDeque::new(),
            receipts: HashMap::new(),
        }
    }

    /// Deliveries without an acknowledgement on the wire.
    pub(super) fn unacknowledged(&self) -> usize {
        self.window.len()
    }

    /// Nothing is owed to the broker: no PUBACK, no PUBREC, and no PUBREL is expected.
    pub(super) fn is_settled(&self) -> bool {
        self.window.is_empty() && self.receipts.is_empty()
    }

    /// A new connection. Tickets of QoS 1 are void with the old one, the broker delivers again;
    /// those of QoS 2 live as long as the broker's session, so that nothing is handed over twice.
    pub(super) fn connected(&mut self, session_present: bool) {
        self.connection = self.connection.wrapping_add(1);
        self.front = 0;
        self.window.clear();
        if session_present {
            for receipt in self.receipts.values_mut() {
                if let Receipt::Held { slot, .. } = receipt {
                    *slot = None;
                }
            }
        } else {
            self.receipts.clear();
        }
    }

    /// The sequence number of the next arrival; the window is far shorter than 2^32.
    fn next_sequence(&self) -> u32 {
        self.front.wrapping_add(self.window.len() as u32)
    }

    /// A PUBLISH with QoS 1 or 2 has come.
    pub(super) fn arrived(&mut self, id: NonZeroU16, qos: QoS) -> Arrival {
        if qos == QoS::ExactlyOnce {
            let sequence = self.next_sequence();
            match self.receipts.get_mut(&id) {
                Some(Receipt::Recorded) => return Arrival::Repeat,
                Some(Receipt::Held { slot: Some(_), .. }) => return Arrival::Known,
                Some(Receipt::Held { slot, .. }) => {
                    *slot = Some(sequence);
                    self.window.push_back(Slot {
                        id,
                        qos,
                        done: false,
                    });
                    return Arrival::Known;
                }
                Some(receipt @ Receipt::Done) => {
                    *receipt = Receipt::Recorded;
                    self.window.push_back(Slot {
                        id,
                        qos,
                        done: true,
                    });
                    return Arrival::Known;
                }
                None => {}
            }
        }
        let sequence = self.next_sequence();
        self.window.push_back(Slot {
            id,
            qos,
            done: false,
        });
        let ticket = Ticket {
            connection: self.connection,
            sequence,
            id,
            qos,
        };
        if qos == QoS::ExactlyOnce {
            let slot = Some(sequence);
            self.receipts.insert(id, Receipt::Held { ticket, slot });
        }
        Arrival::Deliver(ticket)
    }

    /// The consumer is done with a delivery; a ticket that is void or used is ignored.
    pub(super) fn done(&mut self, ticket: Ticket) {
        let sequence = if ticket.qos == QoS::ExactlyOnce {
            match self.receipts.get_mut(&ticket.id) {
                Some(receipt) => match receipt {
                    Receipt::Held { ticket: held, slot } if *held == ticket => match *slot {
                        Some(sequence) => {
                            *receipt = Receipt::Recorded;
                            sequence
                        }
                        None => {
                            *receipt = Receipt::Done;
                            return;
                        }
                    },
                    _ => return,
                },
                None => return,
            }
        } else if ticket.connection == self.connection {
            ticket.sequence
        } else {
            return;
        };
        let index = sequence.wrapping_sub(self.front) as usize;
        if let Some(slot) = self.window.get_mut(index)
            && slot.id == ticket.id
        {
            slot.done = true;
        }
    }

    /// The next acknowledgement that may be sent: nothing that arrived earlier still waits for
    /// its own (section 4.6 asks for the order).
    pub(super) fn next_ack(&mut self) -> Option<(Ack, NonZeroU16)> {
        let slot = self.window.pop_front_if(|slot| slot.done)?;
        self.front = self.front.wrapping_add(1);
        let ack = if slot.qos == QoS::ExactlyOnce {
            Ack::PubRec
        } else {
            Ack::PubAck
        };
        Some((ack, slot.id))
    }

    /// PUBREL: whether the identifier was in use; it is free from here on.
    pub(super) fn released(&mut self, id: NonZeroU16) -> bool {
        match self.receipts.get(&id) {
            Some(Receipt::Recorded) => {
                self.receipts.remove(&id);
                true
            }
            // A PUBREL without our PUBREC: keep what the consumer still has to acknowledge.
            Some(Receipt::Held { .. } | Receipt::Done) => true,
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(value: u16) -> NonZeroU16 {
        NonZeroU16::new(value).unwrap()
    }

    fn deliver(arrivals: &mut Arrivals, value: u16, qos: QoS) -> Ticket {
        match arrivals.arrived(id(value), qos) {
            Arrival::Deliver(ticket) => ticket,
            other => panic!("not delivered: {other:?}"),
        }
    }

    fn acks(arrivals: &mut Arrivals) -> Vec<u16> {
        std::iter::from_fn(|| arrivals.next_ack())
            .map(|(_, id)| id.get())
            .collect()
    }

    #[test]
    fn acknowledgements_go_out_in_the_order_of_arrival() {
        let mut arrivals = Arrivals::new();
        arrivals.connected(false);
        let tickets: Vec<_> = [9, 4, 7]
            .map(|value| deliver(&mut arrivals, value, QoS::AtLeastOnce))
            .into();
        arrivals.done(tickets[2]);
        assert_eq!(acks(&mut arrivals), [] as [u16; 0]);
        arrivals.done(tickets[0]);
        assert_eq!(acks(&mut arrivals), [9]);
        arrivals.done(tickets[1]);
        assert_eq!(acks(&mut arrivals), [4, 7]);
        assert!(arrivals.is_settled());
    }

    #[test]
    fn ticket_of_an_ended_connection_is_void_at_qos_1() {
        let mut arrivals = Arrivals::new();
        arrivals.connected(false);
        let old = deliver(&mut arrivals, 1, QoS::AtLeastOnce);
        arrivals.connected(true);
        let new = deliver(&mut arrivals, 1, QoS::AtLeastOnce);
        arrivals.done(old);
        assert_eq!(acks(&mut arrivals), [] as [u16; 0]);
        arrivals.done(new);
        assert_eq!(acks(&mut arrivals), [1]);
    }

    #[test]
    fn qos_2_delivered_again_is_not_handed_over_again() {
        let mut arrivals = Arrivals::new();
        arrivals.connected(false);
        let ticket = deliver(&mut arrivals, 5, QoS::ExactlyOnce);
        arrivals.connected(true);
        assert_eq!(arrivals.arrived(id(5), QoS::ExactlyOnce), Arrival::Known);
        arrivals.done(ticket);
        assert_eq!(arrivals.next_ack(), Some((Ack::PubRec, id(5))));
        assert_eq!(arrivals.arrived(id(5), QoS::ExactlyOnce), Arrival::Repeat);
        assert!(arrivals.released(id(5)));
        assert!(!arrivals.released(id(5)));
        assert!(arrivals.is_settled());
    }

    #[test]
    fn qos_2_done_while_disconnected_is_recorded_when_it_comes_again() {
        let mut arrivals = Arrivals::new();
        arrivals.connected(false);
        let ticket = deliver(&mut arrivals, 5, QoS::ExactlyOnce);
        arrivals.connected(true);
        arrivals.done(ticket);
        assert_eq!(arrivals.next_ack(), None);
        assert_eq!(arrivals.arrived(id(5), QoS::ExactlyOnce), Arrival::Known);
        assert_eq!(arrivals.next_ack(), Some((Ack::PubRec, id(5))));
    }

    #[test]
    fn qos_2_of_a_forgotten_session_is_a_new_message() {
        let mut arrivals = Arrivals::new();
        arrivals.connected(false);
        let old = deliver(&mut arrivals, 5, QoS::ExactlyOnce);
        arrivals.connected(false);
        deliver(&mut arrivals, 5, QoS::ExactlyOnce);
        arrivals.done(old);
        assert_eq!(arrivals.next_ack(), None);
    }

    #[test]
    fn using_a_ticket_twice_acknowledges_once() {
        let mut arrivals = Arrivals::new();
        arrivals.connected(false);
        let first = deliver(&mut arrivals, 3, QoS::AtLeastOnce);
        arrivals.done(first);
        assert_eq!(acks(&mut arrivals), [3]);
        deliver(&mut arrivals, 3, QoS::AtLeastOnce);
        arrivals.done(first);
        assert_eq!(acks(&mut arrivals), [] as [u16; 0]);
    }
}
