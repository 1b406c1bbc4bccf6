//! Every transition, in simulated time.

use proptest::prelude::*;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).unwrap()
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A step of a story: a reading, or a look at the clock.
#[derive(Clone, Copy, Debug)]
enum Step {
    Up(i64),
    Mid(i64),
    Down(i64),
    Tick(i64),
}
use Step::{Down, Mid, Tick, Up};

/// What is told: `+fired_at/crossed_at` and `-resolved_at/crossed_at`.
fn play(policy: Policy, steps: &[Step]) -> String {
    let mut machine = Machine::default();
    let mut told = Vec::new();
    for step in steps {
        told.extend(apply(&mut machine, &policy, *step));
    }
    told.iter().map(tell).collect::<Vec<_>>().join(" ")
}

fn apply(machine: &mut Machine, policy: &Policy, step: Step) -> Vec<Transition> {
    let (second, verdict) = match step {
        Up(second) => (second, Verdict::Crossed),
        Mid(second) => (second, Verdict::Between),
        Down(second) => (second, Verdict::Cleared),
        Tick(second) => return machine.tick(policy, at(second)).into_iter().collect(),
    };
    machine.observe(policy, &Stamp::reading(at(second), at(second)), verdict)
}

fn tell(transition: &Transition) -> String {
    let second = |time: Timestamp| time.as_second() - at(0).as_second();
    let sign = match transition.kind {
        TransitionKind::Firing => '+',
        TransitionKind::Resolved => '-',
    };
    format!(
        "{sign}{}/{}",
        second(transition.at),
        second(transition.crossed_at)
    )
}

const PLAIN: Policy = Policy {
    hold: Duration::ZERO,
    keep_firing_for: Duration::ZERO,
    flap: None,
    absent: None,
    resolve_after: None,
};

/// A machine that was brought into a phase, ten seconds of `for` and of `keep_firing_for`.
fn in_phase(phase: &str, policy: &Policy) -> Machine {
    let steps: &[Step] = match phase {
        "inactive" => &[Down(0)],
        "pending" => &[Up(0)],
        "firing" => &[Up(0), Up(10)],
        "clearing" => &[Up(0), Up(10), Down(20)],
        other => panic!("there is no phase {other}"),
    };
    let mut machine = Machine::default();
    for step in steps {
        apply(&mut machine, policy, *step);
    }
    assert_eq!(name(&machine), phase);
    machine
}

fn name(machine: &Machine) -> &'static str {
    match machine.phase() {
        Phase::Inactive => "inactive",
        Phase::Pending { .. } => "pending",
        Phase::Firing { .. } => "firing",
        Phase::Clearing { .. } => "clearing",
    }
}

/// Every phase with everything that can come, before, at and after the moment that something is
/// due: pending fires at 10, clearing resolves at 30.
#[test]
fn every_phase_takes_every_input() {
    let policy = Policy {
        hold: seconds(10),
        keep_firing_for: seconds(10),
        ..PLAIN
    };
    let table = [
        ("inactive", Up(5), "", "pending"),
        ("inactive", Mid(5), "", "inactive"),
        ("inactive", Down(5), "", "inactive"),
        ("inactive", Tick(1_000), "", "inactive"),
        ("inactive", Up(0), "", "inactive"),
        ("inactive", Up(-1), "", "inactive"),
        ("pending", Up(5), "", "pending"),
        ("pending", Up(10), "+10/0", "firing"),
        ("pending", Up(11), "+10/0", "firing"),
        ("pending", Mid(5), "", "inactive"),
        ("pending", Mid(10), "", "inactive"),
        // The value before it had lasted long enough.
        ("pending", Mid(11), "+10/0", "firing"),
        ("pending", Down(5), "", "inactive"),
        ("pending", Down(10), "", "inactive"),
        ("pending", Down(11), "+10/0", "clearing"),
        ("pending", Tick(9), "", "pending"),
        ("pending", Tick(10), "+10/0", "firing"),
        ("pending", Down(0), "", "pending"),
        ("pending", Down(-1), "", "pending"),
        ("firing", Up(25), "", "firing"),
        ("firing", Mid(25), "", "firing"),
        ("firing", Down(25), "", "clearing"),
        ("firing", Tick(1_000), "", "firing"),
        ("firing", Down(10), "", "firing"),
        ("firing", Down(5), "", "firing"),
        ("clearing", Up(25), "", "firing"),
        ("clearing", Up(30), "", "firing"),
        // It was over before this crossing, which is another one.
        ("clearing", Up(31), "-30/0", "pending"),
        ("clearing", Mid(25), "", "firing"),
        ("clearing", Mid(30), "", "firing"),
        ("clearing", Mid(31), "-30/0", "inactive"),
        ("clearing", Down(25), "", "clearing"),
        ("clearing", Down(30), "-30/0", "inactive"),
        ("clearing", Down(31), "-30/0", "inactive"),
        ("clearing", Tick(29), "", "clearing"),
        ("clearing", Tick(30), "-30/0", "inactive"),
        ("clearing", Up(20), "", "clearing"),
        ("clearing", Up(19), "", "clearing"),
    ];
    for (phase, step, told, then) in table {
        let mut machine = in_phase(phase, &policy);
        let made = apply(&mut machine, &policy, step);
        let made: Vec<String> = made.iter().map(tell).collect();
        assert_eq!(made.join(" "), told, "{phase}, {step:?}");
        assert_eq!(name(&machine), then, "{phase}, {step:?}");
    }
    // Without patience the same inputs take two phases less.
    for (phase, step, told, then) in [
        ("inactive", Up(5), "+5/5", "firing"),
        ("firing", Down(25), "-25/0", "inactive"),
    ] {
        let mut machine = in_phase(phase, &PLAIN_WHEN_BROUGHT_THERE);
        let made: Vec<String> = apply(&mut machine, &PLAIN, step).iter().map(tell).collect();
        assert_eq!(made.join(" "), told, "{phase}, {step:?}");
        assert_eq!(name(&machine), then, "{phase}, {step:?}");
    }
    for (phase, told) in [
        ("inactive", None),
        ("pending", None),
        ("firing", Some("-50/0")),
        ("clearing", Some("-50/0")),
    ] {
        let mut machine = in_phase(phase, &policy);
        let made = machine.abandon(at(50)).map(|transition| tell(&transition));
        assert_eq!(
            (made.as_deref(), name(&machine)),
            (told, "inactive"),
            "{phase} is abandoned"
        );

        let mut machine = in_phase(phase, &policy);
        machine.heard(&Stamp::reading(at(40), at(40)));
        assert_eq!(name(&machine), phase, "{phase} hears what says nothing");
        assert_eq!(machine.received_at(), at(40));
    }
}

/// `for` of ten seconds, so that [`in_phase`] finds its way; the rule is then read without.
const PLAIN_WHEN_BROUGHT_THERE: Policy = Policy {
    hold: Duration::from_secs(10),
    ..PLAIN
};

#[test]
fn every_transition_without_patience() {
    for (steps, told) in [
        (vec![Down(1), Mid(2), Down(3), Tick(99)], ""),
        (vec![Up(1)], "+1/1"),
        (vec![Up(1), Up(2), Up(3), Tick(99)], "+1/1"),
        (vec![Up(1), Down(2)], "+1/1 -2/1"),
        (vec![Up(1), Mid(2), Mid(3), Up(4)], "+1/1"),
        (vec![Up(1), Mid(2), Down(3)], "+1/1 -3/1"),
        (vec![Mid(1), Up(2), Down(3), Up(4)], "+2/2 -3/2 +4/4"),
        // The same again, and older ones: nothing.
        (vec![Up(5), Up(5), Down(5), Down(4), Down(1)], "+5/5"),
        (vec![Up(5), Down(6), Up(6), Up(5), Up(4)], "+5/5 -6/5"),
    ] {
        assert_eq!(play(PLAIN, &steps), told, "{steps:?}");
    }
}

#[test]
fn every_transition_with_for() {
    let policy = Policy {
        hold: seconds(10),
        ..PLAIN
    };
    for (steps, told) in [
        (vec![Up(1), Up(5), Up(10)], ""),
        (vec![Up(1), Up(11)], "+11/1"),
        (vec![Up(1), Up(15)], "+11/1"),
        (vec![Up(1), Down(5), Up(6), Up(12)], ""),
        (vec![Up(1), Mid(5), Up(6), Up(16)], "+16/6"),
        (vec![Up(1), Down(11)], ""),
        // The last value stands until the next: by then it had lasted long enough.
        (vec![Up(1), Down(12)], "+11/1 -12/1"),
        (vec![Up(1), Tick(10), Tick(11), Tick(12)], "+11/1"),
        (vec![Up(1), Tick(12), Down(13)], "+11/1 -13/1"),
        (vec![Up(1), Down(5), Tick(30)], ""),
    ] {
        assert_eq!(play(policy, &steps), told, "{steps:?}");
    }
}

#[test]
fn every_transition_with_keep_firing_for() {
    let policy = Policy {
        keep_firing_for: seconds(10),
        ..PLAIN
    };
    for (steps, told) in [
        (vec![Up(1), Down(2), Down(5)], "+1/1"),
        (vec![Up(1), Down(2), Down(12)], "+1/1 -12/1"),
        (vec![Up(1), Down(2), Tick(11)], "+1/1"),
        (vec![Up(1), Down(2), Tick(12), Tick(13)], "+1/1 -12/1"),
        (vec![Up(1), Down(2), Up(5), Down(6), Down(15)], "+1/1"),
        (
            vec![Up(1), Down(2), Mid(5), Down(6), Down(16)],
            "+1/1 -16/1",
        ),
        // It was over before this crossing, which is another one.
        (vec![Up(1), Down(2), Up(20)], "+1/1 -12/1 +20/20"),
    ] {
        assert_eq!(play(policy, &steps), told, "{steps:?}");
    }
}

#[test]
fn every_transition_of_silence() {
    let policy = Policy {
        absent: Some(seconds(10)),
        ..PLAIN
    };
    for (steps, told) in [
        (vec![Tick(100)], ""),
        (vec![Down(1), Tick(10), Down(11), Tick(20)], ""),
        (vec![Down(1), Tick(11), Tick(12)], "+11/1"),
        (vec![Down(1), Tick(11), Down(20)], "+11/1 -20/1"),
        (vec![Down(1), Down(30)], "+11/1 -30/1"),
        (vec![Down(1), Tick(30), Down(0), Tick(31)], "+11/1"),
    ] {
        assert_eq!(play(policy, &steps), told, "{steps:?}");
    }
}

#[test]
fn every_transition_of_an_event_that_is_never_taken_back() {
    let policy = Policy {
        resolve_after: Some(seconds(10)),
        ..PLAIN
    };
    for (steps, told) in [
        (vec![Up(1), Tick(10)], "+1/1"),
        (vec![Up(1), Tick(11), Tick(12)], "+1/1 -11/1"),
        (vec![Up(1), Up(9), Tick(18), Mid(19), Tick(28)], "+1/1"),
        (vec![Up(1), Up(9), Mid(19), Tick(29)], "+1/1 -29/1"),
        (vec![Up(1), Up(11), Up(22)], "+1/1 -21/1 +22/22"),
        (vec![Up(1), Down(5), Tick(99)], "+1/1 -5/1"),
        (vec![Up(1), Down(30)], "+1/1 -11/1"),
        (vec![Up(1), Tick(30), Up(5)], "+1/1 -11/1 +5/5"),
    ] {
        assert_eq!(play(policy, &steps), told, "{steps:?}");
    }
    let kept = Policy {
        keep_firing_for: seconds(5),
        hold: seconds(3),
        ..policy
    };
    for (steps, told) in [
        (vec![Up(1), Up(4), Tick(18), Tick(19)], "+4/1 -19/1"),
        (vec![Up(1), Up(30)], "+4/1 -16/1"),
        (
            vec![Up(1), Up(4), Down(10), Tick(14), Tick(15)],
            "+4/1 -15/1",
        ),
    ] {
        assert_eq!(play(kept, &steps), told, "{steps:?}");
    }
}

#[test]
fn what_says_nothing_of_the_condition_is_no_silence() {
    let policy = Policy {
        resolve_after: Some(seconds(10)),
        ..PLAIN
    };
    let mut machine = Machine::default();
    apply(&mut machine, &policy, Up(1));
    let stamp = |second| Stamp::reading(at(second), at(second));
    assert!(
        machine
            .observe(&policy, &stamp(9), Verdict::Unsaid)
            .is_empty()
    );
    assert_eq!(machine.tick(&policy, at(12)), None);
    let made = machine.observe(&policy, &stamp(20), Verdict::Unsaid);
    assert_eq!(made.iter().map(tell).collect::<String>(), "-19/1");
}

#[test]
fn a_flapping_sensor_is_one_alert_until_it_is_calm() {
    let policy = Policy {
        flap: Some(Flap {
            episodes: 3,
            within: seconds(60),
        }),
        ..PLAIN
    };
    let mut steps: Vec<Step> = (0..20).flat_map(|n| [Up(n * 2), Down(n * 2 + 1)]).collect();
    steps.push(Tick(98));
    assert_eq!(
        play(policy, &steps),
        "+0/0 -1/0 +2/2 -3/2 +4/4",
        "the third goes on"
    );
    steps.push(Tick(99));
    assert_eq!(
        play(policy, &steps),
        "+0/0 -1/0 +2/2 -3/2 +4/4 -99/4",
        "calm for a minute since 39"
    );
    steps.extend([Up(200), Down(201), Up(202)]);
    assert!(play(policy, &steps).ends_with("-99/4 +200/200 -201/200 +202/202"));
}

#[test]
fn a_rule_that_is_gone_resolves() {
    let mut machine = Machine::default();
    apply(&mut machine, &PLAIN, Up(1));
    let told = machine.abandon(at(9)).map(|transition| tell(&transition));
    assert_eq!(told.as_deref(), Some("-9/1"));
    assert_eq!(machine.abandon(at(10)), None);
}

#[test]
fn a_late_alert_never_ends_before_it_began() {
    let policy = Policy {
        hold: seconds(10),
        ..PLAIN
    };
    // The clock fired at 11; what arrives then was measured at 5.
    assert_eq!(play(policy, &[Up(1), Tick(12), Down(5)]), "+11/1 -11/1");
}

#[test]
fn at_the_end_of_time_nothing_changes_any_more() {
    let status = |at, session, is_will| Stamp {
        at,
        received_at: at,
        session: Some(Uuid::from_u64_pair(session, 0)),
        is_will,
    };
    let mut machine = Machine::default();
    let last = status(Timestamp::MAX, 1, false);
    let made = machine.observe(&PLAIN, &last, Verdict::Crossed);
    assert_eq!(made.len(), 1);
    for after in [
        status(Timestamp::MAX, 2, false),
        status(at(1), 2, false),
        status(Timestamp::MAX, 1, true),
    ] {
        assert!(machine.observe(&PLAIN, &after, Verdict::Cleared).is_empty());
        assert_eq!(machine.tick(&PLAIN, Timestamp::MAX), None);
    }
}

#[test]
fn a_will_of_an_older_connection_changes_nothing() {
    let session = |n: u64| Some(Uuid::from_u64_pair(n, 0));
    let status = |second, received, session, is_will| Stamp {
        at: at(second),
        received_at: at(received),
        session,
        is_will,
    };
    let mut machine = Machine::default();
    let mut observe = |stamp, verdict| {
        let made = machine.observe(&PLAIN, &stamp, verdict);
        made.iter().map(tell).collect::<Vec<_>>().join(" ")
    };
    let (down, up) = (Verdict::Crossed, Verdict::Cleared);
    assert_eq!(observe(status(10, 10, session(2), false), up), "");
    // The will of connection 1 comes late.
    assert_eq!(observe(status(1, 11, session(1), true), down), "");
    // The one of connection 2 was made when it began, and counts from its receipt.
    assert_eq!(observe(status(9, 20, session(2), true), down), "+20/9");
    assert_eq!(observe(status(9, 21, session(2), true), down), "");
    assert_eq!(observe(status(19, 22, session(2), false), up), "");
    assert_eq!(observe(status(25, 25, session(3), false), up), "-25/9");
}

#[test]
fn state_survives_a_restart_between_any_two_steps() {
    let policy = Policy {
        hold: seconds(5),
        keep_firing_for: seconds(5),
        flap: Some(Flap {
            episodes: 2,
            within: seconds(30),
        }),
        absent: None,
        resolve_after: Some(seconds(25)),
    };
    let steps = [
        Up(1),
        Up(7),
        Down(8),
        Up(10),
        Down(12),
        Tick(20),
        Up(30),
        Down(36),
    ];
    let whole = play(policy, &steps);
    let mut machine = Machine::default();
    let mut told = Vec::new();
    for step in steps {
        let json = serde_json::to_string(&machine).unwrap();
        machine = serde_json::from_str(&json).unwrap();
        told.extend(apply(&mut machine, &policy, step));
    }
    let told: Vec<String> = told.iter().map(tell).collect();
    assert_eq!(told.join(" "), whole);
}

fn policies() -> impl Strategy<Value = Policy> {
    let silence = proptest::option::of(1..10_u64);
    (0..20_u64, 0..20_u64, any::<bool>(), any::<bool>(), silence).prop_map(
        |(hold, keep, flap, absent, silence)| Policy {
            hold: seconds(hold),
            keep_firing_for: seconds(keep),
            flap: flap.then_some(Flap {
                episodes: 2,
                within: seconds(30),
            }),
            absent: absent.then_some(seconds(15)),
            resolve_after: silence.filter(|_| !absent).map(|more| seconds(hold + more)),
        },
    )
}

fn readings() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec((1..12_i64, 0..3_u8), 0..60).prop_map(|gaps| {
        let mut second = 0;
        let step = |(gap, verdict)| {
            second += gap;
            match verdict {
                0 => Up(second),
                1 => Mid(second),
                _ => Down(second),
            }
        };
        gaps.into_iter().map(step).collect()
    })
}

proptest! {
    /// Readings that come twice, or again much later, change nothing.
    #[test]
    fn duplicates_and_older_readings_leave_the_episodes_as_they_are(
        policy in policies(),
        steps in readings(),
        again in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..40),
    ) {
        let once = play(policy, &steps);
        let mut repeated: Vec<Vec<Step>> = steps.iter().map(|step| vec![*step]).collect();
        if !steps.is_empty() {
            for (from, to) in again {
                let (from, to) = (from.index(steps.len()), to.index(steps.len()));
                repeated[from.max(to)].push(steps[from.min(to)]);
            }
        }
        prop_assert_eq!(play(policy, &repeated.concat()), once);
    }

    /// An older reading, of whatever value, never changes the phase.
    #[test]
    fn an_older_reading_never_flips_a_state(
        policy in policies(),
        steps in readings(),
        age in 0..200_i64,
        verdict in 0..3_u8,
    ) {
        let mut machine = Machine::default();
        let mut last = 0;
        for step in steps {
            if let Up(second) | Mid(second) | Down(second) = step {
                last = second;
            }
            apply(&mut machine, &policy, step);
            let before = machine.clone();
            let older = match verdict {
                0 => Up(last - age),
                1 => Mid(last - age),
                _ => Down(last - age),
            };
            prop_assert!(apply(&mut machine, &policy, older).is_empty());
            prop_assert_eq!(&machine, &before);
        }
    }

    /// It makes no difference how often the clock is looked at in between.
    #[test]
    fn the_clock_finds_out_what_the_next_reading_would(
        policy in policies(),
        steps in readings(),
    ) {
        let mut ticked = Vec::new();
        let mut now = 0;
        for step in &steps {
            if let Up(second) | Mid(second) | Down(second) = *step {
                // A tick at the very second of a reading may come before or after it.
                ticked.extend((now..second).map(Tick));
                now = second;
            }
            ticked.push(*step);
        }
        prop_assert_eq!(play(policy, &ticked), play(policy, &steps));
    }
}
