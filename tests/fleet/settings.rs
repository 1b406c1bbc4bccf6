//! Settings that cannot be used are said in one line, and nothing else is.

use std::time::Duration;

use fleet_tests::Program;

#[tokio::test]
async fn what_is_wrong_with_a_setting_is_the_only_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "no: certificate").unwrap();
    let file = file.display().to_string();
    let tls = ["--mqtt-url", "mqtts://127.0.0.1"];
    for (service, args, expected) in [
        (
            "ingest",
            &["--filter", "a/#/b"][..],
            "--filter (INGEST_FILTER) is `a/#/b`",
        ),
        (
            "ingest",
            &["--group", "a/b"],
            "--group (INGEST_GROUP) is `a/b`",
        ),
        (
            "ingest",
            &["--mapping", "/no/such"],
            "--mapping is `/no/such`",
        ),
        (
            "ingest",
            &["--mqtt-password-file", "/no/such"],
            "MQTT_PASSWORD_FILE",
        ),
        (
            "ingest",
            &[tls[0], tls[1], "--mqtt-ca-file", "/no/such"],
            "MQTT_CA_FILE is `/no/such`",
        ),
        (
            "alerting",
            &[tls[0], tls[1], "--mqtt-ca-file", &file],
            "MQTT_CA_FILE is `",
        ),
        (
            "alerting",
            &["--rules", "/no/such"],
            "--rules (ALERTING_RULES) is `/no/such`",
        ),
        (
            "alerting",
            &["--rules", &file],
            "--rules (ALERTING_RULES) is `",
        ),
        (
            "alerting",
            &["--group", "a/b"],
            "--group (ALERTING_GROUP) is `a/b`",
        ),
        (
            "status-tracker",
            &["--api-token-file", "/no/such"],
            "API_TOKEN_FILE",
        ),
        (
            "status-tracker",
            &[
                tls[0],
                tls[1],
                "--mqtt-cert-file",
                "/no",
                "--mqtt-key-file",
                "/no",
            ],
            "MQTT_CERT_FILE is `/no`",
        ),
        ("device-sim", &["--chaos", "/no/such"], "--chaos"),
        ("device-sim", &["--replay", "/no/such"], "--replay"),
    ] {
        let program = Program::service(service).env("DATABASE_URL", "sqlite://fleet.db");
        let mut process = args.iter().fold(program, |it, arg| it.arg(arg)).start();
        let code = process.exit(Duration::from_secs(30)).await;
        let told = process.stderr();
        assert_eq!(code, 2, "{service} {args:?}: {told}");
        assert_eq!(
            told.trim_end().lines().count(),
            1,
            "{service} {args:?}: {told}"
        );
        assert!(
            told.starts_with("error: ") && told.contains(expected),
            "{service}: {told}"
        );
    }
}
