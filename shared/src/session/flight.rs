//! Publishes on their way out: what waits, what is in flight, and in which order it goes again.

use std::collections::VecDeque;
use std::num::NonZeroU16;

use tokio::sync::oneshot;

use super::error::{PublishError, SubscribeError};
use super::message::{ByteString, Publish, QoS, Subscription};
use super::reason;

/// What is told to whoever published.
pub(super) enum Completion {
    Waiter(oneshot::Sender<Result<(), PublishError>>),
    Callback(Box<dyn FnOnce(Result<(), PublishError>) + Send>),
    /// The owner of a local session knows it by this; see [`Protocol::complete`].
    ///
    /// [`Protocol::complete`]: super::protocol::Protocol::complete
    Token(u64),
}

impl Completion {
    /// Tells the outcome; a token, which has nobody to tell, is given back with it.
    pub(super) fn complete(
        self,
        outcome: Result<(), PublishError>,
    ) -> Option<(u64, Result<(), PublishError>)> {
        match self {
            Self::Token(token) => return Some((token, outcome)),
            // Nobody waits any more when the publisher has dropped its future: it does not want to know.
            Self::Waiter(waiter) => drop(waiter.send(outcome)),
            Self::Callback(callback) => callback(outcome),
        }
        None
    }
}

impl std::fmt::Debug for Completion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Completion")
    }
}

/// A publish and who waits for it.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Counts the publishes of the session: their order.
    pub(super) number: u64,
    pub(super) publish: Publish,
    pub(super) done: Completion,
}

/// A change of the subscriptions that the broker has to acknowledge.
#[derive(Debug)]
pub(super) enum Control {
    Subscribe {
        subscriptions: Vec<Subscription>,
        /// Absent for the subscriptions of the options, made on every connect that needs it.
        done: Option<oneshot::Sender<Result<(), SubscribeError>>>,
    },
    Unsubscribe {
        filters: Vec<ByteString>,
        /// Absent when the session ends and unsubscribes by itself.
        done: Option<oneshot::Sender<Result<(), SubscribeError>>>,
    },
}

impl Control {
    /// The filters that it is about.
    pub(super) fn filters(&self) -> impl Iterator<Item = &ByteString> + Clone {
        let (subscriptions, filters): (&[Subscription], &[ByteString]) = match self {
            Self::Subscribe { subscriptions, .. } => (subscriptions, &[]),
            Self::Unsubscribe { filters, .. } => (&[], filters),
        };
        let subscribed = subscriptions
            .iter()
            .map(|subscription| &subscription.filter);
        subscribed.chain(filters)
    }
}

/// One packet identifier in use.
#[derive(Debug)]
pub(super) enum Slot {
    /// Sent, no answer yet.
    Sent(Box<Outgoing>),
    /// QoS 2: PUBREC came, PUBREL is sent.
    Released(Box<Outgoing>),
    Control(Control),
    /// Answered; kept until everything before it is answered too.
    Free,
}

/// Packet identifiers and what they stand for, in the order of sending.
///
/// Identifiers are given out one after the other, so the slot of an identifier is found by
/// subtraction. A slot is given back once all before it are; the span between the oldest
/// unanswered publish and the newest is bounded.
#[derive(Debug)]
pub(super) struct Flight {
    slots: VecDeque<Slot>,
    /// Identifier of the front slot, less one: 0..65535.
    first: u16,
    publishes: usize,
    qos2: usize,
    /// Slots from here on are still to be sent again after a reconnect.
    resend: usize,
    /// Publishes that have gone out on this connection and are not answered.
    outstanding: usize,
}

const IDENTIFIERS: usize = 65_535;

/// Slots from the oldest unanswered to the newest. At most a fifth of the identifiers, so that one
/// publish that is never answered cannot make memory grow with what is published after it.
const SPAN_MAX: usize = 13_107;

/// What goes on the wire for a slot after a reconnect.
#[derive(Debug)]
pub(super) enum Resend<'a> {
    Publish(&'a Publish),
    Release,
}

impl Flight {
    pub(super) fn new() -> Self {
        Self {
            slots: VecDeque::new(),
            first: 0,
            publishes: 0,
            qos2: 0,
            resend: 0,
            outstanding: 0,
        }
    }

    /// Publishes without a final answer.
    pub(super) fn publishes(&self) -> usize {
        self.publishes
    }

    pub(super) fn qos2(&self) -> usize {
        self.qos2
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.slots.len() < SPAN_MAX
    }

    fn id_at(&self, index: usize) -> NonZeroU16 {
        let zero_based = (usize::from(self.first) + index) % IDENTIFIERS;
        u16::try_from(zero_based + 1)
            .ok()
            .and_then(NonZeroU16::new)
            .unwrap_or(NonZeroU16::MIN)
    }

    fn index_of(&self, id: NonZeroU16) -> Option<usize> {
        let zero_based = usize::from(id.get() - 1);
        let index = (zero_based + IDENTIFIERS - usize::from(self.first)) % IDENTIFIERS;
        (index < self.slots.len()).then_some(index)
    }

    /// The identifier that [`Flight::push`] gives out next.
    pub(super) fn next_id(&self) -> NonZeroU16 {
        self.id_at(self.slots.len())
    }

    /// Takes the next identifier; the caller has checked [`Flight::has_room`].
    pub(super) fn push(&mut self, slot: Slot) -> NonZeroU16 {
        let id = self.next_id();
        if let Slot::Sent(out) = &slot {
            self.publishes += 1;
            self.outstanding += 1;
            self.qos2 += usize::from(out.publish.qos == QoS::ExactlyOnce);
        }
        // Nothing is pushed while older slots wait to be sent again, so the cursor stays behind all.
        if self.resend == self.slots.len() {
            self.resend += 1;
        }
        self.slots.push_back(slot);
        id
    }

    /// Marks the slot answered and returns what it held.
    fn take(&mut self, index: usize) -> Slot {
        let slot = std::mem::replace(&mut self.slots[index], Slot::Free);
        if let Slot::Sent(out) | Slot::Released(out) = &slot {
            self.publishes -= 1;
            self.outstanding -= usize::from(index < self.resend);
            self.qos2 -= usize::from(out.publish.qos == QoS::ExactlyOnce);
        }
        while matches!(self.slots.front(), Some(Slot::Free)) {
            self.slots.pop_front();
            self.first = u16::try_from((usize::from(self.first) + 1) % IDENTIFIERS).unwrap_or(0);
            self.resend = self.resend.saturating_sub(1);
        }
        slot
    }

    /// PUBACK, PUBCOMP, or a PUBREC that refuses: the publish it ends, if there is one.
    pub(super) fn finish(&mut self, id: NonZeroU16, expect_release: bool) -> Option<Box<Outgoing>> {
        let index = self.index_of(id)?;
        let matches = match &self.slots[index] {
            Slot::Sent(_) => !expect_release,
            Slot::Released(_) => expect_release,
            Slot::Control(_) | Slot::Free => false,
        };
        if !matches {
            return None;
        }
        match self.take(index) {
            Slot::Sent(out) | Slot::Released(out) => Some(out),
            Slot::Control(_) | Slot::Free => None,
        }
    }

    /// QoS of the publish that was sent under this identifier and not answered yet.
    pub(super) fn sent_qos(&self, id: NonZeroU16) -> Option<QoS> {
        match self.slots.get(self.index_of(id)?)? {
            Slot::Sent(out) => Some(out.publish.qos),
            _ => None,
        }
    }

    /// PUBREC: whether a PUBREL is due (again).
    pub(super) fn release(&mut self, id: NonZeroU16) -> bool {
        let Some(index) = self.index_of(id) else {
            return false;
        };
        match std::mem::replace(&mut self.slots[index], Slot::Free) {
            Slot::Sent(out) if out.publish.qos == QoS::ExactlyOnce => {
                self.slots[index] = Slot::Released(out);
                true
            }
            other => {
                let released = matches!(other, Slot::Released(_));
                self.slots[index] = other;
                released
            }
        }
    }

    /// SUBACK or UNSUBACK: what it answers.
    pub(super) fn finish_control(&mut self, id: NonZeroU16) -> Option<Control> {
        let index = self.index_of(id)?;
        if !matches!(self.slots[index], Slot::Control(_)) {
            return None;
        }
        match self.take(index) {
            Slot::Control(control) => Some(control),
            _ => None,
        }
    }

    /// A new connection to the same broker session: everything unanswered goes again, in order.
    pub(super) fn resume(&mut self) {
        self.resend = 0;
        self.outstanding = 0;
    }

    /// The next slot to send again, after all of them `None`.
    pub(super) fn next_resend(&mut self) -> Option<(NonZeroU16, Resend<'_>)> {
        while self.resend < self.slots.len() {
            let index = self.resend;
            self.resend += 1;
            let id = self.id_at(index);
            match &self.slots[index] {
                Slot::Free | Slot::Control(_) => {}
                Slot::Sent(out) => {
                    self.outstanding += 1;
                    return Some((id, Resend::Publish(&out.publish)));
                }
                Slot::Released(_) => {
                    self.outstanding += 1;
                    return Some((id, Resend::Release));
                }
            }
        }
        None
    }

    /// The slot that [`Flight::next_resend`] answers next is a QoS 2 publish that expects a
    /// subscriber.
    pub(super) fn resend_expects_subscriber(&self) -> bool {
        let next = self
            .slots
            .iter()
            .skip(self.resend)
            .find_map(|slot| match slot {
                Slot::Sent(out) | Slot::Released(out) => Some(&out.publish),
                Slot::Control(_) | Slot::Free => None,
            });
        next.is_some_and(|publish| publish.qos == QoS::ExactlyOnce && publish.expects_subscriber)
    }

    pub(super) fn resending(&self) -> bool {
        self.resend < self.slots.len()
    }

    /// Publishes that have gone out on this connection and are not answered.
    pub(super) fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Takes the subscription changes that were on their way when the connection ended.
    pub(super) fn take_controls(&mut self) -> Vec<Control> {
        let mut controls = Vec::new();
        let mut index = 0;
        while index < self.slots.len() {
            if matches!(self.slots[index], Slot::Control(_)) {
                let before = self.slots.len();
                if let Slot::Control(control) = self.take(index) {
                    controls.push(control);
                }
                // Taking the front gives slots back, so what follows has moved up.
                index = (index + 1).saturating_sub(before - self.slots.len());
            } else {
                index += 1;
            }
        }
        controls
    }

    /// The broker has forgotten the session: everything unanswered is to be published afresh.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Slot> + use<> {
        self.first =
            u16::try_from((usize::from(self.first) + self.slots.len()) % IDENTIFIERS).unwrap_or(0);
        self.publishes = 0;
        self.qos2 = 0;
        self.resend = 0;
        self.outstanding = 0;
        std::mem::take(&mut self.slots).into_iter()
    }
}

/// The outcome that a reason code stands for.
pub(super) fn outcome(publish: &Publish, code: u8) -> Result<(), PublishError> {
    if code < reason::FAILURE {
        return Ok(());
    }
    Err(PublishError::Refused {
        topic: publish.topic.to_string(),
        code,
        reason: reason::name(code),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outgoing(qos: QoS) -> Slot {
        Slot::Sent(Box::new(Outgoing {
            number: 0,
            publish: Publish::new("t", "t", "p").qos(qos),
            done: Completion::Callback(Box::new(|_| {})),
        }))
    }

    #[test]
    fn identifiers_wrap_around_without_zero() {
        let mut flight = Flight::new();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..IDENTIFIERS {
            let id = flight.push(outgoing(QoS::AtLeastOnce));
            assert!(seen.insert(id));
            assert!(flight.finish(id, false).is_some());
        }
        assert_eq!(flight.push(outgoing(QoS::AtLeastOnce)).get(), 1);
    }

    #[test]
    fn answers_out_of_order_find_their_publish() {
        let mut flight = Flight::new();
        let ids: Vec<_> = (0..5)
            .map(|_| flight.push(outgoing(QoS::AtLeastOnce)))
            .collect();
        for at in [3, 1, 0, 4, 2] {
            assert!(flight.finish(ids[at], false).is_some());
            assert!(flight.finish(ids[at], false).is_none());
        }
        assert!(flight.is_empty());
        assert_eq!(flight.publishes(), 0);
    }

    #[test]
    fn released_publish_ends_with_pubcomp_only() {
        let mut flight = Flight::new();
        let id = flight.push(outgoing(QoS::ExactlyOnce));
        assert_eq!(flight.qos2(), 1);
        assert!(flight.finish(id, true).is_none());
        assert!(flight.release(id));
        assert!(flight.release(id));
        assert!(flight.finish(id, false).is_none());
        assert!(flight.finish(id, true).is_some());
        assert_eq!(flight.qos2(), 0);
        assert!(!flight.release(id));
    }

    #[test]
    fn resume_sends_the_unanswered_again_in_order() {
        let mut flight = Flight::new();
        let ids: Vec<_> = (0..4)
            .map(|_| flight.push(outgoing(QoS::ExactlyOnce)))
            .collect();
        assert!(flight.release(ids[1]));
        assert!(flight.release(ids[0]));
        assert!(flight.finish(ids[0], true).is_some());
        flight.resume();
        let mut again = Vec::new();
        while let Some((id, resend)) = flight.next_resend() {
            again.push((id, matches!(resend, Resend::Release)));
        }
        assert_eq!(again, [(ids[1], true), (ids[2], false), (ids[3], false)]);
        assert!(!flight.resending());
    }

    #[test]
    fn control_on_its_way_is_taken_back_when_the_connection_ends() {
        let mut flight = Flight::new();
        let unsubscribe = || {
            Slot::Control(Control::Unsubscribe {
                filters: vec![],
                done: None,
            })
        };
        flight.push(unsubscribe());
        let publish = flight.push(outgoing(QoS::AtLeastOnce));
        flight.push(unsubscribe());
        flight.push(unsubscribe());
        assert_eq!(flight.take_controls().len(), 3);
        assert!(flight.finish(publish, false).is_some());
        assert!(flight.is_empty());
    }
}
