//! From a message to a reading, or to the reason why it is none.

use std::time::Duration;

use fleet_shared::model::{Limits, RejectError, SensorReading};
use jiff::Timestamp;

/// What a reading must keep to.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Limits of the payload.
    pub limits: Limits,
    /// How far in the future a timestamp may lie.
    pub max_clock_skew: Duration,
}

/// Reads the payload of a message on `topic` that was received at `now`.
///
/// # Errors
/// The first rule that the message breaks.
pub fn decode(
    topic: &str,
    payload: &[u8],
    now: Timestamp,
    rules: &Rules,
) -> Result<SensorReading, RejectError> {
    let reading = SensorReading::parse(payload, &rules.limits)?;
    reading.check_topic(topic)?;
    reading.check_clock(now, rules.max_clock_skew)?;
    Ok(reading)
}
