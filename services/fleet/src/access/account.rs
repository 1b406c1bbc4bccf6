//! An account, and the decision whether it may.

use fleet_shared::topic::TopicFilter;

use super::Role;

/// What a client asks of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// To publish to a topic.
    Publish,
    /// To subscribe to a filter, which may be a shared one.
    Subscribe,
}

/// An account at the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// User name, or common name of its certificate; of a device also its id and client id.
    pub name: String,
    /// What kind of account it is.
    pub role: Role,
    /// Filters of the topics that it may publish to.
    pub publish: Vec<String>,
    /// Filters that it may subscribe to; `$share/{group}/{filter}` where it may share the work of
    /// that group, because whoever joins a group takes messages away from its other members.
    pub subscribe: Vec<String>,
}

impl Account {
    /// The account of a device: its own topics, and readings of `locations`. A location that ends
    /// in `/#` stands for all below it.
    #[must_use]
    pub fn device(id: &str, locations: &[String]) -> Self {
        let readings = locations
            .iter()
            .map(|location| match location.strip_suffix("/#") {
                Some(above) => format!("sensors/{above}/#"),
                None => format!("sensors/{location}/+"),
            });
        let own = [
            format!("devices/{id}/status"),
            format!("devices/{id}/telemetry"),
            format!("devices/{id}/config/reported"),
            format!("responses/{id}/+"),
        ];
        Self {
            name: id.to_owned(),
            role: Role::Device,
            publish: readings.chain(own).collect(),
            subscribe: vec![
                format!("devices/{id}/commands/+"),
                format!("devices/{id}/config"),
            ],
        }
    }

    /// The account of a service or a person.
    #[must_use]
    pub fn service(name: &str, role: Role) -> Self {
        let owned = |filters: &[&str]| filters.iter().map(|&filter| filter.to_owned()).collect();
        Self {
            name: name.to_owned(),
            role,
            publish: owned(role.publishes()),
            subscribe: owned(role.subscribes()),
        }
    }

    /// Whether the account may do it. `topic` is a topic to publish to, or a filter to subscribe
    /// to; a malformed one is refused.
    #[must_use]
    pub fn may(&self, action: Action, topic: &str) -> bool {
        match action {
            Action::Publish => self
                .publish
                .iter()
                .any(|filter| fleet_shared::topic::matches(filter, topic)),
            Action::Subscribe => {
                TopicFilter::parse(topic).is_ok()
                    && self
                        .subscribe
                        .iter()
                        .any(|granted| may_subscribe(granted, topic))
            }
        }
    }

    /// Whether the account may connect as this client. A device is its client id; the replicas of
    /// a service have its name, with more after a dash. So no account can end the session of
    /// another one by taking its client id.
    #[must_use]
    pub fn may_connect_as(&self, client_id: &str) -> bool {
        match self.role {
            Role::Device => client_id == self.name,
            // Its tools connect as `fleet-…`.
            Role::Operator => {
                is_replica_of(&self.name, client_id) || client_id.starts_with("fleet-")
            }
            _ => is_replica_of(&self.name, client_id),
        }
    }
}

/// Whether a client id is that of the service itself, or of one of its replicas.
fn is_replica_of(service: &str, client_id: &str) -> bool {
    client_id
        .strip_prefix(service)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

fn may_subscribe(granted: &str, asked: &str) -> bool {
    match (shared(granted), shared(asked)) {
        (None, None) => covers(granted, asked),
        (Some((group, granted)), Some((asked_group, asked))) => {
            group == asked_group && covers(granted, asked)
        }
        _ => false,
    }
}

/// Group and filter of a shared subscription.
pub(super) fn shared(filter: &str) -> Option<(&str, &str)> {
    filter.strip_prefix("$share/")?.split_once('/')
}

/// The filter without the group that shares it.
pub(super) fn unshared(filter: &str) -> &str {
    shared(filter).map_or(filter, |(_, filter)| filter)
}

/// Whether every topic that `asked` matches is matched by `granted`, both filters without a group.
#[must_use]
pub fn covers(granted: &str, asked: &str) -> bool {
    // A leading wildcard does not match the broker's own topics (MQTT 5, section 4.7.2).
    if asked.starts_with('$') && !granted.starts_with('$') {
        return false;
    }
    let (mut granted, mut asked) = (granted.split('/'), asked.split('/'));
    loop {
        match (granted.next(), asked.next()) {
            (Some("#"), _) | (None, None) => return true,
            (_, Some("#")) | (None, Some(_)) | (Some(_), None) => return false,
            (Some(granted), Some(asked)) => {
                if granted != asked && granted != "+" {
                    return false;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn device() -> Account {
        let locations = ["kitchen", "site-1/floor-2", "barn/#"].map(str::to_owned);
        Account::device("sensor-001", &locations)
    }

    #[test]
    fn a_device_publishes_readings_of_its_locations_only() {
        let device = device();
        for topic in [
            "sensors/kitchen/temperature",
            "sensors/site-1/floor-2/door",
            "sensors/barn/door",
            "sensors/barn/north/box-2/temperature",
        ] {
            assert!(device.may(Action::Publish, topic), "{topic}");
        }
        for topic in [
            "sensors/kitchen",
            "sensors/kitchen/oven/temperature",
            "sensors/site-1/door",
            "sensors/site-1/floor-3/door",
            "sensors/barnacle/door",
            "sensors/attic/temperature",
        ] {
            assert!(!device.may(Action::Publish, topic), "{topic}");
        }
    }

    #[test]
    fn a_device_has_its_own_topics_and_no_other_device_s() {
        let device = device();
        for (action, topic, allowed) in [
            (Action::Publish, "devices/sensor-001/status", true),
            (Action::Publish, "devices/sensor-002/status", false),
            (Action::Publish, "devices/sensor-001/config", false),
            (Action::Publish, "devices/sensor-001/commands/reboot", false),
            (Action::Publish, "responses/sensor-001/x", true),
            (Action::Publish, "responses/sensor-002/x", false),
            (Action::Subscribe, "devices/sensor-001/commands/+", true),
            (Action::Subscribe, "devices/sensor-001/commands/ping", true),
            (Action::Subscribe, "devices/sensor-001/commands/#", false),
            (Action::Subscribe, "devices/sensor-001/#", false),
            (Action::Subscribe, "devices/+/config", false),
            (Action::Subscribe, "#", false),
            (Action::Subscribe, "$share/ingest/sensors/#", false),
            (
                Action::Subscribe,
                "$share/x/devices/sensor-001/config",
                false,
            ),
            (Action::Subscribe, "$SYS/#", false),
            (Action::Subscribe, "sensors/#/x", false),
        ] {
            assert_eq!(device.may(action, topic), allowed, "{action:?} {topic}");
        }
    }

    #[test]
    fn a_group_is_joined_only_by_whom_it_is_granted_to() {
        let ingest = Account::service("ingest", Role::Ingest);
        let viewer = Account::service("viewer", Role::Viewer);
        let operator = Account::service("operator", Role::Operator);
        assert!(ingest.may(Action::Subscribe, "$share/ingest/sensors/#"));
        assert!(ingest.may(Action::Subscribe, "$share/ingest/sensors/kitchen/+"));
        assert!(!ingest.may(Action::Subscribe, "$share/other/sensors/#"));
        assert!(!ingest.may(Action::Subscribe, "sensors/#"));
        assert!(viewer.may(Action::Subscribe, "sensors/#"));
        assert!(!viewer.may(Action::Subscribe, "$share/ingest/sensors/#"));
        assert!(operator.may(Action::Subscribe, "#"));
        assert!(!operator.may(Action::Subscribe, "$share/ingest/sensors/#"));
    }

    #[test]
    fn an_account_connects_only_as_itself() {
        let device = device();
        assert!(device.may_connect_as("sensor-001"));
        assert!(!device.may_connect_as("sensor-0012") && !device.may_connect_as("ingest-0"));
        let ingest = Account::service("ingest", Role::Ingest);
        for (id, allowed) in [
            ("ingest", true),
            ("ingest-0", true),
            ("ingest-host-7-1", true),
            ("ingestion", false),
            ("alerting-0", false),
        ] {
            assert_eq!(ingest.may_connect_as(id), allowed, "{id}");
        }
        let operator = Account::service("operator", Role::Operator);
        assert!(operator.may_connect_as("fleet-tail-7") && operator.may_connect_as("operator"));
        assert!(!operator.may_connect_as("ingest-0"));
    }

    proptest! {
        /// What a granted filter covers, it matches every topic of.
        #[test]
        fn what_is_covered_is_matched(
            granted in "(\\+|a|b)(/(\\+|a|b)){0,3}(/#)?",
            asked in "(\\+|a|b)(/(\\+|a|b)){0,3}(/#)?",
            topic in "(a|b|c)(/(a|b|c)){0,5}",
        ) {
            let matches = fleet_shared::topic::matches;
            if covers(&granted, &asked) && matches(&asked, &topic) {
                prop_assert!(matches(&granted, &topic), "{granted} covers {asked} but not {topic}");
            }
        }

        /// A filter covers itself and is covered by `#`.
        #[test]
        fn covering_is_reflexive(filter in "(\\+|a|b)(/(\\+|a|b)){0,3}(/#)?") {
            prop_assert!(covers(&filter, &filter) && covers("#", &filter));
        }
    }
}
