//! Brokers that say what the specification forbids: the session survives and connects again.

use std::time::{Duration, Instant};

use fleet_shared::session::{BrokerAddr, ConnectionError, ConnectionEvent, Options, QoS};
use fleet_tests::{Acknowledge, Client, Peer, Stub, eventually, options};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::{SOON, number};

/// Options for the stub, with pauses too short to matter.
fn hasty(stub: &Stub) -> Options {
    let broker = BrokerAddr {
        host: "127.0.0.1".to_owned(),
        port: stub.port(),
        tls: false,
    };
    let mut options = options(broker, "victim");
    options.reconnect.first = Duration::from_millis(1);
    options.reconnect.max = Duration::from_millis(5);
    options
}

/// Reads until the client closes the connection.
async fn until_closed(peer: &mut Peer) {
    let reading = async { while peer.packet().await.is_ok() {} };
    let closed = tokio::time::timeout(SOON, reading).await;
    closed.expect("the client ends a connection that broke the protocol");
}

/// A QoS 1 publish goes through on this connection.
async fn serves(client: &Client, peer: &mut Peer) {
    let session = client.session.clone();
    let publish = actix::spawn(async move { session.publish(number("t", 7)).await });
    let packet = loop {
        let packet = peer.packet().await.expect("the connection is up");
        if packet.kind() == 3 {
            break packet;
        }
    };
    assert_eq!(packet.first & 0x06, 0x02, "QoS 1");
    let topic = usize::from(u16::from_be_bytes(packet.id()));
    let id = &packet.body[2 + topic..][..2];
    peer.send(&[0x40, 2, id[0], id[1]]).await;
    publish.await.unwrap().unwrap();
}

/// Packets that end the connection (MQTT 5, sections 1.5, 2 and 3).
const FORBIDDEN: &[(&str, &[u8])] = &[
    (
        "remaining length of five bytes",
        &[0x30, 0xff, 0xff, 0xff, 0xff, 0x01],
    ),
    ("reserved packet type 0", &[0x00, 0x00]),
    (
        "CONNECT from a broker",
        &[
            0x10, 0x0d, 0, 4, b'M', b'Q', b'T', b'T', 5, 0, 0, 0, 0, 0, 0,
        ],
    ),
    ("second CONNACK", &[0x20, 3, 0, 0, 0]),
    ("PUBLISH with QoS 3", &[0x36, 7, 0, 1, b't', 0, 1, 0, b'x']),
    ("PUBLISH with identifier 0", &[0x32, 6, 0, 1, b't', 0, 0, 0]),
    (
        "PUBLISH with a topic longer than the packet",
        &[0x30, 4, 0xff, 0xff, b't', 0],
    ),
    (
        "PUBLISH with properties longer than the packet",
        &[0x30, 5, 0, 1, b't', 0x7f, 0],
    ),
    (
        "PUBLISH with properties of a length of two bytes",
        &[0x30, 6, 0, 1, b't', 0xff, 0x01, 0],
    ),
    ("PUBLISH with nothing in it", &[0x30, 0]),
    ("PUBLISH without its identifier", &[0x32, 3, 0, 1, b't']),
    (
        "PUBLISH on a topic that is not UTF-8",
        &[0x30, 6, 0, 2, 0xc3, 0x28, 0, b'x'],
    ),
    (
        "PUBLISH with an unknown property",
        &[0x30, 6, 0, 1, b't', 2, 0x7e, 0],
    ),
    (
        "PUBLISH with a topic alias we did not allow",
        &[0x30, 6, 0, 0, 3, 0x23, 0, 1],
    ),
    ("SUBACK without its identifier", &[0x90, 1, 0]),
    ("PUBACK without its identifier", &[0x40, 1, 0]),
    ("PUBREL with wrong flags", &[0x60, 2, 0, 1]),
    (
        "packet of 16 MiB announced",
        &[0x30, 0x80, 0x80, 0x80, 0x08, 0, 1],
    ),
];

#[actix::test]
async fn forbidden_packets_end_the_connection_and_the_next_one_works() {
    let stub = Stub::start().await;
    let client = Client::start(hasty(&stub), Acknowledge::AtOnce);
    for (what, bytes) in FORBIDDEN {
        let mut peer = stub.accept().await;
        peer.welcome(&[]).await;
        peer.send(bytes).await;
        let reading = async { while peer.packet().await.is_ok() {} };
        let closed = tokio::time::timeout(SOON, reading).await;
        assert!(closed.is_ok(), "{what}: the connection stays");
        let seen = format!("{what} is reported");
        let error = eventually(SOON, &seen, async || {
            let downs = client.downs();
            let index = FORBIDDEN.iter().position(|(name, _)| name == what).unwrap();
            downs.get(index).cloned().ok_or(downs)
        })
        .await;
        assert!(
            matches!(*error, ConnectionError::Protocol(_)),
            "{what}: {error:?}"
        );
    }
    let mut peer = stub.accept().await;
    peer.welcome(&[]).await;
    serves(&client, &mut peer).await;
}

#[actix::test]
async fn acknowledgements_of_nothing_do_no_harm() {
    let stub = Stub::start().await;
    let client = Client::start(hasty(&stub), Acknowledge::AtOnce);
    let strays: [&[u8]; 5] = [
        &[0x40, 2, 0x12, 0x34],
        &[0x50, 2, 0x12, 0x34],
        &[0x62, 2, 0x12, 0x34],
        &[0x70, 2, 0x12, 0x34],
        &[0xd0, 0],
    ];
    for stray in strays {
        let mut peer = stub.accept().await;
        peer.welcome(&[]).await;
        peer.send(stray).await;
        // Whether it stays or ends the connection is its choice; then it works.
        peer.send(&[0xe0, 2, 0x8b, 0]).await;
        until_closed(&mut peer).await;
    }
    let mut peer = stub.accept().await;
    peer.welcome(&[]).await;
    serves(&client, &mut peer).await;
}

#[actix::test]
async fn wrong_acknowledgement_of_a_publish_does_not_confirm_it() {
    let stub = Stub::start().await;
    let client = Client::start(hasty(&stub), Acknowledge::AtOnce);
    let mut peer = stub.accept().await;
    peer.welcome(&[]).await;
    let session = client.session.clone();
    let publish = actix::spawn(async move { session.publish(number("t", 1)).await });
    let first = peer.packet().await.unwrap();
    assert_eq!(first.first, 0x32, "QoS 1, first time");
    // PUBREC belongs to QoS 2.
    peer.send(&[0x50, 2, first.body[3], first.body[4]]).await;
    peer.send(&[0xe0, 2, 0x8b, 0]).await;
    until_closed(&mut peer).await;
    let mut peer = stub.accept().await;
    // The session is present, so the publish goes again under its identifier, with DUP.
    peer.packet().await.unwrap();
    peer.send(&[0x20, 3, 1, 0, 0]).await;
    let second = peer.packet().await.unwrap();
    assert_eq!(second.first, 0x3a, "QoS 1 with DUP: {second:?}");
    assert_eq!(second.body, first.body);
    peer.send(&[0x40, 2, first.body[3], first.body[4]]).await;
    assert_eq!(publish.await.unwrap(), Ok(()));
}

#[actix::test]
async fn refusals_and_limits_of_the_broker_are_heeded() {
    let stub = Stub::start().await;
    let client = Client::start(hasty(&stub), Acknowledge::AtOnce);
    let mut peer = stub.accept().await;
    peer.packet().await.unwrap();
    // CONNACK: server busy.
    peer.send(&[0x20, 3, 0, 0x89, 0]).await;
    let error = client.first_down(SOON).await;
    assert!(
        matches!(*error, ConnectionError::Refused { code: 0x89, .. }),
        "{error:?}"
    );
    let mut peer = stub.accept().await;
    // Receive maximum 1: one publish in flight at a time.
    peer.welcome(&[0x21, 0, 1]).await;
    let session = client.session.clone();
    let publishes = actix::spawn(async move {
        tokio::join!(
            session.publish(number("t", 1)),
            session.publish(number("t", 2))
        )
    });
    let first = peer.packet().await.unwrap();
    eventually(SOON, "the second waits", async || {
        let state = client.session.observe().await;
        if (state.in_flight, state.outbox) == (1, 1) {
            Ok(())
        } else {
            Err(state)
        }
    })
    .await;
    // PUBACK: not authorized.
    peer.send(&[0x40, 4, first.body[3], first.body[4], 0x87, 0])
        .await;
    let second = peer.packet().await.unwrap();
    peer.send(&[0x40, 2, second.body[3], second.body[4]]).await;
    let (first, second) = publishes.await.unwrap();
    assert!(first.unwrap_err().to_string().contains("not authorized"));
    assert_eq!(second, Ok(()));
}

#[actix::test]
async fn broker_that_accepts_and_drops_is_backed_off() {
    let stub = Stub::start().await;
    let mut options = hasty(&stub);
    options.reconnect.first = Duration::from_millis(5);
    options.reconnect.max = Duration::from_secs(60);
    options.reconnect.stable_after = Duration::from_secs(600);
    let client = Client::start(options, Acknowledge::AtOnce);
    for _ in 0..9 {
        stub.accept().await.welcome(&[]).await;
    }
    let longest = eventually(SOON, "eight connections were dropped", async || {
        let events = client.events();
        let pauses = events.iter().filter_map(|event| match event {
            ConnectionEvent::Down { retry_in, .. } => Some(*retry_in),
            _ => None,
        });
        let pauses: Vec<Duration> = pauses.collect();
        if pauses.len() >= 8 {
            Ok(pauses.into_iter().max())
        } else {
            Err(events)
        }
    })
    .await;
    // Ceilings of 5 to 640 ms; were they not doubled, none would be above 5 ms.
    assert!(longest > Some(Duration::from_millis(5)), "{longest:?}");
}

#[actix::test]
async fn random_bytes_never_stop_the_session() {
    let mut rng = Pcg64Mcg::seed_from_u64(20_261_123);
    let stub = Stub::start().await;
    let mut options = hasty(&stub);
    options.keep_alive = Duration::from_secs(2);
    options.subscriptions = vec![fleet_shared::session::Subscription::new(
        "t/#",
        QoS::ExactlyOnce,
    )];
    let client = Client::start(options, Acknowledge::AtOnce);
    let until = Instant::now() + Duration::from_secs(5);
    let mut rounds = 0;
    while Instant::now() < until {
        let mut peer = stub.accept().await;
        if rng.random_bool(0.9) {
            peer.welcome(&[]).await;
        }
        let length = rng.random_range(1..200);
        let mut bytes: Vec<u8> = (0..length).map(|_| rng.random()).collect();
        if rng.random_bool(0.8) {
            // Something that is read as a packet: a type, and a length that fits.
            bytes[0] = rng.random_range(2u8..16) << 4 | rng.random_range(0..16);
            bytes.insert(1, (length - 1).min(127) as u8);
        }
        peer.send(&bytes).await;
        rounds += 1;
    }
    assert!(rounds > 100, "only {rounds} connections");
    let mut peer = stub.accept().await;
    peer.welcome(&[]).await;
    let subscribe = loop {
        let packet = peer.packet().await.unwrap();
        if packet.kind() == 8 {
            break packet;
        }
    };
    let [high, low] = subscribe.id();
    peer.send(&[0x90, 4, high, low, 0, 2]).await;
    serves(&client, &mut peer).await;
}
