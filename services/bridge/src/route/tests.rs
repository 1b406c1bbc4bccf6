use super::*;

fn routes(text: &str) -> Routes {
    Routes::parse(text, "g").unwrap()
}

fn errors(text: &str) -> Vec<String> {
    Routes::parse(text, "g")
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn routes_that_ship_are_those_of_the_manual() {
    let routes = Routes::parse(DEFAULT_ROUTES, "bridge").unwrap();
    let shown: Vec<_> = routes
        .all()
        .iter()
        .map(|route| {
            let create = route.create.unwrap();
            (
                route.filter.as_str(),
                route.fixed_topic().unwrap(),
                create.compact,
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("$share/bridge/sensors/#", "sensors.readings", false),
            ("$share/bridge/devices/+/status", "devices.status", true),
            ("$share/bridge/alerts/#", "alerts", false),
        ]
    );
    assert_eq!(routes.commands().unwrap().topic, "devices.commands");
}

#[test]
fn message_takes_the_first_route_that_matches() {
    let routes = routes(
        "routes:\n\
         - {filter: sensors/+/door, topic: doors}\n\
         - {filter: sensors/#, topic: sensors}\n\
         - {filter: $share/other/sensors/hall/#, topic: hall}\n\
         - {filter: devices/+/status, shared: false, topic: 'devices.{2}'}\n",
    );
    let topic = |topic: &str| routes.find(topic).and_then(Route::fixed_topic);
    assert_eq!(topic("sensors/hall/door"), Some("doors"));
    assert_eq!(topic("sensors/hall/light"), Some("sensors"));
    assert_eq!(topic("alerts/critical/x"), None);
    let filters: Vec<_> = routes.all().iter().map(|r| r.filter.as_str()).collect();
    assert_eq!(
        filters,
        [
            "$share/g/sensors/+/door",
            "$share/g/sensors/#",
            "$share/other/sensors/hall/#",
            "devices/+/status"
        ]
    );
}

#[test]
fn what_is_wrong_is_said_with_line_and_column() {
    let text = "routes:\n\
        \x20 - filter: sensors/#/x\n\
        \x20   topic: a\n\
        \x20 - filter: sensors/+\n\
        \x20   topic: no spaces\n\
        \x20 - filter: a\n\
        \x20   topic: '{1}'\n\
        \x20   create: true\n\
        \x20 - filter: b\n\
        \x20   topic: b\n\
        \x20   key: '{nothing}'\n\
        \x20 - filter: c\n\
        \x20   topic: c\n\
        \x20   headers: {mqtt.topic: x}\n\
        \x20 - filter: d\n\
        \x20   topic: d\n\
        \x20   partitions: 0\n\
        \x20 - filter: e\n\
        \x20   topic: e\n\
        \x20   retention: 0s\n\
        \x20 - filter: fleet/#\n\
        \x20   topic: f\n\
        \x20 - {filter: g, topic: g}\n\
        \x20 - {filter: g, topic: h}\n\
        \x20 - {filter: h, topic: '{/kind}'}\n\
        \x20 - {filter: $share/x/i, shared: false, topic: i}\n";
    insta::assert_snapshot!(errors(text).join("\n"));
}

#[test]
fn what_is_no_such_file_is_said_with_line_and_column() {
    let texts = [
        "routes: 3",
        "routes:\n  - filter: a\n    topic: b\n    colour: red\n",
        "routes:\n  - filter: a\n",
        "routes: [\n",
        "commands: {topic: a, responses: a, dead_letters: b}",
    ];
    let shown: Vec<String> = texts.iter().flat_map(|text| errors(text)).collect();
    insta::assert_snapshot!(shown.join("\n"));
}

/// `UPDATE_SCHEMAS=1 cargo test -p bridge --lib schema` writes it anew.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a switch of this test, not a setting"
)]
fn the_schema_of_the_file_is_kept() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs/schemas/bridge-routes.json");
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
