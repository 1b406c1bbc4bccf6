//! The protocol against arbitrary bytes, and against a model of a broker that forgets nothing but
//! whose connections break anywhere.

use std::collections::HashSet;
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex};

use ntex_bytes::{BytePageSize, BytePages, BytesMut};
use ntex_codec::{Decoder as _, Encoder as _};
use ntex_mqtt::v5::codec::{self, Codec, ConnectAck, Decoded, Encoded, Packet};
use proptest::prelude::*;
use tokio::time::Instant;
use uuid::Uuid;

use super::error::PublishError;
use super::flight::Completion;
use super::frame::{self, Head};
use super::message::{Message, Publish, QoS, Subscription};
use super::options::{BrokerAddr, Options};
use super::protocol::Protocol;

type Outcomes = Arc<Mutex<Vec<(u32, Result<(), PublishError>)>>>;

fn options() -> Options {
    let broker = BrokerAddr {
        host: "localhost".into(),
        port: 1883,
        tls: false,
    };
    Options {
        outbox_max: 10_000,
        flight_max: 20,
        flight_qos2_max: 5,
        receive_maximum: 10,
        subscriptions: vec![Subscription::new("in/#", QoS::ExactlyOnce)],
        ..Options::new(broker, "me")
    }
}

fn pages() -> BytePages {
    BytePages::new(BytePageSize::Size16)
}

fn accept(session_present: bool) -> ConnectAck {
    ConnectAck {
        session_present,
        ..ConnectAck::default()
    }
}

fn submit(protocol: &mut Protocol, number: u32, qos: QoS, outcomes: &Outcomes) {
    let outcomes = outcomes.clone();
    let publish = Publish::new(format!("out/{number}"), "out", number.to_string()).qos(qos);
    protocol.submit(
        publish,
        Completion::Callback(Box::new(move |outcome| {
            outcomes.lock().unwrap().push((number, outcome));
        })),
    );
}

/// What the client wrote, packet by packet.
fn parse(codec: &Codec, bytes: &mut BytesMut) -> Vec<Decoded> {
    let mut packets = Vec::new();
    while let Ok(Head::Whole { .. }) = frame::head(bytes, u32::MAX) {
        let packet = codec
            .decode(bytes)
            .expect("the client writes valid packets");
        packets.extend(packet);
    }
    packets
}

/// A broker's session: it keeps QoS 2 identifiers between PUBLISH and PUBREL, as section 4.3.3 asks.
#[derive(Default)]
struct ModelBroker {
    received: Vec<u32>,
    qos2: HashSet<NonZeroU16>,
    subscribed: bool,
}

impl ModelBroker {
    fn handle(&mut self, packet: Decoded) -> Option<Packet> {
        match packet {
            Decoded::Publish(publish, payload, _) => {
                let number = std::str::from_utf8(&payload).unwrap().parse().unwrap();
                let id = publish.packet_id;
                if publish.qos != ntex_mqtt::QoS::ExactlyOnce || self.qos2.insert(id?) {
                    self.received.push(number);
                }
                let ack = codec::PublishAck {
                    packet_id: id?,
                    ..codec::PublishAck::default()
                };
                Some(if publish.qos == ntex_mqtt::QoS::AtLeastOnce {
                    Packet::PublishAck(ack)
                } else {
                    Packet::PublishReceived(ack)
                })
            }
            Decoded::Packet(Packet::PublishRelease(release), _) => {
                self.qos2.remove(&release.packet_id);
                Some(Packet::PublishComplete(codec::PublishAck2 {
                    packet_id: release.packet_id,
                    reason_code: codec::PublishAck2Reason::Success,
                    properties: vec![],
                    reason_string: None,
                }))
            }
            Decoded::Packet(Packet::Subscribe(subscribe), _) => {
                self.subscribed = true;
                Some(Packet::SubscribeAck(codec::SubscribeAck {
                    packet_id: subscribe.packet_id,
                    properties: vec![],
                    reason_string: None,
                    status: vec![
                        codec::SubscribeAckReason::GrantedQos2;
                        subscribe.topic_filters.len()
                    ],
                }))
            }
            _ => None,
        }
    }
}

/// One exchange: the client writes, of which the first `up` bytes arrive; the broker answers, of
/// which the first `down` bytes arrive. Answers whether nothing was cut off.
fn exchange(
    protocol: &mut Protocol,
    broker: &mut ModelBroker,
    link: &mut Link,
    cut: Option<(usize, usize)>,
) -> bool {
    let now = Instant::now();
    let mut out = pages();
    protocol.fill(&mut out, now);
    let written = out.freeze();
    let up = cut.map_or(written.len(), |(up, _)| up.min(written.len()));
    link.up.extend_from_slice(&written[..up]);
    let mut answers = pages();
    for packet in parse(&link.codec, &mut link.up) {
        if let Some(answer) = broker.handle(packet) {
            link.codec
                .encodev(Encoded::Packet(answer), &mut answers)
                .unwrap();
        }
    }
    let answers = answers.freeze();
    let down = cut.map_or(answers.len(), |(_, down)| down.min(answers.len()));
    link.down.extend_from_slice(&answers[..down]);
    let mut inbound = Vec::new();
    protocol
        .receive(&mut link.down, now, &mut inbound)
        .expect("the model keeps to the protocol");
    up == written.len() && down == answers.len()
}

/// The bytes on the way and the broker's decoder; anew for every connection.
struct Link {
    codec: Codec,
    up: BytesMut,
    down: BytesMut,
}

fn connect(protocol: &mut Protocol, session_present: bool) -> Link {
    protocol.connect(Uuid::nil(), &mut pages()).unwrap();
    protocol.connected(&accept(session_present), Instant::now());
    Link {
        codec: Codec::new(),
        up: BytesMut::new(),
        down: BytesMut::new(),
    }
}

proptest! {
    /// Whatever breaks, whenever: each QoS 2 message arrives once, each QoS 1 message at least once,
    /// first arrivals in the order of publishing, and each publisher hears exactly once.
    #[test]
    fn nothing_is_lost_doubled_or_overtaken_over_broken_connections(
        qos in proptest::collection::vec(1_u8..=2, 1..60),
        cuts in proptest::collection::vec((0_usize..400, 0_usize..200), 0..12),
    ) {
        let mut protocol = Protocol::new(options());
        let outcomes = Outcomes::default();
        for (number, qos) in qos.iter().enumerate() {
            submit(&mut protocol, number as u32, QoS::try_from(*qos).unwrap(), &outcomes);
        }
        let mut broker = ModelBroker::default();
        let mut session_present = false;
        for cut in cuts {
            let mut link = connect(&mut protocol, session_present);
            session_present = true;
            while exchange(&mut protocol, &mut broker, &mut link, Some(cut)) && !protocol.is_flushed() {}
            protocol.disconnected();
        }
        let mut link = connect(&mut protocol, session_present);
        for _ in 0..200 {
            exchange(&mut protocol, &mut broker, &mut link, None);
        }
        prop_assert!(protocol.is_flushed());
        prop_assert!(broker.subscribed);

        let mut first = Vec::new();
        for number in &broker.received {
            if first.contains(number) {
                prop_assert_eq!(qos[*number as usize], 1, "QoS 2 message {} came twice", number);
            } else {
                first.push(*number);
            }
        }
        prop_assert_eq!(first, (0..qos.len() as u32).collect::<Vec<_>>());
        let mut heard: Vec<_> = outcomes.lock().unwrap().iter().map(|(number, _)| *number).collect();
        heard.sort_unstable();
        prop_assert_eq!(heard, (0..qos.len() as u32).collect::<Vec<_>>());
        prop_assert!(outcomes.lock().unwrap().iter().all(|(_, outcome)| outcome.is_ok()));
    }

    #[test]
    fn arbitrary_bytes_from_the_broker_never_panic(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..20),
        session_present in any::<bool>(),
    ) {
        let mut protocol = Protocol::new(options());
        let outcomes = Outcomes::default();
        for number in 0..10 {
            submit(&mut protocol, number, QoS::try_from((number % 3) as u8).unwrap(), &outcomes);
        }
        connect(&mut protocol, session_present);
        let mut input = BytesMut::new();
        for chunk in chunks {
            input.extend_from_slice(&chunk);
            let mut inbound = Vec::new();
            protocol.fill(&mut pages(), Instant::now());
            let received = protocol.receive(&mut input, Instant::now(), &mut inbound);
            acknowledge(&mut protocol, &inbound);
            if received.is_err() {
                input.clear();
                protocol.disconnected();
                connect(&mut protocol, true);
            }
        }
        protocol.stopped();
        let heard = outcomes.lock().unwrap().len();
        prop_assert_eq!(heard, 10);
    }

    /// Packets that are valid one by one, in an order that makes no sense.
    #[test]
    fn senseless_packets_never_panic(
        packets in proptest::collection::vec((0_u8..9, 0_u16..12, any::<u8>()), 0..120),
    ) {
        let mut protocol = Protocol::new(options());
        let outcomes = Outcomes::default();
        connect(&mut protocol, false);
        let mut input = BytesMut::new();
        for (number, (kind, id, code)) in packets.into_iter().enumerate() {
            let [high, low] = id.to_be_bytes();
            match kind {
                0 => input.extend_from_slice(&[0x40, 3, high, low, code]),
                1 => input.extend_from_slice(&[0x50, 3, high, low, code]),
                2 => input.extend_from_slice(&[0x62, 2, high, low]),
                3 => input.extend_from_slice(&[0x70, 3, high, low, code]),
                4 => input.extend_from_slice(&[0x90, 4, high, low, 0, code]),
                5 => input.extend_from_slice(&[0x32, 8, 0, 2, b'i', b'n', high, low, 0, code]),
                6 => input.extend_from_slice(&[0x34, 8, 0, 2, b'i', b'n', high, low, 0, code]),
                7 => input.extend_from_slice(&[0xd0, 0]),
                _ => submit(&mut protocol, number as u32, QoS::try_from(code % 3).unwrap(), &outcomes),
            }
            let mut inbound = Vec::new();
            protocol.fill(&mut pages(), Instant::now());
            if protocol.receive(&mut input, Instant::now(), &mut inbound).is_err() {
                input.clear();
                protocol.disconnected();
                connect(&mut protocol, code % 2 == 0);
            }
            if code % 3 == 0 {
                acknowledge(&mut protocol, &inbound);
            }
            prop_assert!(protocol.in_flight() <= 20);
            prop_assert!(protocol.unacknowledged() <= 20, "twice the receive maximum");
        }
    }
}

fn acknowledge(protocol: &mut Protocol, messages: &[Message]) {
    let tickets: Vec<_> = messages
        .iter()
        .filter_map(|message| message.ticket)
        .collect();
    protocol.acknowledge(&tickets);
}

#[test]
fn publish_refused_for_want_of_quota_goes_again_after_a_pause() {
    let mut protocol = Protocol::new(options());
    let outcomes = Outcomes::default();
    connect(&mut protocol, true);
    submit(&mut protocol, 1, QoS::ExactlyOnce, &outcomes);
    let now = Instant::now();
    let mut out = pages();
    protocol.fill(&mut out, now);
    assert!(out.freeze().len() > 10);
    let mut refusal = BytesMut::copy_from_slice([0x50, 3, 0, 1, 0x93]);
    // The SUBSCRIBE of the first connection took identifier 1.
    refusal[3] = 2;
    protocol
        .receive(&mut refusal, now, &mut Vec::new())
        .unwrap();
    protocol.fill(&mut out, now);
    assert!(out.is_empty(), "held back");
    let later = protocol.held_until().expect("a pause") + std::time::Duration::from_millis(1);
    protocol.fill(&mut out, later);
    assert!(!out.is_empty(), "sent again");
    assert!(outcomes.lock().unwrap().is_empty());
}

#[test]
fn publish_that_expects_a_subscriber_goes_again_after_a_reconnect_until_there_is_one() {
    let no_subscribers = |id| BytesMut::copy_from_slice([0x40, 3, 0, id, 0x10]);
    let expecting = |protocol: &mut Protocol, number: u32, outcomes: &Outcomes| {
        let outcomes = outcomes.clone();
        protocol.submit(
            Publish::new("out", "out", number.to_string()).expect_subscriber(),
            Completion::Callback(Box::new(move |outcome| {
                outcomes.lock().unwrap().push((number, outcome));
            })),
        );
    };
    let mut protocol = Protocol::new(Options {
        subscriptions: vec![],
        ..options()
    });
    let outcomes = Outcomes::default();
    let mut now = Instant::now();
    connect(&mut protocol, true);
    expecting(&mut protocol, 1, &outcomes);
    protocol.fill(&mut pages(), now);
    protocol
        .receive(&mut no_subscribers(1), now, &mut Vec::new())
        .unwrap();
    assert_eq!(
        outcomes.lock().unwrap().len(),
        1,
        "done: nothing was restarted"
    );

    protocol.disconnected();
    connect(&mut protocol, true);
    expecting(&mut protocol, 2, &outcomes);
    expecting(&mut protocol, 3, &outcomes);
    protocol.fill(&mut pages(), now);
    for id in [2, 3] {
        protocol
            .receive(&mut no_subscribers(id), now, &mut Vec::new())
            .unwrap();
    }
    assert_eq!(outcomes.lock().unwrap().len(), 1, "held back");
    now = protocol.held_until().expect("a pause");
    let mut out = pages();
    protocol.fill(&mut out, now);
    let sent = out.freeze();
    let (two, three) = (
        sent.iter().position(|byte| *byte == b'2'),
        sent.iter().position(|byte| *byte == b'3'),
    );
    assert!(two.is_some() && two < three, "again, in order");
    let mut acknowledged = BytesMut::copy_from_slice([0x40, 2, 0, 4, 0x40, 2, 0, 5]);
    protocol
        .receive(&mut acknowledged, now, &mut Vec::new())
        .unwrap();
    assert_eq!(outcomes.lock().unwrap().len(), 3);
}

#[test]
fn qos_2_that_expects_a_subscriber_gives_it_time_after_a_reconnect() {
    let mut protocol = Protocol::new(Options {
        subscriptions: vec![],
        ..options()
    });
    let now = Instant::now();
    let publish = |number: u32| {
        Publish::new("out", "out", number.to_string())
            .qos(QoS::ExactlyOnce)
            .expect_subscriber()
    };
    let done = || Completion::Callback(Box::new(drop));
    connect(&mut protocol, true);
    protocol.submit(publish(1), done());
    let mut out = pages();
    protocol.fill(&mut out, now);
    assert!(
        !out.freeze().is_empty(),
        "the first connection does not wait"
    );
    protocol.disconnected();
    connect(&mut protocol, true);
    protocol.submit(publish(2), done());
    protocol.fill(&mut out, now);
    assert!(
        out.is_empty(),
        "neither the repeated nor the new one goes yet"
    );
    let settled = protocol.held_until().expect("a pause");
    protocol.fill(&mut out, settled);
    let sent = out.freeze();
    assert!(sent.contains(&b'1') && sent.contains(&b'2'));
}

#[test]
fn outbox_refuses_instead_of_growing() {
    let mut protocol = Protocol::new(Options {
        outbox_max: 3,
        ..options()
    });
    let outcomes = Outcomes::default();
    for number in 0..5 {
        submit(&mut protocol, number, QoS::AtLeastOnce, &outcomes);
    }
    let refused: Vec<_> = outcomes.lock().unwrap().clone();
    assert_eq!(refused.len(), 2);
    assert!(
        refused
            .iter()
            .all(|(_, outcome)| *outcome == Err(PublishError::OutboxFull { max: 3 }))
    );
}

#[test]
fn flight_keeps_to_its_own_bound_and_to_that_of_qos_2() {
    let mut protocol = Protocol::new(options());
    let outcomes = Outcomes::default();
    connect(&mut protocol, true);
    for number in 0..50 {
        submit(&mut protocol, number, QoS::ExactlyOnce, &outcomes);
    }
    protocol.fill(&mut pages(), Instant::now());
    assert_eq!(protocol.in_flight(), 5);
    let mut protocol = Protocol::new(options());
    connect(&mut protocol, true);
    for number in 0..50 {
        submit(&mut protocol, number, QoS::AtLeastOnce, &outcomes);
    }
    protocol.fill(&mut pages(), Instant::now());
    assert_eq!(protocol.in_flight(), 20);
}

#[test]
fn publish_that_can_never_be_sent_is_refused_with_the_reason() {
    let mut protocol = Protocol::new(options());
    for (topic, reason) in [("", "not empty"), ("a/+", "no +"), ("a/#", "no +")] {
        let outcome = Arc::new(Mutex::new(None));
        let slot = outcome.clone();
        protocol.submit(
            Publish::new(topic, "t", ""),
            Completion::Callback(Box::new(move |result| *slot.lock().unwrap() = Some(result))),
        );
        let refused = outcome.lock().unwrap().take().expect("answered at once");
        assert!(refused.unwrap_err().to_string().contains(reason));
    }
}
