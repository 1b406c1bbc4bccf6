//! Groups that share the work: each evaluates the sensors whose topics the broker sends to it.
//!
//! Which group that is may change, by the broker's hash or by other filters. The state of an alert
//! that fires is retained on `fleet/alerting/state/{rule}/{sensor_id}` and says whose it is. The
//! group that gets the next message of the sensor goes on from it and says that it is now its own;
//! the one before lets go of it.

use std::collections::HashMap;

use fleet_shared::session::QoS;
use fleet_shared::session::{Retained, Subscription};
use fleet_shared::topic::TopicFilter;
use fleet_store::{AlertState, Outgoing};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::Saved;

/// Filters of a group that has all the work.
pub(crate) const ALL: [&str; 2] = ["sensors/#", "devices/+/status"];

/// Firing alerts of other groups that are remembered; each is some 500 bytes.
const ELSEWHERE_MAX: usize = 100_000;

/// Whether a group has all the work.
pub(crate) fn is_all(filters: &[String]) -> bool {
    filters.iter().map(String::as_str).eq(ALL)
}

/// The subscription of a filter; none if it is not one of readings or presence.
pub(crate) fn subscription(filter: &str) -> Option<Subscription> {
    TopicFilter::parse(filter).ok()?;
    let (shared, plain) = match filter.strip_prefix("$share/") {
        Some(rest) => (true, rest.split_once('/')?.1),
        None => (false, filter),
    };
    let levels: Vec<&str> = plain.split('/').collect();
    let retained = match levels.as_slice() {
        // Retained messages are not sent to shared subscriptions.
        ["sensors", _, ..] => Retained::IfNew,
        ["devices", _, "status"] => Retained::Always,
        _ => return None,
    };
    Some(Subscription {
        retained: if shared { Retained::IfNew } else { retained },
        ..Subscription::new(filter, QoS::ExactlyOnce)
    })
}

/// Retained on `fleet/alerting/state/{rule}/{sensor_id}` while an alert fires.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct AlertStateMessage {
    pub(crate) alert_id: String,
    pub(crate) rule: String,
    pub(crate) sensor_id: String,
    pub(crate) severity: String,
    pub(crate) state: String,
    pub(crate) since: Timestamp,
    /// The group that evaluates the sensor.
    #[serde(default)]
    pub(crate) group: String,
    /// What another group needs to go on.
    #[serde(default)]
    pub(crate) saved: Option<Saved>,
}

/// A state as it is stored: with the group that evaluates it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredState {
    #[serde(flatten)]
    pub(crate) saved: Saved,
    /// Empty in what was written before there were several.
    #[serde(default)]
    pub(crate) group: String,
}

/// What of the store is a group's to go on with.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    group: String,
    /// It has all the work, whatever group had it before.
    is_all: bool,
}

impl Part {
    pub(crate) fn new(group: &str, filters: &[String]) -> Self {
        Self {
            group: group.to_owned(),
            is_all: is_all(filters),
        }
    }

    /// Reads a state; none if it is another group's.
    pub(crate) fn state(&self, state: &AlertState) -> Option<Result<Saved, serde_json::Error>> {
        match serde_json::from_str::<StoredState>(&state.state) {
            Ok(stored) => self.has(&stored.group).then_some(Ok(stored.saved)),
            Err(error) => Some(Err(error)),
        }
    }

    /// Whether a message of the outbox is for this group to publish.
    pub(crate) fn publishes(&self, message: &Outgoing) -> bool {
        #[derive(Deserialize)]
        struct Owner {
            #[serde(default)]
            group: Option<String>,
        }
        // What cannot be read is reported where it would be published.
        self.is_all
            || serde_json::from_str::<Owner>(&message.body)
                .map_or(true, |owner| self.has(&owner.group.unwrap_or_default()))
    }

    fn has(&self, group: &str) -> bool {
        self.is_all || group.is_empty() || group == self.group
    }
}

/// Alerts that fire in other groups.
#[derive(Debug, Default)]
pub(crate) struct Elsewhere {
    by_sensor: HashMap<String, Vec<(String, Saved)>>,
    count: usize,
}

impl Elsewhere {
    /// Another group has this alert. False if there are too many to remember.
    pub(crate) fn add(&mut self, rule: &str, sensor_id: &str, saved: Saved) -> bool {
        self.remove(rule, sensor_id);
        if self.count >= ELSEWHERE_MAX {
            return false;
        }
        self.count += 1;
        let of_sensor = self.by_sensor.entry(sensor_id.to_owned()).or_default();
        of_sensor.push((rule.to_owned(), saved));
        true
    }

    /// It is ours, or nobody's.
    pub(crate) fn remove(&mut self, rule: &str, sensor_id: &str) {
        self.take(sensor_id, |known| known == rule);
    }

    /// Takes out the alerts of a sensor whose rules pass `is_meant`.
    pub(crate) fn take(
        &mut self,
        sensor_id: &str,
        is_meant: impl Fn(&str) -> bool,
    ) -> Vec<(String, Saved)> {
        if self.count == 0 {
            return Vec::new();
        }
        let Some(list) = self.by_sensor.get_mut(sensor_id) else {
            return Vec::new();
        };
        let taken: Vec<_> = list.extract_if(.., |(rule, _)| is_meant(rule)).collect();
        self.count -= taken.len();
        if list.is_empty() {
            self.by_sensor.remove(sensor_id);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_of_readings_and_presence_are_taken() {
        for (filter, retained) in [
            ("sensors/#", Some(Retained::IfNew)),
            ("sensors/site-1/+/temperature", Some(Retained::IfNew)),
            ("devices/+/status", Some(Retained::Always)),
            ("$share/alerting/sensors/#", Some(Retained::IfNew)),
            ("$share/alerting/devices/+/status", Some(Retained::IfNew)),
            ("alerts/#", None),
            ("$share/alerting/alerts/#", None),
            ("sensors", None),
            ("sensors/#/x", None),
        ] {
            let found = subscription(filter).map(|subscription| subscription.retained);
            assert_eq!(found, retained, "{filter}");
        }
        assert!(is_all(&ALL.map(str::to_owned)));
        assert!(!is_all(&["sensors/#".to_owned()]));
    }

    #[test]
    fn a_group_goes_on_with_its_part_and_one_that_has_all_with_everything() {
        let state = |group: &str| AlertState {
            rule: "A".to_owned(),
            sensor_id: "s1".to_owned(),
            state: format!(r#"{{"machine":{{"phase":{{"is":"inactive"}}}},"group":"{group}"}}"#),
            updated_at: Timestamp::UNIX_EPOCH,
        };
        let one = Part::new("one", &["sensors/a/#".to_owned()]);
        let all = Part::new("one", &ALL.map(str::to_owned));
        for (group, is_ones) in [("one", true), ("", true), ("two", false)] {
            assert_eq!(one.state(&state(group)).is_some(), is_ones, "{group}");
            assert!(matches!(all.state(&state(group)), Some(Ok(_))), "{group}");
        }
        let broken = AlertState {
            state: "{".to_owned(),
            ..state("two")
        };
        assert!(matches!(one.state(&broken), Some(Err(_))));
    }

    #[test]
    fn alerts_of_other_groups_are_taken_once_and_by_rule() {
        let mut elsewhere = Elsewhere::default();
        assert!(elsewhere.add("A", "s1", Saved::default()));
        assert!(elsewhere.add("B", "s1", Saved::default()));
        assert!(elsewhere.add("A", "s1", Saved::default()));
        assert!(elsewhere.take("s2", |_| true).is_empty());
        assert_eq!(elsewhere.take("s1", |rule| rule == "A").len(), 1);
        assert_eq!(elsewhere.count, 1);
        elsewhere.remove("B", "s1");
        assert!(elsewhere.by_sensor.is_empty());
    }
}
