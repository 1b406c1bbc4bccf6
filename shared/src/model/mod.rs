//! The wire contract: what the fleet's messages say, as types.
//!
//! Every payload is JSON with snake_case keys and RFC 3339 times. Parsing is strict about the
//! fields of the contract and silent about others: unknown fields are ignored, whatever they hold,
//! a known field that comes twice is refused, since nobody can say which one counts. A refusal is a
//! [`RejectError`], whose reason is one of a closed set ([`RejectReason`]).
//!
//! Times are kept to the microsecond, see [`to_micros`].

mod alert;
mod decode;
mod device;
mod json;
mod reading;
mod reject;
mod time;

pub use alert::{AlertMessage, Severity};
pub use decode::Limits;
pub use device::{DeviceStatus, DeviceWill, StatusMessage, TelemetryMessage};
pub use reading::{
    KIND_BYTES_MAX, LOCATION_BYTES_MAX, LOCATION_LEVELS_MAX, Quality, SENSOR_ID_BYTES_MAX,
    SensorReading, UNIT_BYTES_MAX,
};
pub use reject::{RejectError, RejectReason};
pub use time::to_micros;
