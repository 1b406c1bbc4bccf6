//! What the broker sent.

use std::num::NonZeroU16;

use ntex_bytes::BytesMut;
use ntex_mqtt::v5::codec;
use tokio::time::Instant;

use super::super::arrivals::Arrival;
use super::super::error::{ConnectionError, PublishError, SubscribeError};
use super::super::flight::{self, Control, Outgoing};
use super::super::frame::{self, Ack, Frame, Next};
use super::super::message::{Bytes, Message, QoS, Subscription};
use super::super::{packet, reason};
use super::{HOLD, Protocol};

/// What [`Protocol::receive`] did with the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::session) enum Received {
    /// All whole packets are taken; so many bytes in all are needed for the next.
    Need(usize),
    /// Replies have to be written, or deliveries acknowledged, before more is taken.
    Congested,
}

impl Protocol {
    /// Takes every whole packet off `input` and puts the messages into `inbound`.
    pub(in crate::session) fn receive(
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
                    detail: packet::detail(reason.as_deref()),
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
        let qos = packet::from_codec(publish.qos);
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
            properties: packet::received_properties(publish.properties),
            ticket,
        });
        Ok(())
    }

    /// The final answer to a publish, good or bad.
    fn answered(&mut self, id: NonZeroU16, code: u8, now: Instant) {
        let Some(out) = self.flight.finish(id, false) else {
            return;
        };
        // The broker is full, or not whole yet: it is not the message that is wrong.
        let again = match code {
            reason::QUOTA_EXCEEDED | reason::RECEIVE_MAXIMUM_EXCEEDED => true,
            reason::NO_MATCHING_SUBSCRIBERS => {
                let grace = self.options.subscriber_grace;
                let back = self.reconnected_at;
                out.publish.expects_subscriber && back.is_some_and(|back| now < back + grace)
            }
            _ => false,
        };
        if again {
            self.hold_back(out, now);
            return;
        }
        self.hold = HOLD.0;
        let outcome = flight::outcome(&out.publish, code);
        self.complete(*out, outcome);
    }

    /// Puts a publish back among those that wait, in its old order, and lets all wait a little.
    fn hold_back(&mut self, out: Box<Outgoing>, now: Instant) {
        if self.held_until.is_none_or(|until| until <= now) {
            self.held_until = Some(now + self.hold);
            self.hold = (self.hold * 2).min(HOLD.1);
        }
        let older = self
            .outbox
            .iter()
            .take_while(|waiting| waiting.number < out.number)
            .count();
        self.outbox.insert(older, out);
    }

    pub(super) fn complete(&mut self, out: Outgoing, outcome: Result<(), PublishError>) {
        if outcome.is_ok() {
            self.publishes_done
                .push((out.publish.label, out.publish.qos));
        }
        self.settled.extend(out.done.complete(outcome));
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
}
