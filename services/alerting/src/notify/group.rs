//! A group of alerts on its way to one channel: what was told of each, and when it is looked at next.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::state::after;

/// How often an Alertmanager is told what fires.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// What the receivers know of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Nothing,
    Firing,
}

/// An alert in a group.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) told: Told,
    /// What keeps it quiet, as it was noted last.
    pub(crate) suppressed: Option<String>,
}

/// Alerts with the same labels, told by the same channel.
#[derive(Debug)]
pub(crate) struct Group {
    /// Its place in the tree of routes.
    pub(crate) node: usize,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) members: BTreeMap<String, Member>,
    /// When it is looked at next.
    pub(crate) flush_at: Timestamp,
    pub(crate) told_at: Option<Timestamp>,
    /// When the receiver is told again what fires, if it forgets.
    pub(crate) keep_alive_at: Option<Timestamp>,
    /// A notification of it is not delivered yet: another one has to wait.
    pub(crate) waiting: bool,
}

impl Group {
    pub(crate) fn new(node: usize, labels: BTreeMap<String, String>, flush_at: Timestamp) -> Self {
        Self {
            node,
            labels,
            members: BTreeMap::new(),
            flush_at,
            told_at: None,
            keep_alive_at: None,
            waiting: false,
        }
    }

    /// When something is to be done about it, if nothing is on its way.
    pub(crate) fn due_at(&self) -> Option<Timestamp> {
        if self.waiting {
            return None;
        }
        let keep_alive = self.keep_alive_at.unwrap_or(Timestamp::MAX);
        Some(self.flush_at.min(keep_alive))
    }

    /// When it is looked at after a look at `now`: after the group interval, or when what fires is to
    /// be told again, if that is sooner.
    pub(crate) fn next_flush(
        &self,
        now: Timestamp,
        interval: Duration,
        repeat: Duration,
    ) -> Timestamp {
        let next = after(now, interval);
        match self.told_at.map(|told_at| after(told_at, repeat)) {
            Some(repeat_at) if repeat_at > now => next.min(repeat_at),
            _ => next,
        }
    }
}
