use fleet_shared::topic::{self, FleetTopic, Template, TopicError, templates};

#[test]
fn template_formats_and_extracts() {
    let template = Template::parse("sensors/{location}/{type}").unwrap();
    let placeholders: Vec<&str> = template.placeholders().collect();
    assert_eq!(placeholders, ["location", "type"]);
    let values = [
        ("type", "co2"),
        ("location", "site-1/floor-2/room-7"),
        ("unused", "x"),
    ];
    let topic = template.format(&values).unwrap();
    assert_eq!(topic, "sensors/site-1/floor-2/room-7/co2");
    let found = template.extract(&topic).unwrap();
    assert_eq!(found.get("location"), Some("site-1/floor-2/room-7"));
    assert_eq!(found.get("type"), Some("co2"));
    assert_eq!(found.get("unused"), None);
    assert_eq!(found.iter().count(), 2);
    for other in [
        "sensors/co2",
        "sensors//co2",
        "sensors/hall/",
        "sensor/hall/co2",
        "sensors",
    ] {
        assert_eq!(template.extract(other), None, "{other}");
    }
}

#[test]
fn template_with_a_location_in_the_middle_takes_what_is_left() {
    let template = Template::parse("{site}/{location}/x/{type}").unwrap();
    let found = template.extract("s/a/x/b/x/t").unwrap();
    assert_eq!(found.get("site"), Some("s"));
    assert_eq!(found.get("location"), Some("a/x/b"));
    assert_eq!(found.get("type"), Some("t"));
    assert_eq!(template.extract("s/x/t"), None);
    let last = Template::parse("at/{location}").unwrap();
    assert_eq!(last.extract("at/a/b").unwrap().get("location"), Some("a/b"));
    assert_eq!(last.extract("at"), None);
}

#[test]
fn template_refuses_what_it_cannot_read_back() {
    for text in ["a/{}", "a/{b", "a/b}", "a/x{b}", "a/{b}{c}", "a/{b c}"] {
        assert!(
            matches!(
                Template::parse(text),
                Err(TopicError::BadPlaceholder { .. })
            ),
            "{text}"
        );
    }
    assert!(matches!(
        Template::parse("{a}/{b}/{a}"),
        Err(TopicError::RepeatedPlaceholder { .. })
    ));
    assert!(matches!(
        Template::parse("a/+"),
        Err(TopicError::WildcardInName { .. })
    ));
}

#[test]
fn template_refuses_values_that_would_change_the_topic() {
    let template = Template::parse(templates::SENSOR).unwrap();
    let missing = template.format(&[("type", "co2")]).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "no value for `{location}` of the template `sensors/{location}/{type}`"
    );
    for (location, kind) in [
        ("", "a"),
        ("a", ""),
        ("a", "b/c"),
        ("+", "a"),
        ("a", "#"),
        ("\0", "a"),
    ] {
        assert!(
            matches!(
                topic::sensor(location, kind),
                Err(TopicError::BadValue { .. })
            ),
            "{location:?} {kind:?}"
        );
    }
    let message = topic::device_status("a/b").unwrap_err().to_string();
    assert_eq!(
        message,
        "`a/b` cannot be the device_id in `devices/{device_id}/status`: \
         it must be one level, without `/`"
    );
    assert!(matches!(
        topic::sensor(&"x".repeat(65_535), "a"),
        Err(TopicError::TooLong { .. })
    ));
}

#[test]
fn every_topic_of_the_fleet_is_built_and_taken_apart() {
    let cases = [
        (
            topic::sensor("a/b", "co2"),
            "sensors/a/b/co2",
            templates::SENSOR,
        ),
        (
            topic::device_status("d"),
            "devices/d/status",
            templates::DEVICE_STATUS,
        ),
        (
            topic::device_telemetry("d"),
            "devices/d/telemetry",
            templates::DEVICE_TELEMETRY,
        ),
        (
            topic::device_config("d"),
            "devices/d/config",
            templates::DEVICE_CONFIG,
        ),
        (
            topic::device_config_reported("d"),
            "devices/d/config/reported",
            templates::DEVICE_CONFIG_REPORTED,
        ),
        (
            topic::device_command("d", "ping"),
            "devices/d/commands/ping",
            templates::DEVICE_COMMAND,
        ),
        (
            topic::response("c", "1"),
            "responses/c/1",
            templates::RESPONSE,
        ),
        (
            topic::alert("critical", "s"),
            "alerts/critical/s",
            templates::ALERT,
        ),
        (
            topic::alerting_state("r", "s"),
            "fleet/alerting/state/r/s",
            templates::ALERTING_STATE,
        ),
        (
            topic::alerting_request("backtest"),
            "fleet/alerting/requests/backtest",
            templates::ALERTING_REQUEST,
        ),
        (
            topic::dead_letter("ingest"),
            "fleet/dead-letter/ingest",
            templates::DEAD_LETTER,
        ),
        (
            topic::service_status("ingest", "host-1"),
            "fleet/services/ingest/host-1/status",
            templates::SERVICE_STATUS,
        ),
    ];
    for (built, expected, template) in cases {
        let built = built.unwrap();
        assert_eq!(built, expected);
        let parsed = FleetTopic::parse(&built).unwrap();
        assert_eq!(parsed.template(), template);
        assert!(Template::parse(template).unwrap().extract(&built).is_some());
    }
    assert_eq!(
        FleetTopic::parse("sensors/site-1/room-7/temperature"),
        Some(FleetTopic::Sensor {
            location: "site-1/room-7",
            kind: "temperature"
        })
    );
    assert_eq!(
        FleetTopic::parse("devices/d-1/commands/set-interval"),
        Some(FleetTopic::DeviceCommand {
            device_id: "d-1",
            command: "set-interval"
        })
    );
}

#[test]
fn what_brokers_take_for_malformed_is_no_topic_of_the_fleet() {
    for name in [
        "a\u{1}",
        "\u{7f}",
        "\u{85}x",
        "\u{fdd0}",
        "\u{ffff}",
        "\u{1fffe}",
    ] {
        let error = topic::device_command("sensor-001", name).unwrap_err();
        assert!(
            matches!(error, TopicError::Unprintable { .. }),
            "{name:?}: {error}"
        );
    }
    assert!(topic::device_command("gerät-1", "öffnen \u{1f6aa}").is_ok());
}
