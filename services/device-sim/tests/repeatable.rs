//! Two runs with one seed say the same bytes to a broker, whatever goes wrong on purpose.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;
use std::time::Duration;

use device_sim::{Output, Scenario, simulate};
use fleet_shared::config::MqttUrl;
use fleet_shared::service::Host;
use fleet_shared::session::Options;
use fleet_tests::{Packet, Peer, Stub, TempDir};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

/// What each client has published: flags without DUP, then the packet without its identifier.
type Recording = BTreeMap<Vec<u8>, Vec<Vec<u8>>>;

/// A broker that takes everything and remembers it.
async fn serve(mut peer: Peer, recording: Rc<RefCell<Recording>>) -> Option<()> {
    let connect = peer.packet().await.ok()?;
    let client = client_id(&connect);
    peer.send(&[0x20, 3, 0, 0, 0]).await;
    loop {
        let packet = peer.packet().await.ok()?;
        let id = || packet.id();
        match packet.kind() {
            3 => {
                let (said, id) = taken_apart(&packet);
                recording
                    .borrow_mut()
                    .entry(client.clone())
                    .or_default()
                    .push(said);
                match (packet.first >> 1 & 3, id) {
                    (1, Some([high, low])) => peer.send(&[0x40, 2, high, low]).await,
                    (2, Some([high, low])) => peer.send(&[0x50, 2, high, low]).await,
                    _ => {}
                }
            }
            6 => peer.send(&[0x70, 2, id()[0], id()[1]]).await,
            // Two filters are asked for.
            8 => peer.send(&[0x90, 5, id()[0], id()[1], 0, 1, 1]).await,
            12 => peer.send(&[0xd0, 0]).await,
            _ => return None,
        }
    }
}

/// The client id of a CONNECT of MQTT 5.
fn client_id(connect: &Packet) -> Vec<u8> {
    // Protocol name and version, flags and keep-alive take 10 bytes; then the properties.
    let mut at = 10;
    let mut length = 0;
    for shift in [0, 7, 14] {
        let byte = connect.body[at];
        at += 1;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    at += length;
    let size = usize::from(u16::from_be_bytes([connect.body[at], connect.body[at + 1]]));
    connect.body[at + 2..at + 2 + size].to_vec()
}

/// A PUBLISH without DUP and packet identifier, which belong to the connection; and the identifier.
fn taken_apart(publish: &Packet) -> (Vec<u8>, Option<[u8; 2]>) {
    let topic = usize::from(u16::from_be_bytes([publish.body[0], publish.body[1]]));
    let mut said = vec![publish.first & !8];
    let id =
        (publish.first >> 1 & 3 != 0).then(|| [publish.body[topic + 2], publish.body[topic + 3]]);
    said.extend(&publish.body[..topic + 2]);
    said.extend(&publish.body[topic + 2 + id.map_or(0, |id| id.len())..]);
    (said, id)
}

async fn run(seed: u64, chaos: &str, folder: &TempDir) -> Recording {
    let stub = Stub::start().await;
    let url: MqttUrl = format!("mqtt://127.0.0.1:{}", stub.port()).parse().unwrap();
    let recording = Rc::<RefCell<Recording>>::default();
    let serving = actix::spawn({
        let recording = Rc::clone(&recording);
        async move {
            loop {
                let peer = stub.accept().await;
                actix::spawn(serve(peer, Rc::clone(&recording)));
            }
        }
    });
    let file = folder.path().join("chaos.yaml");
    std::fs::write(&file, chaos).unwrap();
    let scenario = Scenario {
        devices: 4,
        rate: Some(200.0),
        duration: Some(Duration::from_secs(2)),
        seed: Some(seed),
        start_time: Some("2026-01-02T03:04:05Z".parse().unwrap()),
        chaos: Some(file),
        output: Output::Nothing,
        ..Scenario::default()
    };
    let (host, _stop) = Host::embedded("device-sim");
    let summary = simulate(scenario, Options::new(url.addr, "not-used"), host).await;
    assert_eq!(summary.unwrap().failed, 0);
    serving.abort();
    let mut recording = recording.take();
    for said in recording.values_mut() {
        // A status tells the session, which is new each time. What was not acknowledged when a
        // connection was cut off is published again, and how much that is depends on the broker.
        let mut seen = HashSet::new();
        said.retain(|said| !said[3..].starts_with(b"devices/") && seen.insert(said.clone()));
    }
    recording
}

/// A chaos file; all of it happens within two seconds.
fn chaos() -> impl Strategy<Value = String> {
    let chance = || 0.0..0.2_f64;
    let parts = (
        (chance(), chance(), 0..900_u64),
        (chance(), 0..900_u64, chance(), 1..9_u64),
        (chance(), chance(), chance(), chance()),
        (0..60_u64, 0..60_u64),
        (1_000..1_800_u64, 0..200_u64, any::<bool>()),
    );
    parts.prop_map(
        |(
            (missing, duplicate, after),
            (reorder, back, burst, readings),
            (stuck, spike, drift, wrong),
            (behind, ahead),
            (every, away, storm),
        )| {
            let storm = if storm {
                "storm: { every: 1s, chance: 1, within: 100ms, away: [0s, 50ms] }"
            } else {
                ""
            };
            format!(
                "readings:
  missing: {missing}
  duplicate: {{ chance: {duplicate}, after: [0s, {after}ms] }}
  reorder: {{ chance: {reorder}, after: [0s, {back}ms] }}
  burst: {{ chance: {burst}, readings: [0, {readings}] }}
  stuck: {{ chance: {stuck}, lasts: [100ms, 1s] }}
  spike: {{ chance: {spike}, times: [2, 9] }}
  drift: {{ chance: {drift}, lasts: [100ms, 1s], per_hour: [-900, 900] }}
wrong: {{ chance: {wrong} }}
clock:
  skew: {{ chance: 0.5, back: {behind}s, ahead: {ahead}s }}
  jump: {{ every: [1s, 2s], back: {behind}s, ahead: {ahead}s }}
connection:
  drop: {{ every: [{every}ms, {every}ms], away: [0s, {away}ms] }}
  half_open: {{ every: [1s, 2s], lasts: [10ms, 100ms] }}
  slow_reader: {{ every: [1s, 2s], lasts: [100ms, 300ms], pause: [1ms, 5ms] }}
  {storm}
"
            )
        },
    )
}

#[actix::test]
async fn the_same_seed_and_chaos_say_the_same_bytes() {
    let folder = TempDir::new().unwrap();
    let mut runner = TestRunner::deterministic();
    for seed in 0..4 {
        let file = chaos().new_tree(&mut runner).unwrap().current();
        let one = run(seed, &file, &folder).await;
        assert_eq!(one.len(), 4);
        assert!(one.values().map(Vec::len).sum::<usize>() > 200, "{file}");
        let two = run(seed, &file, &folder).await;
        assert!(one == two, "seed {seed} with\n{file}");
        let other = run(seed + 100, &file, &folder).await;
        assert!(one != other, "seed {seed} with\n{file}");
    }
}
