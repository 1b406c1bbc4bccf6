use fleet_shared::model::Severity;

use super::*;
use crate::condition::sample_reading;

const RULES: &str = "
groups:
  - name: g
    rules:
      - alert: Hot
        type: temperature
        when: value > 30
        clear: value < 29
        severity: critical
        message: '{{ sensor_id }} is at {{ value }}'
      - { alert: Silent, absent: 10m, severity: warning }
      - { alert: Gone, topic: devices/+/status, when: '!online', severity: info }
";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).unwrap()
}

fn run(text: &str, to: i64, readings: &[(i64, &str, f64)]) -> Report {
    let rules = Arc::new(RuleSet::parse(text).unwrap());
    let mut backtest = Backtest::new(rules, at(0), at(to));
    for (second, sensor, value) in readings {
        backtest.reading(&SensorReading {
            sensor_id: (*sensor).to_owned(),
            value: *value,
            ..sample_reading(at(*second))
        });
    }
    backtest.end(at(to), true).0
}

#[test]
fn episodes_their_length_and_flaps_are_found() {
    let report = run(
        RULES,
        400,
        &[
            (10, "a", 31.0),
            (20, "a", 29.5),
            (30, "a", 20.0),
            (40, "b", 40.0),
            (60, "a", 32.0),
            (90, "a", 20.0),
        ],
    );
    assert_eq!((report.readings, report.truncated), (6, false));
    let hot = &report.rules[0];
    assert_eq!(
        (hot.fired, hot.flaps, hot.severity),
        (3, 1, Severity::Critical)
    );
    // 20 and 30 seconds of a, and of b from 40 to the end of the span.
    assert!((hot.firing_seconds - 410.0).abs() < 1e-9, "{hot:?}");
    let told: Vec<_> = hot
        .episodes
        .iter()
        .map(|episode| {
            let resolved = episode
                .resolved_at
                .map(|end| end.as_second() - at(0).as_second());
            (episode.message.as_str(), resolved)
        })
        .collect();
    assert_eq!(
        told,
        [
            ("a is at 31.0", Some(30)),
            ("b is at 40.0", None),
            ("a is at 32.0", Some(90))
        ]
    );
    assert_eq!(
        hot.episodes[0].alert_id,
        crate::alert_id("Hot", "a", at(10)).to_string(),
        "the id that the alert itself has"
    );
}

#[test]
fn silence_is_found_at_the_end_too() {
    let report = run(
        RULES,
        2_000,
        &[(0, "a", 20.0), (700, "a", 20.0), (1_390, "a", 20.0)],
    );
    let silent = &report.rules[1];
    let fired: Vec<_> = silent
        .episodes
        .iter()
        .map(|episode| episode.fired_at.as_second() - at(0).as_second())
        .collect();
    assert_eq!(fired, [600, 1_300, 1_990]);
    assert_eq!(
        silent.flaps, 2,
        "each begins ten minutes after the end of the one before"
    );
}

#[test]
fn rules_about_devices_say_that_they_cannot_be_tried() {
    let report = run(RULES, 10, &[]);
    let skipped: Vec<bool> = report
        .rules
        .iter()
        .map(|rule| rule.skipped.is_some())
        .collect();
    assert_eq!(skipped, [false, false, true]);
}

#[test]
fn episodes_are_counted_beyond_those_described() {
    let readings: Vec<(i64, &str, f64)> = (0..3_000)
        .map(|n| (n, "a", if n % 2 == 0 { 40.0 } else { 0.0 }))
        .collect();
    let report = run(RULES, 3_000, &readings);
    let hot = &report.rules[0];
    assert_eq!((hot.fired, hot.flaps), (1_500, 1_499));
    assert_eq!(hot.episodes.len(), EPISODES_MAX);
    assert!((hot.firing_seconds - 1_500.0).abs() < 1e-9);
    assert!(report.truncated);
}

#[test]
fn a_trace_keeps_extremes_and_the_last_value() {
    let rules = Arc::new(RuleSet::parse(RULES).unwrap());
    let mut backtest = Backtest::new(rules, at(0), at(100)).traced(10);
    for (second, value) in [(0, 5.0), (3, 9.0), (9, 7.0), (99, 1.0)] {
        backtest.reading(&SensorReading {
            value,
            ..sample_reading(at(second))
        });
    }
    let (_, trace) = backtest.end(at(99), true);
    let trace = trace.unwrap();
    let series = trace.series.values().next().unwrap();
    let first = Column {
        min: 5.0,
        max: 9.0,
        last: 7.0,
    };
    assert_eq!(series.columns[0], Some(first));
    assert_eq!(series.columns[9].map(|column| column.last), Some(1.0));
    assert!(series.columns[1..9].iter().all(Option::is_none));
}
