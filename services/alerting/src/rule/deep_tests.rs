//! Rules that nest as deep as their length allows, on the stack that a thread has. Without bounds they
//! end the process, which no test could say more of than that it ended.

use super::*;
use crate::condition::sample_reading;

/// Rules with a condition and a message.
fn rules(when: &str, message: &str) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    format!(
        "groups: [{{name: g, rules: [{{alert: A, severity: info, when: {}, message: {}}}]}}]",
        quoted(when),
        quoted(message)
    )
}

/// As many of `link` between `head` and `tail` as fit into `bytes`.
fn chain(head: &str, link: &str, tail: &str, bytes: usize) -> String {
    let links = (bytes - head.len() - tail.len()) / link.len();
    format!("{head}{}{tail}", link.repeat(links))
}

/// `open` and `close` around `inside`, so often that it has some `bytes`.
fn nest(open: &str, inside: &str, close: &str, bytes: usize) -> String {
    let levels = (bytes - inside.len()) / (open.len() + close.len());
    format!("{}{inside}{}", open.repeat(levels), close.repeat(levels))
}

#[test]
fn conditions_that_nest_without_end_are_refused() {
    for bytes in [4_000, 1_000_000] {
        for when in [
            chain("value", ".a", " > 1", bytes),
            chain("value", "[0]", " > 1", bytes),
            chain("value", "+1.0", " > 1.0", bytes),
            chain("value", "-value", " > 1.0", bytes),
            chain("value", ".a()", " > 1", bytes),
            chain("", "value>1.0?true:", "true", bytes),
            chain("", "-!", "value", bytes),
            nest("(", "value > 1", ")", bytes),
            nest("[", "", "]", bytes),
            nest("size(", "\"a\"", ")", bytes),
            nest("{1:", "2", "}", bytes),
            nest("[1].all(x,", "true", ")", bytes),
            nest("!(", "value > 1", ")", bytes),
            "[".repeat(bytes),
            "a(".repeat(bytes / 2),
            "!".repeat(bytes),
        ] {
            let errors = RuleSet::parse(&rules(&when, "m")).map(|_| ()).unwrap_err();
            let short: String = when.chars().take(20).collect();
            assert_eq!(errors.len(), 1, "{short}");
            let told = errors[0].to_string();
            assert!(told.len() < 8_192, "{short}: {} bytes", told.len());
            if bytes > 4_096 {
                let most = "4096 are the most";
                assert!(told.contains(most), "{short}: {told}");
            }
        }
    }
}

#[test]
fn conditions_as_deep_as_may_be_are_evaluated() {
    let reading = sample_reading(jiff::Timestamp::UNIX_EPOCH);
    let levels = 20;
    for when in [
        format!("value{} > 1.0", "+1.0".repeat(levels)),
        format!(
            "{}value > 0.0{}",
            "!(!(".repeat(levels / 4),
            "))".repeat(levels / 4)
        ),
        format!("size({}{}) > 0", "[".repeat(levels), "]".repeat(levels)),
        format!("{}true", "value>9.0?true:".repeat(levels)),
        // What is joined by `&&` and `||` is a tree and no chain.
        format!("value > 0.0{}", " && value > 0.0".repeat(250)),
        format!(
            "value > 9.0{} || value > 0.0",
            " || value > 9.0".repeat(250)
        ),
        format!(
            "[1, 2].exists(x, x > 1){}",
            " && [1].all(x, x > 0)".repeat(7)
        ),
    ] {
        let set = RuleSet::parse(&rules(&when, "m"))
            .unwrap_or_else(|errors| panic!("{when}: {errors:?}"));
        let condition = set.rules()[0].when.clone().unwrap();
        assert_eq!(
            condition.holds(Subject::Reading(&reading), None),
            Ok(Some(true)),
            "{when}"
        );
    }
}

#[test]
fn conditions_that_go_through_lists_within_lists_are_refused() {
    for when in [
        "[1, 2].exists(x, [3, 4].exists(y, x == y))".to_owned(),
        ["[1].all(x, x > 0)"; 9].join(" && "),
        format!("size([[1]]{}) > 0", ".map(x, x + x)".repeat(200)),
    ] {
        let errors = RuleSet::parse(&rules(&when, "m")).map(|_| ()).unwrap_err();
        let told = errors[0].to_string();
        let expected = told.contains("a list within a list") || told.contains("deep");
        assert!(expected, "{when}: {told}");
    }
}

#[test]
fn templates_that_nest_without_end_harm_nothing() {
    for bytes in [8_000, 1_000_000] {
        for message in [
            chain("{{ a", ".a", " }}", bytes),
            chain("{{ value", "+1", " }}", bytes),
            chain("{{ value", "|round", " }}", bytes),
            chain("{{ value", "~1", " }}", bytes),
            chain("{{ ", "not ", "value }}", bytes),
            chain("{{ ", "-", "value }}", bytes),
            chain("{{ ", "1 if value else ", "2 }}", bytes),
            chain("{{ value", " and 1", " }}", bytes),
            format!("{{{{ {} }}}}", nest("(", "value", ")", bytes - 6)),
            format!("{{{{ {} }}}}", nest("[", "value", "]", bytes - 6)),
            nest("{% if value %}", "x", "{% endif %}", bytes),
            chain("", "{% if value %}", "", bytes),
            chain("{% if value %}", "{% elif value %}", "{% endif %}", bytes),
            nest("{% for x in [1,2] %}", "x", "{% endfor %}", bytes),
        ] {
            let short: String = message.chars().take(20).collect();
            let parsed = RuleSet::parse(&rules("value > 1", &message));
            if let Err(errors) = &parsed {
                assert!(
                    errors[0].message.contains("template"),
                    "{short}: {errors:?}"
                );
            }
            assert!(bytes < 8_192 || parsed.is_err(), "{short}");
        }
    }
}

#[test]
fn yaml_that_nests_without_end_is_refused() {
    for text in [
        "[".repeat(100_000),
        "- ".repeat(100_000),
        "{a: ".repeat(100_000),
        "? ".repeat(100_000),
    ] {
        assert!(RuleSet::parse(&text).is_err());
        assert!(RuleSet::parse(&format!("groups: {text}")).is_err());
    }
}
