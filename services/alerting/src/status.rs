//! The presence of a process of alerting, retained and its last will.

use fleet_shared::session::{Publish, QoS, Will, WillSource};
use fleet_shared::topic::{self, templates};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Retained on `fleet/services/alerting/{instance}/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServiceStatus {
    pub(crate) service: String,
    pub(crate) instance: String,
    pub(crate) online: bool,
    pub(crate) version: String,
    pub(crate) since: Timestamp,
    pub(crate) group: String,
    /// The epoch of the lease in the active process; absent in one that stands by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) epoch: Option<i64>,
}

impl ServiceStatus {
    pub(crate) fn new(instance: &str, group: &str, online: bool, epoch: Option<i64>) -> Self {
        Self {
            service: "alerting".to_owned(),
            instance: instance.to_owned(),
            online,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            since: Timestamp::now(),
            group: group.to_owned(),
            epoch,
        }
    }

    fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings, a flag and a time always serialize")
    }

    /// As it is published; none if the instance is not a topic level.
    pub(crate) fn publish(&self) -> Option<Publish> {
        let topic = topic::service_status("alerting", &self.instance).ok()?;
        let publish = Publish::new(topic, templates::SERVICE_STATUS, self.to_json());
        Some(publish.retain(true))
    }

    /// The will of a session that stands for the instance.
    pub(crate) fn will(instance: &str, group: &str) -> Option<WillSource> {
        let topic = topic::service_status("alerting", instance).ok()?;
        let (instance, group) = (instance.to_owned(), group.to_owned());
        Some(WillSource::new(move |_| Will {
            topic: topic.clone().into(),
            payload: Self::new(&instance, &group, false, None).to_json().into(),
            qos: QoS::AtLeastOnce,
            retain: true,
            delay: std::time::Duration::ZERO,
            user: Vec::new(),
        }))
    }
}
