use std::sync::Arc;

use jiff::Timestamp;

use super::*;
use crate::condition::sample_reading;
use crate::engine::{Change, Engine};
use crate::rule::RuleSet;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).unwrap()
}

/// Feeds readings and, where there is no value, the clock.
fn story(rule: &str, course: &[(i64, Option<f64>)]) -> Vec<Step> {
    let text = format!("groups: [{{ name: g, rules: [{{ alert: R, severity: info, {rule} }}] }}]");
    let rules = RuleSet::parse(&text).unwrap_or_else(|errors| panic!("{errors:?}"));
    let mut engine = Engine::new(Arc::new(rules));
    let mut changes: Vec<Change> = Vec::new();
    for (second, value) in course {
        match value {
            Some(value) => {
                let mut reading = sample_reading(at(*second));
                reading.value = *value;
                engine.reading(&reading.topic(), &reading, reading.timestamp, &mut changes);
            }
            None => engine.tick(at(*second), &mut changes, &mut Vec::new()),
        }
    }
    changes
        .into_iter()
        .flat_map(|change| change.steps)
        .collect()
}

fn kinds(steps: &[Step]) -> Vec<(StepKind, i64)> {
    let second = |step: &Step| step.at.as_second() - 1_790_000_000;
    steps.iter().map(|step| (step.kind, second(step))).collect()
}

#[test]
fn a_step_names_the_reading_and_the_condition() {
    let steps = story("when: value > 30", &[(0, Some(31.0)), (9, Some(20.0))]);
    assert_eq!(
        kinds(&steps),
        [(StepKind::Firing, 0), (StepKind::Resolved, 9)]
    );
    let detail = &steps[0].detail;
    assert_eq!(detail["by"], "reading");
    assert_eq!(detail["condition"], "value > 30");
    assert_eq!(detail["reading"]["value"], 31.0);
    assert_eq!(steps[1].detail["reading"]["value"], 20.0);
}

#[test]
fn what_waited_tells_the_reading_it_began_with_and_that_the_clock_decided() {
    let rule = "when: value > 30, for: 10s, keep_firing_for: 5s";
    let course = [
        (0, Some(31.0)),
        (4, Some(32.0)),
        (11, None),
        (12, Some(20.0)),
        (14, Some(33.0)),
        (15, Some(21.0)),
        (21, None),
    ];
    let steps = story(rule, &course);
    assert_eq!(
        kinds(&steps),
        [
            (StepKind::Pending, 0),
            (StepKind::Firing, 10),
            (StepKind::Clearing, 12),
            (StepKind::FiringAgain, 14),
            (StepKind::Clearing, 15),
            (StepKind::Resolved, 20),
        ]
    );
    assert_eq!(steps[0].detail["reading"]["value"], 31.0);
    assert_eq!(steps[0].detail["for"], "10s");
    assert_eq!(steps[1].detail["by"], "clock");
    assert_eq!(steps[2].detail["keep_firing_for"], "5s");
    assert_eq!(steps[3].detail["reading"]["value"], 33.0);
    assert!(steps.iter().all(|step| step.crossed_at == at(0)));
}

#[test]
fn a_rule_that_looks_back_tells_what_it_saw() {
    let course = [(0, Some(10.0)), (60, Some(30.0))];
    let steps = story("when: \"avg('1m') > 15\"", &course);
    assert_eq!(steps[0].detail["windows"]["avg('1m')"], 20.0);
}

#[test]
fn silence_is_told_by_the_last_that_was_heard() {
    let course = [(0, Some(10.0)), (61, None)];
    let steps = story("absent: 1m", &course);
    assert_eq!(kinds(&steps), [(StepKind::Firing, 60)]);
    assert_eq!(steps[0].detail["last_heard"], at(0).to_string());
    assert_eq!(steps[0].detail["absent"], "1m");
}

#[test]
fn what_never_fires_is_not_told() {
    let rule = "when: value > 30, for: 10s";
    assert_eq!(story(rule, &[(0, Some(31.0)), (5, Some(20.0))]), []);
}
