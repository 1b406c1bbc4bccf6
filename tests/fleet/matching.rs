//! `fleet match` against a reference that is written for reading and not for speed.

use fleet_tests::{Program, TempDir};
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use crate::site::LONG;

/// The rules of MQTT 5, sections 4.7 and 4.8.2, one after the other.
fn reference(filter: &str, topic: &str) -> &'static str {
    let filter = match filter.strip_prefix("$share/") {
        None => filter,
        Some(rest) => match rest.split_once('/') {
            Some((group, filter)) if !group.is_empty() && !group.contains(['+', '#']) => filter,
            _ => return "invalid",
        },
    };
    let filter: Vec<&str> = filter.split('/').collect();
    let valid = filter
        .iter()
        .enumerate()
        .all(|(index, level)| match *level {
            "+" => true,
            "#" => index + 1 == filter.len(),
            level => !level.contains(['+', '#']),
        });
    if !valid || filter == [""] || topic.is_empty() || topic.contains(['+', '#']) {
        return "invalid";
    }
    let topic: Vec<&str> = topic.split('/').collect();
    let system = topic[0].starts_with('$') && ["+", "#"].contains(&filter[0]);
    if !system && levels_match(&filter, &topic) {
        "true"
    } else {
        "false"
    }
}

fn levels_match(filter: &[&str], topic: &[&str]) -> bool {
    match (filter, topic) {
        (["#"], _) | ([], []) => true,
        ([], _) | (_, []) => false,
        ([first, filter @ ..], [level, topic @ ..]) => {
            (*first == "+" || first == level) && levels_match(filter, topic)
        }
    }
}

fn random(rng: &mut Pcg64Mcg, levels: &[&str]) -> String {
    let count = rng.random_range(1..6);
    let chosen: Vec<&str> = (0..count).map(|_| *levels.choose(rng).unwrap()).collect();
    chosen.join("/")
}

#[actix::test]
async fn random_pairs_are_answered_as_by_the_reference() {
    const PAIRS: usize = 50_000;
    // Often equal, often wildcards, now and then what is not allowed.
    let in_topics = [
        "a", "a", "b", "b", "c", "", "$SYS", "ü", "a b", "$share", "a+", "#",
    ];
    let in_filters = [
        "a", "a", "b", "+", "+", "+", "#", "", "$SYS", "ü", "$share", "a#", "+b",
    ];
    let mut rng = Pcg64Mcg::seed_from_u64(4_007);
    let (mut questions, mut expected) = (String::new(), String::new());
    for _ in 0..PAIRS {
        let topic = random(&mut rng, &in_topics);
        let mut filter = random(&mut rng, &in_filters);
        if rng.random_bool(0.3) {
            // A filter made of the topic matches more often than a random one.
            filter = topic
                .split('/')
                .map(|l| if rng.random_bool(0.3) { "+" } else { l })
                .collect::<Vec<_>>()
                .join("/");
        }
        if rng.random_bool(0.1) {
            filter.insert_str(0, "$share/group/");
        }
        questions += &format!("{filter}\t{topic}\n");
        expected += reference(&filter, &topic);
        expected += "\n";
    }
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("pairs");
    std::fs::write(&file, &questions).unwrap();
    let (code, answers) = Program::new("fleet")
        .arg("match")
        .arg("--stdin")
        .stdin(&file)
        .output(LONG)
        .await;
    assert_eq!(code, 0);
    let wrong: Vec<_> = questions
        .lines()
        .zip(answers.lines().zip(expected.lines()))
        .filter(|(_, (answer, expected))| answer != expected)
        .take(5)
        .collect();
    assert!(wrong.is_empty(), "question, (answer, expected): {wrong:?}");
    assert_eq!(answers.lines().count(), PAIRS);
    for kind in ["true", "false", "invalid"] {
        let count = expected.lines().filter(|answer| *answer == kind).count();
        assert!(count > PAIRS / 20, "only {count} pairs are {kind}");
    }
}

#[actix::test]
async fn exit_code_answers_one_pair() {
    for (filter, topic, code) in [
        ("a/+", "a/b", 0),
        ("a/+", "b/b", 1),
        ("a/#/b", "a", 2),
        ("a", "a/+", 2),
    ] {
        let program = Program::new("fleet").arg("match").arg(filter).arg(topic);
        assert_eq!(program.output(LONG).await.0, code, "{filter} {topic}");
    }
}
