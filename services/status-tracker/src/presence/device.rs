//! What is known of one device, in as few bytes as will do.

use std::sync::Arc;
use std::time::Duration;

use fleet_shared::model::StatusMessage;
use jiff::Timestamp;
use uuid::Uuid;

use super::interval::{Interval, Offlines};
use super::session::{Phase, Rival};
use super::view::DeviceView;
use super::{Arrival, Measures, Now, REPAIR_AFTER, REPAIR_AGAIN, Settings, State, Transition};

/// What the device's messages amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Unknown,
    Online,
    Offline,
}

#[derive(Debug)]
pub(super) struct Device {
    pub(super) id: Arc<str>,
    pub(super) firmware: Option<Arc<str>>,
    /// Why it is as it is, or why it will be offline when what is held is believed.
    pub(super) reason: Option<Arc<str>>,
    pub(super) rival: Option<Box<Rival>>,
    /// The newest session id, 0 before one was seen.
    pub(super) session: u128,
    pub(super) phase: Phase,
    /// Microseconds since the epoch, as every time that is not a duration.
    pub(super) since: i64,
    /// When it was last heard, by our clock; 0 before.
    heard_wall: i64,
    /// The same on the steady clock.
    heard: Duration,
    /// When its last status came on the connection it is on.
    reported: Option<Duration>,
    /// The newest time it gave, by its clock.
    pub(super) said_at: i64,
    /// The time of the last will without a session id that was believed.
    pub(super) will_at: i64,
    /// When the retained status was found to be wrong, or repaired.
    pub(super) wrong_since: Option<Duration>,
    repaired: bool,
    uptime_seconds: Option<u32>,
    /// Its clock less ours, in milliseconds.
    skew_ms: Option<i32>,
    signal_strength: Option<i16>,
    battery_percent: Option<u8>,
    pub(super) interval: Interval,
    pub(super) offlines: Offlines,
    pub(super) link: Link,
    pub(super) shown: State,
    /// What the store has as its state.
    pub(super) recorded: Option<bool>,
    /// Speaks without session ids, whatever it did before.
    pub(super) anonymous: bool,
    /// Offline news waits for the device to come back.
    pub(super) held: bool,
}

impl Device {
    pub(super) fn new(id: Arc<str>) -> Self {
        Self {
            id,
            firmware: None,
            reason: None,
            rival: None,
            session: 0,
            phase: Phase::Open,
            since: 0,
            heard_wall: 0,
            heard: Duration::ZERO,
            reported: None,
            said_at: 0,
            will_at: 0,
            wrong_since: None,
            repaired: false,
            uptime_seconds: None,
            skew_ms: None,
            signal_strength: None,
            battery_percent: None,
            interval: Interval::default(),
            offlines: Offlines::default(),
            link: Link::Unknown,
            shown: State::Unknown,
            recorded: None,
            anonymous: false,
            held: false,
        }
    }

    pub(super) fn heard(&mut self, now: Now) {
        self.heard = now.uptime;
        self.heard_wall = now.at.as_microsecond();
    }

    pub(super) fn heard_at(&self) -> Duration {
        self.heard
    }

    pub(super) fn is_online(&self) -> bool {
        self.link == Link::Online
    }

    /// Whether it is, or the store says that it was, online: then offline is news.
    pub(super) fn was_online(&self) -> bool {
        match self.link {
            Link::Online => true,
            Link::Offline => false,
            Link::Unknown => self.recorded == Some(true),
        }
    }

    /// Takes over what a believed message tells beside on and off.
    pub(super) fn learn(
        &mut self,
        status: &StatusMessage,
        firmware: Option<Arc<str>>,
        arrival: Arrival,
        now: Now,
    ) {
        self.firmware = firmware.or_else(|| self.firmware.take());
        self.measure(Measures {
            battery_percent: None,
            signal_strength: status.signal_strength,
            uptime_seconds: status.uptime_seconds,
        });
        let at = status.at.map(Timestamp::as_microsecond);
        if status.online {
            self.said_at = at.unwrap_or(self.said_at);
        }
        if arrival == Arrival::Live {
            self.live(status, at, now);
        } else if status.online && self.heard.is_zero() {
            // Not heard yet, but it has until its limit, counted from now, to be.
            self.heard = now.uptime;
            self.heard_wall = at.unwrap_or(0).min(now.at.as_microsecond());
        }
        // What was believed last is what the broker remembers now.
        self.wrong_since = None;
        self.repaired = false;
    }

    /// Takes over what the device measures of itself.
    pub(super) fn measure(&mut self, measures: Measures) {
        self.battery_percent = measures.battery_percent.or(self.battery_percent);
        if let Some(dbm) = measures.signal_strength {
            self.signal_strength = Some(i16::try_from(dbm).unwrap_or(i16::MIN));
        }
        if let Some(uptime) = measures.uptime_seconds {
            self.uptime_seconds = Some(u32::try_from(uptime).unwrap_or(u32::MAX));
        }
    }

    fn live(&mut self, status: &StatusMessage, at: Option<i64>, now: Now) {
        if !status.online {
            self.reported = None;
            return;
        }
        if let (Some(before), true) = (self.reported, self.is_online()) {
            self.interval.saw(now.uptime.saturating_sub(before));
        }
        self.reported = Some(now.uptime);
        self.skew_ms = at.map(|at| {
            let skew_ms = (at - now.at.as_microsecond()) / 1_000;
            i32::try_from(skew_ms).unwrap_or(if skew_ms < 0 { i32::MIN } else { i32::MAX })
        });
        self.heard(now);
    }

    pub(super) fn go_online(&mut self, reason: Arc<str>, now: Now) -> Option<Transition> {
        self.held = false;
        if self.link != Link::Online {
            if self.link == Link::Offline || self.recorded != Some(true) {
                self.since = now.at.as_microsecond();
            }
            // The gap to what it said before it went is no interval.
            self.reported = None;
            self.link = Link::Online;
            self.reason = Some(reason);
        }
        self.transition(true, now)
    }

    pub(super) fn go_offline(&mut self, reason: Arc<str>, now: Now) -> Option<Transition> {
        self.held = false;
        if self.link != Link::Offline {
            if self.link == Link::Online || self.recorded != Some(false) {
                self.since = now.at.as_microsecond();
            }
            self.link = Link::Offline;
            self.reason = Some(reason);
            self.reported = None;
        }
        let transition = self.transition(false, now);
        if transition.is_some() {
            self.offlines.push(now.at);
        }
        transition
    }

    /// Offline news that may be overtaken.
    pub(super) fn hold(&mut self, reason: Arc<str>) {
        self.held = true;
        self.reason = Some(reason);
    }

    fn transition(&mut self, online: bool, now: Now) -> Option<Transition> {
        if self.recorded == Some(online) {
            return None;
        }
        self.recorded = Some(online);
        Some(Transition {
            device_id: self.id.clone(),
            at: now.at,
            online,
            reason: self.reason.clone().unwrap_or_else(|| "".into()),
            session_id: self.session_id(),
        })
    }

    /// Whether it should have been heard by now. Only what was missed while we listened counts.
    pub(super) fn is_silent(&self, up_since: Duration, now: Now, settings: &Settings) -> bool {
        if !self.was_online() || self.held {
            return false;
        }
        let limit = self.interval.limit(settings.silence_max);
        now.uptime.saturating_sub(self.heard.max(up_since)) > limit
    }

    /// Whether the retained status is to be published anew now.
    pub(super) fn repair_due(&mut self, now: Now) -> bool {
        let Some(since) = self.wrong_since else {
            return false;
        };
        let pause = if self.repaired {
            REPAIR_AGAIN
        } else {
            REPAIR_AFTER
        };
        if self.held || self.link == Link::Unknown || now.uptime.saturating_sub(since) < pause {
            return false;
        }
        self.wrong_since = Some(now.uptime);
        self.repaired = true;
        true
    }

    /// Brings what is shown up to date; true if it differs from before.
    pub(super) fn look(&mut self, now: Now, settings: &Settings) -> bool {
        let state = if self.link == Link::Unknown {
            State::Unknown
        } else if self.offlines.within(settings.flap_window, now.at) {
            State::Flapping
        } else if self.link == Link::Online {
            State::Online
        } else {
            State::Offline
        };
        let before = std::mem::replace(&mut self.shown, state);
        before != state
    }

    fn session_id(&self) -> Option<Uuid> {
        (self.session != 0 && !self.anonymous).then(|| Uuid::from_u128(self.session))
    }

    pub(super) fn view(&self, now: Now, settings: &Settings) -> DeviceView {
        let instant = |micros: i64| {
            (micros != 0)
                .then(|| Timestamp::from_microsecond(micros).ok())
                .flatten()
        };
        DeviceView {
            device_id: self.id.clone(),
            online: self.is_online(),
            state: self.shown,
            since: instant(self.since),
            last_seen: instant(self.heard_wall),
            reported_at: instant(self.said_at),
            reason: self.reason.clone(),
            firmware_version: self.firmware.clone(),
            signal_strength: self.signal_strength,
            battery_percent: self.battery_percent,
            uptime_seconds: self.uptime_seconds,
            session_id: self.session_id(),
            clock_skew_ms: self.skew_ms,
            silence_limit_ms: self.interval.limit(settings.silence_max).as_millis() as u64,
            silent_for_ms: now.uptime.saturating_sub(self.heard).as_millis() as u64,
        }
    }
}
