//! EMQX's authorization file, by an evaluator written from EMQX's documentation: the first rule
//! that fits decides, `and` wants all of its conditions, and a subscription is looked up without
//! the `$share/{group}/` before it. It is not EMQX: that the real one agrees is not shown here.

use fleet::access::{Action, authorization};

use crate::cells::{accounts, cells};

#[derive(Debug)]
struct Rule {
    allow: bool,
    username: Option<String>,
    clientid: Option<String>,
    action: Option<Action>,
    topics: Vec<String>,
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    Some(rest.split_once(end)?.0)
}

fn parse(line: &str) -> Rule {
    let line = line
        .strip_suffix('.')
        .expect("a term ends with a full stop");
    assert_eq!(
        line.matches('{').count(),
        line.matches('}').count(),
        "{line}"
    );
    assert_eq!(line.matches('"').count() % 2, 0, "{line}");
    let action = match (
        line.contains("}, publish, ["),
        line.contains("}, subscribe, ["),
    ) {
        (true, false) => Some(Action::Publish),
        (false, true) => Some(Action::Subscribe),
        _ => None,
    };
    let topics = line.rsplit_once(", [").filter(|_| action.is_some());
    let topics = topics.map_or("", |(_, topics)| topics.trim_end_matches("]}"));
    Rule {
        allow: line.starts_with("{allow, "),
        username: between(line, "{username, \"", "\"}").map(str::to_owned),
        clientid: between(line, "{clientid, \"", "\"}").map(str::to_owned),
        action,
        topics: topics
            .split(", ")
            .filter(|topic| !topic.is_empty())
            .map(|topic| topic.trim_matches('"').to_owned())
            .collect(),
    }
}

/// Topic against filter, level by level; the topic may be a filter itself, whose wildcards are
/// then levels like others.
fn fits(filter: &str, topic: &str) -> bool {
    let (filter, topic): (Vec<_>, Vec<_>) =
        (filter.split('/').collect(), topic.split('/').collect());
    if topic[0].starts_with('$') && ["#", "+"].contains(&filter[0]) {
        return false;
    }
    for (index, level) in filter.iter().enumerate() {
        match (*level, topic.get(index)) {
            ("#", _) => return true,
            (_, None) => return false,
            // EMQX takes `#` of a subscription for no single level.
            ("+", Some(level)) if *level != "#" => {}
            (level, Some(other)) if level == *other => {}
            _ => return false,
        }
    }
    filter.len() == topic.len()
}

fn allows(rules: &[Rule], account: &str, client_id: &str, action: Action, topic: &str) -> bool {
    let inner = match topic.strip_prefix("$share/") {
        Some(rest) => rest.split_once('/').map_or(rest, |(_, filter)| filter),
        None => topic,
    };
    let rule = rules.iter().find(|rule| {
        rule.username.as_deref().is_none_or(|name| name == account)
            && rule.clientid.as_deref().is_none_or(|id| id == client_id)
            && rule.action.is_none_or(|it| it == action)
            && (rule.topics.is_empty() || rule.topics.iter().any(|filter| fits(filter, inner)))
    });
    rule.is_some_and(|rule| rule.allow)
}

#[test]
fn emqx_s_rules_say_what_the_table_says_but_for_groups() {
    let text = authorization(&accounts());
    let rules: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with("%%"))
        .map(parse)
        .collect();
    assert!(!rules.last().unwrap().allow, "all else is refused");
    for cell in cells() {
        let allowed = allows(
            &rules,
            &cell.account,
            &cell.account,
            cell.action,
            &cell.topic,
        );
        if cell.topic.starts_with("$share/") {
            // It cannot tell groups; whoever may not read the filter may not share it either.
            let (_, inner) = cell.topic["$share/".len()..].split_once('/').unwrap();
            let reads = allows(&rules, &cell.account, &cell.account, cell.action, inner);
            assert_eq!(allowed, reads, "{cell:?}");
            assert!(allowed || !cell.allowed, "{cell:?}");
        } else {
            let group_only = cell.action == Action::Subscribe
                && ["ingest", "bridge"].contains(&cell.account.as_str());
            assert!(allowed == cell.allowed || group_only, "{cell:?}");
        }
    }
    for topic in ["devices/sensor-001/status", "sensors/kitchen/temperature"] {
        assert!(!allows(
            &rules,
            "sensor-001",
            "another",
            Action::Publish,
            topic
        ));
        assert!(!allows(
            &rules,
            "nobody",
            "sensor-001",
            Action::Publish,
            topic
        ));
    }
}
