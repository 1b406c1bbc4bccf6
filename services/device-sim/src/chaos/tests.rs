//! What chaos promises, over arbitrary files.

use std::collections::{BTreeMap, HashMap};

use fleet_shared::model::{Limits, RejectReason, SensorReading};
use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::bounds::{Bounds, Chance, Span};
use crate::profile::{Profile, ProfileName, Setting};
use crate::schedule::{Action, Step, after};

const END: Duration = Duration::from_secs(600);
/// The file that the manual shows.
const ROUGH: &str = include_str!("../../profiles/chaos.example.yaml");

fn start() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

fn plan(profile: &str, seed: u64, number: u32) -> Plan {
    let file = profile.parse::<ProfileName>().unwrap().load().unwrap();
    let setting = Setting {
        seed,
        start: start(),
        end: Some(END),
        pace: 1.0,
    };
    let profile = Profile::new(file, setting).unwrap();
    Box::new(profile.schedule(number, Duration::ZERO))
}

fn disturbed(file: &ChaosFile, profile: &str, seed: u64, number: u32) -> Vec<Step> {
    let chaos = Chaos::new(file.clone(), seed).unwrap();
    chaos
        .over(plan(profile, seed, number), number, Some(END))
        .collect()
}

fn rough() -> ChaosFile {
    yaml::parse(ROUGH).unwrap()
}

/// A stub that records what a device would do, byte by byte.
fn recorded(steps: &[Step]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for step in steps {
        bytes.extend(step.due.as_nanos().to_le_bytes());
        let publish = match &step.action {
            Action::Measure(measurement) => measurement.publish(),
            Action::Wrong(wrong) => wrong.publish(),
            other => {
                bytes.extend(format!("{other:?}").into_bytes());
                continue;
            }
        };
        bytes.extend(publish.topic.as_bytes());
        bytes.push(publish.qos.into());
        bytes.push(publish.retain.into());
        bytes.extend(&publish.payload[..]);
    }
    bytes
}

fn span() -> impl Strategy<Value = Span> {
    (0..200_000_u64).prop_map(|millis| Span(Duration::from_millis(millis)))
}

fn spans() -> impl Strategy<Value = Bounds<Span>> {
    (span(), span()).prop_map(|(one, more)| Bounds {
        low: Span(one.0 + Duration::from_secs(1)),
        high: Span(one.0 + more.0 + Duration::from_secs(1)),
    })
}

fn chance() -> impl Strategy<Value = Chance> {
    (0.0..0.3).prop_map(Chance)
}

prop_compose! {
    fn readings()(
        missing in prop::option::of(chance()),
        duplicate in prop::option::of((chance(), spans())),
        reorder in prop::option::of((chance(), spans())),
        burst in prop::option::of((chance(), 0..20_u32)),
        stuck in prop::option::of((chance(), spans())),
        spike in prop::option::of((chance(), -1e15..1e15)),
        drift in prop::option::of((chance(), spans(), -1e6..1e6)),
    ) -> Readings {
        let later = |(chance, after)| Later { chance, after };
        Readings {
            missing,
            duplicate: duplicate.map(later),
            reorder: reorder.map(later),
            burst: burst.map(|(chance, high)| Burst { chance, readings: Bounds { low: 0, high } }),
            stuck: stuck.map(|(chance, lasts)| Stuck { chance, lasts }),
            spike: spike.map(|(chance, at)| Spike { chance, times: Bounds { low: at, high: at } }),
            drift: drift.map(|(chance, lasts, at)| Drift {
                chance,
                lasts,
                per_hour: Bounds { low: at, high: at },
            }),
        }
    }
}

prop_compose! {
    fn chaos_file()(
        devices in prop::option::of(chance()),
        readings in readings(),
        wrong in prop::option::of(chance()),
        skew in prop::option::of((chance(), span(), span())),
        jump in prop::option::of((spans(), span(), span())),
        drop in prop::option::of((spans(), spans())),
        storm in prop::option::of((spans(), chance(), span(), spans())),
        half_open in prop::option::of((spans(), spans())),
        slow_reader in prop::option::of((spans(), spans(), spans())),
    ) -> ChaosFile {
        ChaosFile {
            devices,
            readings,
            wrong: wrong.map(|chance| WrongFile { chance, ..rough().wrong.unwrap() }),
            clock: Clock {
                skew: skew.map(|(chance, back, ahead)| Skew { chance, back, ahead }),
                jump: jump.map(|(every, back, ahead)| Jump { every, back, ahead }),
            },
            connection: Links {
                drop: drop.map(|(every, away)| DropFile { every, away }),
                storm: storm.map(|(every, chance, within, away)| Storm {
                    every: every.low,
                    chance,
                    within,
                    away,
                }),
                half_open: half_open.map(|(every, lasts)| HalfOpenFile { every, lasts }),
                slow_reader: slow_reader
                    .map(|(every, lasts, pause)| SlowReaderFile { every, lasts, pause }),
            },
        }
    }
}

/// What a receiver that has stored nothing yet says to a message.
fn verdict(topic: &str, payload: &[u8], now: Timestamp) -> Result<(), RejectReason> {
    let read = || {
        let reading = SensorReading::parse(payload, &Limits::default())?;
        reading.check_topic(topic)?;
        reading.check_clock(now, Duration::from_secs(300))
    };
    read().map_err(|error| error.kind())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_same_seed_gives_the_same_bytes(
        file in chaos_file(), seed in any::<u64>(), number in 1..u32::MAX,
    ) {
        let one = recorded(&disturbed(&file, "tutorial", seed, number));
        let two = recorded(&disturbed(&file, "tutorial", seed, number));
        prop_assert!(one == two);
        let other = recorded(&disturbed(&file, "tutorial", seed.wrapping_add(1), number));
        prop_assert!(one != other);
    }

    #[test]
    fn steps_are_in_order_readings_are_good_and_wrong_messages_are_refused(
        file in chaos_file(), seed in any::<u64>(), number in 1..u32::MAX,
    ) {
        let mut last = Duration::ZERO;
        let mut values: HashMap<(Box<str>, Timestamp), u64> = HashMap::new();
        for step in disturbed(&file, "mixed", seed, number) {
            prop_assert!(step.due >= last && step.due < END);
            last = step.due;
            let now = after(start(), step.due);
            match step.action {
                Action::Measure(reading) => {
                    let publish = reading.publish();
                    prop_assert_eq!(verdict(&publish.topic, &publish.payload, now), Ok(()));
                    let key = (reading.sensor.id.clone(), reading.timestamp);
                    let value = reading.value.to_bits();
                    let before = values.insert(key, value);
                    prop_assert!(before.is_none_or(|before| before == value));
                }
                Action::Wrong(wrong) if wrong.reason == RejectReason::Conflict => {
                    let publish = wrong.publish();
                    prop_assert_eq!(verdict(&publish.topic, &publish.payload, now), Ok(()));
                    let said = SensorReading::parse(&publish.payload, &Limits::default()).unwrap();
                    prop_assert!(said.value != wrong.of.value);
                }
                Action::Wrong(wrong) => {
                    let publish = wrong.publish();
                    let verdict = verdict(&publish.topic, &publish.payload, now);
                    prop_assert_eq!(verdict, Err(wrong.reason));
                }
                Action::Report { .. }
                | Action::Withhold(_)
                | Action::Drop { .. }
                | Action::HalfOpen { .. }
                | Action::SlowReader { .. } => {}
            }
        }
    }
}

#[test]
fn the_example_does_everything_it_names() {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut count = |what: String| *seen.entry(what).or_default() += 1;
    for number in 1..200 {
        for step in disturbed(&rough(), "tutorial", 7, number) {
            match step.action {
                Action::Measure(reading) => {
                    let intents = reading.intents.to_string();
                    intents
                        .split('+')
                        .for_each(|intent| count(intent.to_owned()));
                }
                Action::Wrong(wrong) => count(wrong.reason.to_string()),
                Action::Withhold(_) => count("missing".to_owned()),
                Action::Drop { .. } => count("drop".to_owned()),
                Action::HalfOpen { .. } => count("half open".to_owned()),
                Action::SlowReader { .. } => count("slow reader".to_owned()),
                Action::Report { .. } => {}
            }
        }
    }
    let wanted = [
        "",
        "burst",
        "clock",
        "conflict",
        "drift",
        "drop",
        "duplicate",
        "future_timestamp",
        "half open",
        "invalid_field",
        "malformed",
        "missing",
        "not_finite",
        "not_utf8",
        "reordered",
        "slow reader",
        "spike",
        "stuck",
        "too_deep",
        "too_large",
        "topic_mismatch",
    ];
    assert_eq!(seen.keys().collect::<Vec<_>>(), wanted);
}

#[test]
fn an_empty_file_changes_nothing() {
    let calm: Vec<Step> = plan("tutorial", 3, 4).collect();
    assert_eq!(disturbed(&ChaosFile::default(), "tutorial", 3, 4), calm);
}

#[test]
fn a_storm_hits_devices_at_the_same_time() {
    let file: ChaosFile =
        yaml::parse("connection: { storm: { every: 2m, chance: 1, within: 2s, away: [0s, 1s] } }")
            .unwrap();
    for number in 1..20 {
        let steps = disturbed(&file, "tutorial", 1, number);
        let drops = steps
            .iter()
            .filter(|step| matches!(step.action, Action::Drop { .. }));
        let minutes: Vec<f64> = drops.map(|step| step.due.as_secs_f64() / 120.0).collect();
        assert_eq!(minutes.len(), 4, "{minutes:?}");
        for (storm, at) in (1..).zip(minutes) {
            let off = at - f64::from(storm);
            assert!((0.0..=2.0 / 120.0).contains(&off), "{off}");
        }
    }
}

#[test]
fn the_schema_is_that_of_the_types() {
    let schema = serde_json::to_string_pretty(&schemars::schema_for!(ChaosFile)).unwrap();
    let kept = include_str!("../../profiles/chaos.schema.json");
    assert!(
        kept.trim_end() == schema,
        "put this into profiles/chaos.schema.json:\n{schema}"
    );
}

#[test]
fn what_is_wrong_in_a_file_is_named() {
    let error = |text: &str| {
        let chaos = yaml::parse(text).and_then(|file| Chaos::new(file, 1));
        chaos.map(|_| ()).unwrap_err().to_string()
    };
    insta::assert_snapshot!(error("readings: { missing: 2 }"));
    insta::assert_snapshot!(error("readings: { mising: 0.1 }"));
    insta::assert_snapshot!(error("wrong: { chance: 1, kinds: [bad] }"));
    insta::assert_snapshot!(error("clock: { skew: { chance: 1, back: 0, ahead: 5m } }"));
}
