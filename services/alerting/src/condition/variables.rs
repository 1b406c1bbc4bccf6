//! What conditions call by name.

use cel::common::types::{CelBool, CelDouble, CelInt, CelString};
use cel::common::value::CowVal;
use cel::context::VariableResolver;

use super::Subject;
use super::reader::AGGREGATE;

/// Whether the message has the field of that name.
pub(super) fn has(subject: &Subject<'_>, name: &str) -> bool {
    match subject {
        Subject::Reading(reading) => match name {
            "battery_percent" => reading.battery_percent.is_some(),
            "quality" => reading.quality.is_some(),
            _ => true,
        },
        Subject::Status(status) => match name {
            "timestamp" => status.at.is_some(),
            "reason" => status.reason.is_some(),
            "firmware_version" => status.firmware_version.is_some(),
            "signal_strength" => status.signal_strength.is_some(),
            "uptime_seconds" => status.uptime_seconds.is_some(),
            _ => true,
        },
    }
}

/// The message as a condition sees it.
pub(super) struct Variables<'a> {
    pub(super) subject: Subject<'a>,
    /// Of the aggregates, in their order.
    pub(super) answers: Vec<f64>,
}

impl VariableResolver for Variables<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        if let Some(index) = variable.strip_prefix(AGGREGATE) {
            let answer = self.answers.get(index.parse::<usize>().ok()?)?;
            return Some(number(*answer));
        }
        match self.subject {
            Subject::Reading(reading) => match variable {
                "value" => Some(number(reading.value)),
                "sensor_id" => Some(text(&reading.sensor_id)),
                "type" => Some(text(&reading.kind)),
                "unit" => Some(text(&reading.unit)),
                "location" => Some(text(&reading.location)),
                "timestamp" => Some(CowVal::owned(CelString::from(
                    reading.timestamp.to_string(),
                ))),
                "battery_percent" => reading.battery_percent.map(|percent| whole(percent.into())),
                "quality" => reading.quality.map(|quality| text(quality.as_str())),
                _ => None,
            },
            Subject::Status(status) => match variable {
                "online" => Some(CowVal::owned(CelBool::from(status.online))),
                "sensor_id" | "device_id" => Some(text(&status.device_id)),
                "timestamp" => status
                    .at
                    .map(|at| CowVal::owned(CelString::from(at.to_string()))),
                "reason" => status.reason.as_deref().map(text),
                "firmware_version" => status.firmware_version.as_deref().map(text),
                "signal_strength" => status.signal_strength.map(|dbm| whole(dbm.into())),
                "uptime_seconds" => status
                    .uptime_seconds
                    .map(|seconds| whole(i64::try_from(seconds).unwrap_or(i64::MAX))),
                _ => None,
            },
        }
    }
}

fn number<'b>(value: f64) -> CowVal<'b, 'b> {
    CowVal::owned(CelDouble::from(value))
}

fn whole<'b>(value: i64) -> CowVal<'b, 'b> {
    CowVal::owned(CelInt::from(value))
}

fn text(value: &str) -> CowVal<'_, '_> {
    CowVal::owned(CelString::from(value))
}
