//! What a device measures of itself, as it comes on `devices/{device_id}/telemetry`.

use std::borrow::Cow;

use fleet_shared::model::{Limits, RejectError};
use fleet_shared::topic::Excerpt;
use jiff::Timestamp;
use serde::Deserialize;

use crate::presence::Measures;

/// The payload as it lies there. Each field may be absent or `null`: devices measure what they can,
/// and which device it is says the topic. Numbers are wide, so that one out of range is told from one
/// of a wrong type.
#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    device_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    timestamp: Option<Cow<'a, str>>,
    battery_percent: Option<f64>,
    signal_strength: Option<i64>,
    uptime_seconds: Option<i64>,
}

/// Takes the telemetry of that device; unknown fields are ignored.
pub(super) fn parse(device_id: &str, payload: &[u8]) -> Result<Measures, RejectError> {
    let max = Limits::default().payload_max;
    if payload.len() > max {
        return Err(RejectError::TooLarge {
            len: payload.len(),
            max,
        });
    }
    let text = std::str::from_utf8(payload).map_err(|error| RejectError::NotUtf8 {
        at: error.valid_up_to(),
    })?;
    let no_object = |detail: &str| RejectError::NotAnObject {
        payload: Excerpt::new(text),
        detail: Excerpt::new(detail),
    };
    // serde would take the fields from an array too, by their order.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(no_object("it does not start with `{`"));
    }
    let wire: Wire<'_> =
        serde_json::from_str(text).map_err(|error| no_object(&error.to_string()))?;
    if let Some(said) = &wire.device_id
        && said != device_id
    {
        let topic = |id: &str| Excerpt::new(&format!("devices/{id}/telemetry"));
        return Err(RejectError::TopicMismatch {
            topic: topic(device_id),
            expected: topic(said),
        });
    }
    if let Some(said) = &wire.timestamp
        && said.parse::<Timestamp>().is_err()
    {
        return Err(RejectError::IllTyped {
            field: "timestamp",
            value: Excerpt::new(said),
            expected: "an RFC 3339 time such as 2026-05-04T12:00:00Z",
        });
    }
    Ok(Measures {
        battery_percent: wire.battery_percent.map(percent).transpose()?,
        signal_strength: in_range("signal_strength", wire.signal_strength)?,
        uptime_seconds: in_range("uptime_seconds", wire.uptime_seconds)?,
    })
}

/// As in a reading.
fn percent(value: f64) -> Result<u8, RejectError> {
    if (0.0..=100.0).contains(&value) && value.fract() == 0.0 {
        return Ok(value as u8);
    }
    Err(RejectError::InvalidField {
        field: "battery_percent",
        value: Excerpt::new(&value.to_string()),
        rule: "it must be a whole number from 0 to 100",
    })
}

fn in_range<T: TryFrom<i64>>(
    field: &'static str,
    value: Option<i64>,
) -> Result<Option<T>, RejectError> {
    let Some(value) = value else {
        return Ok(None);
    };
    match T::try_from(value) {
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(RejectError::InvalidField {
            field,
            value: Excerpt::new(&value.to_string()),
            rule: "it is out of the field's range",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(payload: &[u8]) -> &'static str {
        parse("d1", payload).unwrap_err().reason()
    }

    #[test]
    fn what_is_measured_is_taken_and_the_rest_may_be_absent() {
        let all = br#"{"device_id":"d1","timestamp":"2026-01-02T03:04:05Z","battery_percent":50,
            "signal_strength":-61,"uptime_seconds":7,"more":[1]}"#;
        let measures = parse("d1", all).unwrap();
        assert_eq!(measures.battery_percent, Some(50));
        assert_eq!(measures.signal_strength, Some(-61));
        assert_eq!(measures.uptime_seconds, Some(7));
        for little in ["{}", r#"{"battery_percent":null}"#, r#" {"battery":50}"#] {
            let measures = parse("d1", little.as_bytes()).unwrap();
            assert_eq!(measures, Measures::default(), "{little}");
        }
    }

    #[test]
    fn bad_telemetry_is_refused_for_its_reason() {
        for (payload, expected) in [
            (&b"junk"[..], "malformed"),
            (b"", "malformed"),
            (b"[\"d1\"]", "malformed"),
            (b"{\"battery_percent\":\"50\"}", "malformed"),
            (
                b"{\"battery_percent\":50,\"battery_percent\":51}",
                "malformed",
            ),
            (b"{\"timestamp\":\"yesterday\"}", "malformed"),
            (b"\xff\xfe", "not_utf8"),
            (b"{\"battery_percent\":101}", "invalid_field"),
            (b"{\"battery_percent\":49.5}", "invalid_field"),
            (b"{\"uptime_seconds\":-1}", "invalid_field"),
            (b"{\"signal_strength\":99999999999}", "invalid_field"),
            (b"{\"device_id\":\"d2\"}", "topic_mismatch"),
        ] {
            assert_eq!(reason(payload), expected, "{payload:?}");
        }
        assert_eq!(reason(&[b' '; 70_000]), "too_large");
    }
}
