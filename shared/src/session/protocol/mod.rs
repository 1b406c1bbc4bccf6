//! What a session does, without a socket: packets in, packets out, time as an argument.

mod incoming;
mod outgoing;

pub(super) use incoming::Received;

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::time::Duration;

use ntex_bytes::BytePages;
use ntex_mqtt::v5::codec::{Codec, ConnectAck, Packet};
use tokio::time::Instant;
use uuid::Uuid;

use super::arrivals::Arrivals;
use super::error::{ConnectionError, PublishError, SubscribeError};
use super::flight::{Completion, Control, Flight, Outgoing, Slot};
use super::frame::Ack;
use super::message::{Publish, QoS, Retained, Ticket};
use super::options::Options;
use super::packet;

/// Answers to PUBREC and PUBREL that may wait; when they are more, reading waits for writing.
const REPLIES_MAX: usize = 4_096;

/// Unacknowledged deliveries per receive maximum at which taking stops until some are acknowledged.
/// By section 3.3.4 there is never more than one; but Mosquitto 2.0 forgets the receive maximum and
/// sends all it has, and then the bound has to hold by leaving it on the wire.
const RECEIVE_SLACK: usize = 2;

/// Pause after a publish was refused for want of quota, doubling up to the second value.
const HOLD: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// What CONNACK granted, with our own bounds applied.
#[derive(Clone, Copy, Debug)]
struct Grant {
    flight: usize,
    qos_max: QoS,
    retain: bool,
}

/// The state of a session: it outlives its connections.
pub(super) struct Protocol {
    options: Options,
    codec: Codec,
    grant: Option<Grant>,
    outbox: VecDeque<Box<Outgoing>>,
    flight: Flight,
    controls: VecDeque<Control>,
    arrivals: Arrivals,
    replies: VecDeque<(Ack, NonZeroU16, u8)>,
    ping_due: bool,
    held_until: Option<Instant>,
    hold: Duration,
    submitted: u64,
    /// When the connection came back, if it is not the first.
    reconnected_at: Option<Instant>,
    /// The broker has acknowledged the subscriptions of the options, on the last connection that
    /// asked for them.
    subscribed: bool,
    refused: Option<SubscribeError>,
    first_connection: bool,
    publishes_done: Vec<(&'static str, QoS)>,
    /// Outcomes of publishes with a token, for the owner of a local session. It is told when nobody
    /// holds the protocol.
    settled: Vec<(u64, Result<(), PublishError>)>,
    pong: bool,
}

impl Protocol {
    pub(super) fn new(options: Options) -> Self {
        Self {
            options,
            codec: Codec::new(),
            grant: None,
            outbox: VecDeque::new(),
            flight: Flight::new(),
            controls: VecDeque::new(),
            arrivals: Arrivals::new(),
            replies: VecDeque::new(),
            ping_due: false,
            held_until: None,
            hold: HOLD.0,
            submitted: 0,
            reconnected_at: None,
            subscribed: false,
            refused: None,
            first_connection: true,
            publishes_done: Vec::new(),
            settled: Vec::new(),
            pong: false,
        }
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }
    /// The CONNECT of a new connection.
    pub(super) fn connect(
        &mut self,
        connection_id: Uuid,
        out: &mut BytePages,
    ) -> Result<(), ConnectionError> {
        self.codec = Codec::new();
        let clean_start = self.options.clean_start && self.first_connection;
        let packet = packet::connect(&self.options, clean_start, connection_id);
        self.encode(Packet::Connect(Box::new(packet)), out)
            .map_err(|reason| {
                ConnectionError::Protocol(format!("CONNECT cannot be encoded: {reason}"))
            })
    }
    /// CONNACK with success: the connection is up. Answers the keep-alive in force.
    pub(super) fn connected(&mut self, ack: &ConnectAck, now: Instant) -> Duration {
        let flight = self.options.flight_max.min(ack.receive_max.get());
        self.grant = Some(Grant {
            flight: usize::from(flight),
            qos_max: packet::from_codec(ack.max_qos),
            retain: ack.retain_available,
        });
        self.codec
            .set_max_outbound_size(ack.max_packet_size.unwrap_or(0));
        self.arrivals.connected(ack.session_present);
        if ack.session_present {
            self.flight.resume();
        } else {
            self.publish_afresh();
        }
        // Also a broker that kept the session is asked again: Mosquitto 2.0 forgets the shared ones
        // among its subscriptions when it restarts. What it does know is not to send us what it has
        // retained a second time.
        let known = self.subscribed && ack.session_present;
        self.subscribed = self.options.subscriptions.is_empty();
        if !self.subscribed {
            let mut subscriptions = self.options.subscriptions.clone();
            for subscription in subscriptions.iter_mut().filter(|_| known) {
                if subscription.retained == Retained::Always {
                    subscription.retained = Retained::IfNew;
                }
            }
            self.controls.push_front(Control::Subscribe {
                subscriptions,
                done: None,
            });
        }
        self.reconnected_at = (!self.first_connection).then_some(now);
        self.first_connection = false;
        ack.server_keepalive_sec
            .map_or(self.options.keep_alive, |secs| {
                Duration::from_secs(u64::from(secs))
            })
    }

    /// The broker has no session for us, so what it had not acknowledged it has never seen, or has
    /// forgotten: all of it goes to the front of the outbox again, in order. A QoS 2 publish that
    /// was between PUBREC and PUBCOMP may come twice then; the alternative is to lose it.
    fn publish_afresh(&mut self) {
        let unanswered: Vec<Slot> = self.flight.drain().collect();
        for slot in unanswered.into_iter().rev() {
            match slot {
                Slot::Sent(out) | Slot::Released(out) => self.outbox.push_front(out),
                Slot::Control(control) => self.controls.push_front(control),
                Slot::Free => {}
            }
        }
    }

    /// The connection is gone.
    pub(super) fn disconnected(&mut self) {
        self.grant = None;
        self.replies.clear();
        self.ping_due = false;
        self.pong = false;
        self.held_until = None;
        // The subscriptions of the options are made anew with the next connection; others wait.
        let again = self.flight.take_controls();
        for control in again.into_iter().rev() {
            self.controls.push_front(control);
        }
        self.controls
            .retain(|control| !matches!(control, Control::Subscribe { done: None, .. }));
    }
    /// DISCONNECT; `end_session` makes the broker forget the session at once.
    pub(super) fn disconnect(&mut self, end_session: bool, out: &mut BytePages) {
        let bytes: &[u8] = if end_session && !self.options.session_expiry.is_zero() {
            // Reason 0x00 and the property Session Expiry Interval (0x11) = 0.
            &[0xe0, 7, 0x00, 5, 0x11, 0, 0, 0, 0]
        } else {
            &[0xe0, 0]
        };
        out.extend_from_slice(bytes);
        self.grant = None;
    }

    /// Whether a publish is taken: not when the outbox is full or it could never be sent.
    pub(super) fn admit(&self, publish: &Publish) -> Result<(), PublishError> {
        let max = self.options.outbox_max;
        if self.outbox.len() >= max {
            return Err(PublishError::OutboxFull { max });
        }
        packet::check(publish).map_err(|reason| packet::unsendable(publish, reason))
    }

    /// Takes a publish, or refuses it as [`Protocol::admit`] says.
    pub(super) fn submit(&mut self, publish: Publish, done: Completion) {
        match self.admit(&publish) {
            Err(error) => self.settled.extend(done.complete(Err(error))),
            Ok(()) => {
                self.submitted += 1;
                self.outbox.push_back(Box::new(Outgoing {
                    number: self.submitted,
                    publish,
                    done,
                }));
            }
        }
    }

    /// What was settled since the last call, of publishes with a token.
    pub(super) fn take_settled(&mut self) -> Vec<(u64, Result<(), PublishError>)> {
        std::mem::take(&mut self.settled)
    }

    pub(super) fn control(&mut self, control: Control) {
        self.controls.push_back(control);
    }

    /// Unsubscribes from everything, as the first step of ending the session.
    pub(super) fn unsubscribe_all(&mut self) {
        let filters: Vec<_> = self
            .options
            .subscriptions
            .iter()
            .map(|subscription| subscription.filter.clone())
            .collect();
        if !filters.is_empty() {
            self.controls.push_back(Control::Unsubscribe {
                filters,
                done: None,
            });
        }
    }

    pub(super) fn acknowledge(&mut self, tickets: &[Ticket]) {
        for ticket in tickets {
            self.arrivals.done(*ticket);
        }
    }

    /// Nothing more can be taken for now: see [`Received::Congested`].
    pub(super) fn is_congested(&self) -> bool {
        self.replies.len() >= REPLIES_MAX
            || self.arrivals.unacknowledged()
                >= RECEIVE_SLACK * usize::from(self.options.receive_maximum)
    }

    /// A PINGREQ goes out with the next [`Protocol::fill`].
    pub(super) fn ping(&mut self) {
        self.ping_due = true;
    }

    /// Whether a PINGRESP has come since the last call.
    pub(super) fn take_pong(&mut self) -> bool {
        std::mem::take(&mut self.pong)
    }

    /// When held-back publishes go again.
    pub(super) fn held_until(&self) -> Option<Instant> {
        self.held_until
    }

    /// The subscriptions of the options are in force.
    pub(super) fn is_subscribed(&self) -> bool {
        self.subscribed
    }

    pub(super) fn take_refused(&mut self) -> Option<SubscribeError> {
        self.refused.take()
    }

    /// Labels of the publishes that have succeeded since the last call, for the metrics.
    pub(super) fn take_published(&mut self) -> std::vec::Drain<'_, (&'static str, QoS)> {
        self.publishes_done.drain(..)
    }

    /// Everything that was to be sent is sent and acknowledged.
    pub(super) fn is_flushed(&self) -> bool {
        self.outbox.is_empty()
            && self.flight.is_empty()
            && self.controls.is_empty()
            && self.replies.is_empty()
    }

    /// Nothing received is owed an acknowledgement.
    pub(super) fn is_settled(&self) -> bool {
        self.arrivals.is_settled() && self.replies.is_empty()
    }

    pub(super) fn outbox_len(&self) -> usize {
        self.outbox.len()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.flight.publishes()
    }

    pub(super) fn unacknowledged(&self) -> usize {
        self.arrivals.unacknowledged()
    }

    /// The session ends: whoever waits is told.
    pub(super) fn stopped(&mut self) {
        let unanswered: Vec<Slot> = self.flight.drain().collect();
        for slot in unanswered {
            match slot {
                Slot::Sent(out) | Slot::Released(out) => self
                    .settled
                    .extend(out.done.complete(Err(PublishError::Stopped))),
                Slot::Control(control) => self.controls.push_back(control),
                Slot::Free => {}
            }
        }
        for out in std::mem::take(&mut self.outbox) {
            self.settled
                .extend(out.done.complete(Err(PublishError::Stopped)));
        }
        for control in std::mem::take(&mut self.controls) {
            let (Control::Subscribe { done, .. } | Control::Unsubscribe { done, .. }) = control;
            if let Some(done) = done {
                drop(done.send(Err(SubscribeError::Stopped)));
            }
        }
    }
}
