//! Our own retained status among the services.

use fleet_shared::member::ServiceStatus;
use fleet_shared::session::{Publish, WillSource};
use jiff::Timestamp;

fn status(instance: &str, online: bool) -> ServiceStatus {
    ServiceStatus::new("status-tracker", instance, online, Timestamp::now())
}

/// The status of this replica; none if the client id cannot be a topic level.
pub(crate) fn publish(instance: &str, online: bool) -> Option<Publish> {
    status(instance, online).publish().ok()
}

/// What the broker says when this replica vanishes.
pub(crate) fn will(instance: &str) -> Option<WillSource> {
    status(instance, true).will().ok()
}
