//! Our own retained status among the services.

use std::time::Duration;

use fleet_shared::session::{Publish, QoS, Will, WillSource};
use fleet_shared::topic::{self, templates};
use jiff::Timestamp;

use crate::fleet::Member;

const SERVICE: &str = "status-tracker";

fn payload(instance: &str, online: bool) -> Vec<u8> {
    let member = Member {
        service: SERVICE.to_owned(),
        instance: instance.to_owned(),
        online,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        since: Some(Timestamp::now()),
    };
    serde_json::to_vec(&member).expect("strings, a flag and a timestamp always serialize")
}

/// The status of this replica; none if the client id cannot be a topic level.
pub(crate) fn publish(instance: &str, online: bool) -> Option<Publish> {
    let topic = topic::service_status(SERVICE, instance).ok()?;
    let publish = Publish::new(topic, templates::SERVICE_STATUS, payload(instance, online));
    Some(publish.retain(true))
}

/// What the broker says when this replica vanishes.
pub(crate) fn will(instance: &str) -> Option<WillSource> {
    let topic = topic::service_status(SERVICE, instance).ok()?;
    let instance = instance.to_owned();
    Some(WillSource::new(move |_| Will {
        topic: topic.clone().into(),
        payload: payload(&instance, false).into(),
        qos: QoS::AtLeastOnce,
        retain: true,
        delay: Duration::ZERO,
        user: Vec::new(),
    }))
}
