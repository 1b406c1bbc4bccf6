//! The presence of a process of alerting, retained and its last will.

use fleet_shared::member::ServiceStatus;
use jiff::Timestamp;

/// The status of an instance of alerting; `epoch` is that of the lease in the active process, absent
/// in one that stands by.
pub(crate) fn of(instance: &str, group: &str, online: bool, epoch: Option<i64>) -> ServiceStatus {
    ServiceStatus {
        epoch,
        ..ServiceStatus::new("alerting", instance, online, Timestamp::now()).in_group(group)
    }
}
