use fleet_shared::topic::{LEVELS_MAX, TopicError, TopicFilter, Trie};

fn trie(filters: &[&str]) -> Trie<String> {
    let mut trie = Trie::new();
    for text in filters {
        let filter = TopicFilter::parse(*text).unwrap();
        trie.insert(&filter, (*text).to_owned()).unwrap();
    }
    trie
}

fn matches(trie: &Trie<String>, topic: &str) -> Vec<String> {
    let mut found: Vec<String> = trie.matches(topic).into_iter().cloned().collect();
    found.sort();
    found
}

#[test]
fn trie_returns_every_match() {
    let trie = trie(&[
        "#",
        "+/+/temperature",
        "sensors/#",
        "sensors/+/temperature",
        "sensors/hall/#",
        "sensors/hall/+",
        "sensors/hall/temperature",
        "sensors/hall/temperature/#",
        "sensors/hall/temperature/+",
        "sensors/hall/door",
        "$share/g/sensors/hall/temperature",
    ]);
    assert_eq!(
        matches(&trie, "sensors/hall/temperature"),
        [
            "#",
            "$share/g/sensors/hall/temperature",
            "+/+/temperature",
            "sensors/#",
            "sensors/+/temperature",
            "sensors/hall/#",
            "sensors/hall/+",
            "sensors/hall/temperature",
            "sensors/hall/temperature/#",
        ]
    );
    assert_eq!(matches(&trie, "$SYS/hall/temperature"), [""; 0]);
}

#[test]
fn trie_keeps_dollar_topics_from_leading_wildcards_only() {
    let trie = trie(&["#", "+/#", "+/a", "$SYS/#", "$SYS/+", "$SYS"]);
    assert_eq!(matches(&trie, "$SYS/a"), ["$SYS/#", "$SYS/+"]);
    assert_eq!(matches(&trie, "$SYS"), ["$SYS", "$SYS/#"]);
    assert_eq!(matches(&trie, "$other"), [""; 0]);
}

#[test]
fn trie_counts_empty_levels() {
    let trie = trie(&["+", "/+", "+/+", "/", "a/", "a", "a/+", "/#"]);
    assert_eq!(matches(&trie, "/"), ["+/+", "/", "/#", "/+"]);
    assert_eq!(matches(&trie, "a/"), ["+/+", "a/", "a/+"]);
    assert_eq!(matches(&trie, "a"), ["+", "a"]);
    assert_eq!(matches(&trie, "/finance"), ["+/+", "/#", "/+"]);
}

#[test]
fn trie_holds_several_values_a_filter_and_removes_one() {
    let filter = TopicFilter::parse("a/+").unwrap();
    let mut trie = Trie::new();
    for value in [1, 2, 2, 3] {
        trie.insert(&filter, value).unwrap();
    }
    assert!(trie.remove(&filter, &2));
    let mut left: Vec<i32> = trie.matches("a/b").into_iter().copied().collect();
    left.sort_unstable();
    assert_eq!(left, [1, 2, 3]);
    assert_eq!(trie.len(), 3);
    assert!(!trie.remove(&filter, &4));
    assert!(!trie.remove(&TopicFilter::parse("a/b").unwrap(), &1));
    assert!(!trie.remove(&TopicFilter::parse("a/#").unwrap(), &1));
    for value in [1, 2, 3] {
        assert!(trie.remove(&filter, &value));
    }
    assert!(trie.is_empty());
    assert!(trie.matches("a/b").is_empty());
}

#[test]
fn trie_refuses_filters_of_too_many_levels() {
    let mut trie = Trie::new();
    let most = vec!["+"; LEVELS_MAX].join("/");
    trie.insert(&TopicFilter::parse(most.as_str()).unwrap(), ())
        .unwrap();
    let more = TopicFilter::parse(format!("{most}/#")).unwrap();
    assert!(matches!(
        trie.insert(&more, ()),
        Err(TopicError::TooManyLevels { levels: 129, .. })
    ));
    assert_eq!(trie.len(), 1);
    // A topic may have as many levels as fit: the lookup ends where the filters do.
    let topic = "a/".repeat(32_000);
    assert!(trie.matches(&topic).is_empty());
    assert_eq!(trie.matches(&topic[..2 * LEVELS_MAX - 1]).len(), 1);
}

#[test]
fn trie_tells_long_levels_apart() {
    let base = "x".repeat(200);
    let (one, other) = (format!("{base}1/a"), format!("{base}2/a"));
    let trie = trie(&[&one, &other, "12345678", "123456789", "1234567"]);
    assert_eq!(matches(&trie, &one), [one.as_str()]);
    assert_eq!(matches(&trie, &other), [other.as_str()]);
    assert_eq!(matches(&trie, "12345678"), ["12345678"]);
    assert_eq!(matches(&trie, "123456789"), ["123456789"]);
    assert_eq!(matches(&trie, "123456780"), [""; 0]);
}

#[test]
fn trie_of_many_filters_survives_growth_and_removal() {
    let mut trie = Trie::new();
    let filter = |at: usize| TopicFilter::parse(format!("site-{}/+/room-{at}", at % 50)).unwrap();
    for at in 0..20_000 {
        trie.insert(&filter(at), at).unwrap();
    }
    for at in (0..20_000).step_by(2) {
        assert!(trie.remove(&filter(at), &at));
    }
    assert_eq!(trie.len(), 10_000);
    for at in 0..20_000 {
        let expected: Vec<&usize> = if at % 2 == 1 { vec![&at] } else { vec![] };
        assert_eq!(
            trie.matches(&format!("site-{}/floor/room-{at}", at % 50)),
            expected
        );
    }
}
