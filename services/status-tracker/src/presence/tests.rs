//! Presence in simulated time, one rule a test.

use std::time::Duration;

use fleet_shared::model::StatusMessage;
use jiff::Timestamp;
use uuid::Uuid;

use super::{Arrival, Effect, Measures, Now, Presence, SILENT, Settings, State, Swept};

/// A presence and a clock that only the test moves.
struct World {
    presence: Presence,
    now: Now,
}

impl World {
    fn new() -> Self {
        let now = Now {
            at: Timestamp::from_second(1_800_000_000).unwrap(),
            uptime: Duration::from_secs(1_000),
        };
        let mut presence = Presence::new(Settings::default());
        presence.link_up(Now {
            uptime: Duration::ZERO,
            ..now
        });
        Self { presence, now }
    }

    fn wait(&mut self, seconds: u64) -> Swept {
        let mut all = Swept::default();
        for _ in 0..seconds {
            self.now.at += Duration::from_secs(1);
            self.now.uptime += Duration::from_secs(1);
            let swept = self.presence.sweep(self.now);
            all.transitions.extend(swept.transitions);
            all.repairs.extend(swept.repairs);
            all.changed.extend(swept.changed);
        }
        all
    }

    fn hear(&mut self, status: &StatusMessage) -> Effect {
        self.presence.status(status, Arrival::Live, self.now)
    }

    fn retained(&mut self, status: &StatusMessage) -> Effect {
        self.presence.status(status, Arrival::Retained, self.now)
    }

    fn online(&self, session: u64) -> StatusMessage {
        StatusMessage {
            device_id: "d".to_owned(),
            online: true,
            at: Some(self.now.at),
            reason: None,
            firmware_version: Some("1.2.0".to_owned()),
            signal_strength: Some(-40),
            uptime_seconds: Some(5),
            session_id: (session != 0).then(|| id(session)),
        }
    }

    fn will(&self, session: u64) -> StatusMessage {
        StatusMessage {
            online: false,
            reason: Some("unexpected_disconnect".to_owned()),
            ..self.online(session)
        }
    }

    fn state(&self) -> State {
        self.presence.view("d", self.now).unwrap().state
    }
}

fn id(session: u64) -> Uuid {
    Uuid::from_u64_pair(session << 16 | 0x7000, 1)
}

#[test]
fn late_will_of_an_older_session_changes_nothing_and_is_repaired_once() {
    let mut world = World::new();
    let late = world.will(1);
    world.hear(&world.online(1));
    world.hear(&world.online(2));
    let effect = world.hear(&late);
    assert!(effect.stale && effect.transition.is_none());
    assert_eq!(world.state(), State::Online);
    assert_eq!(world.wait(10).repairs.len(), 1);
    // The repair comes back to us: the broker remembers the truth now, and it was no sign of life.
    let seen = world.presence.view("d", world.now).unwrap();
    let repair = StatusMessage::parse("d", &seen.retained()).unwrap();
    world.presence.status(&repair, Arrival::Repair, world.now);
    assert_eq!(
        world.presence.view("d", world.now).unwrap().last_seen,
        seen.last_seen
    );
    assert_eq!(world.wait(120).repairs.len(), 0);
}

#[test]
fn a_newer_status_makes_the_repair_needless() {
    let mut world = World::new();
    let late = world.will(1);
    world.hear(&world.online(2));
    world.hear(&late);
    world.wait(1);
    world.hear(&world.online(2));
    assert!(world.wait(60).repairs.is_empty());
}

#[test]
fn silent_device_goes_offline_once_and_comes_back_when_heard() {
    let mut world = World::new();
    for _ in 0..5 {
        world.hear(&world.online(1));
        world.wait(30);
    }
    // Reports every 30 s, so 90 s without one are too many; the last was 30 s ago.
    assert!(world.wait(59).transitions.is_empty());
    let swept = world.wait(600);
    assert_eq!(swept.transitions.len(), 1);
    assert_eq!(&*swept.transitions[0].reason, SILENT);
    assert_eq!(world.state(), State::Offline);
    let back = world.hear(&world.online(1));
    assert!(back.transition.unwrap().online);
}

#[test]
fn a_device_that_never_reports_again_has_the_longest_limit() {
    let mut world = World::new();
    world.hear(&world.online(1));
    assert!(world.wait(299).transitions.is_empty());
    assert_eq!(world.wait(5).transitions.len(), 1);
}

#[test]
fn telemetry_keeps_a_device_online_and_wakes_a_silent_one() {
    let mut world = World::new();
    world.hear(&world.online(1));
    for _ in 0..10 {
        world.wait(200);
        world.presence.alive("d", world.now);
    }
    assert_eq!(world.state(), State::Online);
    assert_eq!(world.wait(400).transitions.len(), 1);
    let effect = world.presence.alive("d", world.now);
    assert!(effect.transition.unwrap().online);
    // Telemetry that was under way when the will was published does not wake it.
    world.hear(&world.will(1));
    assert!(world.presence.alive("d", world.now).transition.is_none());
}

#[test]
fn what_a_device_measures_of_itself_is_shown_until_it_says_otherwise() {
    let mut world = World::new();
    let shown = |world: &World| {
        let view = world.presence.view("d", world.now)?;
        Some((
            view.battery_percent,
            view.signal_strength,
            view.uptime_seconds,
        ))
    };
    let battery = |percent| Measures {
        battery_percent: percent,
        signal_strength: Some(-70),
        uptime_seconds: Some(90),
    };
    // Telemetry alone does not say that a device is there.
    world.presence.measured("d", battery(Some(50)));
    assert_eq!(shown(&world), None);
    world.hear(&world.online(1));
    assert_eq!(shown(&world), Some((None, Some(-40), Some(5))));
    world.presence.measured("d", battery(Some(50)));
    assert_eq!(shown(&world), Some((Some(50), Some(-70), Some(90))));
    // A status and telemetry without a battery leave the last one there.
    world.presence.measured("d", battery(None));
    world.hear(&world.online(1));
    assert_eq!(shown(&world), Some((Some(50), Some(-40), Some(5))));
}

#[test]
fn nobody_is_silent_while_we_are_not_connected() {
    let mut world = World::new();
    world.hear(&world.online(1));
    world.presence.link_down();
    assert!(world.wait(3_600).transitions.is_empty());
    world.presence.link_up(world.now);
    assert!(world.wait(290).transitions.is_empty());
    assert_eq!(world.wait(20).transitions.len(), 1);
}

#[test]
fn wills_after_a_reconnect_wait_for_the_device_and_are_believed_when_it_stays_away() {
    let mut world = World::new();
    world.hear(&world.online(1));
    world.presence.link_down();
    world.presence.link_up(world.now);
    assert!(world.hear(&world.will(1)).transition.is_none());
    assert_eq!(world.state(), State::Online);
    assert!(world.wait(29).transitions.is_empty());
    let swept = world.wait(2);
    assert_eq!(&*swept.transitions[0].reason, "unexpected_disconnect");
}

#[test]
fn what_the_store_knows_already_is_no_transition() {
    let mut world = World::new();
    let since = Timestamp::from_second(1_700_000_000).unwrap();
    world.presence.recall("d", true, since, Some(id(1)));
    assert_eq!(world.state(), State::Unknown);
    let effect = world.retained(&world.online(1));
    assert_eq!(effect.transition, None);
    let view = world.presence.view("d", world.now).unwrap();
    assert_eq!((view.state, view.since), (State::Online, Some(since)));
    // Nothing more is heard of it: it was the broker's memory only.
    assert_eq!(world.wait(310).transitions.len(), 1);
}

#[test]
fn three_times_offline_in_the_window_is_flapping_until_it_is_calm() {
    let mut world = World::new();
    for session in 1..=3 {
        world.hear(&world.online(session));
        world.hear(&world.will(session));
        world.wait(10);
    }
    assert_eq!(world.state(), State::Flapping);
    world.hear(&world.online(9));
    world.wait(200);
    assert_eq!(world.state(), State::Flapping);
    for _ in 0..5 {
        world.hear(&world.online(9));
        world.wait(100);
    }
    assert_eq!(world.state(), State::Online);
}

#[test]
fn skew_is_shown_and_not_used() {
    let mut world = World::new();
    let mut status = world.online(1);
    status.at = Some(world.now.at - Duration::from_secs(86_400));
    world.hear(&status);
    let view = world.presence.view("d", world.now).unwrap();
    assert_eq!(view.clock_skew_ms, Some(-86_400_000));
    assert_eq!(view.last_seen, Some(world.now.at));
    assert_eq!(view.since, Some(world.now.at));
}

#[test]
fn a_clock_that_went_back_does_not_hide_a_device_for_ever() {
    let mut world = World::new();
    world.hear(&world.online(1_000));
    let will = world.will(1_000);
    world.hear(&will);
    // Its sessions sort below the last one now, but it is the one that speaks.
    for _ in 0..3 {
        world.hear(&world.online(5));
        world.wait(15);
    }
    assert_eq!(world.state(), State::Online);
    assert!(world.hear(&will).stale);
    assert!(!world.hear(&world.will(5)).stale);
}

#[test]
fn without_ids_the_last_message_counts_and_a_will_only_once() {
    let mut world = World::new();
    let mut will = world.will(0);
    will.at = Some(world.now.at);
    world.hear(&world.online(0));
    world.wait(1);
    assert!(!world.hear(&will).stale);
    assert_eq!(world.state(), State::Offline);
    world.hear(&world.online(0));
    assert!(world.hear(&will).stale);
    assert_eq!(world.state(), State::Online);
    // A goodbye that is older than the newest status is of an older connection.
    let mut goodbye = world.will(0);
    goodbye.reason = None;
    goodbye.at = Some(world.now.at - Duration::from_secs(5));
    assert!(world.hear(&goodbye).stale);
}

#[test]
fn a_device_with_ids_is_not_put_offline_by_a_message_without() {
    let mut world = World::new();
    world.hear(&world.online(1));
    assert!(world.hear(&world.will(0)).stale);
    assert_eq!(world.state(), State::Online);
    // Firmware that gives no ids any more is believed once it speaks.
    world.hear(&world.online(0));
    assert!(!world.hear(&world.will(0)).stale);
    assert_eq!(world.state(), State::Offline);
}

#[test]
fn the_fleet_is_bounded_and_devices_can_be_forgotten() {
    let mut world = World::new();
    world.presence = Presence::new(Settings {
        devices_max: 2,
        ..Settings::default()
    });
    for name in ["a", "b", "c"] {
        let mut status = world.online(1);
        status.device_id = name.to_owned();
        world.hear(&status);
    }
    assert_eq!((world.presence.len(), world.presence.left_out()), (2, 1));
    assert!(world.presence.forget("a"));
    assert!(!world.presence.forget("a"));
    let left: Vec<_> = world
        .presence
        .states(None)
        .map(|(id, _)| id.to_string())
        .collect();
    assert_eq!(left, ["b"]);
    assert_eq!(
        &*world.presence.view("b", world.now).unwrap().device_id,
        "b"
    );
}

#[test]
fn a_device_takes_less_than_a_kilobyte() {
    // 100,000 devices may take 100 MB, with ids, index and their sensors.
    assert!(std::mem::size_of::<super::device::Device>() <= 320);
}
