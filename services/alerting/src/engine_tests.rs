use super::*;
use crate::condition::{sample_reading, sample_status};
use crate::state::TransitionKind;
use crate::{DEFAULT_RULES, alert_id};

use proptest::prelude::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).unwrap()
}

fn default_rules() -> Arc<RuleSet> {
    Arc::new(RuleSet::parse(DEFAULT_RULES).unwrap())
}

fn temperature(sensor: &str, second: i64, value: f64) -> SensorReading {
    SensorReading {
        sensor_id: sensor.to_owned(),
        value,
        ..sample_reading(at(second))
    }
}

fn feed(engine: &mut Engine, reading: &SensorReading) -> Vec<Change> {
    let mut changes = Vec::new();
    engine.reading(&reading.topic(), reading, reading.timestamp, &mut changes);
    changes
}

/// `rule state` of everything announced.
fn announced(changes: &[Change]) -> Vec<String> {
    let one = |change: &Change| {
        let tell = |(transition, _): &(Transition, Facts)| {
            format!("{} {}", change.rule.name, transition.kind.as_str())
        };
        change.transitions.iter().map(tell).collect::<Vec<_>>()
    };
    changes.iter().flat_map(one).collect()
}

#[test]
fn the_shipped_rules_fire_and_resolve() {
    let mut engine = Engine::new(default_rules());
    let mut story = Vec::new();
    for (second, value) in [(0, 22.0), (10, 31.0), (20, 29.5), (30, 28.0), (40, 14.0)] {
        story.extend(announced(&feed(
            &mut engine,
            &temperature("a", second, value),
        )));
    }
    assert_eq!(
        story,
        [
            "TemperatureHigh firing",
            "TemperatureHigh resolved",
            "TemperatureLow firing"
        ]
    );
    let door = |second, value| SensorReading {
        kind: "door".to_owned(),
        ..temperature("d", second, value)
    };
    assert_eq!(
        announced(&feed(&mut engine, &door(0, 1.0))),
        ["DoorOpened firing"]
    );
    let (mut changes, mut forgotten) = (Vec::new(), Vec::new());
    engine.tick(at(299), &mut changes, &mut forgotten);
    assert!(changes.is_empty());
    engine.tick(at(300), &mut changes, &mut forgotten);
    assert_eq!(announced(&changes), ["DoorLeftOpen firing"]);
    let mut weak = temperature("b", 0, 20.0);
    weak.battery_percent = Some(19);
    assert_eq!(announced(&feed(&mut engine, &weak)), ["BatteryLow firing"]);
}

#[test]
fn a_device_that_stays_away_is_offline() {
    let mut engine = Engine::new(default_rules());
    let mut changes = Vec::new();
    let topic = "devices/sensor-1/status";
    let will = sample_status(at(0));
    engine.status(topic, &will, at(100), &mut changes);
    assert_eq!(announced(&changes), [""; 0]);
    let mut forgotten = Vec::new();
    engine.tick(at(130), &mut changes, &mut forgotten);
    assert_eq!(announced(&changes), ["DeviceOffline firing"]);
    let back = StatusMessage {
        online: true,
        reason: None,
        ..sample_status(at(140))
    };
    engine.status(topic, &back, at(140), &mut changes);
    assert_eq!(
        announced(&changes),
        ["DeviceOffline firing", "DeviceOffline resolved"]
    );
}

#[test]
fn what_is_said_is_made_of_the_reading_that_crossed() {
    let mut engine = Engine::new(default_rules());
    let changes = feed(&mut engine, &temperature("a", 0, 30.5));
    let (transition, facts) = &changes[0].transitions[0];
    let alert = crate::message(&changes[0].rule, "a", transition, facts);
    assert_eq!(
        alert.message,
        "a in site-1/room-1: 30.5 celsius is above 30"
    );
    let metadata = alert.metadata.unwrap();
    assert_eq!(metadata["rule"], "TemperatureHigh");
    assert_eq!(metadata["value"], "30.5");
    assert_eq!(metadata["state"], "firing");
}

#[test]
fn a_restart_neither_fires_again_nor_forgets_to_resolve() {
    let mut engine = Engine::new(default_rules());
    let hot = temperature("a", 0, 31.0);
    let changes = feed(&mut engine, &hot);
    let saved = SavedTrack {
        rule: "TemperatureHigh".to_owned(),
        sensor_id: "a".to_owned(),
        saved: changes[0].saved.clone(),
    };
    let mut gone = Vec::new();
    let mut engine = Engine::restore(default_rules(), vec![saved], &[], at(5), &mut gone);
    assert!(gone.is_empty());
    assert_eq!(announced(&feed(&mut engine, &hot)), [""; 0]);
    assert_eq!(
        announced(&feed(&mut engine, &temperature("a", 10, 32.0))),
        [""; 0]
    );
    let changes = feed(&mut engine, &temperature("a", 20, 20.0));
    assert_eq!(announced(&changes), ["TemperatureHigh resolved"]);
    assert_eq!(changes[0].transitions[0].0.crossed_at, at(0));
}

#[test]
fn new_rules_keep_states_and_end_what_is_gone() {
    let rules = |names: [&str; 2]| {
        let rule =
            |name| format!("      - {{ alert: {name}, when: value > 30, severity: info }}\n");
        let text = format!(
            "groups:\n  - name: g\n    rules:\n{}{}",
            rule(names[0]),
            rule(names[1])
        );
        Arc::new(RuleSet::parse(&text).unwrap())
    };
    let mut engine = Engine::new(rules(["A", "B"]));
    let changes = feed(&mut engine, &temperature("a", 0, 31.0));
    assert_eq!(announced(&changes), ["A firing", "B firing"]);
    let mut changes = Vec::new();
    engine.replace_rules(rules(["C", "A"]), at(5), &mut changes);
    assert_eq!(announced(&changes), ["B resolved"]);
    assert_eq!(
        announced(&feed(&mut engine, &temperature("a", 10, 31.0))),
        ["C firing"]
    );
    assert_eq!(
        announced(&feed(&mut engine, &temperature("a", 20, 1.0))),
        ["C resolved", "A resolved"]
    );
}

#[test]
fn silence_is_told_by_the_last_message() {
    let text = "groups:\n  - name: g\n    rules:\n\
        \x20     - { alert: Silent, absent: 10m, severity: info, \
                    message: '{{ location }}: {{ value }} at {{ timestamp }}, {{ state }}' }\n";
    let mut engine = Engine::new(Arc::new(RuleSet::parse(text).unwrap()));
    assert_eq!(feed(&mut engine, &temperature("a", 0, 1.0)).len(), 1);
    assert!(feed(&mut engine, &temperature("a", 60, 2.5)).is_empty());
    let (mut changes, mut forgotten) = (Vec::new(), Vec::new());
    engine.tick(at(700), &mut changes, &mut forgotten);
    changes.extend(feed(&mut engine, &temperature("a", 900, 3.0)));
    let texts: Vec<String> = changes
        .iter()
        .flat_map(|change| {
            let text = |(transition, facts): &(Transition, Facts)| {
                crate::message(&change.rule, &change.sensor_id, transition, facts).message
            };
            change.transitions.iter().map(text).collect::<Vec<_>>()
        })
        .collect();
    let last = at(60);
    assert_eq!(
        texts,
        [
            format!("site-1/room-1: 2.5 at {last}, firing"),
            format!("site-1/room-1: 2.5 at {last}, resolved"),
        ]
    );
}

/// A lamp that is told to go on by light, and off by darkness, and sees itself.
#[test]
fn a_loop_through_a_device_ends() {
    let text = "groups:\n  - name: g\n    rules:\n\
        \x20     - alert: Lamp\n\
        \x20       when: value < 5\n\
        \x20       severity: info\n\
        \x20       publish: [{ topic: lamp/set, payload: 'on' }, { on: resolved, topic: lamp/set, payload: 'off' }]\n";
    let mut engine = Engine::new(Arc::new(RuleSet::parse(text).unwrap()));
    let (mut value, mut told) = (0.0, 0);
    for round in 0..1_000 {
        let mut reading = temperature("lamp", 0, value);
        reading.timestamp += Duration::from_millis(round * 5);
        for change in feed(&mut engine, &reading) {
            for (transition, _) in &change.transitions {
                told += 1;
                value = match transition.kind {
                    TransitionKind::Firing => 9.0,
                    TransitionKind::Resolved => 0.0,
                };
            }
        }
    }
    assert_eq!(told, 31, "16 firings, and all but the last end");
    let (mut changes, mut forgotten) = (Vec::new(), Vec::new());
    engine.tick(at(60), &mut changes, &mut forgotten);
    assert_eq!(announced(&changes), ["Lamp resolved"], "calm again");
}

#[test]
fn an_idle_sensor_is_forgotten_unless_it_is_wrong() {
    let mut engine = Engine::new(default_rules());
    feed(&mut engine, &temperature("calm", 0, 20.0));
    feed(&mut engine, &temperature("hot", 0, 40.0));
    let (mut changes, mut forgotten) = (Vec::new(), Vec::new());
    engine.tick(at(86_399), &mut changes, &mut forgotten);
    assert_eq!(engine.sensors(), 2);
    engine.tick(at(86_400), &mut changes, &mut forgotten);
    assert_eq!(engine.sensors(), 1);
    assert!(forgotten.contains(&("TemperatureHigh".to_owned(), "calm".to_owned())));
}

#[test]
fn a_window_that_the_store_cannot_complete_fills_by_itself() {
    let text = "groups:\n  - name: g\n    rules:\n\
        \x20     - { alert: Few, when: count('50s') < 4, severity: info }\n";
    let rules = Arc::new(RuleSet::parse(text).unwrap());
    let readings: Vec<_> = (0..=6).map(|n| temperature("a", n * 10, 1.0)).collect();
    let mut engine = Engine::new(rules.clone());
    for reading in &readings {
        assert_eq!(announced(&feed(&mut engine, reading)), [""; 0]);
    }
    let marks = [engine.take_marks(true)];
    // The store has all that was evaluated, all but the last, and nothing; one comes meanwhile.
    for (has, filled) in [(7, 1), (6, 0), (0, 0)] {
        let mut gone = Vec::new();
        let mut engine = Engine::restore(rules.clone(), Vec::new(), &marks, at(65), &mut gone);
        engine.begin_to_remember(Duration::MAX);
        let (first, rest) = readings[..has].split_at(has / 2);
        first.iter().for_each(|reading| engine.remember(reading));
        assert_eq!(
            announced(&feed(&mut engine, &temperature("a", 70, 1.0))),
            [""; 0]
        );
        rest.iter().for_each(|reading| engine.remember(reading));
        // It is in the store, too, by now.
        engine.remember(&temperature("a", 70, 1.0));
        assert_eq!(engine.has_remembered(), (filled, 1 - filled));
        // Of 50 s to 100 s there are four readings, three of which are known by the store alone.
        let told = announced(&feed(&mut engine, &temperature("a", 100, 1.0)));
        assert_eq!(told, [""; 0], "{has}");
        let told = announced(&feed(&mut engine, &temperature("a", 119, 1.0)));
        let expected: &[&str] = if filled == 1 { &["Few firing"] } else { &[] };
        assert_eq!(told, expected, "{has}");
    }
}

#[test]
fn new_rules_keep_windows_that_hold_the_same() {
    let rules = |kind: &str, span: &str, most: u32| {
        let text = format!(
            "groups:\n  - name: g\n    rules:\n\
            \x20     - {{ alert: Many, {kind}when: \"count('{span}') > {most}\", severity: info }}\n"
        );
        Arc::new(RuleSet::parse(&text).unwrap())
    };
    for (other, keeps) in [
        (rules("", "50s", 3), true),
        (rules("", "40s", 3), false),
        (rules("type: temperature, ", "50s", 3), false),
    ] {
        let mut engine = Engine::new(rules("", "50s", 100));
        for n in 0..6 {
            feed(&mut engine, &temperature("a", n * 10, 1.0));
        }
        engine.replace_rules(other, at(55), &mut Vec::new());
        let told = announced(&feed(&mut engine, &temperature("a", 60, 1.0)));
        assert_eq!(told == ["Many firing"], keeps, "{told:?}");
    }
}

#[test]
fn a_window_begins_anew_when_messages_were_missed() {
    let text = "groups:\n  - name: g\n    rules:\n\
        \x20     - { alert: Few, when: count('50s') < 4, severity: info }\n";
    let mut engine = Engine::new(Arc::new(RuleSet::parse(text).unwrap()));
    for n in 0..6 {
        feed(&mut engine, &temperature("a", n * 10, 1.0));
    }
    engine.forget_windows();
    let told = announced(&feed(&mut engine, &temperature("a", 200, 1.0)));
    assert_eq!(told, [""; 0], "nobody knows what was between");
}

/// Episodes of every sensor: their id, kind and time.
type Episodes = std::collections::BTreeMap<String, Vec<(String, TransitionKind, Timestamp)>>;

fn episodes<'a>(changes: impl IntoIterator<Item = &'a Change>) -> Episodes {
    let mut episodes = Episodes::new();
    for change in changes {
        for (transition, _) in &change.transitions {
            let id = alert_id(&change.rule.name, &change.sensor_id, transition.crossed_at);
            let of_sensor = episodes.entry(change.sensor_id.clone()).or_default();
            of_sensor.push((id.to_string(), transition.kind, transition.at));
        }
    }
    episodes
}

/// Rules that look at more than one reading.
fn looking_back() -> Arc<RuleSet> {
    let text = "groups:\n  - name: g\n    rules:\n\
        \x20     - { alert: Mean, when: avg('50s') > 26, clear: avg('30s') < 24, severity: info }\n\
        \x20     - { alert: Jump, when: rate('40s') > 0.2, severity: info }\n\
        \x20     - { alert: Steady, when: max('70s') - min('70s') < 12, severity: info }\n";
    Arc::new(RuleSet::parse(text).unwrap())
}

proptest! {
    /// However the streams of the sensors are interleaved, doubled, and dealt to replicas by sensor,
    /// each sensor has the same episodes.
    #[test]
    fn interleaving_and_replicas_leave_episodes_as_they_are(
        values in proptest::collection::vec(proptest::collection::vec(10_u8..40, 0..30), 1..5),
        order in proptest::collection::vec((0_usize..5, any::<bool>()), 0..300),
        replicas in 1_usize..4,
    ) {
        let streams: Vec<Vec<SensorReading>> = values.iter().enumerate().map(|(sensor, values)| {
            let reading = |(second, value): (i64, &u8)| {
                temperature(&format!("s{sensor}"), second * 10, f64::from(*value))
            };
            (0..).zip(values).map(reading).collect()
        }).collect();
        let mut one = Engine::new(default_rules());
        let plain: Vec<Change> = streams.iter().flatten().flat_map(|r| feed(&mut one, r)).collect();

        let mut engines: Vec<Engine> = (0..replicas).map(|_| Engine::new(default_rules())).collect();
        let mut next = vec![0; streams.len()];
        let mut mixed = Vec::new();
        let rest = (0..streams.len()).flat_map(|sensor| vec![(sensor, false); streams[sensor].len()]);
        for (sensor, again) in order.into_iter().chain(rest) {
            let sensor = sensor % streams.len();
            let Some(reading) = streams[sensor].get(next[sensor]) else { continue };
            next[sensor] += 1;
            let engine = &mut engines[sensor % replicas];
            mixed.extend(feed(engine, reading));
            if again {
                mixed.extend(feed(engine, reading));
                mixed.extend(feed(engine, &streams[sensor][0]));
            }
        }
        prop_assert_eq!(episodes(&mixed), episodes(&plain));
    }

    /// A replica may end at any point and another go on from what was stored, with what was not
    /// acknowledged coming again, and readings that are older than those already evaluated: each sensor
    /// has the same episodes, each told once.
    #[test]
    fn taking_over_leaves_episodes_as_they_are(
        looks_back in any::<bool>(),
        values in proptest::collection::vec(proptest::collection::vec(10_u8..40, 0..40), 1..4),
        takeovers in proptest::collection::vec((any::<prop::sample::Index>(), 0_usize..6), 0..8),
        late in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..20),
    ) {
        // Windows are filled again from the store, which may have more than was evaluated.
        let rules = if looks_back { looking_back() } else { default_rules() };
        let mut stream: Vec<SensorReading> = values.iter().enumerate().flat_map(|(sensor, values)| {
            let reading = move |(second, value): (i64, &u8)| {
                temperature(&format!("s{sensor}"), second * 10, f64::from(*value))
            };
            (0..).zip(values).map(reading)
        }).collect();
        stream.sort_by_key(|reading| reading.timestamp);
        let mut one = Engine::new(rules.clone());
        let plain: Vec<Change> = stream.iter().flat_map(|reading| feed(&mut one, reading)).collect();

        let mut stored = std::collections::BTreeMap::new();
        let mut engine = Engine::new(rules.clone());
        let mut told = Vec::new();
        let mut seen = std::collections::HashSet::new();
        let mut next = 0;
        let mut breaks: Vec<(usize, usize)> = takeovers
            .iter()
            .map(|(at, back)| (at.index(stream.len() + 1), *back))
            .collect();
        breaks.sort_unstable();
        let mut breaks = breaks.into_iter().peekable();
        let late: std::collections::HashMap<usize, usize> = late
            .iter()
            .map(|(at, which)| (at.index(stream.len() + 1), which.index(stream.len() + 1)))
            .collect();
        let mut marks = Vec::new();
        while next < stream.len() {
            if let Some((_, back)) = breaks.next_if(|(at, _)| *at <= next) {
                // What is in the store goes through JSON, as it does there.
                let tracks = stored.iter().map(|((rule, sensor_id), saved): (&(String, String), &Saved)| SavedTrack {
                    rule: rule.clone(),
                    sensor_id: sensor_id.clone(),
                    saved: serde_json::from_str(&serde_json::to_string(saved).unwrap()).unwrap(),
                });
                let mut gone = Vec::new();
                engine = Engine::restore(rules.clone(), tracks.collect(), &marks, at(0), &mut gone);
                prop_assert!(gone.is_empty());
                engine.begin_to_remember(Duration::MAX);
                stream.iter().for_each(|reading| engine.remember(reading));
                engine.has_remembered();
                next = next.saturating_sub(back);
            }
            // One from before, of which a newer one of the same sensor may have been evaluated by a
            // process that is no more.
            let again = late.get(&next).filter(|which| **which < next);
            let mut made = again.map(|which| feed(&mut engine, &stream[*which])).unwrap_or_default();
            prop_assert_eq!(made.len(), 0);
            made.extend(feed(&mut engine, &stream[next]));
            // As the store has it before the reading is acknowledged.
            marks.push(engine.take_marks(next % 3 == 0));
            for change in made {
                let key = (change.rule.name.clone(), change.sensor_id.clone());
                stored.insert(key, change.saved.clone());
                // The outbox takes each message once, by the name of its episode.
                let mut change = change;
                change.transitions.retain(|(transition, _)| {
                    let id = alert_id(&change.rule.name, &change.sensor_id, transition.crossed_at);
                    seen.insert((id, transition.kind.as_str()))
                });
                told.push(change);
            }
            next += 1;
        }
        prop_assert_eq!(episodes(&told), episodes(&plain));
    }
}
