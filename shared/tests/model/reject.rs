//! Bad payloads and the reason each is refused for.

use std::collections::BTreeSet;
use std::time::Duration;

use fleet_shared::model::{AlertMessage, Limits, RejectError, RejectReason, SensorReading};
use serde_json::{Value, json};

/// A good reading with one field replaced; `json!(null)` is a value like any other.
pub(crate) fn reading_with(field: &str, value: Value) -> Vec<u8> {
    let mut reading = good();
    reading[field] = value;
    reading.to_string().into_bytes()
}

/// A good reading as text, with `value` written as given, JSON or not.
fn reading_with_raw(field: &str, value: &str) -> Vec<u8> {
    let marked = reading_with(field, json!("MARK"));
    let text = String::from_utf8(marked).unwrap();
    text.replace("\"MARK\"", value).into_bytes()
}

fn reading_without(field: &str) -> Vec<u8> {
    let mut reading = good();
    reading.as_object_mut().unwrap().remove(field);
    reading.to_string().into_bytes()
}

fn good() -> Value {
    json!({
        "sensor_id": "sensor-001",
        "type": "temperature",
        "value": 21.5,
        "unit": "celsius",
        "location": "site-1/room-7",
        "timestamp": "2026-05-04T12:00:00Z",
    })
}

fn refuse(payload: &[u8]) -> RejectError {
    let shown = String::from_utf8_lossy(payload).into_owned();
    match SensorReading::parse(payload, &Limits::default()) {
        Ok(reading) => panic!("{shown} is taken as {reading:?}"),
        Err(error) => error,
    }
}

#[track_caller]
fn assert_refused(reason: &str, payloads: &[Vec<u8>]) {
    for payload in payloads {
        let error = refuse(payload);
        let shown = String::from_utf8_lossy(payload);
        assert_eq!(error.reason(), reason, "{shown}: {error}");
        let text = error.to_string();
        assert!(text.chars().count() < 256 && !text.contains('\n'), "{text}");
    }
}

#[test]
fn too_many_bytes_are_too_large() {
    let mut payload = reading_with("sensor_id", json!("s"));
    payload.resize(64 * 1_024, b' ');
    assert!(SensorReading::parse(&payload, &Limits::default()).is_ok());
    payload.push(b' ');
    assert_refused("too_large", &[payload]);
}

#[test]
fn other_encodings_are_not_utf8() {
    let mut inside_a_string = reading_with("note", json!("MARK"));
    let at = inside_a_string
        .windows(4)
        .position(|four| four == b"MARK")
        .unwrap();
    inside_a_string[at] = 0xff;
    let utf16 = "{\"a\":1}\u{e9}"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    assert_refused(
        "not_utf8",
        &[
            vec![0xff],
            b"{\"sensor_id\":\"\xc3\"}".to_vec(),
            inside_a_string,
            utf16,
        ],
    );
}

#[test]
fn deep_nesting_is_too_deep_wherever_it_is() {
    let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    // The object of the reading is the first level.
    let payload = reading_with_raw("extra", &nested(15));
    assert!(SensorReading::parse(&payload, &Limits::default()).is_ok());
    assert_refused(
        "too_deep",
        &[
            reading_with_raw("extra", &nested(16)),
            reading_with_raw("value", &nested(16)),
            "[".repeat(60_000).into_bytes(),
            "{\"a\":".repeat(10_000).into_bytes(),
        ],
    );
}

#[test]
fn many_brackets_are_not_deep_by_themselves() {
    let payload = reading_with(
        "extra",
        json!({"text": "[{".repeat(100), "list": vec![json!([]); 50]}),
    );
    assert!(SensorReading::parse(&payload, &Limits::default()).is_ok());
}

#[test]
fn what_is_no_object_is_malformed() {
    assert_refused(
        "malformed",
        &[
            b"".to_vec(),
            b"   ".to_vec(),
            b"null".to_vec(),
            b"NaN".to_vec(),
            b"21.5".to_vec(),
            b"hello".to_vec(),
            b"\xef\xbb\xbf{}".to_vec(),
            b"[]".to_vec(),
            br#"["sensor-001","temperature",21.5,"celsius","hall","2026-05-04T12:00:00Z",null,null]"#
                .to_vec(),
            b"{".to_vec(),
            b"{}".to_vec(),
            b"{'sensor_id':'a'}".to_vec(),
            b"sensor_id=a".to_vec(),
        ],
    );
    let whole = reading_with("sensor_id", json!("s"));
    for cut in 0..whole.len() {
        assert_refused("malformed", &[whole[..cut].to_vec()]);
    }
    let twice = [whole.as_slice(), whole.as_slice()].concat();
    assert_refused("malformed", &[twice]);
}

#[test]
fn missing_and_ill_typed_fields_are_malformed_and_named() {
    for field in [
        "sensor_id",
        "type",
        "value",
        "unit",
        "location",
        "timestamp",
    ] {
        let error = refuse(&reading_without(field));
        assert_eq!(error, RejectError::Missing { field });
        for value in [json!(null), json!([1]), json!({"a": 1}), json!(true)] {
            let error = refuse(&reading_with(field, value));
            assert_eq!(error.reason(), "malformed");
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("field `{field}` is ")),
                "{error}"
            );
        }
    }
    assert_refused(
        "malformed",
        &[
            reading_with("value", json!("21.5")),
            reading_with("sensor_id", json!(1)),
            reading_with_raw("sensor_id", r#""\ud800""#),
            reading_with_raw("value", "0x10"),
            reading_with_raw("value", "+1"),
            reading_with_raw("value", ".5"),
            reading_with_raw("value", "01"),
            reading_with("battery_percent", json!("85")),
            reading_with("battery_percent", json!([])),
            reading_with("quality", json!(1)),
        ],
    );
}

#[test]
fn field_that_comes_twice_is_malformed() {
    let payload = br#"{"sensor_id":"a","type":"t","value":1,"value":2,"unit":"","location":"l","timestamp":"2026-05-04T12:00:00Z"}"#;
    assert_eq!(refuse(payload), RejectError::Repeated { field: "value" });
}

#[test]
fn numbers_that_are_none_are_not_finite() {
    assert_refused(
        "not_finite",
        &[
            reading_with_raw("value", "NaN"),
            reading_with_raw("value", "Infinity"),
            reading_with_raw("value", "-Infinity"),
            reading_with_raw("value", "1e999"),
            reading_with_raw("value", "-1e999"),
            reading_with("value", json!("NaN")),
            reading_with("value", json!("Infinity")),
            reading_with("value", json!("-Infinity")),
            reading_with_raw("battery_percent", "NaN"),
            reading_with_raw("extra", "NaN"),
        ],
    );
    assert_eq!(
        refuse(&reading_with_raw("value", "-Infinity")).to_string(),
        "field `value` is `-Infinity`, it must be a finite number"
    );
}

#[test]
fn values_out_of_range_are_invalid_fields() {
    let mut payloads = Vec::new();
    for battery in [json!(-1), json!(101), json!(300), json!(85.5), json!(1e30)] {
        payloads.push(reading_with("battery_percent", battery));
    }
    for quality in ["", "Good", "excellent"] {
        payloads.push(reading_with("quality", json!(quality)));
    }
    for field in ["sensor_id", "type"] {
        for id in ["", "a/b", "a+", "#", "a\0", "a\nb", "\u{7f}", "\u{85}"] {
            payloads.push(reading_with(field, json!(id)));
        }
    }
    payloads.push(reading_with("sensor_id", json!("x".repeat(129))));
    payloads.push(reading_with("type", json!("x".repeat(65))));
    payloads.push(reading_with("unit", json!("x".repeat(33))));
    payloads.push(reading_with("unit", json!("\0")));
    for location in ["", "a/+", "#", "a\0", "a\tb"] {
        payloads.push(reading_with("location", json!(location)));
    }
    payloads.push(reading_with("location", json!("x".repeat(257))));
    payloads.push(reading_with("location", json!(["a"; 17].join("/"))));
    payloads.push(reading_with(
        "timestamp",
        json!("1969-12-31T23:59:59.999999Z"),
    ));
    payloads.push(reading_with("timestamp", json!("0001-01-01T00:00:00Z")));
    assert_refused("invalid_field", &payloads);
}

#[test]
fn values_at_the_limits_are_taken() {
    for payload in [
        reading_with("battery_percent", json!(0)),
        reading_with("battery_percent", json!(100)),
        reading_with("battery_percent", json!(85.0)),
        reading_with("battery_percent", json!(null)),
        reading_with("quality", json!(null)),
        reading_with("quality", json!("poor")),
        reading_with("sensor_id", json!("x".repeat(128))),
        reading_with("type", json!("x".repeat(64))),
        reading_with("unit", json!("")),
        reading_with("unit", json!("µg/m³")),
        reading_with("location", json!(["a"; 16].join("/"))),
        reading_with("location", json!("é".repeat(128))),
        reading_with("value", json!(-0.0)),
        reading_with("value", json!(f64::MAX)),
        reading_with("value", json!(u64::MAX)),
        reading_with("timestamp", json!("1970-01-01T00:00:00Z")),
        reading_with("timestamp", json!("9999-12-30T00:00:00Z")),
        reading_with_raw("extra", "1e999"),
        reading_with("extra", json!({"nested": [1, {"value": "NaN"}]})),
    ] {
        let shown = String::from_utf8_lossy(&payload).into_owned();
        if let Err(error) = SensorReading::parse(&payload, &Limits::default()) {
            panic!("{shown}: {error}");
        }
    }
}

#[test]
fn times_that_are_not_rfc_3339_are_malformed() {
    let times = [
        "",
        "now",
        "1777896000",
        "2026-05-04",
        "2026-05-04T12:00Z",
        "2026-05-04T12:00:00",
        "2026-05-04T12:00:00.Z",
        "2026-05-04T12:00:00+02",
        "2026-05-04T12:00:00+0200",
        "2026-05-04T12:00:00+02:00[Europe/Berlin]",
        "20260504T120000Z",
        "2026-13-04T12:00:00Z",
        "2026-02-30T12:00:00Z",
        "2026-05-04T25:00:00Z",
        "+10000-01-01T00:00:00Z",
        "99999-01-01T00:00:00Z",
        "Z",
        "é026-05-04T12:00:00Z",
    ];
    let payloads: Vec<Vec<u8>> = times
        .iter()
        .map(|time| reading_with("timestamp", json!(time)))
        .collect();
    assert_refused("malformed", &payloads);
}

#[test]
fn times_are_converted_to_utc_and_cut_to_the_microsecond() {
    for (text, expected) in [
        ("2026-05-04T14:00:00+02:00", "2026-05-04T12:00:00Z"),
        ("2026-05-04T06:30:00-05:30", "2026-05-04T12:00:00Z"),
        ("2026-05-04t12:00:00z", "2026-05-04T12:00:00Z"),
        ("2026-05-04 12:00:00.5Z", "2026-05-04T12:00:00.5Z"),
        (
            "2026-05-04T12:00:00.123456789Z",
            "2026-05-04T12:00:00.123456Z",
        ),
        (
            "2026-05-04T12:00:00.999999999+00:00",
            "2026-05-04T12:00:00.999999Z",
        ),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59Z"),
    ] {
        let payload = reading_with("timestamp", json!(text));
        let reading = SensorReading::parse(&payload, &Limits::default()).unwrap();
        assert_eq!(reading.timestamp.to_string(), expected, "{text}");
    }
}

#[test]
fn topic_must_be_that_of_the_payload() {
    let reading =
        SensorReading::parse(&reading_with("unit", json!("")), &Limits::default()).unwrap();
    assert_eq!(reading.topic(), "sensors/site-1/room-7/temperature");
    assert!(reading.check_topic(&reading.topic()).is_ok());
    for topic in [
        "sensors/site-1/room-7/humidity",
        "sensors/site-1/temperature",
        "sensors/site-1/room-7/temperature/x",
        "sensors/site-1/room-7temperature",
        "sensors/site-1/room-7/",
        "devices/site-1/room-7/temperature",
        "",
    ] {
        let error = reading.check_topic(topic).unwrap_err();
        assert_eq!(error.reason(), "topic_mismatch", "{topic}");
    }
    assert_eq!(
        reading
            .check_topic("sensors/hall/door")
            .unwrap_err()
            .to_string(),
        "topic is `sensors/hall/door`, by its payload it must be `sensors/site-1/room-7/temperature`"
    );
}

#[test]
fn reading_may_be_ahead_of_our_clock_by_the_skew_and_no_more() {
    let reading =
        SensorReading::parse(&reading_with("unit", json!("")), &Limits::default()).unwrap();
    let skew = Duration::from_secs(300);
    for (now, is_taken) in [
        ("2026-05-04T11:55:00Z", true),
        ("2026-05-04T11:54:59.999999Z", false),
        ("2030-01-01T00:00:00Z", true),
    ] {
        let checked = reading.check_clock(now.parse().unwrap(), skew);
        assert_eq!(checked.is_ok(), is_taken, "{now}: {checked:?}");
        if let Err(error) = checked {
            assert_eq!(error.reason(), "future_timestamp");
        }
    }
    let early = "1970-01-01T00:00:00Z".parse().unwrap();
    assert!(reading.check_clock(early, Duration::MAX).is_ok());
}

#[test]
fn errors_name_the_field_the_value_and_the_rule() {
    for (payload, expected) in [
        (reading_without("unit"), "field `unit` is missing"),
        (
            reading_with("value", json!("warm\n")),
            r#"field `value` is `"warm\\n"`, it must be a number"#,
        ),
        (
            reading_with("battery_percent", json!(101)),
            "field `battery_percent` is `101`, it must be a whole number from 0 to 100",
        ),
        (
            reading_with("quality", json!("great")),
            "field `quality` is `great`, it must be `good`, `fair` or `poor`",
        ),
        (
            reading_with("timestamp", json!("yesterday")),
            "field `timestamp` is `yesterday`, \
             it must be an RFC 3339 time such as 2026-05-04T12:00:00Z",
        ),
        (
            reading_with("location", json!("a/+")),
            "field `location` is `a/+`, \
             it must be 1 to 256 bytes without `+`, `#` and control characters",
        ),
    ] {
        assert_eq!(refuse(&payload).to_string(), expected);
    }
}

#[test]
fn reasons_are_a_closed_set_of_distinct_names() {
    let names: BTreeSet<&str> = RejectReason::ALL
        .iter()
        .map(|reason| reason.as_str())
        .collect();
    assert_eq!(names.len(), RejectReason::ALL.len());
    for reason in RejectReason::ALL {
        assert_eq!(RejectReason::from_name(reason.as_str()), Some(reason));
        assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
    }
    assert_eq!(RejectReason::from_name("other"), None);
    let reading =
        SensorReading::parse(&reading_with("unit", json!("")), &Limits::default()).unwrap();
    assert_eq!(reading.conflict().reason(), "conflict");
    assert_eq!(RejectError::unmapped("a/b").reason(), "unmapped");
}

#[test]
fn bad_alerts_are_refused() {
    let good = json!({
        "alert_id": "a-1",
        "severity": "critical",
        "message": "too hot",
        "sensor_id": "sensor-001",
        "timestamp": "2026-05-04T12:00:00Z",
    });
    let parse = |field: &str, value: Value| {
        let mut alert = good.clone();
        alert[field] = value;
        AlertMessage::parse(alert.to_string().as_bytes(), &Limits::default())
    };
    assert!(parse("metadata", json!(null)).is_ok());
    for (field, value, reason) in [
        ("severity", json!("urgent"), "invalid_field"),
        ("severity", json!(1), "malformed"),
        ("alert_id", json!(""), "invalid_field"),
        ("sensor_id", json!("a/b"), "invalid_field"),
        ("message", json!("x".repeat(4_097)), "invalid_field"),
        ("metadata", json!({"value": 1}), "malformed"),
        ("metadata", json!([]), "malformed"),
        ("timestamp", json!("soon"), "malformed"),
    ] {
        let error = parse(field, value).unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
        assert!(error.to_string().contains(&format!("`{field}`")), "{error}");
    }
}
