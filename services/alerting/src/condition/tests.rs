use fleet_shared::model::Quality;
use proptest::prelude::*;

use super::*;

fn compile(source: &str) -> Result<Condition, ConditionError> {
    Condition::compile(source, Topic::Readings, &language())
}

fn reading(value: f64) -> SensorReading {
    SensorReading {
        value,
        ..sample_reading(Timestamp::UNIX_EPOCH)
    }
}

#[test]
fn whole_numbers_and_fractions_compare() {
    for source in ["value > 30", "value > 30.0", "30 < value", "value >= 30.5"] {
        let condition = compile(source).unwrap();
        let holds = |value| {
            condition
                .holds(Subject::Reading(&reading(value)), None)
                .unwrap()
        };
        assert_eq!(holds(30.5), Some(true), "{source}");
        assert_eq!(holds(29.5), Some(false), "{source}");
    }
}

#[test]
fn every_field_can_be_named() {
    let condition = compile(
        "type == 'temperature' && unit == 'celsius' && sensor_id.startsWith('sensor') \
         && location.startsWith('site-1/') && quality == 'good' && battery_percent < 60 \
         && quality in ['good', 'fair'] && timestamp.startsWith('1970')",
    )
    .unwrap();
    let holds = condition.holds(Subject::Reading(&reading(1.0)), None);
    assert_eq!(holds, Ok(Some(true)));
}

#[test]
fn a_reading_without_the_field_says_nothing() {
    let condition = compile("battery_percent < 20").unwrap();
    let mut reading = reading(1.0);
    reading.battery_percent = None;
    assert_eq!(condition.holds(Subject::Reading(&reading), None), Ok(None));
}

#[test]
fn what_is_wrong_is_found_at_its_place() {
    for (source, line, column, message) in [
        ("value >", 1, 8, "not CEL"),
        ("value > 1 && valeu < 2", 1, 14, "no variable `valeu`"),
        ("value > 1 &&\n  avg(5) > 2", 2, 3, "avg('5m')"),
        ("value", 1, 1, "not true or false"),
        ("unit > 3", 1, 1, "cannot be evaluated"),
        ("nosuch(value) > 3", 1, 1, "cannot be evaluated"),
    ] {
        let error = compile(source).unwrap_err();
        assert!(error.message.contains(message), "{source}: {error:?}");
        assert_eq!(error.line, line, "{source}: {error:?}");
        assert!(
            error.column.abs_diff(column) <= 4,
            "{source}: {column} {error:?}"
        );
    }
}

#[test]
fn aggregates_are_answered_from_the_window() {
    let condition = compile("avg('1m') > 10 && max('1m') < 100 && rate('1m') > 0").unwrap();
    assert_eq!(condition.span(), Some(Duration::from_secs(60)));
    let mut window = Window::default();
    let mut last = None;
    for second in 0..=6 {
        let at = Timestamp::from_second(second * 10).unwrap();
        window.push(at, 10.0 + second as f64, Duration::from_secs(60));
        last = condition
            .holds(Subject::Reading(&reading(0.0)), Some(&window))
            .unwrap();
        assert_eq!(last.is_some(), second == 6);
    }
    assert_eq!(last, Some(true));
}

#[test]
fn status_has_its_own_variables() {
    let env = language();
    let status = sample_status(Timestamp::UNIX_EPOCH);
    let offline = Condition::compile("!online", Topic::Status, &env).unwrap();
    assert_eq!(
        offline.holds(Subject::Status(&status), None),
        Ok(Some(true))
    );
    assert!(Condition::compile("value > 3", Topic::Status, &env).is_err());
}

/// Which conditions need no interpreter. If one of these does, alerting is slower than it says.
#[test]
fn plain_conditions_are_native() {
    for (source, native) in [
        ("value > 30", true),
        ("30 < value && value <= 40.5", true),
        ("value < -5", true),
        ("battery_percent < 20 || quality == 'poor'", true),
        ("type in ['door', 'window'] && !(value == 0)", true),
        ("location.startsWith('site-1/') && sensor_id != 's1'", true),
        ("avg('5m') > 10 && rate('1m') > 0", true),
        ("value * 2.0 > 30.0", false),
        ("timestamp.startsWith('1970')", false),
        ("['a', 'b'].exists(x, x == unit)", false),
    ] {
        assert_eq!(
            compile(source).unwrap().native.is_some(),
            native,
            "{source}"
        );
    }
    let env = language();
    for source in [
        "!online",
        "!online && reason == 'kicked'",
        "signal_strength < -80",
    ] {
        let condition = Condition::compile(source, Topic::Status, &env).unwrap();
        assert!(condition.native.is_some(), "{source}");
    }
    assert_eq!(
        compile("value > 30 || 15 > value").unwrap().thresholds(),
        [30.0, 15.0]
    );
    let averaged = compile("avg('5m') > 9 && count('5m') > 3 && battery_percent < 20").unwrap();
    assert_eq!(averaged.thresholds(), [9.0]);
}

/// A plain condition, as somebody may write it.
fn plain() -> impl Strategy<Value = String> {
    let order = || prop::sample::select(vec!["<", "<=", ">", ">=", "==", "!="]);
    let number = prop_oneof![
        (-3_i64..4).prop_map(|n| n.to_string()),
        (-30_i64..40).prop_map(|n| format!("{:.1}", n as f64 / 10.0)),
    ];
    let numeric = prop::sample::select(vec![
        "value",
        "battery_percent",
        "avg('1m')",
        "max('1m')",
        "count('2m')",
    ]);
    let textual = || prop::sample::select(vec!["sensor_id", "type", "unit", "location", "quality"]);
    let text = || prop::sample::select(vec!["a", "ab", "b", "", "good", "poor", "a/b"]);
    let leaf = prop_oneof![
        (numeric, order(), number, any::<bool>()).prop_map(|(left, order, right, turned)| {
            if turned {
                format!("{right} {order} {left}")
            } else {
                format!("{left} {order} {right}")
            }
        }),
        (textual(), any::<bool>(), text()).prop_map(|(name, equal, text)| {
            format!("{name} {} '{text}'", if equal { "==" } else { "!=" })
        }),
        (textual(), prop::collection::vec(text(), 0..3)).prop_map(|(name, texts)| {
            let texts: Vec<String> = texts.iter().map(|text| format!("'{text}'")).collect();
            format!("{name} in [{}]", texts.join(", "))
        }),
        (
            textual(),
            prop::sample::select(vec!["startsWith", "endsWith", "contains"]),
            text()
        )
            .prop_map(|(name, method, text)| format!("{name}.{method}('{text}')")),
        any::<bool>().prop_map(|value| value.to_string()),
    ];
    leaf.prop_recursive(4, 24, 3, |part| {
        prop_oneof![
            part.clone().prop_map(|part| format!("!({part})")),
            (part.clone(), part.clone()).prop_map(|(a, b)| format!("({a}) && ({b})")),
            (part.clone(), part).prop_map(|(a, b)| format!("({a}) || ({b})")),
        ]
    })
}

proptest! {
    /// With and without the interpreter every plain condition says the same.
    #[test]
    fn native_and_cel_agree(
        source in plain(),
        values in prop::collection::vec(-30_i64..40, 1..5),
        texts in prop::array::uniform4(prop::sample::select(vec!["a", "ab", "b", "", "a/b", "good"])),
        battery in 0_u8..4,
        quality in prop::sample::select(vec![Quality::Good, Quality::Fair, Quality::Poor]),
    ) {
        let condition = compile(&source).unwrap();
        prop_assert!(condition.native.is_some(), "{source} is plain");
        let cel = Condition { native: None, ..condition.clone() };
        let [sensor_id, kind, unit, location] = texts.map(str::to_owned);
        let mut window = Window::default();
        for (second, value) in (0..).zip(&values) {
            let at = Timestamp::from_second(second * 60).unwrap();
            let value = *value as f64 / 10.0;
            window.push(at, value, Duration::from_secs(120));
            let reading = SensorReading {
                sensor_id: sensor_id.clone(),
                kind: kind.clone(),
                value,
                unit: unit.clone(),
                location: location.clone(),
                timestamp: at,
                battery_percent: Some(battery),
                quality: Some(quality),
            };
            let subject = Subject::Reading(&reading);
            let native = condition.holds(subject, Some(&window));
            prop_assert_eq!(&native, &cel.holds(subject, Some(&window)), "{}", source);
            prop_assert!(native.is_ok(), "{}: {:?}", source, native);
        }
    }
}
