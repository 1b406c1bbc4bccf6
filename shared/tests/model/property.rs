//! No payload panics, every good one comes back, and broken ones have one reason each.

use fleet_shared::model::{
    AlertMessage, Limits, Quality, RejectReason, SensorReading, StatusMessage,
};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;

use crate::reject::reading_with;

fn reading() -> impl Strategy<Value = SensorReading> {
    let finite = any::<f64>().prop_filter("a value is finite", |value| value.is_finite());
    let micros = 0_i64..253_370_764_800_000_000;
    let quality = prop::sample::select(vec![
        None,
        Some(Quality::Good),
        Some(Quality::Fair),
        Some(Quality::Poor),
    ]);
    (
        "[^/+#\\p{Cc}]{1,32}",
        "[^/+#\\p{Cc}]{1,16}",
        finite,
        "[^\\p{Cc}]{0,8}",
        "[^+#\\p{Cc}]{1,60}",
        micros,
        prop::option::of(0_u8..=100),
        quality,
    )
        .prop_map(
            |(sensor_id, kind, value, unit, location, micros, battery_percent, quality)| {
                SensorReading {
                    sensor_id,
                    kind,
                    value,
                    unit,
                    location,
                    timestamp: Timestamp::from_microsecond(micros).unwrap(),
                    battery_percent,
                    quality,
                }
            },
        )
        .prop_filter("within the levels", |reading| reading.validate().is_ok())
}

/// A good reading in which some bytes are replaced, removed or put in.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let bytes = prop_oneof![
        any::<u8>(),
        prop::sample::select(b"{}[]\",:\\-+.eEnaNI0123456789 u".to_vec()),
    ];
    let edit = (
        any::<prop::sample::Index>(),
        0_usize..8,
        prop::collection::vec(bytes, 0..8),
    );
    (reading(), prop::collection::vec(edit, 1..4)).prop_map(|(reading, edits)| {
        let mut payload = reading.to_json();
        for (at, removed, added) in edits {
            let at = at.index(payload.len() + 1);
            let end = (at + removed).min(payload.len());
            payload.splice(at..end, added);
        }
        payload
    })
}

fn parse_all(payload: &[u8]) {
    let limits = Limits::default();
    let errors = [
        SensorReading::parse(payload, &limits).err(),
        AlertMessage::parse(payload, &limits).err(),
        StatusMessage::parse("device", payload).err(),
    ];
    for error in errors.into_iter().flatten() {
        assert!(RejectReason::ALL.contains(&error.kind()));
        let text = error.to_string();
        assert!(text.chars().count() < 256, "{text}");
        assert!(!text.contains(char::is_control), "{text:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes_are_taken_or_refused(payload in prop::collection::vec(any::<u8>(), 0..200)) {
        parse_all(&payload);
    }

    #[test]
    fn any_text_of_json_characters_is_taken_or_refused(
        payload in r#"\{("value"|"online"|"a"|NaN|-Infinity|1e999|\\|[\[\]{}:,"\\ 0a])*"#,
    ) {
        parse_all(payload.as_bytes());
    }

    #[test]
    fn damaged_readings_are_taken_or_refused(payload in damaged()) {
        parse_all(&payload);
        if let Ok(reading) = SensorReading::parse(&payload, &Limits::default()) {
            prop_assert_eq!(reading.validate(), Ok(()));
        }
    }

    #[test]
    fn every_reading_comes_back_bit_by_bit(reading in reading()) {
        let payload = reading.to_json();
        let parsed = SensorReading::parse(&payload, &Limits::default()).unwrap();
        prop_assert_eq!(parsed.value.to_bits(), reading.value.to_bits());
        prop_assert_eq!(&parsed, &reading);
        prop_assert_eq!(parsed.to_json(), payload);
        prop_assert_eq!(reading.check_topic(&reading.topic()), Ok(()));
    }

    #[test]
    fn depth_is_refused_exactly_above_the_limit(depth_max in 1_usize..20, levels in 0_usize..24) {
        let mut extra = json!(1);
        for level in 0..levels {
            extra = if level % 2 == 0 { json!([extra]) } else { json!({ "a": extra }) };
        }
        let limits = Limits { depth_max, ..Limits::default() };
        let parsed = SensorReading::parse(&reading_with("extra", extra), &limits);
        let is_too_deep = levels + 1 > depth_max;
        prop_assert_eq!(parsed.is_err(), is_too_deep);
        if let Err(error) = parsed {
            prop_assert_eq!(error.kind(), RejectReason::TooDeep);
        }
    }
}
