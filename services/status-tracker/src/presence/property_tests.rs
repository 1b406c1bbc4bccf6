//! Whatever the order in which two connections of a device are heard, the newest one decides.

use std::time::Duration;

use fleet_shared::model::StatusMessage;
use jiff::Timestamp;
use proptest::prelude::*;
use uuid::Uuid;

use super::{Arrival, Now, Presence, Settings, State};

#[derive(Clone, Copy, Debug)]
enum End {
    /// Still connected.
    Open,
    /// Said so and disconnected.
    Goodbye,
    /// Vanished, or was taken over: the broker published the will.
    Will,
}

#[derive(Clone, Debug)]
enum Event {
    Said(StatusMessage),
    BrokerRestarts,
}

fn session(number: u64) -> Uuid {
    Uuid::from_u64_pair((1_790_000_000_000 + number * 1_000) << 16 | 0x7000, number)
}

fn said(number: u64, step: u64, online: bool, reason: Option<&str>) -> StatusMessage {
    let at = 1_790_000_000 + i64::try_from(number * 100 + step).unwrap();
    StatusMessage {
        device_id: "d".to_owned(),
        online,
        at: Some(Timestamp::from_second(at).unwrap()),
        reason: reason.map(ToOwned::to_owned),
        firmware_version: None,
        signal_strength: None,
        uptime_seconds: None,
        session_id: Some(session(number)),
    }
}

/// All that is published of one connection, in order.
fn connection(number: u64, heartbeats: u64, end: End) -> Vec<Event> {
    let mut events: Vec<_> = (0..=heartbeats)
        .map(|step| said(number, step, true, None))
        .collect();
    match end {
        End::Open => {}
        End::Goodbye => events.push(said(number, heartbeats + 1, false, None)),
        End::Will => events.push(said(number, 0, false, Some("unexpected_disconnect"))),
    }
    events.into_iter().map(Event::Said).collect()
}

/// Merges the connections as `picks` says, keeping the order within each; a pick may deliver the
/// last few messages of its connection again, and the broker restarts in between.
fn interleave(connections: Vec<Vec<Event>>, picks: &[(usize, usize, bool)]) -> Vec<Event> {
    let mut next = vec![0; connections.len()];
    let mut events = Vec::new();
    let mut picks = picks.iter().cycle();
    while next
        .iter()
        .zip(&connections)
        .any(|(at, all)| *at < all.len())
    {
        let (which, again, restart) = *picks.next().unwrap();
        let open: Vec<usize> = (0..connections.len())
            .filter(|i| next[*i] < connections[*i].len())
            .collect();
        let which = open[which % open.len()];
        let from = next[which].saturating_sub(again);
        events.extend_from_slice(&connections[which][from..=next[which]]);
        next[which] += 1;
        if restart {
            events.push(Event::BrokerRestarts);
        }
    }
    events
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![Just(End::Open), Just(End::Goodbye), Just(End::Will)]
}

fn play(events: &[Event], pause: Duration) -> (Presence, Vec<bool>, Now) {
    let mut now = Now {
        at: Timestamp::from_second(1_800_000_000).unwrap(),
        uptime: Duration::from_secs(100),
    };
    // Shorter than the shortest silence limit, so that only what was said decides.
    let mut presence = Presence::new(Settings {
        settle: Duration::from_secs(5),
        ..Settings::default()
    });
    let mut stored = Vec::new();
    presence.link_up(now);
    for event in events {
        now.at += pause;
        now.uptime += pause;
        match event {
            Event::Said(status) => {
                let effect = presence.status(status, Arrival::Live, now);
                stored.extend(effect.transition.map(|it| it.online));
            }
            Event::BrokerRestarts => {
                presence.link_down();
                presence.link_up(now);
            }
        }
        stored.extend(presence.sweep(now).transitions.iter().map(|it| it.online));
    }
    // Held news is due when all has settled; nobody is silent for too long yet.
    now.at += Duration::from_secs(6);
    now.uptime += Duration::from_secs(6);
    stored.extend(presence.sweep(now).transitions.iter().map(|it| it.online));
    (presence, stored, now)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn the_newest_session_decides(
        ends in prop::collection::vec((0_u64..4, end()), 1..4),
        picks in prop::collection::vec((0_usize..4, 0_usize..3, prop::bool::weighted(0.1)), 1..24),
        pause_ms in 1_u64..200,
    ) {
        let connections = ends.iter().zip(1..).map(|((beats, end), number)| connection(number, *beats, *end)).collect();
        let events = interleave(connections, &picks);
        let (presence, stored, now) = play(&events, Duration::from_millis(pause_ms));

        let newest = ends.last().unwrap().1;
        let view = presence.view("d", now).unwrap();
        prop_assert_eq!(view.online, matches!(newest, End::Open));
        prop_assert_eq!(view.session_id, Some(session(ends.len() as u64)));
        prop_assert_ne!(view.state, State::Unknown);
        // What is stored alternates and ends with what is shown.
        prop_assert!(stored.windows(2).all(|two| two[0] != two[1]), "{:?}", stored);
        prop_assert_eq!(stored.last().copied(), Some(view.online));
    }

    #[test]
    fn a_restart_of_the_broker_is_no_transition(
        devices in 1_u64..20,
        wills_first in any::<bool>(),
    ) {
        let mut now = Now { at: Timestamp::from_second(1_800_000_000).unwrap(), uptime: Duration::from_secs(100) };
        let mut presence = Presence::new(Settings::default());
        presence.link_up(now);
        let named = |mut status: StatusMessage, device: u64| { status.device_id = format!("d{device}"); status };
        for device in 0..devices {
            presence.status(&named(said(1, 0, true, None), device), Arrival::Live, now);
        }
        presence.link_down();
        now.uptime += Duration::from_secs(20);
        now.at += Duration::from_secs(20);
        presence.link_up(now);
        let will = |device| named(said(1, 0, false, Some("unexpected_disconnect")), device);
        let birth = |device| named(said(2, 0, true, None), device);
        for (first, second) in (0..devices).map(|device| if wills_first { (will(device), birth(device)) } else { (birth(device), will(device)) }) {
            for status in [first, second] {
                let retained = status.reason.is_some();
                let arrival = if retained { Arrival::Retained } else { Arrival::Live };
                prop_assert_eq!(presence.status(&status, arrival, now).transition, None);
            }
        }
        now.uptime += Duration::from_secs(60);
        now.at += Duration::from_secs(60);
        prop_assert!(presence.sweep(now).transitions.is_empty());
        prop_assert_eq!(presence.counts()[0], devices as usize);
    }
}
