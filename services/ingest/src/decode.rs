//! From a message to its readings, or to the reason why it has none.

use std::sync::Arc;
use std::time::Duration;

use fleet_shared::model::{Limits, RejectError, RejectReason, SensorReading};
use jiff::Timestamp;

use crate::mapping::Mappings;

/// What a reading must keep to.
#[derive(Debug)]
pub struct Rules {
    /// Limits of the payload.
    pub limits: Limits,
    /// How far in the future a timestamp may lie.
    pub max_clock_skew: Duration,
    /// For payloads that are not the fleet's own.
    pub mappings: Arc<Mappings>,
}

/// Why a message is a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// One of a closed set: the metric's label.
    pub reason: RejectReason,
    /// The reason in a sentence, with the values that caused it.
    pub detail: String,
}

impl Rejection {
    /// A rejection with its sentence.
    pub fn new(reason: RejectReason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }
}

impl From<RejectError> for Rejection {
    fn from(error: RejectError) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}

/// The readings of a message: one in nearly every case, which then needs no vector.
#[derive(Debug)]
pub enum Readings {
    /// The fleet's own payload.
    One(SensorReading),
    /// A mapped payload; at least one.
    Several(Vec<SensorReading>),
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
) -> Result<Readings, Rejection> {
    if payload.len() > rules.limits.payload_max {
        // The same words as for the fleet's own payloads.
        return Err(SensorReading::parse(payload, &rules.limits)
            .map_or_else(Rejection::from, |_| {
                Rejection::new(RejectReason::TooLarge, "the payload is too large")
            }));
    }
    if let Some(mapped) = rules.mappings.decode(topic, payload, now) {
        let readings = mapped?;
        for reading in &readings {
            reading.check_clock(now, rules.max_clock_skew)?;
        }
        return Ok(Readings::Several(readings));
    }
    let reading = SensorReading::parse(payload, &rules.limits)?;
    reading.check_topic(topic)?;
    reading.check_clock(now, rules.max_clock_skew)?;
    Ok(Readings::One(reading))
}
