//! Settings that cannot be used, and what is said about them.

use std::fmt::Write as _;

use crate::child::settings;
use crate::settings::file;

#[test]
fn what_cannot_be_used_is_said_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let tested = |text: &str| ["--config".to_owned(), file(&folder, "fleet.toml", text)];
    let mut lines = String::new();
    let mut check = |shown: &str, args: &[&str], variables: &[(&str, &str)]| {
        let ended = settings(args, variables);
        assert_eq!(ended.code, Some(2), "{shown}: {ended:?}");
        assert_eq!(
            ended.stderr.matches('\n').count(),
            1,
            "{shown}: {}",
            ended.stderr
        );
        assert!(
            !ended.stderr.contains("hidden"),
            "{shown}: {}",
            ended.stderr
        );
        let line = ended.stderr.replace(folder.path().to_str().unwrap(), "DIR");
        write!(lines, "{shown}\n  {line}").unwrap();
    };
    for args in [
        &["--drain-timeout", "20"][..],
        &["--drain-timeout"],
        &["--drain-timeot=1s"],
        &["--log=inof"],
        &["--log-format=xml"],
        &["--admin-addr=localhost"],
        &["extra\nargument"],
        &["--mqtt-url", "broker"],
        &["--mqtt-url", "tcp://broker"],
        &["--mqtt-url", "ssl://u:hidden@broker"],
        &["--mqtt-url", "mqtt://broker/path"],
        &["--mqtt-url", "mqtt://"],
        &["--mqtt-url", "mqtt://broker:99999"],
        &["--mqtt-keep-alive=500ms"],
        &["--mqtt-keep-alive=1d"],
        &["--mqtt-session-expiry=50000d"],
        &["--mqtt-connect-timeout=0"],
        &["--mqtt-receive-maximum=0"],
        &["--mqtt-receive-maximum=65536"],
        &["--mqtt-clean-start=perhaps"],
        &["--mqtt-client-id", "a\nb"],
        &["--mqtt-username=a", "--mqtt-url=mqtt://u:hidden@b"],
        &["--mqtt-password=hidden", "--mqtt-password-file=f"],
        &["--mqtt-password-file=/nowhere/password"],
        &["--mqtt-password-file=/dev/null"],
        &["--mqtt-ca-file=ca.pem"],
        &["--mqtt-url=mqtts://b", "--mqtt-cert-file=cert.pem"],
        &["--mqtt-url=u:hidden@broker"],
        &["--mqtt-url=mqtt://u:hidden"],
        &["--mqtt-url=mqtt://u:hidden/"],
        &["--database-url=mysql://u:hidden@h:3306/d?password=hidden"],
        &["--config=/nowhere/fleet.toml"],
        &["--config"],
    ] {
        check(&args.join(" ").replace('\n', "\\n"), args, &[]);
    }
    for (name, value) in [
        ("DRAIN_TIMEOUT", "soon"),
        ("MQTT_URL", "http://u:hidden@b"),
        ("FLEET_CONFIG", "/nowhere/fleet.toml"),
    ] {
        check(&format!("{name}={value}"), &[], &[(name, value)]);
    }
    for text in [
        "drain-timeout = '20'",
        "drain-timeot = '20s'",
        "group = 'a'",
        "rabbits = 3",
        "config = 'other.toml'",
        "log = 'info'\ndrain-timeout = soon",
        "log = ['info', 'warn']",
        "filter = [['a']]",
        "mqtt-url = 'tcp://u:hidden@b'",
        "mqtt-url = 'mqtt://a'\nmqtt_url = 'mqtt://b'",
        "[ingset]\nlog = 'info'",
        "[ingest]\nloog = 'info'",
        "[ingest.up]\nlog = 'info'",
    ] {
        let args = tested(text);
        check(&text.replace('\n', "\\n"), &[&args[0], &args[1]], &[]);
    }
    insta::assert_snapshot!(lines);
}
