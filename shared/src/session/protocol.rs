//! What a session does, without a socket: packets in, packets out, time as an argument.

use std::collections::VecDeque;
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use ntex_bytes::{BytePages, BytesMut};
use ntex_codec::Encoder as _;
use ntex_mqtt::v5::codec::{self, Codec, ConnectAck, Encoded, Packet, PublishProperties};
use secrecy::ExposeSecret as _;
use tokio::time::Instant;
use uuid::Uuid;

use super::arrivals::{Arrival, Arrivals};
use super::error::{ConnectionError, PublishError, SubscribeError};
use super::flight::{self, Completion, Control, Flight, Outgoing, Resend, Slot};
use super::frame::{self, Ack, Frame, Next};
use super::message::{
    ByteString, Bytes, Message, Properties, Publish, QoS, Retained, Subscription,
};
use super::options::Options;
use super::reason;

/// Bytes that may wait for the socket. More are made only when these are written, so a broker that
/// reads slowly holds the publisher back instead of filling memory.
const OUTPUT_MAX: usize = 64 * 1024;

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

/// What [`Protocol::receive`] did with the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// All whole packets are taken; so many bytes in all are needed for the next.
    Need(usize),
    /// Replies have to be written, or deliveries acknowledged, before more is taken.
    Congested,
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
    /// The broker's session has the subscriptions of the options: it has acknowledged them to this
    /// process. Those of an earlier process may have been other ones.
    subscribed: bool,
    refused: Option<SubscribeError>,
    first_connection: bool,
    publishes_done: Vec<(&'static str, QoS)>,
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
            subscribed: false,
            refused: None,
            first_connection: true,
            publishes_done: Vec::new(),
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
        let options = &self.options;
        self.codec = Codec::new();
        let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
        let last_will = options.will.as_ref().map(|source| {
            let will = source.make(connection_id);
            codec::LastWill {
                qos: to_codec(will.qos),
                retain: will.retain,
                topic: will.topic,
                message: will.payload,
                will_delay_interval_sec: Some(seconds(will.delay)).filter(|delay| *delay > 0),
                correlation_data: None,
                message_expiry_interval: None,
                content_type: None,
                user_properties: will.user,
                is_utf8_payload: None,
                response_topic: None,
            }
        });
        let packet = codec::Connect {
            clean_start: options.clean_start && self.first_connection,
            keep_alive: u16::try_from(options.keep_alive.as_secs()).unwrap_or(u16::MAX),
            session_expiry_interval_secs: seconds(options.session_expiry),
            auth_method: None,
            auth_data: None,
            request_problem_info: true,
            request_response_info: false,
            receive_max: NonZeroU16::new(options.receive_maximum),
            topic_alias_max: 0,
            user_properties: options.user.clone(),
            max_packet_size: NonZeroU32::new(options.packet_max),
            last_will,
            client_id: options.client_id.clone(),
            username: options.username.clone().map(ByteString::from),
            password: options
                .password
                .as_ref()
                .map(|secret| Bytes::from(secret.expose_secret().as_bytes().to_vec())),
        };
        self.encode(Packet::Connect(Box::new(packet)), out)
            .map_err(|reason| {
                ConnectionError::Protocol(format!("CONNECT cannot be encoded: {reason}"))
            })
    }

    /// CONNACK with success: the connection is up. Answers the keep-alive in force.
    pub(super) fn connected(&mut self, ack: &ConnectAck) -> Duration {
        let flight = self.options.flight_max.min(ack.receive_max.get());
        self.grant = Some(Grant {
            flight: usize::from(flight),
            qos_max: from_codec(ack.max_qos),
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
        self.subscribed &= ack.session_present;
        self.subscribed |= self.options.subscriptions.is_empty();
        if !self.subscribed {
            self.controls.push_front(Control::Subscribe {
                subscriptions: self.options.subscriptions.clone(),
                done: None,
            });
        }
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
        // The subscriptions of the options are made anew when it is needed; the others wait.
        let again = self.flight.take_controls();
        for control in again.into_iter().rev() {
            self.controls.push_front(control);
        }
        self.controls
            .retain(|control| !matches!(control, Control::Subscribe { done: None, .. }));
    }

    /// Takes every whole packet off `input` and puts the messages into `inbound`.
    pub(super) fn receive(
        &mut self,
        input: &mut BytesMut,
        now: Instant,
        inbound: &mut Vec<Message>,
    ) -> Result<Received, ConnectionError> {
        loop {
            if self.is_congested() {
                return Ok(Received::Congested);
            }
            let next = frame::next(&self.codec, input, self.options.packet_max)
                .map_err(|error| ConnectionError::Protocol(error.to_string()))?;
            match next {
                Next::Need(size) => return Ok(Received::Need(size)),
                Next::Frame(frame) => self.handle(frame, now, inbound)?,
            }
        }
    }

    fn handle(
        &mut self,
        frame: Frame,
        now: Instant,
        inbound: &mut Vec<Message>,
    ) -> Result<(), ConnectionError> {
        match frame {
            Frame::Publish(publish, payload) => self.arrived(publish, payload, inbound)?,
            Frame::Ack(Ack::PubAck, id, code) => {
                if self.flight.sent_qos(id) == Some(QoS::AtLeastOnce) {
                    self.answered(id, code, now);
                }
            }
            Frame::Ack(Ack::PubRec, id, code) if code >= reason::FAILURE => {
                if self.flight.sent_qos(id) == Some(QoS::ExactlyOnce) {
                    self.answered(id, code, now);
                }
            }
            Frame::Ack(Ack::PubRec, id, _) => {
                let code = if self.flight.release(id) {
                    0
                } else {
                    reason::PACKET_IDENTIFIER_NOT_FOUND
                };
                self.replies.push_back((Ack::PubRel, id, code));
            }
            Frame::Ack(Ack::PubComp, id, _) => {
                if let Some(out) = self.flight.finish(id, true) {
                    self.complete(*out, Ok(()));
                }
            }
            Frame::Ack(Ack::PubRel, id, _) => {
                let code = if self.arrivals.released(id) {
                    0
                } else {
                    reason::PACKET_IDENTIFIER_NOT_FOUND
                };
                self.replies.push_back((Ack::PubComp, id, code));
            }
            Frame::FilterAck(id, codes) => self.filters_answered(id, &codes),
            Frame::PingResponse => self.pong = true,
            Frame::Disconnect { code, reason } => {
                return Err(ConnectionError::Disconnected {
                    code,
                    reason: reason::name(code).to_owned(),
                    detail: detail(reason.as_deref()),
                });
            }
            Frame::ConnectAck(_) => {
                return Err(ConnectionError::Protocol("a second CONNACK".to_owned()));
            }
        }
        Ok(())
    }

    fn arrived(
        &mut self,
        publish: codec::Publish,
        payload: Bytes,
        inbound: &mut Vec<Message>,
    ) -> Result<(), ConnectionError> {
        let qos = from_codec(publish.qos);
        let ticket = match publish.packet_id {
            None => None,
            Some(id) => match self.arrivals.arrived(id, qos) {
                Arrival::Deliver(ticket) => Some(ticket),
                Arrival::Known => return Ok(()),
                Arrival::Repeat => {
                    self.replies.push_back((Ack::PubRec, id, 0));
                    return Ok(());
                }
            },
        };
        if publish.topic.is_empty() || publish.properties.topic_alias.is_some() {
            return Err(ConnectionError::Protocol(
                "a PUBLISH with a topic alias, and none was allowed".to_owned(),
            ));
        }
        inbound.push(Message {
            topic: publish.topic,
            payload,
            qos,
            retain: publish.retain,
            dup: publish.dup,
            properties: received_properties(publish.properties),
            ticket,
        });
        Ok(())
    }

    /// The final answer to a publish, good or bad.
    fn answered(&mut self, id: NonZeroU16, code: u8, now: Instant) {
        let Some(out) = self.flight.finish(id, false) else {
            return;
        };
        if matches!(
            code,
            reason::QUOTA_EXCEEDED | reason::RECEIVE_MAXIMUM_EXCEEDED
        ) {
            // The broker is full, not the message wrong: it goes again after a pause.
            self.held_until = Some(now + self.hold);
            self.hold = (self.hold * 2).min(HOLD.1);
            self.outbox.push_front(out);
            return;
        }
        self.hold = HOLD.0;
        let outcome = flight::outcome(&out.publish, code);
        self.complete(*out, outcome);
    }

    fn complete(&mut self, out: Outgoing, outcome: Result<(), PublishError>) {
        if outcome.is_ok() {
            self.publishes_done
                .push((out.publish.label, out.publish.qos));
        }
        out.done.complete(outcome);
    }

    fn filters_answered(&mut self, id: NonZeroU16, codes: &[u8]) {
        match self.flight.finish_control(id) {
            Some(Control::Subscribe {
                subscriptions,
                done,
            }) => {
                let refused = subscriptions
                    .iter()
                    .zip(codes.iter().chain(std::iter::repeat(&reason::FAILURE)))
                    .find(|(_, code)| **code >= reason::FAILURE)
                    .map(|(subscription, code)| SubscribeError::Refused {
                        filter: subscription.filter.to_string(),
                        code: *code,
                        reason: reason::name(*code),
                    });
                let Some(done) = done else {
                    self.subscribed = refused.is_none();
                    self.refused = refused;
                    return;
                };
                for (subscription, code) in subscriptions.into_iter().zip(codes) {
                    if *code < reason::FAILURE {
                        self.remember(subscription);
                    }
                }
                // A caller that has gone does not want to know.
                drop(done.send(refused.map_or(Ok(()), Err)));
            }
            Some(Control::Unsubscribe { filters, done }) => {
                self.options
                    .subscriptions
                    .retain(|subscription| !filters.contains(&subscription.filter));
                if let Some(done) = done {
                    drop(done.send(Ok(())));
                }
            }
            None => {}
        }
    }

    /// Subscriptions made at run time are remade with those of the options.
    fn remember(&mut self, subscription: Subscription) {
        let subscriptions = &mut self.options.subscriptions;
        match subscriptions
            .iter_mut()
            .find(|known| known.filter == subscription.filter)
        {
            Some(known) => *known = subscription,
            None => subscriptions.push(subscription),
        }
    }

    /// Makes packets until nothing is due or enough waits for the socket.
    pub(super) fn fill(&mut self, out: &mut BytePages, now: Instant) {
        let Some(grant) = self.grant else { return };
        while let Some((ack, id, code)) = self.replies.pop_front() {
            ack.encode(id, code, &mut |bytes| out.extend_from_slice(bytes));
        }
        while let Some((ack, id)) = self.arrivals.next_ack() {
            ack.encode(id, 0, &mut |bytes| out.extend_from_slice(bytes));
        }
        if std::mem::take(&mut self.ping_due) {
            out.extend_from_slice(&[0xc0, 0]);
        }
        while out.len() < OUTPUT_MAX
            && self.flight.resending()
            && self.flight.outstanding() < grant.flight
        {
            let Some((id, resend)) = self.flight.next_resend() else {
                break;
            };
            match resend {
                Resend::Release => {
                    Ack::PubRel.encode(id, 0, &mut |bytes| out.extend_from_slice(bytes))
                }
                Resend::Publish(publish) => {
                    let packet = publish_packet(publish, Some(id), true);
                    if encode_publish(&self.codec, packet, publish.payload.clone(), out).is_err()
                        && let Some(out) = self.flight.finish(id, false)
                    {
                        let error =
                            unsendable(&out.publish, "the broker's maximum packet size has shrunk");
                        self.complete(*out, Err(error));
                    }
                }
            }
        }
        if self.flight.resending() {
            return;
        }
        while out.len() < OUTPUT_MAX && self.flight.has_room() {
            let Some(control) = self.controls.pop_front() else {
                break;
            };
            self.send_control(control, out);
        }
        if self.held_until.is_some_and(|until| now < until) {
            return;
        }
        self.held_until = None;
        while out.len() < OUTPUT_MAX {
            let Some(next) = self.outbox.front() else {
                break;
            };
            if next.publish.qos != QoS::AtMostOnce {
                let qos2_full = next.publish.qos == QoS::ExactlyOnce
                    && self.flight.qos2() >= usize::from(self.options.flight_qos2_max);
                if qos2_full || self.flight.outstanding() >= grant.flight || !self.flight.has_room()
                {
                    break;
                }
            }
            if let Some(next) = self.outbox.pop_front() {
                self.send_publish(next, grant, out);
            }
        }
    }

    fn send_publish(&mut self, next: Box<Outgoing>, grant: Grant, out: &mut BytePages) {
        let publish = &next.publish;
        let id = (publish.qos != QoS::AtMostOnce).then(|| self.flight.next_id());
        let packet = publish_packet(publish, id, false);
        let result = if publish.qos > grant.qos_max {
            Err(format!(
                "the broker's maximum QoS is {}",
                grant.qos_max.as_str()
            ))
        } else if publish.retain && !grant.retain {
            Err("the broker keeps no retained messages".to_owned())
        } else {
            encode_publish(&self.codec, packet, publish.payload.clone(), out)
        };
        match result {
            Err(reason) => {
                let error = unsendable(publish, reason);
                self.complete(*next, Err(error));
            }
            Ok(()) if id.is_some() => {
                self.flight.push(Slot::Sent(next));
            }
            Ok(()) => self.complete(*next, Ok(())),
        }
    }

    fn send_control(&mut self, control: Control, out: &mut BytePages) {
        let packet_id = self.flight.next_id();
        let packet = match &control {
            Control::Subscribe { subscriptions, .. } => Packet::Subscribe(codec::Subscribe {
                packet_id,
                id: None,
                user_properties: Vec::new(),
                topic_filters: subscriptions.iter().map(subscription_packet).collect(),
            }),
            Control::Unsubscribe { filters, .. } => Packet::Unsubscribe(codec::Unsubscribe {
                packet_id,
                user_properties: Vec::new(),
                topic_filters: filters.clone(),
            }),
        };
        if let Err(reason) = self.encode(packet, out) {
            let error = |filter: Option<&ByteString>| SubscribeError::Invalid {
                filter: filter.map(ToString::to_string).unwrap_or_default(),
                reason,
            };
            match control {
                Control::Subscribe {
                    subscriptions,
                    done,
                } => {
                    let error = error(subscriptions.first().map(|first| &first.filter));
                    match done {
                        Some(done) => drop(done.send(Err(error))),
                        None => self.refused = Some(error),
                    }
                }
                Control::Unsubscribe { filters, done } => {
                    if let Some(done) = done {
                        drop(done.send(Err(error(filters.first()))));
                    }
                }
            }
            return;
        }
        self.flight.push(Slot::Control(control));
    }

    fn encode(&self, packet: Packet, out: &mut BytePages) -> Result<(), String> {
        self.codec
            .encodev(Encoded::Packet(packet), out)
            .map_err(|error| format!("{error:?}"))
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

    /// Takes a publish, or refuses it when the outbox is full or it could never be sent.
    pub(super) fn submit(&mut self, publish: Publish, done: Completion) {
        let max = self.options.outbox_max;
        let refused = if self.outbox.len() >= max {
            Some(PublishError::OutboxFull { max })
        } else {
            check(&publish)
                .err()
                .map(|reason| unsendable(&publish, reason))
        };
        match refused {
            Some(error) => done.complete(Err(error)),
            None => self.outbox.push_back(Box::new(Outgoing { publish, done })),
        }
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

    pub(super) fn acknowledge(&mut self, tickets: &[super::message::Ticket]) {
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
                Slot::Sent(out) | Slot::Released(out) => {
                    out.done.complete(Err(PublishError::Stopped))
                }
                Slot::Control(control) => self.controls.push_back(control),
                Slot::Free => {}
            }
        }
        for out in std::mem::take(&mut self.outbox) {
            out.done.complete(Err(PublishError::Stopped));
        }
        for control in std::mem::take(&mut self.controls) {
            let (Control::Subscribe { done, .. } | Control::Unsubscribe { done, .. }) = control;
            if let Some(done) = done {
                drop(done.send(Err(SubscribeError::Stopped)));
            }
        }
    }
}

fn detail(reason: Option<&str>) -> String {
    match reason {
        Some(text) if !text.is_empty() => format!(": {text}"),
        _ => String::new(),
    }
}

/// The error for a CONNACK that refuses.
pub(super) fn refusal(options: &Options, ack: &ConnectAck) -> ConnectionError {
    let code = u8::from(ack.reason_code);
    ConnectionError::Refused {
        broker: options.broker.clone(),
        code,
        reason: reason::name(code).to_owned(),
        detail: detail(ack.reason_string.as_deref()),
    }
}

fn unsendable(publish: &Publish, reason: impl Into<String>) -> PublishError {
    PublishError::Invalid {
        topic: publish.topic.chars().take(128).collect(),
        reason: reason.into(),
    }
}

fn to_codec(qos: QoS) -> ntex_mqtt::QoS {
    match qos {
        QoS::AtMostOnce => ntex_mqtt::QoS::AtMostOnce,
        QoS::AtLeastOnce => ntex_mqtt::QoS::AtLeastOnce,
        QoS::ExactlyOnce => ntex_mqtt::QoS::ExactlyOnce,
    }
}

fn from_codec(qos: ntex_mqtt::QoS) -> QoS {
    match qos {
        ntex_mqtt::QoS::AtMostOnce => QoS::AtMostOnce,
        ntex_mqtt::QoS::AtLeastOnce => QoS::AtLeastOnce,
        ntex_mqtt::QoS::ExactlyOnce => QoS::ExactlyOnce,
    }
}

fn subscription_packet(subscription: &Subscription) -> (ByteString, codec::SubscriptionOptions) {
    let options = codec::SubscriptionOptions {
        qos: to_codec(subscription.qos),
        no_local: subscription.no_local,
        retain_as_published: true,
        retain_handling: match subscription.retained {
            Retained::Always => codec::RetainHandling::AtSubscribe,
            Retained::IfNew => codec::RetainHandling::AtSubscribeNew,
            Retained::Never => codec::RetainHandling::NoAtSubscribe,
        },
    };
    (subscription.filter.clone(), options)
}

fn publish_packet(publish: &Publish, packet_id: Option<NonZeroU16>, dup: bool) -> codec::Publish {
    let properties = match &publish.properties {
        None => PublishProperties::default(),
        Some(properties) => PublishProperties {
            correlation_data: properties.correlation_data.clone(),
            message_expiry_interval: properties.message_expiry.and_then(|expiry| {
                NonZeroU32::new(u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX))
            }),
            content_type: properties.content_type.clone(),
            user_properties: properties.user.clone(),
            response_topic: properties.response_topic.clone(),
            ..PublishProperties::default()
        },
    };
    codec::Publish {
        dup,
        retain: publish.retain,
        qos: to_codec(publish.qos),
        packet_id,
        topic: publish.topic.clone(),
        payload_size: u32::try_from(publish.payload.len()).unwrap_or(u32::MAX),
        properties,
    }
}

/// Appends the packet to `out`, or nothing: the lengths of all parts were checked on submission, so
/// the whole size is the only thing that can still be refused, and that before the first byte.
fn encode_publish(
    codec: &Codec,
    packet: codec::Publish,
    payload: Bytes,
    out: &mut BytePages,
) -> Result<(), String> {
    codec
        .encodev(Encoded::Publish(packet, Some(payload)), out)
        .map_err(|error| match error {
            ntex_mqtt::error::EncodeError::OverMaxPacketSize => {
                "it is larger than the broker's maximum packet size".to_owned()
            }
            other => format!("{other:?}"),
        })
}

/// What no broker could take: strings over 65,535 bytes (section 1.5.4), names with wildcards.
fn check(publish: &Publish) -> Result<(), &'static str> {
    const STRING_MAX: usize = u16::MAX as usize;
    const PAYLOAD_MAX: usize = 256 * 1024 * 1024;
    if publish.topic.is_empty() || publish.topic.contains(['+', '#', '\0']) {
        return Err("a topic name is not empty and holds no +, # or NUL");
    }
    if publish.topic.len() > STRING_MAX {
        return Err("a topic name has at most 65,535 bytes");
    }
    if publish.payload.len() >= PAYLOAD_MAX {
        return Err("a packet has at most 256 MiB");
    }
    let Some(properties) = &publish.properties else {
        return Ok(());
    };
    let strings = properties
        .user
        .iter()
        .flat_map(|(name, value)| [name.len(), value.len()]);
    let others = [
        properties
            .response_topic
            .as_ref()
            .map_or(0, |text| text.len()),
        properties
            .correlation_data
            .as_ref()
            .map_or(0, |data| data.len()),
        properties
            .content_type
            .as_ref()
            .map_or(0, |text| text.len()),
    ];
    let mut total = 0_usize;
    for length in strings.chain(others) {
        total += length;
        if length > STRING_MAX || total > PAYLOAD_MAX {
            return Err("a property has at most 65,535 bytes");
        }
    }
    Ok(())
}

fn received_properties(properties: PublishProperties) -> Option<Box<Properties>> {
    if properties.user_properties.is_empty()
        && properties.response_topic.is_none()
        && properties.correlation_data.is_none()
        && properties.content_type.is_none()
        && properties.message_expiry_interval.is_none()
    {
        return None;
    }
    Some(Box::new(Properties {
        user: properties.user_properties,
        response_topic: properties.response_topic,
        correlation_data: properties.correlation_data,
        content_type: properties.content_type,
        message_expiry: properties
            .message_expiry_interval
            .map(|secs| Duration::from_secs(u64::from(secs.get()))),
    }))
}
