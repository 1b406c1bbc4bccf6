//! The command line as scripts and people meet it.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::io::Write;
use std::process::{Command, Output, Stdio};

fn fleet(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fleet"))
        .env_remove("COLUMNS")
        // It would name a store where the arguments name another, or none.
        .env_remove("DATABASE_URL")
        .env_remove("FLEET_DATA_DIR")
        .args(arguments)
        .output()
        .unwrap()
}

fn help(arguments: &[&str]) -> String {
    let output = fleet(&[arguments, &["--help"]].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    for line in text.lines() {
        assert!(line.chars().count() <= 100, "wider than a terminal: {line}");
    }
    text
}

#[test]
fn help_teaches() {
    for arguments in [
        &[][..],
        &["up"],
        &["accounts"],
        &["certs"],
        &["verify"],
        &["match"],
        &["record"],
        &["replay"],
        &["doctor"],
        &["devices"],
        &["tail"],
        &["publish"],
        &["request"],
        &["alerts"],
        &["alerts", "list"],
        &["alerts", "show"],
        &["alerts", "explain"],
        &["alerts", "acknowledge"],
        &["alerts", "silence"],
        &["alerts", "silences"],
        &["alerts", "unsilence"],
        &["alerts", "routes"],
        &["probe"],
        &["dead-letters"],
        &["dead-letters", "list"],
        &["dead-letters", "replay"],
        &["rules"],
        &["rules", "check"],
        &["rules", "backtest"],
    ] {
        let name = format!("help_{}", arguments.join("_").replace('-', "_"));
        insta::assert_snapshot!(name.trim_end_matches('_'), help(arguments));
    }
}

#[test]
fn the_version_is_told() {
    let output = fleet(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        output.stdout,
        format!("fleet {}\n", env!("CARGO_PKG_VERSION")).as_bytes()
    );
}

#[test]
fn wrong_usage_is_one_line_and_exit_code_2() {
    for (arguments, expected) in [
        (&[][..], "--help"),
        (&["frobnicate"], "frobnicate"),
        (&["match", "a"], "<TOPIC>"),
        (&["match", "--stdin", "a", "b"], "--stdin"),
        (&["match", "a/#/b", "a"], "FILTER"),
        (&["match", "a", "a/+"], "TOPIC"),
        (&["verify", "--wait", "soon"], "--wait"),
        (&["up", "--mqtt-addr", "localhost"], "--mqtt-addr"),
        (&["up", "--broker", "amqp://x"], "--broker"),
        (
            &["up", "--data-dir", "/proc/nowhere", "--admin-addr", "off"],
            "--data-dir",
        ),
        (&["up", "--http-addr", "localhost"], "--http-addr"),
        (&["tail", "a/#/b"], "FILTER"),
        (&["publish", "a/+", "x"], "TOPIC"),
        (&["publish", "a"], "--clear"),
        (&["publish", "a", "x", "--property", "y"], "--property"),
        (&["request", "a/b", "ping"], "DEVICE"),
        (&["request", "a", "b", "{"], "JSON"),
        (&["devices", "--state", "gone"], "--state"),
        (&["devices", "--api-url", "mailto:x"], "--api-url"),
        // As it was given, not as the store is called inside.
        (
            &["verify", "--data-dir", "nowhere"],
            "--data-dir (FLEET_DATA_DIR) is `nowhere`: there is no store `fleet.db` in it",
        ),
        (
            &["verify", "--database-url", "sqlite://nowhere.db"],
            "--database-url (DATABASE_URL) is `sqlite://nowhere.db`",
        ),
        (&["dead-letters", "replay"], "--all"),
        (
            &["rules", "check", "/nowhere/rules.yaml"],
            "/nowhere/rules.yaml",
        ),
        (&["rules", "backtest", "--from", "yesterday"], "--from"),
        (
            &["rules", "backtest", "--from", "1h", "--to", "2h"],
            "--from",
        ),
        (
            &["dead-letters", "replay", "--all", "--reason", "x"],
            "--all",
        ),
    ] {
        let output = fleet(arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(expected), "{arguments:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{arguments:?}: {error}");
    }
}

#[test]
fn match_answers_with_its_exit_code() {
    for (filter, topic, code) in [
        ("sensors/#", "sensors/hall/door", 0),
        ("sensors/+", "sensors/hall/door", 1),
        ("$share/ingest/sensors/#", "sensors/hall/door", 0),
        ("#", "$SYS/x", 1),
    ] {
        let output = fleet(&["match", filter, topic]);
        assert_eq!(output.status.code(), Some(code), "{filter} {topic}");
        assert!(
            output.stdout.is_empty() && output.stderr.is_empty(),
            "{output:?}"
        );
    }
}

#[test]
fn match_answers_lines() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_fleet"))
        .args(["match", "--stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input
        .write_all(b"a/+\ta/b\n+/b\t$SYS/b\na/#/b\ta\n\xff\ta")
        .unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout, b"true\nfalse\ninvalid\ninvalid\n");
}
