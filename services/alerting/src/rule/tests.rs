use super::*;

fn errors(text: &str) -> Vec<String> {
    let errors = RuleSet::parse(text).unwrap_err();
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn the_shipped_rules_are_rules() {
    let rules = RuleSet::parse(DEFAULT_RULES).unwrap();
    let names: Vec<&str> = rules
        .rules()
        .iter()
        .map(|rule| rule.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "TemperatureHigh",
            "TemperatureLow",
            "MotionDetected",
            "DoorOpened",
            "DoorLeftOpen",
            "DeviceOffline",
            "BatteryLow"
        ]
    );
    assert_eq!(rules.rules()[4].policy.hold, Duration::from_secs(300));
    assert_eq!(rules.rules()[5].topic, Topic::Status);
    // The defaults that a rule without a message gets.
    Message::default_for(Topic::Readings);
    Message::default_for(Topic::Status);
}

#[test]
fn the_automations_are_rules() {
    let text = include_str!("../../rules/automations.yaml");
    let rules = RuleSet::parse(text).unwrap();
    let actions = |name: &str| {
        let rule = rules.id_of(name).and_then(|id| rules.rule(id)).unwrap();
        let reading = crate::condition::sample_reading(jiff::Timestamp::UNIX_EPOCH);
        let facts = Facts::of(Subject::Reading(&reading));
        let render = |action: &Action| action.render(&rule.name, &facts).unwrap().unwrap();
        rule.publish.iter().map(render).collect::<Vec<_>>()
    };
    let lights = "lights/site-1/room-1/set".to_owned();
    assert_eq!(
        actions("LightsFollowMotion"),
        [
            (lights.clone(), "on".to_owned()),
            (lights, "off".to_owned())
        ]
    );
    for name in ["RecordMotion", "DoorAccess"] {
        for (topic, payload) in actions(name) {
            let payload: serde_json::Value = serde_json::from_str(&payload).unwrap();
            assert!(payload.is_object(), "{topic}: {payload}");
        }
    }
}

#[test]
fn a_quote_in_a_field_breaks_no_json() {
    let message = Message::compile(
        "[{{ location | tojson }}, {{ value | tojson }}]",
        Topic::Readings,
    )
    .unwrap();
    let mut reading = crate::condition::sample_reading(jiff::Timestamp::UNIX_EPOCH);
    reading.location = "a\"b".to_owned();
    let text = message.render("r", "firing", &Facts::of(Subject::Reading(&reading)));
    assert_eq!(text.unwrap(), "[\"a\\\"b\", 1.0]");
}

#[test]
fn errors_name_line_and_column() {
    let rule = |body: &str| format!("groups:\n  - name: g\n    rules:\n      - {body}\n");
    for (body, place, said) in [
        (
            "{ alert: A, when: value >, severity: info }",
            "line 4",
            "not CEL",
        ),
        (
            "alert: A\n        when: \"valu > 3\"\n        severity: info",
            "line 5, column 16",
            "no variable `valu`",
        ),
        (
            "alert: A\n        when: |\n          value > 3 &&\n          valu < 5\n        severity: info",
            "line 7, column 11",
            "no variable `valu`",
        ),
        (
            "alert: A\n        when: value > 3\n        severity: urgent",
            "line 6, column 19",
            "urgent",
        ),
        (
            "alert: A\n        when: value > 3\n        severity: info\n        colour: red",
            "line 7, column 9",
            "colour",
        ),
        (
            "alert: A\n        when: value > 3\n        for: soon\n        severity: info",
            "line 6, column 14",
            "`soon`",
        ),
        (
            "alert: A/B\n        when: value > 3\n        severity: info",
            "line 4, column 16",
            "no name of a rule",
        ),
        (
            "alert: A\n        topic: alerts/#\n        when: value > 3\n        severity: info",
            "line 5, column 16",
            "not at `alerts/#`",
        ),
        (
            "alert: A\n        severity: info",
            "line 4",
            "`when` or `absent`",
        ),
        (
            "alert: A\n        when: value > 3\n        message: \"{{ sensor }}\"\n        severity: info",
            "line 6",
            "template",
        ),
        (
            "alert: A\n        when: value > 3\n        severity: info\n        publish: [{ topic: sensors/x/light, payload: on }]",
            "line 7, column 28",
            "must not publish",
        ),
    ] {
        let errors = errors(&rule(body));
        assert_eq!(errors.len(), 1, "{body}: {errors:?}");
        assert!(errors[0].starts_with(place), "{body}: {errors:?}");
        assert!(errors[0].contains(said), "{body}: {errors:?}");
    }
}

#[test]
fn every_wrong_rule_is_named_and_names_are_unique() {
    let text = "groups:\n  - name: g\n    rules:\n\
        \x20     - { alert: A, when: value > 1, severity: info }\n\
        \x20     - { alert: A, when: value > 2, severity: info }\n\
        \x20     - { alert: B, when: val > 2, severity: info }\n";
    let errors = errors(text);
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0].contains("another rule `A`"), "{errors:?}");
}

#[test]
fn a_topic_finds_the_rules_that_look_at_it() {
    let text = "groups:\n  - name: g\n    rules:\n\
        \x20     - { alert: Any, when: value > 1, severity: info }\n\
        \x20     - { alert: Hot, type: temperature, when: value > 1, severity: info }\n\
        \x20     - { alert: Lab, topic: sensors/lab/+, when: value > 1, severity: info }\n\
        \x20     - { alert: Off, topic: devices/+/status, when: '!online', severity: info }\n";
    let rules = RuleSet::parse(text).unwrap();
    let mut found = Vec::new();
    let mut names = |topic: &str| {
        rules.matching(topic, &mut found);
        let name = |id: &u32| rules.rule(*id).unwrap().name.clone();
        found.iter().map(name).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names("sensors/lab/temperature"), "Any Hot Lab");
    assert_eq!(names("sensors/a/b/temperature"), "Any Hot");
    assert_eq!(names("sensors/lab/door"), "Any Lab");
    assert_eq!(names("devices/d1/status"), "Off");
    assert_eq!(names("devices/d1/telemetry"), "");
}

#[test]
fn a_rendered_topic_cannot_reach_the_rules() {
    for (topic, may) in [
        ("lights/room-1/set", true),
        ("devices/lamp-1/commands/on", true),
        ("devices/lamp-1/status", false),
        ("sensors/a/b", false),
        ("alerts/info/x", false),
        ("fleet/alerting/state/r/s", false),
        ("$SYS/x", false),
        ("lights/+/set", false),
        ("", false),
    ] {
        assert_eq!(file::may_publish(topic), may, "{topic}");
    }
}

/// `UPDATE_SCHEMAS=1 cargo test -p alerting --lib schema` writes it anew.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a switch of this test, not a setting"
)]
fn the_schema_of_the_file_is_kept() {
    let path =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/schemas/rules.json");
    let schema = schemars::schema_for!(RulesFile);
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        std::fs::write(&path, text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap_or_default();
    assert_eq!(
        kept,
        schema.to_value(),
        "{} is not the schema of the rules; run this test with UPDATE_SCHEMAS=1 and commit it",
        path.display()
    );
}

#[test]
fn more_rules_labels_or_bytes_than_fit_are_refused() {
    let rule = |index: usize, labels: &str| {
        format!(
            "      - alert: R{index}\n        when: value > 1\n        severity: info\n{labels}"
        )
    };
    let file = |rules: &str| format!("groups:\n  - name: g\n    rules:\n{rules}");
    let refused = |text: &str| {
        let errors = RuleSet::parse(text).unwrap_err();
        errors[0].message.clone()
    };
    let many: String = (0..100_001).map(|index| rule(index, "")).collect();
    let error = refused(&file(&many));
    assert!(error.contains("at most 100000"), "{error}");
    let labels: String = (0..33)
        .map(|index| format!("          l{index}: x\n"))
        .collect();
    let error = refused(&file(&rule(0, &format!("        labels:\n{labels}"))));
    assert!(error.contains("at most 32"), "{error}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rules.yaml");
    std::fs::write(&path, "#".repeat(64 * 1024 * 1024 + 1)).unwrap();
    let errors = RuleSet::load(&path).unwrap_err();
    assert!(
        errors[0].message.contains("larger than"),
        "{}",
        errors[0].message
    );
}

#[test]
fn of_a_thousand_errors_a_hundred_are_told() {
    let rule = "      - { alert: A, when: nosuch > 1, severity: info }\n";
    let text = format!("groups:\n  - name: g\n    rules:\n{}", rule.repeat(20_000));
    let errors = RuleSet::parse(&text).unwrap_err();
    assert!(errors.len() <= 102, "{}", errors.len());
    assert!(
        errors[0].message.contains("no variable `nosuch`"),
        "{errors:?}"
    );
    assert!(errors.last().unwrap().message.contains("may be more"));
}
