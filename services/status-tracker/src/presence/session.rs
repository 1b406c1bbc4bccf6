//! Which of a device's messages is believed.

use std::time::Duration;

use fleet_shared::model::StatusMessage;

use super::device::Device;
use super::{Arrival, Now, SILENT, Settings};

/// How the newest session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It may say more.
    Open,
    /// It said goodbye at that time of its own, in microseconds; only something later than that
    /// is believed.
    SaidGoodbye(i64),
    /// The broker published its will: the connection is over, and nothing of it can be newer.
    Over,
}

/// A session whose id sorts below the newest one's although it seems to be newer: the device's clock
/// went back.
#[derive(Clone, Debug)]
pub(super) struct Rival {
    /// The session that claims to be there.
    session: u128,
    /// When it was first heard.
    since: Duration,
    /// The session that gave way to a rival; its will may still come.
    former: u128,
}

/// How long a session with an older id must be heard, while the newest one is gone, before the
/// device's clock is blamed. No reordering in a broker lasts so long.
const RIVAL_HEARD_FOR: Duration = Duration::from_secs(20);

impl Device {
    /// Whether what the message says is to count. Notes what must be known of it for the next.
    pub(super) fn believes(
        &mut self,
        status: &StatusMessage,
        arrival: Arrival,
        now: Now,
        settings: &Settings,
    ) -> bool {
        let Some(session) = status.session_id.map(|id| id.as_u128()) else {
            return self.believes_anonymous(status, arrival);
        };
        if self.rival.as_ref().is_some_and(|it| it.former == session) {
            return false;
        }
        if session > self.session {
            self.session = session;
            self.anonymous = false;
            self.open_phase(status);
            return true;
        }
        if session == self.session && !self.anonymous {
            return self.believes_newest(status);
        }
        let live = arrival == Arrival::Live && status.online;
        if live && !self.anonymous && self.gave_way(session, now, settings) {
            self.open_phase(status);
            return true;
        }
        false
    }

    /// The newest session speaks again. What it says comes in order, but a message may come twice.
    fn believes_newest(&mut self, status: &StatusMessage) -> bool {
        let at = status.at.map_or(0, jiff::Timestamp::as_microsecond);
        match self.phase {
            Phase::Open => {}
            Phase::SaidGoodbye(said) if !status.online || at > said => {}
            Phase::Over if !status.online => return is_will(status),
            Phase::SaidGoodbye(_) | Phase::Over => return false,
        }
        self.open_phase(status);
        true
    }

    fn open_phase(&mut self, status: &StatusMessage) {
        let silent = status.reason.as_deref() == Some(SILENT);
        self.phase = if status.online || silent {
            Phase::Open
        } else if is_will(status) {
            Phase::Over
        } else {
            Phase::SaidGoodbye(status.at.map_or(0, jiff::Timestamp::as_microsecond))
        };
    }

    /// Whether the session with an older id has shown for long enough that it is there while the
    /// newest is not.
    fn gave_way(&mut self, session: u128, now: Now, settings: &Settings) -> bool {
        let gone = self.phase != Phase::Open
            || now.uptime.saturating_sub(self.heard_at())
                > self.interval.limit(settings.silence_max);
        if !gone {
            self.rival = None;
            return false;
        }
        match &mut self.rival {
            Some(rival) if rival.session == session => {
                if now.uptime.saturating_sub(rival.since) < RIVAL_HEARD_FOR {
                    return false;
                }
                rival.former = self.session;
                self.session = session;
                true
            }
            _ => {
                self.rival = Some(Box::new(Rival {
                    session,
                    since: now.uptime,
                    former: 0,
                }));
                false
            }
        }
    }

    /// A message without a session id.
    fn believes_anonymous(&mut self, status: &StatusMessage, arrival: Arrival) -> bool {
        let has_ids = self.session != 0 && !self.anonymous;
        if status.online {
            // Whoever speaks is there; from now on the device counts as one without ids.
            if arrival == Arrival::Live {
                self.anonymous = true;
            }
            return arrival == Arrival::Live || !has_ids;
        }
        if has_ids {
            return false;
        }
        let at = status.at.map_or(0, jiff::Timestamp::as_microsecond);
        if !is_will(status) {
            return at == 0 || at >= self.said_at;
        }
        // A connection has one will: one with the same or an older time has been published before.
        let again = at != 0 && at <= self.will_at && self.is_online();
        if !again {
            self.will_at = self.will_at.max(at);
        }
        !again
    }
}

/// A will, or what a tracker says in its place, gives a reason; a goodbye does not.
fn is_will(status: &StatusMessage) -> bool {
    !status.online && status.reason.is_some()
}
