//! The life of an alert: what one rule makes of one sensor over time.
//!
//! ```text
//!              crossed              `for` has passed              cleared
//!  Inactive ────────────▶ Pending ────────────────────▶ Firing ────────────▶ Clearing
//!     ▲                      │                            ▲                     │  │
//!     │◀──── not crossed ────┘                            └─── not cleared ─────┘  │
//!     └◀─────────────────────── `keep_firing_for` has passed ──────────────────────┘
//! ```
//!
//! With `resolve_after`, silence for so long clears too: a sensor that tells of events only never says
//! that there is none.
//!
//! Time is the event time of the readings. Only when a sensor says nothing more does the clock
//! decide, by the time that has passed since the last reading was received; what it then decides is
//! dated in event time too, so that it makes no difference whether the clock or the next reading
//! finds out. A reading that is not newer than the last one never changes anything.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How patient a rule is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// How long a crossing must last before it fires.
    pub hold: Duration,
    /// How long an alert goes on firing once it is cleared.
    pub keep_firing_for: Duration,
    /// When crossings come so often that they are one alert.
    pub flap: Option<Flap>,
    /// Fires when a sensor has said nothing for so long; readings then only clear.
    pub absent: Option<Duration>,
    /// A firing alert is cleared when its sensor has said nothing for so long; longer than `hold`.
    pub resolve_after: Option<Duration>,
}

/// Damping of a sensor that goes to and fro: its alert goes on firing until it has been calm for
/// `within`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flap {
    /// Firings within the time from which on the alert is damped; at least 2.
    pub episodes: u32,
    /// The time in which they are counted, and for which it must then be calm.
    pub within: Duration,
}

/// What a rule says of one reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The condition holds.
    Crossed,
    /// It does not hold, and neither does the one that clears: the band of a hysteresis.
    Between,
    /// The condition that clears holds.
    Cleared,
    /// It cannot be said: the reading lacks what the condition is about.
    Unsaid,
}

/// Where a message stands in the sensor's order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// When it was measured.
    pub at: Timestamp,
    /// When it was received, by our clock.
    pub received_at: Timestamp,
    /// The connection it belongs to, for the status of a device; sorts by time.
    pub session: Option<Uuid>,
    /// It is a last will: made when its connection began, said when it ended.
    pub is_will: bool,
}

impl Stamp {
    /// The stamp of a reading.
    #[must_use]
    pub const fn reading(at: Timestamp, received_at: Timestamp) -> Self {
        Self {
            at,
            received_at,
            session: None,
            is_will: false,
        }
    }
}

/// How far a machine is: messages up to here change nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Event time of the newest message.
    pub at: Timestamp,
    /// The newest connection of a device.
    pub session: Option<Uuid>,
    /// Whether that connection's will has been seen.
    pub session_ended: bool,
}

/// A change that somebody is told about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// Whether it begins or ends.
    pub kind: TransitionKind,
    /// The time of the reading with which the episode began: names the episode.
    pub crossed_at: Timestamp,
    /// When the new state began, in event time.
    pub at: Timestamp,
}

/// The two changes that are announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransitionKind {
    /// The alert began.
    Firing,
    /// The alert ended.
    Resolved,
}

impl TransitionKind {
    /// As payloads and metric labels write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

/// Where an alert is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Phase {
    /// Nothing is wrong.
    #[default]
    Inactive,
    /// The condition holds, not yet for long enough.
    Pending {
        /// The reading with which it began.
        crossed_at: Timestamp,
        /// The same in event time; another time only for a last will.
        since: Timestamp,
        /// When that was received.
        seen_at: Timestamp,
    },
    /// The alert fires.
    Firing {
        /// The reading with which it began.
        crossed_at: Timestamp,
        /// When it began to fire.
        fired_at: Timestamp,
    },
    /// The alert fires still, but its condition is cleared.
    Clearing {
        /// The reading with which it began.
        crossed_at: Timestamp,
        /// When it began to fire.
        fired_at: Timestamp,
        /// Since when it is cleared.
        since: Timestamp,
        /// When that was received.
        seen_at: Timestamp,
    },
}

impl Phase {
    /// Whether the world is told that the alert fires.
    #[must_use]
    pub const fn is_firing(&self) -> bool {
        matches!(self, Self::Firing { .. } | Self::Clearing { .. })
    }
}

/// Firings remembered for damping, whatever a rule asks for.
pub(crate) const FLAP_EPISODES_MAX: u32 = 16;

/// One rule's state for one sensor. It is stored as JSON: fields may be added, not renamed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    phase: Phase,
    /// Event time of the newest reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_at: Option<Timestamp>,
    /// When the newest reading was received.
    #[serde(default)]
    received_at: Timestamp,
    /// The newest connection of a device, and whether its will has been seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<Uuid>,
    #[serde(default)]
    session_ended: bool,
    /// When it fired lately, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    recent: Vec<Timestamp>,
}

impl Machine {
    /// Where it is.
    #[must_use]
    pub const fn phase(&self) -> &Phase {
        &self.phase
    }

    /// When the newest reading was received, by our clock.
    #[must_use]
    pub const fn received_at(&self) -> Timestamp {
        self.received_at
    }

    /// How far it is; none before the first message.
    #[must_use]
    pub fn mark(&self) -> Option<Mark> {
        Some(Mark {
            at: self.last_at?,
            session: self.session,
            session_ended: self.session_ended,
        })
    }

    /// Goes on from a mark, if it is further: messages up to there were evaluated and changed nothing.
    pub fn advance(&mut self, mark: &Mark) {
        let known = (self.session, self.last_at, self.session_ended);
        if known < (mark.session, Some(mark.at), mark.session_ended) {
            self.session = mark.session;
            self.last_at = Some(mark.at);
            self.session_ended = mark.session_ended;
        }
    }

    /// Says that silence counts from `now` on: nobody listened before.
    pub fn resume(&mut self, now: Timestamp) {
        self.received_at = self.received_at.max(now);
    }

    /// Whether a message would be taken, and when it counts as measured.
    ///
    /// None for one that is not newer than what was seen: late, out of order, or again.
    #[must_use]
    pub fn admits(&self, stamp: &Stamp) -> Option<Timestamp> {
        let Some(last_at) = self.last_at else {
            return Some(if stamp.is_will {
                stamp.at.max(stamp.received_at)
            } else {
                stamp.at
            });
        };
        // Time never stands still, so that every change has a time of its own; at its end nothing more
        // can change.
        let next = last_at.checked_add(SignedDuration::from_micros(1)).ok()?;
        match (self.session, stamp.session) {
            (Some(known), Some(said)) if said < known => return None,
            (Some(known), Some(said)) if said > known => return Some(stamp.at.max(next)),
            (Some(_), Some(_)) if self.session_ended => return None,
            _ => {}
        }
        if stamp.is_will {
            return Some(stamp.received_at.max(next));
        }
        (stamp.at > last_at).then_some(stamp.at)
    }

    /// Takes what a rule says of a reading. Up to three transitions, in order; nothing at all for a
    /// reading that is not admitted.
    pub fn observe(&mut self, policy: &Policy, stamp: &Stamp, verdict: Verdict) -> Vec<Transition> {
        let mut made = Vec::new();
        let Some(at) = self.admits(stamp) else {
            return made;
        };
        self.pass_until(policy, at, &mut made);
        self.last_at = Some(at);
        self.received_at = self.received_at.max(stamp.received_at);
        if let Some(session) = stamp.session {
            self.session_ended = stamp.is_will;
            self.session = Some(session);
        }
        match verdict {
            Verdict::Crossed => self.crossed(policy, at, stamp, &mut made),
            Verdict::Between => self.not_crossed(),
            Verdict::Cleared => self.cleared(policy, at, stamp.received_at, &mut made),
            Verdict::Unsaid => {}
        }
        made
    }

    /// Takes note of a reading that says nothing about the condition, such as one without the field
    /// it asks for: only silence ends.
    pub fn heard(&mut self, stamp: &Stamp) {
        if self.admits(stamp).is_some() {
            self.received_at = self.received_at.max(stamp.received_at);
        }
    }

    /// Counts a reading as seen that says nothing yet and is remembered all the same: nothing older
    /// is taken after it.
    pub fn passed(&mut self, stamp: &Stamp) {
        if let Some(at) = self.admits(stamp) {
            self.last_at = Some(at);
        }
    }

    /// Looks at the clock, for sensors that say nothing more.
    pub fn tick(&mut self, policy: &Policy, now: Timestamp) -> Option<Transition> {
        match self.phase {
            Phase::Inactive => {
                let (silence, last_at) = (policy.absent?, self.last_at?);
                if now < after(self.received_at, silence) {
                    return None;
                }
                Some(self.fire(policy, last_at, after(last_at, silence)))
            }
            Phase::Pending {
                crossed_at,
                since,
                seen_at,
            } => (now >= after(seen_at, policy.hold))
                .then(|| self.fire(policy, crossed_at, after(since, policy.hold))),
            Phase::Firing { .. } => {
                let silence = self.silence(policy)?;
                (now >= after(self.received_at, silence))
                    .then(|| self.resolve(after(self.last_at?, silence)))?
            }
            Phase::Clearing { since, seen_at, .. } => {
                let keep = self.keep(policy);
                (now >= after(seen_at, keep)).then(|| self.resolve(after(since, keep)))?
            }
        }
    }

    /// Ends the alert because its rule is gone, if it fires.
    pub fn abandon(&mut self, now: Timestamp) -> Option<Transition> {
        self.resolve(now)
    }

    /// What the time between the last reading and one at `at` brought about.
    fn pass_until(&mut self, policy: &Policy, at: Timestamp, made: &mut Vec<Transition>) {
        match self.phase {
            Phase::Inactive => {
                if let (Some(silence), Some(last_at)) = (policy.absent, self.last_at)
                    && at > after(last_at, silence)
                {
                    made.push(self.fire(policy, last_at, after(last_at, silence)));
                }
            }
            Phase::Pending {
                crossed_at, since, ..
            } => {
                let due = after(since, policy.hold);
                if at > due {
                    made.push(self.fire(policy, crossed_at, due));
                }
            }
            Phase::Firing { .. } => {}
            Phase::Clearing { since, .. } => {
                let due = after(since, self.keep(policy));
                if at > due {
                    made.extend(self.resolve(due));
                }
            }
        }
        // Also of an alert that has only just fired.
        if let (Phase::Firing { .. }, Some(silence), Some(last_at)) =
            (self.phase, self.silence(policy), self.last_at)
            && at > after(last_at, silence)
        {
            made.extend(self.resolve(after(last_at, silence)));
        }
    }

    fn crossed(
        &mut self,
        policy: &Policy,
        at: Timestamp,
        stamp: &Stamp,
        made: &mut Vec<Transition>,
    ) {
        match self.phase {
            Phase::Inactive if policy.hold.is_zero() => {
                made.push(self.fire(policy, stamp.at, at));
            }
            Phase::Inactive => {
                self.phase = Phase::Pending {
                    crossed_at: stamp.at,
                    since: at,
                    seen_at: stamp.received_at,
                };
            }
            Phase::Pending {
                crossed_at, since, ..
            } => {
                let due = after(since, policy.hold);
                if at >= due {
                    made.push(self.fire(policy, crossed_at, due));
                }
            }
            Phase::Firing { .. } => {}
            Phase::Clearing {
                crossed_at,
                fired_at,
                ..
            } => {
                self.phase = Phase::Firing {
                    crossed_at,
                    fired_at,
                };
            }
        }
    }

    fn not_crossed(&mut self) {
        match self.phase {
            Phase::Pending { .. } => self.phase = Phase::Inactive,
            Phase::Clearing {
                crossed_at,
                fired_at,
                ..
            } => {
                self.phase = Phase::Firing {
                    crossed_at,
                    fired_at,
                };
            }
            Phase::Inactive | Phase::Firing { .. } => {}
        }
    }

    fn cleared(
        &mut self,
        policy: &Policy,
        at: Timestamp,
        seen_at: Timestamp,
        made: &mut Vec<Transition>,
    ) {
        match self.phase {
            Phase::Inactive => {}
            Phase::Pending { .. } => self.phase = Phase::Inactive,
            Phase::Firing {
                crossed_at,
                fired_at,
            } => {
                if self.keep(policy).is_zero() {
                    made.extend(self.resolve(at));
                } else {
                    self.phase = Phase::Clearing {
                        crossed_at,
                        fired_at,
                        since: at,
                        seen_at,
                    };
                }
            }
            Phase::Clearing { since, .. } => {
                let due = after(since, self.keep(policy));
                if at >= due {
                    made.extend(self.resolve(due));
                }
            }
        }
    }

    /// How long it goes on firing once cleared: longer while it flaps.
    fn keep(&self, policy: &Policy) -> Duration {
        match policy.flap {
            Some(flap) if self.recent.len() >= flap.episodes as usize => {
                policy.keep_firing_for.max(flap.within)
            }
            _ => policy.keep_firing_for,
        }
    }

    /// The silence that ends a firing alert. It counts as cleared before it was kept firing.
    fn silence(&self, policy: &Policy) -> Option<Duration> {
        Some(policy.resolve_after?.saturating_add(self.keep(policy)))
    }

    fn fire(&mut self, policy: &Policy, crossed_at: Timestamp, at: Timestamp) -> Transition {
        if let Some(flap) = policy.flap {
            self.recent.push(at);
            self.recent.retain(|fired| after(*fired, flap.within) > at);
            let surplus = self.recent.len().saturating_sub(FLAP_EPISODES_MAX as usize);
            self.recent.drain(..surplus);
        }
        self.phase = Phase::Firing {
            crossed_at,
            fired_at: at,
        };
        Transition {
            kind: TransitionKind::Firing,
            crossed_at,
            at,
        }
    }

    fn resolve(&mut self, at: Timestamp) -> Option<Transition> {
        let (Phase::Firing {
            crossed_at,
            fired_at,
        }
        | Phase::Clearing {
            crossed_at,
            fired_at,
            ..
        }) = self.phase
        else {
            self.phase = Phase::Inactive;
            return None;
        };
        self.phase = Phase::Inactive;
        Some(Transition {
            kind: TransitionKind::Resolved,
            crossed_at,
            // A reading that was late may be older than the moment at which the clock fired.
            at: at.max(fired_at),
        })
    }
}

/// `at` and `span` later; the end of time where there is no such instant.
pub(crate) fn after(at: Timestamp, span: Duration) -> Timestamp {
    SignedDuration::try_from(span)
        .ok()
        .and_then(|span| at.checked_add(span).ok())
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
