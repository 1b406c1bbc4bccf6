//! Properties over random topics and filters of a small alphabet, so that matches are frequent.

use std::hint::black_box;

use fleet_shared::topic::{
    Excerpt, FleetTopic, Template, TopicFilter, TopicName, Trie, label, matches, templates,
};
use proptest::prelude::*;

use crate::reference;

fn level() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        6 => prop::sample::select(vec!["", "a", "b", "$a", "abcdefgh", "abcdefghi", "é"]),
        1 => Just("a level that is longer than what lies in a node itself"),
    ]
}

fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(level(), 1..6)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("a topic is not empty", |topic| !topic.is_empty())
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![3 => level(), 2 => Just("+")];
    (prop::collection::vec(level, 0..6), any::<bool>())
        .prop_map(|(mut levels, is_multi)| {
            if is_multi {
                levels.push("#");
            }
            levels.join("/")
        })
        .prop_filter("a filter is not empty", |filter| !filter.is_empty())
}

/// Text of the characters that matter to the grammar.
fn grammar() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a/+#$]{0,8}",
        "\\$share[/a+#]{0,6}",
        "\\$share/[ab]{1,2}/[a/+#]{0,6}",
        "[a/\\x00+#]{0,4}",
        any::<String>(),
    ]
}

fn found(trie: &Trie<usize>, topic: &str) -> Vec<usize> {
    let mut found: Vec<usize> = trie.matches(topic).into_iter().copied().collect();
    found.sort_unstable();
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn matching_agrees_with_the_reference(filter in filter(), topic in topic()) {
        prop_assert_eq!(matches(&filter, &topic), reference::matches(&filter, &topic));
        let filter = TopicFilter::parse(filter).unwrap();
        prop_assert_eq!(
            filter.matches(&TopicName::parse(topic.as_str()).unwrap()),
            reference::matches(filter.filter(), &topic)
        );
    }

    #[test]
    fn filters_are_accepted_as_the_reference_says(text in grammar()) {
        let parsed = TopicFilter::parse(text.as_str());
        prop_assert_eq!(parsed.is_ok(), reference::is_filter(&text), "{:?}", parsed);
        if let Ok(filter) = parsed {
            let again = match filter.share_group() {
                Some(group) => format!("$share/{group}/{}", filter.filter()),
                None => filter.filter().to_owned(),
            };
            prop_assert_eq!(again.as_str(), filter.as_str());
            prop_assert_eq!(filter.to_string(), text);
        }
    }

    #[test]
    fn names_are_filters_without_wildcards(text in grammar()) {
        let is_name = !text.is_empty() && text.len() <= 65_535 && !text.contains(['+', '#', '\0']);
        let parsed = TopicName::parse(text.as_str());
        prop_assert_eq!(parsed.is_ok(), is_name, "{:?}", parsed);
    }

    #[test]
    fn nothing_panics_on_any_text(one in any::<String>(), other in any::<String>()) {
        black_box((matches(&one, &other), label(&one), FleetTopic::parse(&one)));
        if let Ok(template) = Template::parse(one.as_str()) {
            if let Ok(topic) = template.format(&[(&other, &one)]) {
                prop_assert!(TopicName::parse(topic).is_ok());
            }
            black_box(template.extract(&other));
        }
        prop_assert!(Excerpt::new(&one).as_str().chars().count() <= Excerpt::CHARS_MAX);
        let mut trie = Trie::new();
        trie.insert(&TopicFilter::parse("+/+/#").unwrap(), 1).unwrap();
        black_box(trie.matches(&one));
    }

    #[test]
    fn fleet_topics_are_what_their_templates_say(
        topic in prop_oneof![
            "(sensors|devices|responses|alerts|fleet|fleet/services|fleet/dead-letter)(/[ab]{0,1}){0,4}",
            "devices/[ab]{0,1}(/status|/telemetry|/config|/config/reported|/commands/[ab/]{0,2})",
            "fleet/(alerting/state|services)(/[ab]{0,1}){0,3}(/status)?",
        ],
    ) {
        let all = [
            templates::SENSOR, templates::DEVICE_STATUS, templates::DEVICE_TELEMETRY,
            templates::DEVICE_CONFIG, templates::DEVICE_CONFIG_REPORTED, templates::DEVICE_COMMAND,
            templates::RESPONSE, templates::ALERT, templates::ALERTING_STATE,
            templates::DEAD_LETTER, templates::SERVICE_STATUS,
        ];
        let expected: Vec<&str> = all
            .into_iter()
            .filter(|text| Template::parse(*text).unwrap().extract(&topic).is_some())
            .collect();
        let parsed: Vec<&str> = FleetTopic::parse(&topic).iter().map(FleetTopic::template).collect();
        prop_assert_eq!(parsed, expected);
    }

    #[test]
    fn template_reads_back_what_it_formats(
        location in "[a-c]{1,2}(/[a-c]{1,2}){0,4}",
        kind in "[a-c]{1,3}",
        before in "[a-c]{1,2}",
    ) {
        let template = Template::parse("{before}/x/{location}/y/{type}").unwrap();
        let values = [("before", &*before), ("location", &*location), ("type", &*kind)];
        let topic = template.format(&values).unwrap();
        let found = template.extract(&topic).unwrap();
        prop_assert_eq!(found.iter().collect::<Vec<_>>(), values);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn trie_agrees_with_the_reference(
        filters in prop::collection::vec(filter(), 0..40),
        is_removed in prop::collection::vec(any::<bool>(), 40),
        later in prop::collection::vec(filter(), 0..10),
        topics in prop::collection::vec(topic(), 1..10),
    ) {
        let mut trie = Trie::new();
        let mut kept: Vec<(usize, String)> = Vec::new();
        for (at, filter) in filters.into_iter().enumerate() {
            trie.insert(&TopicFilter::parse(filter.as_str()).unwrap(), at).unwrap();
            kept.push((at, filter));
        }
        kept.retain(|(at, filter)| {
            !is_removed[*at] || !trie.remove(&TopicFilter::parse(filter.as_str()).unwrap(), at)
        });
        // What comes later takes the places that became free.
        for (at, filter) in later.into_iter().enumerate() {
            let at = at + 1_000;
            trie.insert(&TopicFilter::parse(filter.as_str()).unwrap(), at).unwrap();
            kept.push((at, filter));
        }
        prop_assert_eq!(trie.len(), kept.len());
        for topic in topics {
            let expected: Vec<usize> = kept
                .iter()
                .filter(|(_, filter)| reference::matches(filter, &topic))
                .map(|(at, _)| *at)
                .collect();
            prop_assert_eq!(found(&trie, &topic), expected, "{}", topic);
        }
        for (at, filter) in kept {
            prop_assert!(trie.remove(&TopicFilter::parse(filter).unwrap(), &at));
        }
        prop_assert!(trie.is_empty());
    }
}
