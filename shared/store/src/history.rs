//! What was when: the transitions of devices, and a sensor's past at a resolution that fits a plot.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use crate::{DeadLetterFilter, ReadingKey, StoreFuture, StoredDeadLetter, StoredReading};

/// After this time news of an older session is taken for what it says: the clock of the device, whose
/// ids tell the order of its sessions, was set back.
const OLDER_SESSION_MAX: Duration = Duration::from_secs(60);

/// The past of devices and sensors; part of every [`crate::Store`].
pub trait History: Send + Sync {
    /// Stores what is news of `transitions`, in one transaction, and tells for each in order what
    /// became of it. Any number of replicas may say the same: it is stored once.
    fn record_transitions(
        &self,
        transitions: Arc<[DeviceTransition]>,
    ) -> StoreFuture<'_, Vec<Recorded>>;

    /// Up to `limit` transitions of a device before `before`, the newest first.
    fn transitions<'a>(
        &'a self,
        device_id: &'a str,
        before: Option<Timestamp>,
        limit: u32,
    ) -> StoreFuture<'a, Vec<DeviceTransition>>;

    /// The newest transition of up to `limit` devices, in the order of their ids, from behind
    /// `after` on.
    fn newest_transitions(
        &self,
        after: Option<String>,
        limit: u32,
    ) -> StoreFuture<'_, Vec<DeviceTransition>>;

    /// Up to `limit` transitions of all devices since `since`, the oldest first.
    fn transitions_since(
        &self,
        since: Timestamp,
        limit: u32,
    ) -> StoreFuture<'_, Vec<DeviceTransition>>;

    /// The readings of a sensor in a span, as at most `span.points` buckets; empty ones are left out.
    fn reading_buckets<'a>(
        &'a self,
        sensor_id: &'a str,
        kind: &'a str,
        span: Span,
    ) -> StoreFuture<'a, Vec<Bucket>>;

    /// What a sensor measures, the first type by name if there are several.
    fn sensor_kind<'a>(&'a self, sensor_id: &'a str) -> StoreFuture<'a, Option<String>>;

    /// Up to `page.limit` readings in the order of their timestamps, then of sensor and type. To read
    /// a long span use [`Chronology`](crate::Chronology), which asks for pages that cost little.
    fn readings_by_time(&self, page: TimePage) -> StoreFuture<'_, Vec<StoredReading>>;

    /// Up to `limit` dead letters that pass `filter`, the newest first, older than `before`.
    fn newest_dead_letters(
        &self,
        filter: DeadLetterFilter,
        before: Option<Uuid>,
        limit: u32,
    ) -> StoreFuture<'_, Vec<StoredDeadLetter>>;
}

/// A part of what was measured in a span, in the order of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimePage {
    /// Start of the span, included.
    pub from: Timestamp,
    /// End of the span, not included.
    pub to: Timestamp,
    /// Readings of this sensor only.
    pub sensor_id: Option<String>,
    /// Readings behind this one only, whose timestamp is not before `from`.
    pub after: Option<ReadingKey>,
    /// Most readings.
    pub limit: u32,
}

/// A device went on or off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceTransition {
    /// Which one.
    pub device_id: String,
    /// When that was learned; kept at microseconds.
    pub at: Timestamp,
    /// To what.
    pub online: bool,
    /// Why, in a word or as the device's will says.
    pub reason: String,
    /// The connection it belongs to.
    pub session_id: Option<Uuid>,
}

/// What became of a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It is stored now.
    Stored,
    /// The device is in that state in the store since then: another replica was first.
    Known {
        /// Since when.
        since: Timestamp,
    },
    /// The store has newer news of the device.
    Outdated,
}

/// A span of time and how finely it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its start, included.
    pub from: Timestamp,
    /// Its end, not included.
    pub to: Timestamp,
    /// Most buckets; at least 1.
    pub points: u32,
}

impl Span {
    /// Microseconds a bucket.
    pub(crate) fn width(self) -> i64 {
        let micros = self.to.as_microsecond() - self.from.as_microsecond();
        let points = i64::from(self.points.max(1));
        (micros / points + i64::from(micros % points != 0)).max(1)
    }
}

/// Readings of a part of a span.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// Start of the part.
    pub at: Timestamp,
    /// Lowest value.
    pub min: f64,
    /// Mean of the values.
    pub mean: f64,
    /// Highest value.
    pub max: f64,
    /// Number of values.
    pub count: u64,
}

/// The newest transition the store has of a device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Newest {
    pub(crate) at: Timestamp,
    pub(crate) online: bool,
    pub(crate) session_id: Option<Uuid>,
}

impl Newest {
    pub(crate) fn of(transition: &DeviceTransition) -> Self {
        Self {
            at: transition.at,
            online: transition.online,
            session_id: transition.session_id,
        }
    }
}

/// Whether a transition is news, given the newest one stored.
pub(crate) fn judge(newest: Option<Newest>, new: &DeviceTransition) -> Recorded {
    let Some(newest) = newest else {
        return Recorded::Stored;
    };
    if newest.online == new.online {
        return Recorded::Known { since: newest.at };
    }
    let older_session = match (newest.session_id, new.session_id) {
        (Some(newest), Some(new)) => new < newest,
        _ => false,
    };
    let late = new.at.duration_since(newest.at).unsigned_abs() < OLDER_SESSION_MAX;
    if new.at <= newest.at || (older_session && late) {
        return Recorded::Outdated;
    }
    Recorded::Stored
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transition(at: i64, online: bool, session: u128) -> DeviceTransition {
        DeviceTransition {
            device_id: "d".to_owned(),
            at: Timestamp::from_second(at).unwrap(),
            online,
            reason: String::new(),
            session_id: Some(Uuid::from_u128(session)),
        }
    }

    #[test]
    fn only_news_is_stored() {
        let newest = Some(Newest::of(&transition(100, true, 2)));
        let since = Timestamp::from_second(100).unwrap();
        for (new, expected) in [
            (transition(101, true, 2), Recorded::Known { since }),
            (transition(101, false, 2), Recorded::Stored),
            (transition(100, false, 2), Recorded::Outdated),
            // A replica that lags tells how the session before ended.
            (transition(110, false, 1), Recorded::Outdated),
            (transition(200, false, 1), Recorded::Stored),
        ] {
            assert_eq!(judge(newest, &new), expected, "{new:?}");
        }
        assert_eq!(judge(None, &transition(1, false, 1)), Recorded::Stored);
    }

    #[test]
    fn buckets_cover_the_span() {
        let span = |micros, points| Span {
            from: Timestamp::UNIX_EPOCH,
            to: Timestamp::from_microsecond(micros).unwrap(),
            points,
        };
        assert_eq!(span(10, 3).width(), 4);
        assert_eq!(span(0, 3).width(), 1);
        assert_eq!(span(10, 0).width(), 10);
    }
}
