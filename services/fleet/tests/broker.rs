//! The embedded broker: start, stop, refusals, and what clients of other makes rely on.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use fleet::broker::{BrokerError, EmbeddedBroker};
use fleet_shared::session::{BrokerAddr, Publish, QoS, Stop, Subscription};
use fleet_tests::{Acknowledge, Client, eventually, options};

const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
const LIMIT: Duration = Duration::from_secs(10);

fn start() -> (EmbeddedBroker, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let broker = EmbeddedBroker::start(LOOPBACK, folder.path()).unwrap();
    (broker, folder)
}

/// MQTT 3.1.1 CONNECT of client `t` with clean session and keep-alive 60.
const CONNECT: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01t";

fn connect(addr: SocketAddr) -> std::io::Result<TcpStream> {
    let mut socket = TcpStream::connect(addr)?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.write_all(CONNECT)?;
    let mut connack = [0; 4];
    socket.read_exact(&mut connack)?;
    assert_eq!(connack, [0x20, 2, 0, 0]);
    Ok(socket)
}

#[test]
fn port_zero_takes_a_free_port_and_reports_it() {
    let (broker, folder) = start();
    assert_ne!(broker.local_addr().port(), 0);
    connect(broker.local_addr()).unwrap();
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "nothing is written"
    );
}

#[test]
fn stop_closes_connections_and_frees_the_port() {
    let (broker, folder) = start();
    let addr = broker.local_addr();
    let mut client = connect(addr).unwrap();
    let began = Instant::now();
    broker.stop(LIMIT);
    assert!(began.elapsed() < LIMIT);
    assert_eq!(client.read(&mut [0; 8]).unwrap_or(0), 0);
    let again = EmbeddedBroker::start(addr, folder.path()).unwrap();
    connect(again.local_addr()).unwrap();
}

/// The library loses what is sent to a session between the end of its old connection and the
/// beginning of the new one, if nobody sees to it.
#[actix::test]
async fn a_session_that_is_taken_over_again_and_again_under_load_loses_nothing() {
    const TOTAL: u64 = 60_000;
    let (broker, _folder) = start();
    let addr = BrokerAddr {
        host: broker.local_addr().ip().to_string(),
        port: broker.local_addr().port(),
        tls: false,
    };
    let publisher = Client::connected(options(addr.clone(), "publisher"), Acknowledge::AtOnce);
    let publisher = publisher.await;
    let mut consumer = options(addr, "consumer");
    consumer.session_expiry = Duration::from_secs(600);
    consumer.subscriptions = vec![Subscription::new("t/#", QoS::AtLeastOnce)];
    let first = Client::connected(consumer.clone(), Acknowledge::AtOnce).await;
    let (published, takeovers) = (Cell::new(false), Cell::new(0));
    let publishing = async {
        let number = |n: u64| Publish::new("t/x", "test", n.to_string());
        publisher.publish_numbers(0..TOTAL, number).await;
        published.set(true);
    };
    let seen = RefCell::new(BTreeSet::new());
    let taking_over = async {
        let mut client = first;
        while !published.get() {
            client.received_at_least(1, LIMIT).await;
            client.session.stop(Stop::Abandon, LIMIT).await;
            seen.borrow_mut().extend(client.numbers());
            client = Client::connected(consumer.clone(), Acknowledge::AtOnce).await;
            takeovers.set(takeovers.get() + 1);
        }
        client
    };
    let ((), last) = futures_util::future::join(publishing, taking_over).await;
    let what = format!("everything has arrived over {} takeovers", takeovers.get());
    eventually(LIMIT, &what, async || {
        let mut seen = seen.borrow_mut();
        seen.extend(last.numbers());
        match seen.len() as u64 {
            TOTAL => Ok(()),
            count => Err(TOTAL - count),
        }
    })
    .await;
    assert!(takeovers.get() > 10, "{} takeovers", takeovers.get());
}

/// A packet: its first byte, and what is behind the length.
fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let rest = parts.concat();
    let mut packet = vec![first];
    let mut left = rest.len();
    while left > 0x7f {
        packet.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    packet.push(left as u8);
    [packet, rest].concat()
}

/// A text with its length before it.
fn text(text: &str) -> Vec<u8> {
    let size = u16::try_from(text.len()).unwrap();
    [&size.to_be_bytes(), text.as_bytes()].concat()
}

/// The next packet, which is a short one: its first byte, and what is behind the length.
fn answer(socket: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    socket.read_exact(&mut head).unwrap();
    assert!(head[1] < 0x80, "{head:x?}");
    let mut rest = vec![0; head[1].into()];
    socket.read_exact(&mut rest).unwrap();
    (head[0], rest)
}

/// Connects by MQTT 3.1.1 (4) or 5, with a retained will for this topic. Gives the answer's code.
fn connect_with(addr: SocketAddr, version: u8, will: Option<&str>) -> (TcpStream, u8) {
    let mut socket = TcpStream::connect(addr).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    // Properties, which version 5 has, are none.
    let none = if version == 5 { &[0][..] } else { &[] };
    let flags = if will.is_some() { 0x2e } else { 0x02 };
    let will = will.map_or_else(Vec::new, |topic| {
        [none, &text(topic), &text("gone")].concat()
    });
    let protocol = [&text("MQTT")[..], &[version, flags, 0, 60]].concat();
    let connect = packet(
        0x10,
        &[&protocol, none, &text(&format!("v{version}")), &will],
    );
    socket.write_all(&connect).unwrap();
    let (first, rest) = answer(&mut socket);
    assert_eq!(first, 0x20);
    (socket, rest[1])
}

/// A topic of so many levels, all of them empty.
fn deep(levels: usize) -> String {
    "/".repeat(levels - 1)
}

/// The library keeps retained messages in a tree that it walks by recursion: the deepest topics would
/// end the process by its stack.
#[test]
fn topics_that_are_too_deep_are_refused_and_harm_nobody() {
    let (broker, _folder) = start();
    let addr = broker.local_addr();
    let mut other = connect(addr).unwrap();
    for version in [4, 5] {
        let none = if version == 5 { &[0][..] } else { &[] };
        let (mut socket, code) = connect_with(addr, version, None);
        assert_eq!(code, 0);
        let topics = [(32, 0), (33, 0x90), (4_000, 0x90), (65_536, 0x90)];
        for (id, (levels, expected)) in (1..).zip(topics) {
            let topic = text(&deep(levels));
            // Retained, with QoS 0, 1 and 2.
            let unanswered = packet(0x31, &[&topic, none, b"x"]);
            socket.write_all(&unanswered).unwrap();
            for (first, acknowledgement) in [(0x33, 0x40), (0x35, 0x50)] {
                let publish = packet(first, &[&topic, &[first, id], none, b"x"]);
                socket.write_all(&publish).unwrap();
                let (kind, rest) = answer(&mut socket);
                assert_eq!((kind, &rest[..2]), (acknowledgement, &[first, id][..]));
                // Version 3.1.1 has no word for it.
                let code = rest.get(2).copied().unwrap_or_default();
                let expected = if version == 5 { expected } else { 0 };
                assert_eq!(code, expected, "{levels} levels, version {version}");
            }
        }
        socket.write_all(b"\xc0\0").unwrap();
        assert_eq!(answer(&mut socket).0, 0xd0);
        let refused = if version == 5 { 0x87 } else { 5 };
        for (levels, expected) in [(32, 0), (33, refused), (65_536, refused)] {
            // It vanishes at once, so the will is published.
            let (_, code) = connect_with(addr, version, Some(&deep(levels)));
            assert_eq!(code, expected, "{levels} levels, version {version}");
        }
    }
    let kept = mosquitto(
        "mosquitto_sub",
        &broker,
        &["-C", "1", "-W", "10", "-v", "-t", "#"],
    );
    let output = kept.wait_with_output().unwrap();
    assert_eq!(lines(&output).len(), 1, "{output:?}");
    assert!(lines(&output)[0].starts_with(&deep(32)), "{output:?}");
    other.write_all(b"\xc0\0").unwrap();
    assert_eq!(answer(&mut other).0, 0xd0);
}

#[actix::test]
async fn starts_stops_and_drops_inside_an_async_runtime() {
    let (broker, folder) = start();
    broker.stop(LIMIT);
    drop(EmbeddedBroker::start(LOOPBACK, folder.path()).unwrap());
}

#[test]
fn a_taken_address_is_an_error_with_a_remedy() {
    let taken = TcpListener::bind(LOOPBACK).unwrap();
    let addr = taken.local_addr().unwrap();
    let error = EmbeddedBroker::start(addr, &std::env::temp_dir()).unwrap_err();
    assert!(
        matches!(error, BrokerError::AddressInUse { .. }),
        "{error:?}"
    );
    let text = error.to_string();
    assert!(text.contains(&format!("--mqtt-addr {addr}")), "{text}");
    assert!(text.contains(&format!("--broker mqtt://{addr}")), "{text}");
}

#[test]
fn a_foreign_address_is_an_error() {
    let foreign = "203.0.113.7:1883".parse().unwrap();
    let error = EmbeddedBroker::start(foreign, &std::env::temp_dir()).unwrap_err();
    assert!(matches!(error, BrokerError::Bind { .. }), "{error:?}");
}

/// Mosquitto's command line clients, which `make test` installs.
fn mosquitto(program: &str, broker: &EmbeddedBroker, arguments: &[&str]) -> Child {
    Command::new(program)
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            &broker.local_addr().port().to_string(),
        ])
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}; install mosquitto-clients"))
}

fn publish(broker: &EmbeddedBroker, arguments: &[&str]) {
    let output = mosquitto("mosquitto_pub", broker, arguments)
        .wait_with_output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn lines(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn retained_messages_reach_later_subscribers_of_both_versions() {
    let (broker, _folder) = start();
    for version in ["mqttv311", "mqttv5"] {
        let topic = format!("devices/{version}/status");
        publish(
            &broker,
            &[
                "-V", version, "-u", "anyone", "-P", "x", "-q", "1", "-r", "-t", &topic, "-m",
                "here",
            ],
        );
        let output = mosquitto(
            "mosquitto_sub",
            &broker,
            &[
                "-V", version, "-q", "1", "-C", "1", "-W", "10", "-v", "-t", &topic,
            ],
        )
        .wait_with_output()
        .unwrap();
        assert_eq!(lines(&output), [format!("{topic} here")], "{output:?}");
    }
}

#[test]
fn a_kept_session_gets_what_was_published_while_it_was_away() {
    let (broker, _folder) = start();
    let keep = [
        "-V",
        "mqttv5",
        "-i",
        "keeper",
        "-c",
        "-x",
        "3600",
        "-q",
        "2",
        "-t",
        "$share/group/sensors/#",
    ];
    // `-E` ends once subscribed, leaving the session behind.
    let made = mosquitto("mosquitto_sub", &broker, &[&keep[..], &["-E"]].concat());
    assert!(made.wait_with_output().unwrap().status.success());
    for qos in ["1", "2"] {
        publish(&broker, &["-q", qos, "-t", "sensors/hall/door", "-m", qos]);
    }
    let output = mosquitto(
        "mosquitto_sub",
        &broker,
        &[&keep[..], &["-C", "2", "-W", "10", "-F", "%q %p"]].concat(),
    )
    .wait_with_output()
    .unwrap();
    assert_eq!(lines(&output), ["1 1", "2 2"], "{output:?}");
}

#[test]
fn a_will_is_published_when_its_client_vanishes() {
    let (broker, _folder) = start();
    let topic = "devices/d-1/status";
    let mut owner = mosquitto(
        "mosquitto_sub",
        &broker,
        &[
            "-t",
            "ready",
            "-v",
            "--will-topic",
            topic,
            "--will-payload",
            "gone",
            "--will-qos",
            "1",
            "--will-retain",
        ],
    );
    publish(&broker, &["-r", "-t", "ready", "-m", "yes"]);
    // Its first line shows that it is connected.
    let mut first = [0; 9];
    owner
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut first)
        .unwrap();
    owner.kill().unwrap();
    owner.wait().unwrap();
    let output = mosquitto(
        "mosquitto_sub",
        &broker,
        &["-q", "1", "-C", "1", "-W", "10", "-t", topic],
    )
    .wait_with_output()
    .unwrap();
    assert_eq!(lines(&output), ["gone"], "{output:?}");
}
