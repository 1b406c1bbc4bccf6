//! The examples of MQTT 5, sections 4.7 and 4.8.2, one test a paragraph.

use fleet_shared::topic::{TopicError, TopicFilter, TopicName, matches};

fn assert_matches(filter: &str, topics: &[&str]) {
    let filter = TopicFilter::parse(filter).unwrap();
    for topic in topics {
        let topic = TopicName::parse(*topic).unwrap();
        assert!(filter.matches(&topic), "{filter} must match {topic}");
    }
}

fn assert_does_not_match(filter: &str, topics: &[&str]) {
    let filter = TopicFilter::parse(filter).unwrap();
    for topic in topics {
        let topic = TopicName::parse(*topic).unwrap();
        assert!(!filter.matches(&topic), "{filter} must not match {topic}");
    }
}

#[test]
fn hash_matches_the_parent_and_any_number_of_levels() {
    assert_matches(
        "sport/tennis/player1/#",
        &[
            "sport/tennis/player1",
            "sport/tennis/player1/ranking",
            "sport/tennis/player1/score/wimbledon",
        ],
    );
    assert_matches("sport/#", &["sport"]);
    assert_matches("#", &["sport", "sport/tennis", "/", "/finance"]);
    assert_does_not_match("sport/#", &["sports", "spor", "Sport"]);
}

#[test]
fn hash_stands_last_and_alone() {
    assert!(TopicFilter::parse("sport/tennis/#").is_ok());
    assert!(matches!(
        TopicFilter::parse("sport/tennis#"),
        Err(TopicError::HashNotWholeLevel { .. })
    ));
    assert!(matches!(
        TopicFilter::parse("sport/tennis/#/ranking"),
        Err(TopicError::HashNotLast { .. })
    ));
    assert!(matches!(
        TopicFilter::parse("##"),
        Err(TopicError::HashNotWholeLevel { .. })
    ));
}

#[test]
fn plus_matches_exactly_one_level() {
    assert_matches(
        "sport/tennis/+",
        &["sport/tennis/player1", "sport/tennis/player2"],
    );
    assert_does_not_match("sport/tennis/+", &["sport/tennis/player1/ranking"]);
    assert_does_not_match("sport/+", &["sport"]);
    assert_matches("sport/+", &["sport/"]);
}

#[test]
fn plus_stands_alone_in_any_level() {
    for valid in ["+", "+/tennis/#", "sport/+/player1"] {
        assert!(TopicFilter::parse(valid).is_ok(), "{valid}");
    }
    assert!(matches!(
        TopicFilter::parse("sport+"),
        Err(TopicError::PlusNotWholeLevel { .. })
    ));
}

#[test]
fn leading_slash_is_an_empty_level() {
    assert_matches("+/+", &["/finance"]);
    assert_matches("/+", &["/finance"]);
    assert_does_not_match("+", &["/finance"]);
}

#[test]
fn leading_wildcard_does_not_match_a_dollar_topic() {
    assert_does_not_match("#", &["$SYS/broker/uptime", "$SYS", "$"]);
    assert_does_not_match("+/monitor/Clients", &["$SYS/monitor/Clients"]);
    assert_matches("$SYS/#", &["$SYS/monitor/Clients", "$SYS"]);
    assert_matches("$SYS/monitor/+", &["$SYS/monitor/Clients"]);
    // Only the first level is special.
    assert_matches("a/#", &["a/$SYS"]);
    assert_matches("a/+", &["a/$SYS"]);
}

#[test]
fn topics_are_case_sensitive_and_may_hold_spaces() {
    assert_does_not_match("ACCOUNTS", &["Accounts"]);
    assert_matches("Accounts payable", &["Accounts payable"]);
    assert_does_not_match("finance", &["/finance"]);
    assert_matches("/", &["/"]);
}

#[test]
fn names_and_filters_have_1_to_65535_bytes_and_no_nul() {
    assert_eq!(TopicName::parse(""), Err(TopicError::Empty));
    assert_eq!(TopicFilter::parse(""), Err(TopicError::Empty));
    assert!(matches!(
        TopicName::parse("a\0b"),
        Err(TopicError::Nul { at: 1, .. })
    ));
    assert!(matches!(
        TopicFilter::parse("a/\0/#"),
        Err(TopicError::Nul { at: 2, .. })
    ));
    let longest = "a".repeat(65_535);
    assert!(TopicName::parse(longest.as_str()).is_ok());
    assert!(TopicFilter::parse(longest.as_str()).is_ok());
    let longer = "a".repeat(65_536);
    let too_long = TopicError::TooLong { len: 65_536 };
    assert_eq!(TopicName::parse(longer.as_str()), Err(too_long.clone()));
    assert_eq!(TopicFilter::parse(longer.as_str()), Err(too_long));
}

#[test]
fn names_hold_no_wildcard() {
    for (name, wildcard) in [("sport/+", '+'), ("sport/#", '#'), ("a+b", '+'), ("#", '#')] {
        match TopicName::parse(name) {
            Err(TopicError::WildcardInName {
                wildcard: found, ..
            }) => assert_eq!(found, wildcard),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn shared_filter_has_a_group_and_a_filter() {
    for (text, group, filter) in [
        (
            "$share/consumer1/sport/tennis/+",
            "consumer1",
            "sport/tennis/+",
        ),
        ("$share/consumer1//finance", "consumer1", "/finance"),
        ("$share/g/#", "g", "#"),
        ("$share/g//", "g", "/"),
    ] {
        let parsed = TopicFilter::parse(text).unwrap();
        assert_eq!(parsed.share_group(), Some(group));
        assert_eq!(parsed.filter(), filter);
        assert_eq!(parsed.as_str(), text);
    }
    assert_matches("$share/consumer1//finance", &["/finance"]);
    assert_does_not_match(
        "$share/consumer1/sport/tennis/+",
        &["$share/consumer1/sport/tennis/x"],
    );
    assert_does_not_match("$share/g/#", &["$SYS/broker/uptime"]);
}

#[test]
fn shared_filter_that_lacks_a_part_is_refused() {
    for text in ["$share/", "$share//sport"] {
        assert!(
            matches!(
                TopicFilter::parse(text),
                Err(TopicError::ShareGroupEmpty { .. })
            ),
            "{text}"
        );
    }
    for text in ["$share/g", "$share/g/"] {
        assert!(
            matches!(
                TopicFilter::parse(text),
                Err(TopicError::ShareFilterEmpty { .. })
            ),
            "{text}"
        );
    }
    for (text, expected) in [
        ("$share/+/a", '+'),
        ("$share/a#b/c", '#'),
        ("$share/#", '#'),
    ] {
        match TopicFilter::parse(text) {
            Err(TopicError::ShareGroupWildcard { wildcard, .. }) => assert_eq!(wildcard, expected),
            other => panic!("{text}: {other:?}"),
        }
    }
    assert!(matches!(
        TopicFilter::parse("$share/g/a#"),
        Err(TopicError::HashNotWholeLevel { .. })
    ));
}

#[test]
fn filter_that_only_looks_shared_is_ordinary() {
    for text in ["$share", "$shared/g/a", "$SHARE/g/a", "/$share/g/a"] {
        let filter = TopicFilter::parse(text).unwrap();
        assert_eq!(filter.share_group(), None, "{text}");
        assert_eq!(filter.filter(), text);
    }
}

#[test]
fn errors_name_the_text_and_the_rule() {
    let message = TopicFilter::parse("sport/tennis#").unwrap_err().to_string();
    assert_eq!(
        message,
        "`#` must be a whole level of the filter `sport/tennis#`"
    );
    let message = TopicFilter::parse("$share/g").unwrap_err().to_string();
    assert_eq!(
        message,
        "shared filter `$share/g` has no filter after its group, write `$share/GROUP/FILTER`"
    );
    let message = TopicName::parse(format!("{}#", "x".repeat(200))).unwrap_err();
    assert!(message.to_string().len() < 160, "{message}");
}

#[test]
fn free_function_agrees_with_the_types() {
    assert!(matches("sensors/#", "sensors/hall/temperature"));
    assert!(matches("sensors/+/door", "sensors/hall/door"));
    assert!(!matches("sensors/+/door", "sensors/site/hall/door"));
}

#[test]
fn names_and_filters_go_through_json_checked() {
    let filter: TopicFilter = serde_json::from_str("\"$share/g/a/+\"").unwrap();
    assert_eq!(serde_json::to_string(&filter).unwrap(), "\"$share/g/a/+\"");
    assert!(serde_json::from_str::<TopicFilter>("\"a#\"").is_err());
    assert!(serde_json::from_str::<TopicName>("\"a/+\"").is_err());
}
