//! What a device measures of itself, and what is refused of it.

use fleet_shared::model::TelemetryMessage;

fn reason(payload: &[u8]) -> &'static str {
    TelemetryMessage::parse("d1", payload).unwrap_err().reason()
}

#[test]
fn what_is_measured_is_taken_and_the_rest_may_be_absent() {
    let all = br#"{"device_id":"d1","timestamp":"2026-01-02T03:04:05Z","battery_percent":50,
        "signal_strength":-61,"uptime_seconds":7,"more":[1]}"#;
    let measures = TelemetryMessage::parse("d1", all).unwrap();
    assert_eq!(measures.battery_percent, Some(50));
    assert_eq!(measures.signal_strength, Some(-61));
    assert_eq!(measures.uptime_seconds, Some(7));
    for little in ["{}", r#"{"battery_percent":null}"#, r#" {"battery":50}"#] {
        let measures = TelemetryMessage::parse("d1", little.as_bytes()).unwrap();
        assert_eq!(measures, TelemetryMessage::default(), "{little}");
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
