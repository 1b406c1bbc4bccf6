//! Presence that is true, on a real broker: crashes, restarts, takeovers, two trackers; and the API.

use std::net::SocketAddr;
use std::time::Duration;

use fleet_shared::session::{Properties, Publish, QoS, Subscription};
use fleet_tests::{Acknowledge, Client, Process, Program, eventually, free_port, options};
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::site::{LONG, Site};

const DEVICES: u64 = 200;
const TOKEN: &str = "token-of-the-test";

/// A tracker, and where its API is.
struct Tracker {
    process: Process,
    addr: SocketAddr,
}

/// An answer of the API.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

impl Tracker {
    async fn start(site: &Site, client_id: &str) -> Self {
        Self::with(site, client_id, |program| program).await
    }

    async fn with(site: &Site, client_id: &str, more: impl FnOnce(Program) -> Program) -> Self {
        let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let program = Program::service("status-tracker")
            .env("MQTT_URL", site.broker.url())
            .env("MQTT_CLIENT_ID", client_id)
            .env("MQTT_MAX_RECONNECT_DELAY", "1s")
            .env("DATABASE_URL", &site.database_url)
            .env("HTTP_ADDR", addr)
            .env("API_TOKEN", TOKEN)
            .flag("--settle", "10s")
            .flag("--command-timeout", "2s");
        let mut process = more(program).start();
        process.ready(LONG).await;
        Self { process, addr }
    }

    async fn call(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: fleet\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        Answer {
            status: head.split_whitespace().nth(1).unwrap().parse().unwrap(),
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, "", "").await
    }

    async fn write(&self, method: &str, path: &str, body: &str) -> Answer {
        let headers = format!("Authorization: Bearer {TOKEN}\r\n");
        self.call(method, path, &headers, body).await
    }

    async fn summary(&self) -> Value {
        self.get("/api/v1/summary").await.json()
    }

    async fn counts(&self, state: &str, count: u64) {
        eventually(LONG, &format!("{count} devices are {state}"), async || {
            let devices = self.summary().await["devices"].clone();
            if devices[state] == count {
                Ok(())
            } else {
                Err(devices)
            }
        })
        .await;
    }

    /// Every device, without what differs from moment to moment.
    async fn devices(&self) -> Vec<Value> {
        let mut devices = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self
                .get(&format!("/api/v1/devices?limit=70{cursor}"))
                .await
                .json();
            for device in page["items"].as_array().unwrap() {
                let kept = [
                    "device_id",
                    "online",
                    "state",
                    "since",
                    "reason",
                    "session_id",
                    "firmware_version",
                ];
                devices.push(
                    kept.iter()
                        .map(|key| ((*key).to_owned(), device[*key].clone()))
                        .collect(),
                );
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return devices,
            }
        }
    }
}

fn simulator(site: &Site) -> Process {
    site.device_sim()
        .flag("--devices", DEVICES)
        .flag("--rate", 100)
        .flag("--seed", 1)
        .start()
}

fn stored(site: &Site) -> Vec<(String, bool)> {
    let connection = Connection::open(site.path("fleet.db")).unwrap();
    let mut rows = connection
        .prepare("SELECT device_id, online FROM device_transitions ORDER BY device_id, at")
        .unwrap();
    let rows = rows
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

async fn agree(one: &Tracker, other: &Tracker) {
    eventually(LONG, "two trackers agree on every device", async || {
        let (one, other) = (one.devices().await, other.devices().await);
        match one.iter().zip(&other).find(|(one, other)| one != other) {
            None if one.len() as u64 == DEVICES && other.len() == one.len() => Ok(()),
            differ => Err(format!("{} and {}: {differ:?}", one.len(), other.len())),
        }
    })
    .await;
}

#[actix::test]
async fn a_killed_fleet_is_offline_comes_back_and_is_stored_once_by_two_trackers() {
    let site = Site::on_sqlite().await;
    let one = Tracker::start(&site, "status-1").await;
    let other = Tracker::start(&site, "status-2").await;
    let mut devices = simulator(&site);
    one.counts("online", DEVICES).await;
    other.counts("online", DEVICES).await;

    devices.kill();
    one.counts("offline", DEVICES).await;
    other.counts("offline", DEVICES).await;
    agree(&one, &other).await;

    let _devices = simulator(&site);
    one.counts("online", DEVICES).await;
    other.counts("online", DEVICES).await;
    agree(&one, &other).await;

    // On, off, on: three rows each, whoever of the two was first.
    let expected = DEVICES as usize * 3;
    eventually(LONG, "every transition is stored once", async || {
        let rows = stored(&site);
        if rows.len() == expected {
            Ok(())
        } else {
            Err(rows.len())
        }
    })
    .await;
    let rows = stored(&site);
    for device in rows.chunks(3) {
        assert!(
            device.iter().all(|(id, _)| *id == device[0].0),
            "{device:?}"
        );
        assert_eq!(
            device.iter().map(|(_, online)| *online).collect::<Vec<_>>(),
            [true, false, true]
        );
    }

    // A third that starts later shows the same.
    let late = Tracker::start(&site, "status-3").await;
    agree(&one, &late).await;
    assert_eq!(stored(&site).len(), expected);
}

#[actix::test]
async fn a_restart_of_the_broker_is_no_transition() {
    let mut site = Site::on_sqlite().await;
    let tracker = Tracker::start(&site, "status-1").await;
    let _devices = simulator(&site);
    tracker.counts("online", DEVICES).await;
    eventually(LONG, "all births are stored", async || {
        let rows = stored(&site).len();
        if rows as u64 == DEVICES {
            Ok(())
        } else {
            Err(rows)
        }
    })
    .await;
    let before = tracker.devices().await;

    // It publishes the wills of all devices when it ends.
    site.broker.terminate().await;
    site.broker.start_again().await;
    eventually(
        LONG,
        "every device is back with a new session",
        async || {
            let after = tracker.devices().await;
            let old = before
                .iter()
                .zip(&after)
                .filter(|(b, a)| b["session_id"] == a["session_id"])
                .count();
            if old == 0 { Ok(()) } else { Err(old) }
        },
    )
    .await;
    eventually(LONG, "the wills are no longer held back", async || {
        let summary = tracker.summary().await;
        let at = |value: &Value| {
            value
                .as_str()
                .and_then(|it| it.parse::<jiff::Timestamp>().ok())
        };
        match (at(&summary["at"]), at(&summary["broker"]["since"])) {
            (Some(now), Some(since)) if now.duration_since(since).as_secs() > 12 => Ok(()),
            _ => Err(summary["broker"].clone()),
        }
    })
    .await;
    tracker.counts("online", DEVICES).await;
    assert_eq!(stored(&site).len() as u64, DEVICES);
    let after = tracker.devices().await;
    assert!(
        before
            .iter()
            .zip(&after)
            .all(|(before, after)| before["since"] == after["since"])
    );
}

#[actix::test]
async fn late_will_does_not_hide_a_device_and_the_broker_is_told_the_truth() {
    let site = Site::on_sqlite().await;
    let tracker = Tracker::start(&site, "status-1").await;
    let client = Client::connected(options(site.broker.addr(), "d1"), Acknowledge::AtOnce).await;
    let say = async |text: Value| {
        let publish = Publish::new(
            "devices/d1/status",
            "devices/{device_id}/status",
            text.to_string().into_bytes(),
        );
        client.session.publish(publish.retain(true)).await.unwrap();
    };
    let (old, new) = (
        "01900000-0000-7000-8000-000000000001",
        "01900000-0001-7000-8000-000000000001",
    );
    say(json!({"device_id": "d1", "online": true, "last_seen": "2026-01-01T00:00:00Z", "firmware_version": "1", "signal_strength": -40, "uptime_seconds": 1, "session_id": new})).await;
    say(json!({"device_id": "d1", "online": false, "timestamp": "2026-01-01T00:00:00Z", "reason": "unexpected_disconnect", "session_id": old})).await;

    let mut late = options(site.broker.addr(), "late");
    late.subscriptions
        .push(Subscription::new("devices/d1/status", QoS::AtLeastOnce));
    let late = Client::connected(late, Acknowledge::AtOnce).await;
    eventually(LONG, "the retained status is repaired", async || {
        let last = late
            .received()
            .last()
            .map(|it| it.payload.clone())
            .unwrap_or_default();
        let last: Value = serde_json::from_slice(&last).unwrap_or_default();
        if last["online"] == true && last["session_id"] == new {
            Ok(())
        } else {
            Err(last)
        }
    })
    .await;
    let device = tracker.get("/api/v1/devices/d1").await.json();
    assert_eq!(
        (&device["online"], &device["state"]),
        (&json!(true), &json!("online"))
    );
    assert_eq!(stored(&site), [("d1".to_owned(), true)]);
}

#[actix::test]
async fn a_command_is_answered_refused_late_or_not_sent() {
    let site = Site::on_sqlite().await;
    let tracker = Tracker::start(&site, "status-1").await;
    let mut device = options(site.broker.addr(), "d1");
    device
        .subscriptions
        .push(Subscription::new("devices/d1/commands/+", QoS::AtLeastOnce));
    let device = Client::connected(device, Acknowledge::AtOnce).await;
    let status = |id: &str, online: bool| {
        let text = json!({"online": online}).to_string();
        let publish = Publish::new(
            format!("devices/{id}/status"),
            "devices/{device_id}/status",
            text.into_bytes(),
        );
        device.session.publish(publish.retain(true))
    };
    status("d1", true).await.unwrap();
    status("d2", false).await.unwrap();
    eventually(LONG, "both devices are known", async || {
        let devices = tracker.summary().await["devices"].clone();
        if devices["total"] == 2 {
            Ok(())
        } else {
            Err(devices)
        }
    })
    .await;

    let answer = async |count: usize, payload: Value| {
        device.received_at_least(count, LONG).await;
        let request = device.received().pop().unwrap();
        let asked = request.properties.unwrap();
        let publish = Publish::new(
            asked.response_topic.unwrap(),
            "responses/{client_id}/{correlation_id}",
            payload.to_string().into_bytes(),
        );
        let properties = Properties {
            correlation_data: asked.correlation_data,
            ..Properties::default()
        };
        device
            .session
            .publish(publish.properties(properties))
            .await
            .unwrap();
        serde_json::from_slice::<Value>(&request.payload).unwrap()
    };
    let path = "/api/v1/devices/d1/commands/set-interval";
    let (response, request) = tokio::join!(
        tracker.write("POST", path, r#"{"interval_ms":500}"#),
        answer(1, json!({"ok": true}))
    );
    assert_eq!(
        (response.status, request),
        (200, json!({"interval_ms": 500}))
    );
    assert_eq!(response.json()["answer"], json!({"ok": true}));
    let (response, _) = tokio::join!(
        tracker.write("POST", path, ""),
        answer(2, json!({"error": "too short"}))
    );
    assert_eq!(
        (response.status, &response.json()["answer"]["error"]),
        (422, &json!("too short"))
    );
    for (path, status, kind) in [
        (
            "/api/v1/devices/d1/commands/ping",
            504,
            "/problems/command-timeout",
        ),
        (
            "/api/v1/devices/d2/commands/ping",
            409,
            "/problems/device-offline",
        ),
        (
            "/api/v1/devices/d3/commands/ping",
            404,
            "/problems/not-found",
        ),
        (
            "/api/v1/devices/d1/commands/a%23b",
            400,
            "/problems/bad-request",
        ),
    ] {
        let response = tracker.write("POST", path, "").await;
        assert_eq!(
            (response.status, &response.json()["type"]),
            (status, &json!(kind)),
            "{path}"
        );
        assert!(
            response
                .head
                .contains("content-type: application/problem+json"),
            "{}",
            response.head
        );
    }

    // Configuration: set, reported, cleared.
    let path = "/api/v1/devices/d1/config";
    assert_eq!(
        tracker.write("PUT", path, r#"{"led":"on"}"#).await.status,
        204
    );
    assert_eq!(tracker.write("PUT", path, "[]").await.status, 400);
    let desired = async |expected: Value| {
        eventually(LONG, "the configuration is seen", async || {
            let config = tracker.get(path).await.json();
            if config["desired"] == expected {
                Ok(())
            } else {
                Err(config)
            }
        })
        .await;
    };
    desired(json!({"led": "on"})).await;
    assert_eq!(tracker.write("DELETE", path, "").await.status, 204);
    desired(Value::Null).await;
}

#[actix::test]
async fn the_api_keeps_its_manners() {
    let site = Site::on_sqlite().await;
    let mut tracker = Tracker::start(&site, "status-1").await;
    for (method, path) in [
        ("POST", "/api/v1/devices/d1/commands/ping"),
        ("PUT", "/api/v1/devices/d1/config"),
        ("DELETE", "/api/v1/devices/d1/config"),
    ] {
        for headers in ["", "Authorization: Bearer wrong\r\n"] {
            let answer = tracker.call(method, path, headers, "{}").await;
            assert_eq!(answer.status, 401, "{method} {path}");
        }
    }
    for (path, status) in [
        ("/api/v1/devices?limit=0", 400),
        ("/api/v1/devices?state=asleep", 400),
        ("/api/v1/devices/none", 404),
        ("/api/v1/devices/none/transitions?cursor=x", 400),
        ("/api/v1/sensors/none/readings", 404),
        ("/api/v1/sensors/none/readings?points=9999999", 400),
        ("/api/v1/dead-letters?cursor=x", 400),
        ("/api/v1/nothing", 404),
        ("/api/v1/devices", 200),
        ("/api/v1/sensors", 200),
        ("/api/v1/dead-letters?reason=malformed", 200),
        ("/api/v1/alerts?state=firing", 200),
        ("/openapi.json", 200),
        ("/docs", 200),
        ("/", 200),
    ] {
        let answer = tracker.get(path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(
            answer
                .head
                .contains("content-security-policy: default-src 'none'"),
            "{path}"
        );
        assert!(status < 400 || answer.json()["status"] == status, "{path}");
    }
    assert_eq!(
        tracker.call("POST", "/api/v1/devices", "", "").await.status,
        405
    );
    let large = "x".repeat(70_000);
    assert_eq!(
        tracker
            .write("PUT", "/api/v1/devices/d1/config", &large)
            .await
            .status,
        413
    );

    let first = tracker.get("/api/v1/devices").await;
    // The head is in lower case; the tag is weak, `W/`, and its digits are in lower case anyway.
    let tag = first
        .head
        .lines()
        .find_map(|line| line.strip_prefix("etag: w/"));
    let tag = format!("W/{}", tag.unwrap());
    let again = tracker
        .call(
            "GET",
            "/api/v1/devices",
            &format!("If-None-Match: {tag}\r\n"),
            "",
        )
        .await;
    assert_eq!((again.status, again.body.as_str()), (304, ""));

    tracker.process.terminate();
    assert_eq!(tracker.process.exit(LONG).await, 0);
}

#[actix::test]
async fn events_are_live_and_go_on_where_they_were() {
    let site = Site::on_sqlite().await;
    let tracker = Tracker::start(&site, "status-1").await;
    let client = Client::connected(options(site.broker.addr(), "d"), Acknowledge::AtOnce).await;
    let birth = async |id: &str| {
        let topic = format!("devices/{id}/status");
        let publish = Publish::new(
            topic,
            "devices/{device_id}/status",
            &br#"{"online":true}"#[..],
        );
        client.session.publish(publish).await.unwrap();
    };
    let mut stream = listen(&tracker, "").await;
    until(&mut stream, "retry: ").await;
    birth("d1").await;
    let seen = until(&mut stream, "\"device_id\":\"d1\"").await;
    let event = seen
        .split("\n\n")
        .find(|event| event.contains("d1"))
        .unwrap();
    let id = event
        .lines()
        .find_map(|line| line.strip_prefix("id: "))
        .unwrap();
    drop(stream);
    birth("d2").await;
    tracker.counts("online", 2).await;
    let mut stream = listen(&tracker, &format!("Last-Event-ID: {id}\r\n")).await;
    let seen = until(&mut stream, "\"device_id\":\"d2\"").await;
    assert!(!seen.contains("event: reset"), "{seen}");
    let mut stream = listen(&tracker, "Last-Event-ID: of-another\r\n").await;
    until(&mut stream, "event: reset").await;
}

async fn listen(tracker: &Tracker, headers: &str) -> TcpStream {
    let mut stream = TcpStream::connect(tracker.addr).await.unwrap();
    let request = format!("GET /api/v1/events HTTP/1.1\r\nHost: fleet\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn until(stream: &mut TcpStream, text: &str) -> String {
    let mut seen = String::new();
    let mut buffer = [0; 4_096];
    let read = async {
        while !seen.contains(text) {
            let count = stream.read(&mut buffer).await.unwrap();
            assert_ne!(count, 0, "the stream ended: {seen}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    };
    tokio::time::timeout(Duration::from_secs(20), read)
        .await
        .unwrap();
    seen
}
