//! What each kind of account needs, taken from what the services subscribe to and publish.

/// A kind of account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A device: its own topics, and readings of the locations that its account names.
    Device,
    /// `ingest`.
    Ingest,
    /// `alerting`.
    Alerting,
    /// `status-tracker`.
    StatusTracker,
    /// `bridge`; routes of its own may need more, which its account names.
    Bridge,
    /// A person with the `fleet` tool: reads everything, publishes readings, configuration and
    /// commands. Not a service's or a device's status.
    Operator,
    /// A person or a dashboard that only looks.
    Viewer,
}

impl Role {
    /// The services and people, each with the account's usual name.
    pub const SERVICES: [(&'static str, Self); 6] = [
        ("ingest", Self::Ingest),
        ("alerting", Self::Alerting),
        ("status-tracker", Self::StatusTracker),
        ("bridge", Self::Bridge),
        ("operator", Self::Operator),
        ("viewer", Self::Viewer),
    ];

    /// The role of that name in a file of accounts.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::SERVICES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, role)| *role)
    }

    /// Its name in files and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::SERVICES
            .iter()
            .find(|(_, role)| *role == self)
            .map_or("device", |(name, _)| name)
    }

    /// Topics that every account of the role may publish to, as filters. Those of a device depend
    /// on its id and are made by [`super::Account::device`].
    pub(super) fn publishes(self) -> &'static [&'static str] {
        match self {
            Self::Device | Self::Viewer => &[],
            Self::Ingest => &[
                "fleet/dead-letter/ingest",
                "fleet/services/ingest/+/status",
                "fleet/services/ingest/+/report",
            ],
            Self::Alerting => &[
                "alerts/+/+",
                "fleet/alerting/state/+/+",
                "fleet/dead-letter/alerting",
                "fleet/services/alerting/+/status",
                // Automations of rules, and answers to requests.
                "devices/+/commands/+",
                "responses/+/+",
            ],
            Self::StatusTracker => &[
                // A late will of an old connection is put right.
                "devices/+/status",
                "devices/+/config",
                "devices/+/commands/+",
                "fleet/alerting/requests/+",
                "fleet/dead-letter/status-tracker",
                "fleet/services/status-tracker/+/status",
                // Dead letters are published again where they came from: readings, and with the
                // statuses above telemetry.
                "sensors/#",
                "devices/+/telemetry",
            ],
            Self::Bridge => &[
                "fleet/dead-letter/bridge",
                "fleet/services/bridge/+/status",
                // Commands from Kafka.
                "devices/+/commands/+",
            ],
            Self::Operator => &[
                "sensors/#",
                "devices/+/config",
                "devices/+/commands/+",
                "fleet/alerting/requests/+",
                "fleet/doctor/#",
            ],
        }
    }

    /// Filters that every account of the role may subscribe to.
    pub(super) fn subscribes(self) -> &'static [&'static str] {
        match self {
            Self::Device => &[],
            Self::Ingest => &["$share/ingest/sensors/#", "fleet/services/ingest/+/status"],
            Self::Alerting => &[
                "sensors/#",
                "devices/+/status",
                "alerts/#",
                "fleet/alerting/requests/+",
                "fleet/services/alerting/+/status",
                // Several groups that share the work know of each other's alerts.
                "fleet/alerting/state/+/+",
                "$share/alerting/sensors/#",
                "$share/alerting/devices/+/status",
                "$share/alerting/fleet/alerting/requests/+",
            ],
            Self::StatusTracker => &[
                "devices/+/status",
                "devices/+/telemetry",
                "devices/+/config",
                "devices/+/config/reported",
                "fleet/services/+/+/status",
                "fleet/services/+/+/report",
                "alerts/#",
                "sensors/#",
                "responses/+/+",
            ],
            Self::Bridge => &[
                "$share/bridge/sensors/#",
                "$share/bridge/devices/+/status",
                "$share/bridge/alerts/#",
                "fleet/services/bridge/+/status",
                "responses/+/+",
            ],
            Self::Operator => &["#", "$SYS/#", "$share/fleet-doctor/fleet/doctor/#"],
            Self::Viewer => &[
                "sensors/#",
                "devices/+/status",
                "devices/+/telemetry",
                "alerts/#",
                "fleet/services/+/+/status",
            ],
        }
    }
}
