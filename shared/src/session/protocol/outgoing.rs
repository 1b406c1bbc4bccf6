//! What is to be sent.

use std::time::Duration;

use ntex_bytes::BytePages;
use ntex_codec::Encoder as _;
use ntex_mqtt::v5::codec::{self, Encoded, Packet};
use tokio::time::Instant;

use super::super::error::SubscribeError;
use super::super::flight::{Control, Outgoing, Resend, Slot};
use super::super::frame::Ack;
use super::super::message::QoS;
use super::super::packet;
use super::{Grant, Protocol};

/// Bytes that may wait for the socket. More are made only when these are written, so a broker that
/// reads slowly holds the publisher back instead of filling memory.
const OUTPUT_MAX: usize = 64 * 1024;

/// How long after a reconnect a QoS 2 publish that expects a subscriber waits. A broker says of QoS 1
/// that nobody was there, of QoS 2 it does not (Mosquitto 2.0 looks only when PUBREL comes), so the
/// subscribers of a restarted broker are given time to come back.
const SETTLE: Duration = Duration::from_secs(3);

impl Protocol {
    /// Makes packets until nothing is due or enough waits for the socket.
    pub(in crate::session) fn fill(&mut self, out: &mut BytePages, now: Instant) {
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
        while out.len() < OUTPUT_MAX && self.flight.has_room() {
            let Some(control) = self.controls.pop_front() else {
                break;
            };
            self.send_control(control, out);
        }
        let settled_at = self
            .reconnected_at
            .map(|back| back + SETTLE.min(self.options.subscriber_grace))
            .filter(|at| now < *at);
        while out.len() < OUTPUT_MAX
            && self.flight.resending()
            && self.flight.outstanding() < grant.flight
        {
            if settled_at.is_some() && self.flight.resend_expects_subscriber() {
                self.held_until = settled_at;
                return;
            }
            let Some((id, resend)) = self.flight.next_resend() else {
                break;
            };
            match resend {
                Resend::Release => {
                    Ack::PubRel.encode(id, 0, &mut |bytes| out.extend_from_slice(bytes))
                }
                Resend::Publish(publish) => {
                    let encoded = packet::publish(publish, Some(id), true);
                    if packet::encode_publish(&self.codec, encoded, publish.payload.clone(), out)
                        .is_err()
                        && let Some(out) = self.flight.finish(id, false)
                    {
                        let error = packet::unsendable(
                            &out.publish,
                            "the broker's maximum packet size has shrunk",
                        );
                        self.complete(*out, Err(error));
                    }
                }
            }
        }
        if self.flight.resending() {
            return;
        }
        if self.held_until.is_some_and(|until| now < until) {
            return;
        }
        self.held_until = None;
        while out.len() < OUTPUT_MAX {
            let Some(next) = self.outbox.front() else {
                break;
            };
            if settled_at.is_some()
                && next.publish.qos == QoS::ExactlyOnce
                && next.publish.expects_subscriber
            {
                self.held_until = settled_at;
                break;
            }
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
        let encoded = packet::publish(publish, id, false);
        let result = if publish.qos > grant.qos_max {
            Err(format!(
                "the broker's maximum QoS is {}",
                grant.qos_max.as_str()
            ))
        } else if publish.retain && !grant.retain {
            Err("the broker keeps no retained messages".to_owned())
        } else {
            packet::encode_publish(&self.codec, encoded, publish.payload.clone(), out)
        };
        match result {
            Err(reason) => {
                let error = packet::unsendable(publish, reason);
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
                topic_filters: subscriptions.iter().map(packet::subscription).collect(),
            }),
            Control::Unsubscribe { filters, .. } => Packet::Unsubscribe(codec::Unsubscribe {
                packet_id,
                user_properties: Vec::new(),
                topic_filters: filters.clone(),
            }),
        };
        let filters = control.filters();
        let checked = filters
            .clone()
            .try_for_each(|filter| packet::check_filter(filter));
        let encoded = checked.and_then(|()| {
            self.encode(packet, out)
                .map_err(|reason| SubscribeError::Invalid {
                    filter: filters
                        .map(|filter| &**filter)
                        .next()
                        .unwrap_or_default()
                        .to_owned(),
                    reason,
                })
        });
        if let Err(error) = encoded {
            match control {
                Control::Subscribe {
                    done: Some(done), ..
                }
                | Control::Unsubscribe {
                    done: Some(done), ..
                } => drop(done.send(Err(error))),
                Control::Subscribe { done: None, .. } => self.refused = Some(error),
                Control::Unsubscribe { done: None, .. } => {}
            }
            return;
        }
        self.flight.push(Slot::Control(control));
    }

    pub(super) fn encode(&self, packet: Packet, out: &mut BytePages) -> Result<(), String> {
        self.codec
            .encodev(Encoded::Packet(packet), out)
            .map_err(|error| format!("{error:?}"))
    }
}
