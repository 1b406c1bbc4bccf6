//! How our messages look on the wire, and that they come back as they were.

use fleet_shared::model::{
    AlertMessage, DeviceStatus, DeviceWill, Limits, Quality, SensorReading, Severity,
    StatusMessage, to_micros,
};
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

const SESSION: Uuid = Uuid::from_u128(0x0196_9b0c_5c00_7000_8000_0000_0000_0001);

fn noon() -> Timestamp {
    "2026-05-04T12:00:00.123456Z".parse().unwrap()
}

fn reading() -> SensorReading {
    SensorReading {
        sensor_id: "sensor-001".into(),
        kind: "temperature".into(),
        value: 21.5,
        unit: "celsius".into(),
        location: "site-1/room-7".into(),
        timestamp: noon(),
        battery_percent: Some(87),
        quality: Some(Quality::Good),
    }
}

fn status() -> DeviceStatus {
    DeviceStatus {
        device_id: "device-1".into(),
        online: true,
        last_seen: noon(),
        firmware_version: "1.2.3".into(),
        signal_strength: -47,
        uptime_seconds: 86_400,
        session_id: Some(SESSION),
    }
}

fn will() -> DeviceWill {
    DeviceWill {
        device_id: "device-1".into(),
        online: false,
        timestamp: noon(),
        reason: "unexpected_disconnect".into(),
        session_id: Some(SESSION),
    }
}

fn alert() -> AlertMessage {
    let metadata = [("rule", "too-hot"), ("state", "firing"), ("value", "41.5")];
    AlertMessage {
        alert_id: "0196-1".into(),
        severity: Severity::Critical,
        message: "41.5 °C in site-1/room-7".into(),
        sensor_id: "sensor-001".into(),
        timestamp: noon(),
        metadata: Some(
            metadata
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        ),
    }
}

#[test]
fn messages_look_on_the_wire_as_the_contract_says() {
    insta::assert_json_snapshot!("sensor_reading", reading());
    let sparse = SensorReading {
        battery_percent: None,
        quality: None,
        ..reading()
    };
    insta::assert_json_snapshot!("sensor_reading_sparse", sparse);
    insta::assert_json_snapshot!("device_status", status());
    insta::assert_json_snapshot!("device_will", will());
    insta::assert_json_snapshot!("alert_message", alert());
}

#[test]
fn readings_and_alerts_come_back_as_they_were() {
    let limits = Limits::default();
    assert_eq!(
        SensorReading::parse(&reading().to_json(), &limits),
        Ok(reading())
    );
    assert_eq!(
        AlertMessage::parse(&alert().to_json(), &limits),
        Ok(alert())
    );
    let plain = AlertMessage {
        metadata: None,
        ..alert()
    };
    assert_eq!(AlertMessage::parse(&plain.to_json(), &limits), Ok(plain));
    assert_eq!(alert().topic().unwrap(), "alerts/critical/sensor-001");
}

#[test]
fn status_and_will_parse_as_status_messages() {
    let message = StatusMessage::parse("device-1", &status().to_json()).unwrap();
    let expected = StatusMessage {
        device_id: "device-1".into(),
        online: true,
        at: Some(noon()),
        reason: None,
        firmware_version: Some("1.2.3".into()),
        signal_strength: Some(-47),
        uptime_seconds: Some(86_400),
        session_id: Some(SESSION),
    };
    assert_eq!(message, expected);
    let message = StatusMessage::parse("device-1", &will().to_json()).unwrap();
    let expected = StatusMessage {
        online: false,
        reason: Some("unexpected_disconnect".into()),
        firmware_version: None,
        signal_strength: None,
        uptime_seconds: None,
        ..expected
    };
    assert_eq!(message, expected);
}

#[test]
fn sparse_status_messages_parse() {
    let short = br#"{"device_id":"x","online":true,"timestamp":"2026-05-04T12:00:00Z"}"#;
    let message = StatusMessage::parse("x", short).unwrap();
    assert!(message.online);
    assert_eq!(message.at.unwrap().to_string(), "2026-05-04T12:00:00Z");
    let shorter = br#"{"online":false,"reason":"unexpected_disconnect"}"#;
    let message = StatusMessage::parse("x", shorter).unwrap();
    assert!(!message.online);
    assert_eq!(message.device_id, "x");
    assert_eq!(message.at, None);
    assert_eq!(message.reason.as_deref(), Some("unexpected_disconnect"));
    let least = br#"{"online":true,"last_seen":null,"rssi":-60}"#;
    assert!(StatusMessage::parse("x", least).unwrap().online);
}

#[test]
fn bad_status_messages_are_refused() {
    for (payload, reason) in [
        ("{}", "malformed"),
        ("offline", "malformed"),
        ("", "malformed"),
        (r#"{"online":"yes"}"#, "malformed"),
        (r#"{"online":null}"#, "malformed"),
        (r#"{"online":true,"uptime_seconds":1.5}"#, "malformed"),
        (r#"{"online":true,"uptime_seconds":-1}"#, "invalid_field"),
        (
            r#"{"online":true,"signal_strength":3000000000}"#,
            "invalid_field",
        ),
        (r#"{"online":true,"signal_strength":NaN}"#, "not_finite"),
        (r#"{"online":true,"session_id":"first"}"#, "invalid_field"),
        (
            r#"{"online":true,"last_seen":"1969-01-01T00:00:00Z"}"#,
            "invalid_field",
        ),
        (r#"{"online":true,"device_id":"y"}"#, "topic_mismatch"),
    ] {
        let error = StatusMessage::parse("x", payload.as_bytes()).unwrap_err();
        assert_eq!(error.reason(), reason, "{payload}: {error}");
    }
    let error = StatusMessage::parse("a/b", br#"{"online":true}"#).unwrap_err();
    assert_eq!(error.reason(), "invalid_field");
}

#[test]
fn severities_rise_to_critical() {
    assert!(Severity::Info < Severity::Warning && Severity::Warning < Severity::Critical);
    for severity in Severity::ALL {
        assert_eq!(Severity::from_name(severity.as_str()), Some(severity));
        assert_eq!(serde_json::to_value(severity).unwrap(), severity.as_str());
    }
}

#[test]
fn times_are_cut_towards_the_past() {
    for (nanos, micros) in [(1_999, 1), (0, 0), (-1, -1), (-1_000, -1), (-1_001, -2)] {
        let time = Timestamp::from_nanosecond(nanos).unwrap();
        assert_eq!(to_micros(time).as_nanosecond(), i128::from(micros) * 1_000);
    }
    assert_eq!(to_micros(Timestamp::MAX).as_nanosecond() % 1_000, 0);
    assert!(to_micros(Timestamp::MIN) <= Timestamp::MIN);
}

#[test]
fn readings_put_together_are_validated_too() {
    assert_eq!(reading().validate(), Ok(()));
    let reasons = [
        SensorReading {
            value: f64::NAN,
            ..reading()
        },
        SensorReading {
            battery_percent: Some(101),
            ..reading()
        },
        SensorReading {
            location: "a/#".into(),
            ..reading()
        },
        SensorReading {
            timestamp: Timestamp::MIN,
            ..reading()
        },
    ]
    .map(|reading| reading.validate().unwrap_err().reason());
    let expected = [
        "not_finite",
        "invalid_field",
        "invalid_field",
        "invalid_field",
    ];
    assert_eq!(reasons, expected);
}

#[test]
fn a_status_from_the_far_future_has_no_time_of_its_own() {
    let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    for (said, kept) in [
        ("2026-01-02T03:09:05Z", true),
        ("2026-01-02T03:09:05.000001Z", false),
        ("9999-12-30T22:00:00.999999Z", false),
        ("1970-01-02T01:59:59Z", true),
    ] {
        let payload = format!(r#"{{"online":false,"timestamp":"{said}"}}"#);
        let mut status = StatusMessage::parse("d1", payload.as_bytes()).unwrap();
        status.distrust_clock(now, Duration::from_secs(300));
        assert_eq!(status.at.is_some(), kept, "{said}");
    }
    let payload = br#"{"online":false,"timestamp":"9999-12-30T22:00:00.999999Z"}"#;
    let mut status = StatusMessage::parse("d1", payload).unwrap();
    status.distrust_clock(now, Duration::MAX);
    assert!(status.at.is_some(), "who allows everything gets it");
}
