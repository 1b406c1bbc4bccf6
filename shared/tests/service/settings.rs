//! Flags, variables, files and defaults.

use std::path::PathBuf;

use crate::child::{Ended, settings};

pub(crate) fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path: PathBuf = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The value of one field in the printed settings.
fn field(ended: &Ended, name: &str) -> String {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let prefix = format!("{name}: ");
    let line = ended
        .stdout
        .lines()
        .map(str::trim)
        .find_map(|line| line.strip_prefix(&prefix));
    line.unwrap_or_else(|| panic!("no {name} in {}", ended.stdout))
        .trim_end_matches(',')
        .to_owned()
}

#[test]
fn flag_is_above_variable_above_file_above_default() {
    let folder = tempfile::tempdir().unwrap();
    let config = file(
        &folder,
        "fleet.toml",
        "drain-timeout = '3s'\n[ingest]\nlog = 'warn'\n",
    );
    let flag = ["--drain-timeout", "1s"];
    let variable = ("DRAIN_TIMEOUT", "2s");
    let from_file = ("FLEET_CONFIG", config.as_str());
    for (args, variables, expected) in [
        (&flag[..], &[variable, from_file][..], "1s"),
        (&[], &[variable, from_file], "2s"),
        (&[], &[from_file], "3s"),
        (&[], &[], "20s"),
    ] {
        assert_eq!(field(&settings(args, variables), "drain_timeout"), expected);
    }
}

#[test]
fn file_is_found_by_flag_before_variable() {
    let folder = tempfile::tempdir().unwrap();
    let one = file(&folder, "1.toml", "log = 'warn'");
    let two = file(&folder, "2.toml", "log = 'debug'");
    let joined = format!("--config={one}");
    for args in [&["--config", &one][..], &[&joined]] {
        assert_eq!(
            field(&settings(args, &[("FLEET_CONFIG", &two)]), "log"),
            "\"warn\""
        );
    }
    assert_eq!(
        field(&settings(&[], &[("FLEET_CONFIG", &two)]), "log"),
        "\"debug\""
    );
    assert_eq!(
        field(&settings(&[], &[("FLEET_CONFIG", "")]), "log"),
        "\"info\""
    );
}

#[test]
fn one_file_serves_every_program() {
    let folder = tempfile::tempdir().unwrap();
    let config = file(
        &folder,
        "fleet.toml",
        "mqtt_url = 'mqtt://broker'\nlog = 'warn'\nmqtt-clean-start = true\nmqtt-receive-maximum = 500\n\
         [ingest]\nfilter = ['a/#', 'b/#']\nlog = 'error'\n\
         [alerting]\nrules = 'rules.yaml'\n[device-sim]\ndevices = 10\n",
    );
    let ended = settings(&["--config", &config], &[]);
    assert_eq!(field(&ended, "log"), "\"error\"");
    assert_eq!(field(&ended, "host"), "\"broker\"");
    assert_eq!(field(&ended, "mqtt_clean_start"), "true");
    assert_eq!(field(&ended, "receive_maximum"), "500");
    assert!(
        ended.stdout.contains("\"a/#\",\n        \"b/#\""),
        "{}",
        ended.stdout
    );
}

#[test]
fn defaults_are_the_contract_s() {
    let ended = settings(&[], &[]);
    for (name, value) in [
        ("client_id", "\"ingest-host-1\""),
        ("host", "\"localhost\""),
        ("port", "1883"),
        ("tls", "false"),
        ("keep_alive", "60s"),
        ("connect_timeout", "30s"),
        ("ping_timeout", "10s"),
        ("max", "60s"),
        ("session_expiry", "3600s"),
        ("clean_start", "false"),
        ("username", "None"),
        ("password", "None"),
        ("database_url", "sqlite://data/fleet.db"),
        ("drain_timeout", "20s"),
        ("log_format", "Auto"),
    ] {
        assert_eq!(field(&ended, name), value, "{name}");
    }
    assert!(ended.stdout.contains("0.0.0.0:9100"), "{}", ended.stdout);
}

#[test]
fn credentials_come_from_url_variable_or_file_and_are_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let password = file(&folder, "password", "hidden\n");
    let config = file(
        &folder,
        "fleet.toml",
        "mqtt-password = 'hidden'\ndatabase-url = 'postgres://u:hidden@h/d'",
    );
    for (args, variables) in [
        (&["--mqtt-url=mqtts://u:hidden@b"][..], &[][..]),
        (&[], &[("MQTT_USERNAME", "u"), ("MQTT_PASSWORD", "hidden")]),
        (
            &[
                "--mqtt-password-file",
                &password,
                "--database-url=postgres://u@h/d",
                "--database-password-file",
                &password,
            ],
            &[],
        ),
        (&["--config", &config], &[]),
    ] {
        let ended = settings(args, variables);
        assert!(ended.stdout.contains("REDACTED"), "{}", ended.stdout);
        assert!(!ended.stdout.contains("hidden"), "{}", ended.stdout);
        let help = settings(&[args, &["--help"]].concat(), variables);
        assert_eq!(help.code, Some(0));
        assert!(!help.stdout.contains("hidden"), "{}", help.stdout);
    }
}

#[test]
fn broker_url_decides_tls_and_port() {
    for (url, host, port, tls) in [
        ("mqtts://b", "\"b\"", "8883", "true"),
        ("mqtt://b:2883/", "\"b\"", "2883", "false"),
        ("mqtt://[::1]", "\"::1\"", "1883", "false"),
        ("mqtt://127.0.0.1:1", "\"127.0.0.1\"", "1", "false"),
        ("mqtt://us%40er:p%2fw@b", "\"b\"", "1883", "false"),
    ] {
        let ended = settings(&[], &[("MQTT_URL", url)]);
        assert_eq!(field(&ended, "host"), host, "{url}");
        assert_eq!(field(&ended, "port"), port, "{url}");
        assert_eq!(field(&ended, "tls"), tls, "{url}");
        if url.contains('@') {
            assert!(ended.stdout.contains("\"us@er\""), "{}", ended.stdout);
        }
    }
}

#[test]
fn empty_variable_is_not_set() {
    let names = [
        "MQTT_URL",
        "MQTT_CLIENT_ID",
        "MQTT_USERNAME",
        "MQTT_PASSWORD",
        "MQTT_CA_FILE",
        "MQTT_KEEP_ALIVE",
        "LOG",
        "LOG_FORMAT",
        "DATABASE_URL",
        "MQTT_RECEIVE_MAXIMUM",
    ];
    let ended = settings(&[], &names.map(|name| (name, "")));
    let unset = settings(&[], &[]);
    let options = |ended: &Ended| {
        ended
            .stdout
            .split_once("Options")
            .map(|(_, options)| options.to_owned())
    };
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(options(&ended), options(&unset));
    assert!(
        settings(&["-h"], &[("MQTT_CA_FILE", "")])
            .stdout
            .contains("[env: MQTT_CA_FILE]")
    );
}

#[test]
fn admin_server_can_be_off() {
    for variables in [[("ADMIN_ADDR", "off")], [("ADMIN_ADDR", "")]] {
        let ended = settings(&[], &variables);
        assert!(
            ended
                .stdout
                .contains("admin_addr: AdminAddr(\n            None"),
            "{ended:?}"
        );
    }
}

#[test]
fn help_fits_100_columns_and_names_variables_and_defaults() {
    for flag in ["--help", "-h"] {
        let help = settings(&[flag], &[("LOG", "debug")]);
        assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
        for line in help.stdout.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
        let words = help.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        for expected in [
            "[env: DRAIN_TIMEOUT]",
            "[default: 20s]",
            "[default: mqtt://localhost:1883]",
            "[env: MQTT_PASSWORD]",
        ] {
            assert!(
                words.contains(expected),
                "{expected} not in:\n{}",
                help.stdout
            );
        }
    }
    insta::assert_snapshot!(settings(&["-h"], &[]).stdout);
}

#[test]
fn version_is_answered() {
    let ended = settings(&["--version"], &[]);
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(0), concat!("ingest ", env!("CARGO_PKG_VERSION")))
    );
}
