use super::*;
use fleet_store::{NewAlert, StoredAlert};

fn errors(text: &str) -> Vec<String> {
    let errors = Routes::parse(text).unwrap_err();
    errors.iter().map(ToString::to_string).collect()
}

fn receivers(routes: &Routes, labels: &[(&str, &str)]) -> Vec<String> {
    let pairs = labels
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let ends = routes.explain(&pairs.collect());
    ends.into_iter().map(|(_, receiver, _)| receiver).collect()
}

const TREE: &str = "
receivers: [{ name: all }, { name: oncall }, { name: hall }, { name: audit }]
route:
  receiver: all
  group_by: [alertname, location]
  routes:
    - { receiver: audit, matchers: ['severity=~\"critical|warning\"'], continue: true }
    - receiver: oncall
      matchers: ['severity=critical']
      group_wait: 1s
      routes:
        - { receiver: hall, matchers: ['location=~\"hall/.*\"', 'team!=night'] }
";

#[test]
fn alerts_end_where_alertmanager_would_take_them() {
    let routes = Routes::parse(TREE).unwrap();
    let to = |labels: &[(&str, &str)]| receivers(&routes, labels);
    assert_eq!(to(&[("severity", "info")]), ["all"]);
    assert_eq!(to(&[("severity", "warning")]), ["audit"]);
    assert_eq!(to(&[("severity", "critical")]), ["audit", "oncall"]);
    let hall = [("severity", "critical"), ("location", "hall/1")];
    assert_eq!(to(&hall), ["audit", "hall"]);
    let night = [hall[0], hall[1], ("team", "night")];
    assert_eq!(to(&night), ["audit", "oncall"]);
    assert_eq!(
        to(&[hall[0], ("location", "a hall/1")]),
        ["audit", "oncall"]
    );
}

#[test]
fn a_node_has_from_its_parent_what_it_leaves_out() {
    let routes = Routes::parse(TREE).unwrap();
    let hall = routes.node(3);
    assert_eq!(
        hall.path,
        "{}/{severity=\"critical\"}/{location=~\"hall/.*\",team!=\"night\"}"
    );
    assert_eq!(hall.group_wait, Duration::from_secs(1));
    assert_eq!(hall.repeat_interval, Duration::from_secs(4 * 3_600));
    let names = vec!["location".to_owned(), "rule".to_owned()];
    assert_eq!(hall.group_by, GroupBy::Labels(names));
}

#[test]
fn without_a_tree_the_kinds_of_receivers_decide() {
    let none = Routes::parse(DEFAULT_ROUTES).unwrap();
    assert_eq!(none.degraded, ["critical", "warning"]);
    let some = Routes::parse(
        "receivers:\n  - name: ops\n    email_configs: [{ to: [a@b.c], from: d@b.c, smarthost: 'm:25' }]\n    \
         sms_configs: [{ account_sid: A, auth_token_file: /t, from: '+491', to: ['+49301234'] }]\n",
    )
    .unwrap();
    assert_eq!(some.degraded, Vec::<&str>::new());
    let channels = |severity| {
        let labels = Labels::from([("severity", severity)]);
        some.explain(&labels).remove(0).2
    };
    assert_eq!(channels("critical"), ["ops/sms/0"]);
    assert_eq!(channels("warning"), ["ops/email/0"]);
    assert_eq!(channels("info"), ["log/log/0"]);
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let text = "receivers:
  - name: 'a b'
  - name: ops
    webhook_configs: [{ url: 'ftp://x', key_file: /k }]
    sms_configs: [{ account_sid: A, auth_token_file: /t, from: '+1', to: ['0123'] }]
    text: '{{ nobody.knows }}'
route:
  receiver: nobody
  group_wait: soon
  routes:
    - matchers: ['severity', 'location=~\"[\"']
      mute_time_intervals: [night]
time_intervals:
  - name: weekend
    time_intervals: [{ weekdays: [caturday], times: [{ start_time: '9', end_time: '08:00' }], location: Mars/Base }]
";
    insta::assert_snapshot!(errors(text).join("\n"));
    assert_eq!(errors("receivers: 1").len(), 1);
    assert!(errors("receivers: []\nroutes: {}\n")[0].starts_with("line 2, column 1: "));
}

#[test]
fn secrets_that_cannot_be_read_are_named() {
    let text = "receivers: [{ name: s, slack_configs: [{ url_file: /nowhere/slack }] }]";
    let missing = Routes::parse(text).unwrap().missing_secrets();
    assert_eq!(missing.len(), 1);
    assert!(missing[0].starts_with("receiver `s`: `url_file` names /nowhere/slack"));
}

#[test]
fn the_example_that_ships_compiles() {
    let text = include_str!("../../routes/example.yaml");
    let routes = Routes::parse(text).unwrap_or_else(|errors| panic!("{errors:?}"));
    assert!(routes.channels().len() > 7);
}

fn interval(times: &str) -> TimeInterval {
    let text = format!(
        "receivers: []\nroute: {{ receiver: log, mute_time_intervals: [x] }}\n\
         time_intervals: [{{ name: x, time_intervals: [{times}] }}]\n"
    );
    let routes = Routes::parse(&text).unwrap_or_else(|errors| panic!("{errors:?}"));
    routes.node(0).mute[0].clone()
}

#[test]
fn times_are_of_the_zone_they_are_in() {
    let contains = |times: &str, at: &str| interval(times).contains(at.parse().unwrap());
    let morning =
        "{ times: [{ start_time: '06:00', end_time: '08:30' }], location: Europe/Berlin }";
    assert!(contains(morning, "2026-01-15T05:00:00Z"));
    assert!(!contains(morning, "2026-07-15T06:30:00Z"));
    assert!(contains(morning, "2026-07-15T06:29:59Z"));
    let workdays = "{ weekdays: ['monday:friday'] }";
    assert!(contains(workdays, "2026-11-25T12:00:00Z"));
    assert!(!contains(workdays, "2026-11-28T12:00:00Z"));
    let month_end = "{ days_of_month: ['-2:-1'], months: [february, '6:7'], years: ['2026'] }";
    assert!(contains(month_end, "2026-02-27T00:00:00Z"));
    assert!(!contains(month_end, "2026-02-26T00:00:00Z"));
    assert!(!contains(month_end, "2027-06-30T00:00:00Z"));
}

#[test]
fn labels_of_the_fleet_cannot_be_taken_by_a_rule() {
    let stored = StoredAlert {
        alert: NewAlert {
            alert_id: "a".to_owned(),
            rule: "High".to_owned(),
            severity: "info".to_owned(),
            sensor_id: "s".to_owned(),
            message: String::new(),
            fired_at: Timestamp::UNIX_EPOCH,
            metadata:
                r#"{"label.severity":"critical","label.team":"x","location":"hall","value":"1"}"#
                    .to_owned(),
        },
        resolved_at: None,
        acknowledged_at: None,
        acknowledged_by: None,
    };
    let labels = Labels::of(&stored);
    let all: Vec<(&str, &str)> = labels.iter().collect();
    let expected = [
        ("location", "hall"),
        ("rule", "High"),
        ("sensor_id", "s"),
        ("severity", "info"),
        ("team", "x"),
    ];
    assert_eq!(all, expected);
    let holds = |text: &str| CompiledMatcher::parse(text).unwrap().holds(&labels);
    assert!(holds("alertname=High") && holds("sensor = \"s\"") && holds("missing=\"\""));
    assert!(holds(r#"location=~"ha.+""#) && !holds(r#"location=~"ha""#));
}

/// `UPDATE_SCHEMAS=1 cargo test -p alerting --lib schema` writes it anew.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a switch of this test, not a setting"
)]
fn the_schema_of_the_file_is_kept() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/schemas/routes.json");
    let schema = schemars::schema_for!(RoutesFile);
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        std::fs::write(&path, text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap_or_default();
    assert_eq!(
        kept,
        schema.to_value(),
        "{} is not the schema of the routes; run this test with UPDATE_SCHEMAS=1 and commit it",
        path.display()
    );
}
