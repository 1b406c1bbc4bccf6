//! How a replica of a service tells the others that it is there, and the broker that it is gone, and
//! how it leaves a group whose messages it shares.

mod leave;
mod link;
mod membership;
mod peers;

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::session::{Publish, QoS, Will, WillSource};
use crate::topic::{self, TopicError, templates};

pub use leave::{Drain, Flush, GetSession, Leave, leave};
pub use link::Link;
pub use membership::Membership;
pub use peers::Peers;

/// Retained on `fleet/services/{service}/{instance}/status`, and the last will.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Name of the service.
    pub service: String,
    /// Which replica: the client id of its session.
    pub instance: String,
    /// Whether it does its work.
    pub online: bool,
    /// Version of the program.
    pub version: String,
    /// When it came to be as it is.
    pub since: Timestamp,
    /// The group whose work it shares; absent where there are no groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The epoch of the lease that it holds; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
}

impl ServiceStatus {
    /// The status of a replica, of this version, without group and lease.
    #[must_use]
    pub fn new(service: &str, instance: &str, online: bool, since: Timestamp) -> Self {
        Self {
            service: service.to_owned(),
            instance: instance.to_owned(),
            online,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            since,
            group: None,
            epoch: None,
        }
    }

    /// The same as a member of a group.
    #[must_use]
    pub fn in_group(mut self, group: &str) -> Self {
        self.group = Some(group.to_owned());
        self
    }

    /// As it is published.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings, a flag and numbers always serialize")
    }

    /// The retained publish that announces it.
    ///
    /// # Errors
    /// If the instance cannot be a topic level.
    pub fn publish(&self) -> Result<Publish, TopicError> {
        let topic = topic::service_status(&self.service, &self.instance)?;
        Ok(Publish::new(topic, templates::SERVICE_STATUS, self.to_json()).retain(true))
    }

    /// What the broker says when the replica vanishes: the same offline and without a lease, since
    /// the connection that it ends.
    ///
    /// # Errors
    /// If the instance cannot be a topic level.
    pub fn will(&self) -> Result<WillSource, TopicError> {
        let topic = topic::service_status(&self.service, &self.instance)?;
        let gone = Self {
            online: false,
            epoch: None,
            ..self.clone()
        };
        Ok(WillSource::new(move |_| Will {
            topic: topic.clone().into(),
            payload: Self {
                since: Timestamp::now(),
                ..gone.clone()
            }
            .to_json()
            .into(),
            qos: QoS::AtLeastOnce,
            retain: true,
            delay: Duration::ZERO,
            user: Vec::new(),
        }))
    }
}
