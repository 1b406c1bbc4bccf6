//! `fleet record` and `fleet replay` on real brokers.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use fleet::recording::{Line, Lines, Recorded};
use fleet_shared::session::{Properties, Publish, QoS, Subscription};
use fleet_tests::{Acknowledge, Client, Mosquitto, Proxy, Received, TempDir, eventually, options};

const LONG: Duration = Duration::from_secs(30);

fn fleet(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleet"));
    command
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn output(arguments: &[&str]) -> Output {
    fleet(arguments).output().unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A recorder that ends with its value.
struct Recorder {
    child: Child,
    file: PathBuf,
}

impl Recorder {
    /// Starts one and waits until it is subscribed.
    async fn start(broker: &Mosquitto, url: &str, file: &Path, more: &[&str]) -> Self {
        let path = file.to_str().unwrap();
        let arguments = [
            &[
                "record",
                "#",
                "-o",
                path,
                "--output",
                "json",
                "--mqtt-url",
                url,
            ],
            more,
        ];
        let recorder = Self {
            child: fleet(&arguments.concat()).spawn().unwrap(),
            file: file.to_owned(),
        };
        let probe = Client::connected(options(broker.addr(), "probe"), Acknowledge::AtOnce).await;
        let before = recorder.messages().len();
        eventually(LONG, "the recorder records", async || {
            say(&probe, "probe", b"", |it| it).await;
            let messages = recorder.messages();
            let probes = messages.iter().filter(|it| it.topic == "probe");
            if messages.len() > before && probes.count() > 0 {
                Ok(())
            } else {
                Err(messages.len())
            }
        })
        .await;
        recorder
    }

    /// What is there so far. Whoever reads while a recorder cuts a torn line off and appends may see a
    /// line of both, and reads again.
    fn messages(&self) -> Vec<Recorded> {
        let Ok(lines) = Lines::open(&self.file) else {
            return Vec::new();
        };
        lines.map_while(Result::ok).filter_map(message).collect()
    }

    async fn has(&self, topic: &str, count: usize) {
        eventually(
            LONG,
            &format!("{count} on {topic} are recorded"),
            async || {
                let messages = self.messages();
                let there = messages.iter().filter(|it| it.topic == topic).count();
                if there >= count { Ok(()) } else { Err(there) }
            },
        )
        .await;
    }

    fn stop(mut self) -> Output {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        let stdout = self.child.stdout.take().unwrap();
        let stderr = self.child.stderr.take().unwrap();
        let status = self.child.wait().unwrap();
        let read = |mut from: Box<dyn std::io::Read>| {
            let mut bytes = Vec::new();
            from.read_to_end(&mut bytes).unwrap();
            bytes
        };
        Output {
            status,
            stdout: read(Box::new(stdout)),
            stderr: read(Box::new(stderr)),
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn lines(file: &Path) -> Vec<Line> {
    match Lines::open(file) {
        Ok(lines) => lines.map(Result::unwrap).collect(),
        Err(_) => Vec::new(),
    }
}

fn message(line: Line) -> Option<Recorded> {
    match line {
        Line::Message(message) => Some(message),
        _ => None,
    }
}

fn messages(file: &Path) -> Vec<Recorded> {
    lines(file).into_iter().filter_map(message).collect()
}

async fn say(client: &Client, topic: &str, payload: &[u8], with: impl FnOnce(Publish) -> Publish) {
    let publish = with(Publish::new(topic.to_owned(), "test", payload.to_vec()));
    client.session.publish(publish).await.unwrap();
}

async fn listen(broker: &Mosquitto) -> Client {
    let mut options = options(broker.addr(), "listener");
    options.subscriptions = vec![Subscription::new("#", QoS::ExactlyOnce)];
    Client::connected(options, Acknowledge::AtOnce).await
}

/// What identifies a message, apart from when it came.
fn told(message: &Received) -> (String, Vec<u8>, QoS, bool, Option<Box<Properties>>) {
    let Received {
        topic,
        payload,
        qos,
        retain,
        properties,
        ..
    } = message.clone();
    (topic, payload, qos, retain, properties)
}

#[actix::test]
async fn a_replay_says_what_was_recorded_with_all_that_belongs_to_it() {
    let (broker, other) = (Mosquitto::start().await, Mosquitto::start().await);
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("day.jsonl");
    let client = Client::connected(options(broker.addr(), "speaker"), Acknowledge::AtOnce).await;
    // What is retained already is recorded, too.
    say(&client, "config", b"{}", |it| it.retain(true)).await;
    let recorder = Recorder::start(&broker, &broker.url(), &file, &[]).await;
    let heard = listen(&broker).await;
    let properties = Properties {
        user: vec![("k".into(), "v".into()), ("k".into(), "w \u{1f980}".into())],
        response_topic: Some("responses/a/1".into()),
        correlation_data: Some(vec![0, 255].into()),
        content_type: Some("application/octet-stream".into()),
        message_expiry: None,
    };
    say(&client, "binary", &[0, 159, 146, 150], |it| {
        it.properties(properties).qos(QoS::ExactlyOnce)
    })
    .await;
    say(
        &client,
        "text/\u{e4}",
        "21.5 \u{b0}C\n\"".as_bytes(),
        |it| it.retain(true),
    )
    .await;
    say(&client, "fast", b"x", |it| it.qos(QoS::AtMostOnce)).await;
    for number in 0..500 {
        say(&client, "many", number.to_string().as_bytes(), |it| it).await;
    }
    recorder.has("many", 500).await;
    recorder.has("fast", 1).await;
    let summary = json(&recorder.stop());
    let recorded = messages(&file);
    assert_eq!(summary["messages"], recorded.len());
    assert_eq!(summary["gaps"], 0);

    let again = listen(&other).await;
    let replayed = json(&output(&[
        "replay",
        file.to_str().unwrap(),
        "--speed",
        "max",
        "--output",
        "json",
        "--mqtt-url",
        &other.url(),
    ]));
    assert_eq!(replayed["acknowledged"], recorded.len());
    assert_eq!(replayed["failed"], 0);
    again.received_at_least(recorded.len(), LONG).await;
    // In the order of the file; a broker passes QoS 2 on when its second step is done.
    let in_order = |topics: Vec<String>| -> Vec<String> {
        topics.into_iter().filter(|it| it != "binary").collect()
    };
    let topics = in_order(again.received().into_iter().map(|it| it.topic).collect());
    assert_eq!(
        topics,
        in_order(recorded.iter().map(|it| it.topic.clone()).collect())
    );
    let spoken = |client: &Client| -> Vec<_> {
        let received = client.received();
        let spoken = received
            .iter()
            .filter(|it| !["probe", "config"].contains(&it.topic.as_str()));
        let mut spoken: Vec<_> = spoken.map(told).collect();
        spoken.sort_by(|one, other| one.0.cmp(&other.0));
        spoken
    };
    assert_eq!(spoken(&again), spoken(&heard));
    let config = again.received().into_iter().find(|it| it.topic == "config");
    assert!(config.unwrap().retain);
}

#[actix::test]
async fn a_killed_recorder_has_all_it_acknowledged_and_goes_on_in_the_same_file() {
    let broker = Mosquitto::start().await;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("day.jsonl");
    let client = Client::connected(options(broker.addr(), "speaker"), Acknowledge::AtOnce).await;
    let mut recorder = Recorder::start(&broker, &broker.url(), &file, &[]).await;
    for number in 0..200 {
        say(&client, "many", number.to_string().as_bytes(), |it| it).await;
    }
    recorder.has("many", 200).await;
    recorder.child.kill().unwrap();
    recorder.child.wait().unwrap();
    // As if it had been killed in the middle of a line.
    let mut text = std::fs::read(&file).unwrap();
    text.extend_from_slice(b"{\"at\":\"2026-01-0");
    std::fs::write(&file, text).unwrap();

    let recorder = Recorder::start(&broker, &broker.url(), &file, &["--no-retained"]).await;
    say(&client, "many", b"200", |it| it).await;
    recorder.has("many", 201).await;
    json(&recorder.stop());
    let headers = lines(&file);
    let headers = headers
        .iter()
        .filter(|line| matches!(line, Line::Header(_)));
    assert_eq!(headers.count(), 2);
    let numbers: Vec<_> = messages(&file)
        .into_iter()
        .filter(|it| it.topic == "many")
        .map(|it| it.payload.unwrap().parse::<u32>().unwrap())
        .collect();
    assert_eq!(numbers, (0..=200).collect::<Vec<_>>());
}

#[actix::test]
async fn a_lost_connection_stands_in_the_file_and_loses_no_acknowledged_message() {
    let broker = Mosquitto::start().await;
    let proxy = Proxy::start(broker.port()).await;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("day.jsonl");
    let client = Client::connected(options(broker.addr(), "speaker"), Acknowledge::AtOnce).await;
    let url = format!("mqtt://127.0.0.1:{}", proxy.port());
    let recorder = Recorder::start(&broker, &url, &file, &[]).await;
    say(&client, "many", b"0", |it| it).await;
    recorder.has("many", 1).await;
    proxy.cut();
    for number in 1..100 {
        say(&client, "many", number.to_string().as_bytes(), |it| it).await;
    }
    recorder.has("many", 100).await;
    let summary = json(&recorder.stop());
    assert_eq!(summary["gaps"], 1);
    let gaps: Vec<_> = lines(&file)
        .into_iter()
        .filter_map(|line| match line {
            Line::Gap(gap) => Some(gap),
            _ => None,
        })
        .collect();
    assert!(gaps.len() == 1 && gaps[0].session_kept, "{gaps:?}");
    assert!(gaps[0].gap <= gaps[0].until);
}

#[actix::test]
async fn a_replay_goes_at_its_speed_and_moves_the_times_of_readings_to_now() {
    let broker = Mosquitto::start().await;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("old.jsonl");
    let line = |second: u32| {
        let payload =
            format!(r#"{{\"value\":{second},\"timestamp\":\"2020-01-01T00:00:{second:02}Z\"}}"#);
        format!(
            r#"{{"at":"2020-01-01T00:00:{second:02}.5Z","topic":"sensors/a/b","payload":"{payload}","qos":1}}"#
        )
    };
    let header =
        r##"{"recording":1,"broker":"mqtt://b","filters":["#"],"at":"2020-01-01T00:00:00Z"}"##;
    let text = [header.to_owned(), line(0), line(10), line(20)].join("\n") + "\n";
    std::fs::write(&file, text).unwrap();
    let heard = listen(&broker).await;
    let replay = |more: &[&str]| {
        let url = broker.url();
        let fixed = [
            "replay",
            file.to_str().unwrap(),
            "--output",
            "json",
            "--mqtt-url",
            &url,
        ];
        json(&output(&[&fixed, more].concat()))
    };
    let summary = replay(&["--speed", "20", "--shift-to-now", "--topic-prefix", "copy/"]);
    let took = summary["duration_seconds"].as_f64().unwrap();
    assert!((1.0..10.0).contains(&took), "{took}");
    heard.received_at_least(3, LONG).await;
    let now = jiff::Timestamp::now();
    let times: Vec<jiff::Timestamp> = heard
        .received()
        .iter()
        .map(|it| {
            assert_eq!(it.topic, "copy/sensors/a/b");
            let payload: serde_json::Value = serde_json::from_slice(&it.payload).unwrap();
            payload["timestamp"].as_str().unwrap().parse().unwrap()
        })
        .collect();
    // Twenty seconds of the recording, at twenty times its speed.
    let span = times[2].duration_since(times[0]).as_secs_f64();
    assert!((0.9..10.0).contains(&span), "{times:?}");
    assert!(now.duration_since(times[2]).as_secs() < 30, "{times:?}");

    // Only what is asked for, and as it was.
    let summary = replay(&["--speed", "max", "--only", "alerts/#"]);
    assert_eq!(summary["published"], 0);
    let summary = replay(&["--speed", "max", "--only", "sensors/+/b"]);
    assert_eq!(summary["acknowledged"], 3);
    heard.received_at_least(6, LONG).await;
    let last = heard.received().pop().unwrap();
    assert_eq!(
        last.payload,
        br#"{"value":20,"timestamp":"2020-01-01T00:00:20Z"}"#
    );
}

#[actix::test]
async fn what_cannot_be_recorded_or_replayed_is_one_line() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("diary.txt");
    std::fs::write(&file, "dear diary\n").unwrap();
    let file = file.to_str().unwrap();
    for (arguments, named) in [
        (&["record", "a/#/b", "-o", "x"][..], "a/#/b"),
        (&["record", "#", "-o", file], "no recording"),
        (&["replay", "/nonexistent/r"], "/nonexistent/r"),
        (&["replay", file, "--speed", "max"], "line 1"),
        (&["replay", file, "--speed", "-1"], "--speed"),
        (&["replay", file, "--only", "#/a"], "--only"),
    ] {
        let output = output(arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(named), "{arguments:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{arguments:?}: {error}");
    }
    assert_eq!(std::fs::read_to_string(file).unwrap(), "dear diary\n");
}
