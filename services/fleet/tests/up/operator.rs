//! What an operator does beside a running fleet: looks, publishes, asks.

use std::io::Write as _;
use std::process::{Output, Stdio};
use std::time::Instant;

use serde_json::{Value, json as value};

use super::running::{LIMIT, Up, fleet};

impl Up {
    /// Runs a command that talks to the broker.
    fn mqtt(&self, arguments: &[&str]) -> Output {
        let mut command = fleet();
        command.args(arguments).args(["--mqtt-url", &self.broker()]);
        command.output().unwrap()
    }
}

fn lines(output: &Output) -> Vec<Value> {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = std::str::from_utf8(&output.stdout).unwrap();
    let parsed = text.lines().map(serde_json::from_str);
    parsed.collect::<Result<_, _>>().unwrap()
}

/// Repeats a command until what it prints passes.
fn until(
    what: &str,
    mut run: impl FnMut() -> Output,
    passes: impl Fn(&[Value]) -> bool,
) -> Vec<Value> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let output = run();
        if output.status.success() {
            let seen = lines(&output);
            if passes(&seen) {
                return seen;
            }
        }
        assert!(
            Instant::now() < deadline,
            "no {what} within {LIMIT:?}: {output:?}"
        );
    }
}

#[test]
fn devices_are_listed_and_shown_with_their_history() {
    let up = Up::start(&["--devices", "3"]);
    let devices = |arguments: &[&str]| {
        let mut command = fleet();
        command.args(["devices", "--output", "json", "--api-url", &up.http]);
        command.args(arguments).output().unwrap()
    };
    let online = until(
        "three devices online",
        || devices(&["--state", "online"]),
        |seen| seen.len() == 3,
    );
    let first = online[0]["device_id"].as_str().unwrap();
    assert_eq!(lines(&devices(&["--limit", "2"])).len(), 2);
    assert_eq!(lines(&devices(&["--state", "offline"])).len(), 0);
    let shown = until(
        "a transition of the device",
        || devices(&[first]),
        |seen| seen[0]["transitions"][0]["online"] == true,
    );
    assert_eq!(shown[0]["device_id"], first);

    let unknown = devices(&["no-such-device"]);
    let error = String::from_utf8(unknown.stderr).unwrap();
    assert_eq!(unknown.status.code(), Some(1), "{error}");
    assert!(
        error.starts_with("error: DEVICE is `no-such-device`:") && error.contains("404"),
        "{error}"
    );
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn what_is_published_is_seen_and_a_retained_message_cleared() {
    let up = Up::start(&["--devices", "1"]);
    let retained = |count: &str| {
        up.mqtt(&[
            "tail", "notes/#", "--output", "json", "--for", "3s", "--count", count,
        ])
    };
    for arguments in [
        &[
            "publish",
            "notes/a",
            "one",
            "--retain",
            "--property",
            "by=test",
            "--content-type",
            "text/plain",
        ][..],
        &["publish", "notes/b", "two", "--retain", "--qos", "2"],
    ] {
        let output = up.mqtt(arguments);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    let mut seen = lines(&retained("2"));
    seen.sort_by_key(|line| line["topic"].to_string());
    let expected = value!({"topic": "notes/a", "payload": "one", "retain": true, "properties": [["by", "test"]], "content_type": "text/plain"});
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&seen[0][name], value, "{seen:?}");
    }
    assert_eq!(seen[1]["payload"], "two");
    assert_eq!(
        up.mqtt(&["publish", "notes/a", "--clear"]).status.code(),
        Some(0)
    );
    let left = lines(&retained("2"));
    assert_eq!((left.len(), &left[0]["topic"]), (1, &"notes/b".into()));
}

#[test]
fn every_line_of_standard_input_is_a_message_in_order() {
    let up = Up::start(&["--devices", "1"]);
    let mut tail = fleet();
    tail.args([
        "tail",
        "lines/x",
        "--output",
        "json",
        "--count",
        "1001",
        "--mqtt-url",
        &up.broker(),
    ]);
    let mut tail = tail.stdout(Stdio::piped()).spawn().unwrap();
    // Its subscription is there when it has seen one message.
    let mut first = String::new();
    let mut out = std::io::BufReader::new(tail.stdout.take().unwrap());
    let deadline = Instant::now() + LIMIT;
    let reader = std::thread::spawn(move || {
        std::io::BufRead::read_line(&mut out, &mut first).unwrap();
        (first, out)
    });
    while !reader.is_finished() {
        assert!(Instant::now() < deadline, "the tail saw nothing");
        assert_eq!(
            up.mqtt(&["publish", "lines/x", "ready"]).status.code(),
            Some(0)
        );
    }
    let (_, out) = reader.join().unwrap();

    let mut publish = fleet();
    publish.args(["publish", "lines/x", "--lines", "--mqtt-url", &up.broker()]);
    let mut publish = publish.stdin(Stdio::piped()).spawn().unwrap();
    let mut input = publish.stdin.take().unwrap();
    let text: String = (0..1_001).map(|number| format!("{number}\n")).collect();
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    assert_eq!(publish.wait().unwrap().code(), Some(0));
    let seen: Vec<u64> = std::io::BufRead::lines(out)
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap())
        .filter_map(|line| line["payload"].as_str().unwrap().parse().ok())
        .collect();
    assert!(seen.len() > 900, "{}", seen.len());
    assert!(
        seen.windows(2).all(|pair| pair[0] + 1 == pair[1]),
        "{seen:?}"
    );
    assert_eq!(tail.wait().unwrap().code(), Some(0));
}

#[test]
fn a_broker_that_is_not_there_is_one_line_with_its_address() {
    for arguments in [
        &["tail"][..],
        &["publish", "a", "b"],
        &["request", "d", "ping"],
    ] {
        let mut command = fleet();
        command.args(arguments).args([
            "--mqtt-url",
            "mqtt://127.0.0.1:1",
            "--mqtt-connect-timeout",
            "1s",
        ]);
        let output = command
            .args(["--log", "error", "--log-format", "json"])
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(
            error.contains("127.0.0.1:1") && error.contains("refused"),
            "{error}"
        );
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_command_s_own_limit_holds_for_connecting_too() {
    for arguments in [
        &["tail", "--for", "1s"][..],
        &["request", "d", "ping", "--timeout", "1s"],
        &["probe", "--timeout", "1s"],
    ] {
        let began = Instant::now();
        let mut command = fleet();
        command.args(arguments);
        let output = command
            .args(["--mqtt-url", "mqtt://127.0.0.1:1"])
            .output()
            .unwrap();
        // Well below the half minute of --mqtt-connect-timeout, on a loaded machine, too.
        assert!(began.elapsed().as_secs() < 20, "{arguments:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        let last = error.lines().last().unwrap();
        assert!(last.starts_with("error: cannot use the broker"), "{error}");
        assert!(last.ends_with("tried for 1s"), "{error}");
        // What every attempt says is said once, and then why it was given up.
        assert_eq!(error.lines().count(), 2, "{error}");
    }
}

#[test]
fn a_probe_finds_its_readings_by_the_api_and_says_when_it_does_not() {
    let up = Up::start(&["--devices", "1"]);
    let probe = |arguments: &[&str]| {
        let mut command = fleet();
        command.args(["probe", "--mqtt-url", &up.broker()]);
        // As in an image without authorities.
        command.env("SSL_CERT_FILE", "/nonexistent");
        command.env("SSL_CERT_DIR", "/nonexistent");
        command.args(arguments).output().unwrap()
    };
    let found = probe(&["--api-url", &up.http, "--readings", "7"]);
    assert_eq!(found.status.code(), Some(0), "{found:?}");
    let text = String::from_utf8(found.stdout).unwrap();
    assert!(text.contains("published 7 readings of probe-"), "{text}");
    assert!(text.contains("found all 7 by the API"), "{text}");

    // Nobody answers there.
    let lost = probe(&["--api-url", "http://127.0.0.1:1", "--timeout", "1s"]);
    assert_eq!(lost.status.code(), Some(1), "{lost:?}");
    let text = String::from_utf8(lost.stderr).unwrap();
    assert!(text.contains("not found within 1s"), "{text}");
    assert!(text.contains("http://127.0.0.1:1"), "{text}");
}
