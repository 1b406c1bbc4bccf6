//! The form of a chaos file.

use std::time::Duration;

use fleet_shared::model::RejectReason;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::bounds::{Bounds, Chance, Span};

/// What goes wrong, as a file describes it. What is left out does not happen.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ChaosFile {
    /// Chance of a device to be one that suffers; without it all do.
    pub devices: Option<Chance>,
    /// What happens to readings.
    pub readings: Readings,
    /// Messages beside the readings that must be refused.
    pub wrong: Option<WrongFile>,
    /// What happens to the clocks of devices.
    pub clock: Clock,
    /// What happens to connections.
    pub connection: Links,
}

/// What happens to readings; each with its chance for every reading.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Readings {
    /// The reading is never published.
    pub missing: Option<Chance>,
    /// It is published again.
    pub duplicate: Option<Later>,
    /// It is held back while later ones go.
    pub reorder: Option<Later>,
    /// Many more follow at once.
    pub burst: Option<Burst>,
    /// The value stays for a while.
    pub stuck: Option<Stuck>,
    /// One value is many times what it should be.
    pub spike: Option<Spike>,
    /// Values move away for a while.
    pub drift: Option<Drift>,
}

/// Something that is published later than it was due.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Later {
    /// For each reading.
    pub chance: Chance,
    /// How much later; at most 10 minutes.
    pub after: Bounds<Span>,
}

/// Many readings at once.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Burst {
    /// For each reading.
    pub chance: Chance,
    /// How many more there are, each a microsecond after the other; at most 1,000.
    pub readings: Bounds<u32>,
}

/// Values that do not change.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stuck {
    /// For each reading, to be the first of them.
    pub chance: Chance,
    /// For how long.
    pub lasts: Bounds<Span>,
}

/// A value that is far off.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spike {
    /// For each reading.
    pub chance: Chance,
    /// How many times the value.
    pub times: Bounds<f64>,
}

/// Values that move away.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Drift {
    /// For each reading, to be the first of them.
    pub chance: Chance,
    /// For how long.
    pub lasts: Bounds<Span>,
    /// How far in an hour.
    pub per_hour: Bounds<f64>,
}

/// Messages that must be refused.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WrongFile {
    /// For each reading, to be accompanied by one.
    pub chance: Chance,
    /// What is wrong with them; without it, anything.
    #[serde(default = "WrongKind::all")]
    pub kinds: Vec<WrongKind>,
}

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WrongKind {
    /// More bytes than are taken.
    TooLarge,
    /// Bytes that are no text.
    NotUtf8,
    /// An object in an object in an object.
    TooDeep,
    /// Text that is cut off, or lacks a field.
    Malformed,
    /// A number beyond all numbers.
    NotFinite,
    /// A battery of more than 100 percent.
    InvalidField,
    /// A reading of next month. Counted from the schedule: with `--start-time` long ago it is none.
    FutureTimestamp,
    /// A reading on the topic of another type.
    TopicMismatch,
    /// Another value for a reading that was published before.
    Conflict,
}

impl WrongKind {
    fn all() -> Vec<Self> {
        vec![
            Self::TooLarge,
            Self::NotUtf8,
            Self::TooDeep,
            Self::Malformed,
            Self::NotFinite,
            Self::InvalidField,
            Self::FutureTimestamp,
            Self::TopicMismatch,
            Self::Conflict,
        ]
    }

    /// The reason for which it is refused.
    #[must_use]
    pub const fn reason(self) -> RejectReason {
        match self {
            Self::TooLarge => RejectReason::TooLarge,
            Self::NotUtf8 => RejectReason::NotUtf8,
            Self::TooDeep => RejectReason::TooDeep,
            Self::Malformed => RejectReason::Malformed,
            Self::NotFinite => RejectReason::NotFinite,
            Self::InvalidField => RejectReason::InvalidField,
            Self::FutureTimestamp => RejectReason::FutureTimestamp,
            Self::TopicMismatch => RejectReason::TopicMismatch,
            Self::Conflict => RejectReason::Conflict,
        }
    }
}

/// What happens to clocks.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Clock {
    /// Clocks that are wrong from the start.
    pub skew: Option<Skew>,
    /// Clocks that are set to another wrong time now and then.
    pub jump: Option<Jump>,
}

/// Clocks that are wrong from the start.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Skew {
    /// For each device.
    pub chance: Chance,
    /// How far they are behind at most; at most a day.
    pub back: Span,
    /// How far they are ahead at most; at most 4 minutes, for more is refused.
    pub ahead: Span,
}

/// Clocks that jump.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Jump {
    /// Pause between two jumps of a device.
    pub every: Bounds<Span>,
    /// How far it is behind at most after one; at most a day.
    pub back: Span,
    /// How far it is ahead at most after one; at most 4 minutes, for more is refused.
    pub ahead: Span,
}

/// What happens to connections.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Links {
    /// Devices vanish without DISCONNECT and come back, each by itself.
    pub drop: Option<DropFile>,
    /// They do so all at the same time.
    pub storm: Option<Storm>,
    /// Connections stay open and dead: the device neither reads nor writes, then vanishes and
    /// comes back.
    pub half_open: Option<HalfOpenFile>,
    /// Devices read slowly for a while.
    pub slow_reader: Option<SlowReaderFile>,
}

/// Connections that are cut off.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DropFile {
    /// Pause between two of one device; at least a second.
    pub every: Bounds<Span>,
    /// Pause before it connects again; at most 10 minutes.
    pub away: Bounds<Span>,
}

/// Connections that are cut off at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Storm {
    /// From the start to the first, and from one to the next; at least a second.
    pub every: Span,
    /// For each device, to be hit by it.
    pub chance: Chance,
    /// All are cut off within so long.
    pub within: Span,
    /// Pause before they connect again, drawn for each; at most 10 minutes.
    pub away: Bounds<Span>,
}

/// Connections that are open and dead.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HalfOpenFile {
    /// Pause between two of one device; at least a second.
    pub every: Bounds<Span>,
    /// For how long; at most 10 minutes.
    pub lasts: Bounds<Span>,
}

/// Devices that read slowly.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlowReaderFile {
    /// Pause between two of one device; at least a second.
    pub every: Bounds<Span>,
    /// For how long; at most 10 minutes.
    pub lasts: Bounds<Span>,
    /// Pause after each 64 bytes; at most 10 minutes.
    pub pause: Bounds<Span>,
}

/// Longest time for which something is held back.
const LATER_MAX: Duration = Duration::from_secs(600);
/// Readings of a burst at most.
const BURST_MAX: u32 = 1_000;
/// A clock that is further ahead has its readings refused, by the default of ingest of 5 minutes.
const AHEAD_MAX: Duration = Duration::from_secs(240);
/// A clock that is further behind is a broken one.
const BACK_MAX: Duration = Duration::from_secs(86_400);
/// Connections are not cut off more often.
const DROP_PAUSE_MIN: Duration = Duration::from_secs(1);

impl ChaosFile {
    /// The first rule that the file breaks: the field and the rule.
    pub(super) fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let held_back = |later: Option<Later>| later.is_none_or(|it| it.after.high.0 <= LATER_MAX);
        let away = |away: Bounds<Span>| away.high.0 <= LATER_MAX;
        let clock = |back: Span, ahead: Span| back.0 <= BACK_MAX && ahead.0 <= AHEAD_MAX;
        let readings = &self.readings;
        let rules = [
            (
                held_back(readings.duplicate) && held_back(readings.reorder),
                ("readings", "must hold back for at most 10m"),
            ),
            (
                readings
                    .burst
                    .is_none_or(|it| it.readings.high <= BURST_MAX),
                ("readings.burst.readings", "must be at most 1000"),
            ),
            (
                readings.spike.is_none_or(|it| it.times.is_sane()),
                ("readings.spike.times", "must be from -1e15 to 1e15"),
            ),
            (
                readings.drift.is_none_or(|it| it.per_hour.is_sane()),
                ("readings.drift.per_hour", "must be from -1e15 to 1e15"),
            ),
            (
                self.wrong.as_ref().is_none_or(|it| !it.kinds.is_empty()),
                ("wrong.kinds", "must name one, or be left out"),
            ),
            (
                self.clock.skew.is_none_or(|it| clock(it.back, it.ahead))
                    && self.clock.jump.is_none_or(|it| clock(it.back, it.ahead)),
                ("clock", "must be at most 1d back and 4m ahead"),
            ),
            (
                self.clock
                    .jump
                    .is_none_or(|it| it.every.low.0 >= DROP_PAUSE_MIN),
                ("clock.jump.every", "must be at least 1s"),
            ),
            (
                self.connection
                    .drop
                    .is_none_or(|it| it.every.low.0 >= DROP_PAUSE_MIN)
                    && self
                        .connection
                        .storm
                        .is_none_or(|it| it.every.0 >= DROP_PAUSE_MIN)
                    && self
                        .connection
                        .half_open
                        .is_none_or(|it| it.every.low.0 >= DROP_PAUSE_MIN)
                    && self
                        .connection
                        .slow_reader
                        .is_none_or(|it| it.every.low.0 >= DROP_PAUSE_MIN),
                ("connection", "must be disturbed at most once a second"),
            ),
            (
                self.connection.drop.is_none_or(|it| away(it.away))
                    && self.connection.storm.is_none_or(|it| away(it.away))
                    && self.connection.half_open.is_none_or(|it| away(it.lasts))
                    && self
                        .connection
                        .slow_reader
                        .is_none_or(|it| away(it.lasts) && away(it.pause)),
                ("connection", "must be back after at most 10m"),
            ),
        ];
        let broken = rules.into_iter().find(|(kept, _)| !kept);
        broken.map_or(Ok(()), |(_, rule)| Err(rule))
    }
}
