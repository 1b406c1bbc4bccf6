//! What the API answers, to what and to whom.

use std::time::Duration;

use fleet_shared::session::{Properties, Publish, QoS, Subscription};
use fleet_tests::{Acknowledge, Client, Program, eventually, options};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::{TOKEN, Tracker, Voice};
use crate::site::{LONG, Site};

#[actix::test]
async fn a_command_is_answered_refused_late_or_not_sent() {
    let site = Site::on_sqlite().await;
    let tracker = Tracker::start(&site, "status-1").await;
    let mut device = options(site.broker.addr(), "d1");
    device
        .subscriptions
        .push(Subscription::new("devices/d1/commands/+", QoS::AtLeastOnce));
    let device = Client::connected(device, Acknowledge::AtOnce).await;
    let voice = Voice::of(&site, "voice").await;
    voice.status("d1", true).await;
    voice.status("d2", false).await;
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
        ("POST", "/api/v1/alerts/a/acknowledge"),
        ("POST", "/api/v1/silences"),
        (
            "DELETE",
            "/api/v1/silences/019aaf0e-5b1c-7c3e-8e55-0c3d8e0c4e11",
        ),
        // Who may not do it is not told what else is wrong with it.
        ("DELETE", "/api/v1/silences/x"),
        ("POST", "/api/v1/rules/backtest"),
        ("POST", "/api/v1/dead-letters/replay"),
    ] {
        for headers in ["", "Authorization: Bearer wrong\r\n"] {
            let answer = tracker.call(method, path, headers, "{}").await;
            assert_eq!(answer.status, 401, "{method} {path}");
            assert!(
                answer.head.contains("www-authenticate: bearer"),
                "{}",
                answer.head
            );
        }
    }
    for (path, status) in [
        ("/api/v1/devices?limit=0", 400),
        ("/api/v1/devices?state=asleep", 400),
        ("/api/v1/devices/none", 404),
        ("/api/v1/devices/none/transitions?cursor=x", 400),
        (
            "/api/v1/devices/none/transitions?cursor=-377705023201000000",
            400,
        ),
        ("/api/v1/devices/a%00b/transitions", 200),
        ("/api/v1/sensors/none/readings", 404),
        ("/api/v1/sensors/a%00b/readings?type=x", 200),
        ("/api/v1/sensors/none/readings?points=9999999", 400),
        (
            "/api/v1/sensors/none/readings?type=t&from=-009000-01-01T00:00:00Z",
            400,
        ),
        ("/api/v1/dead-letters?cursor=x", 400),
        ("/api/v1/alerts?cursor=x", 400),
        ("/api/v1/alerts/none", 404),
        ("/api/v1/nothing", 404),
        ("/api/v1/devices", 200),
        ("/api/v1/sensors", 200),
        ("/api/v1/dead-letters?reason=malformed", 200),
        ("/api/v1/alerts?state=firing&severity=critical", 200),
        ("/api/v1/silences", 200),
        ("/api/v1/summary/trend", 200),
        ("/openapi.json", 200),
        ("/docs", 200),
        ("/docs/", 308),
        ("/", 200),
    ] {
        let answer = tracker.get(path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        for header in [
            "content-security-policy: default-src 'none'",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
        ] {
            assert!(answer.head.contains(header), "{path} without {header}");
        }
        // Cross-origin reads are not allowed to anybody.
        assert!(
            !answer.head.contains("access-control-allow-origin"),
            "{path}"
        );
        if status >= 400 {
            problem(&answer, status);
        }
    }
    for (method, path, named) in [
        (
            "GET",
            "/api/v1/devices?state=asleep",
            "state is `asleep`: give one of `online`",
        ),
        (
            "GET",
            "/api/v1/devices?limit=many",
            "limit is `many`: give a whole number from 1 to 1000",
        ),
        (
            "GET",
            "/api/v1/alerts?severity=bad",
            "severity is `bad`: give one of `critical`",
        ),
        (
            "GET",
            "/api/v1/sensors/s/readings?from=x",
            "from is `x`: give a time such as",
        ),
        (
            "DELETE",
            "/api/v1/silences/x",
            "id is `x`: give the id of a silence, a UUID",
        ),
    ] {
        let answer = tracker.write(method, path, "").await;
        problem(&answer, 400);
        let detail = answer.json()["detail"].clone();
        assert!(
            detail.as_str().unwrap().starts_with(named),
            "{path}: {detail}"
        );
    }
    assert!(
        tracker
            .get("/docs/")
            .await
            .head
            .contains("location: /docs\r\n")
    );
    // Rules are asked of alerting, which does not run here.
    let rules = tracker.get("/api/v1/rules").await;
    problem(&rules, 503);
    assert_eq!(rules.json()["type"], "/problems/alerting-absent");

    let wrong_method = tracker.call("POST", "/api/v1/devices", "", "").await;
    problem(&wrong_method, 405);
    assert!(
        wrong_method.head.contains("allow: get, head"),
        "{}",
        wrong_method.head
    );
    let head = tracker.call("HEAD", "/api/v1/devices", "", "").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let large = "x".repeat(70_000);
    let config = "/api/v1/devices/d1/config";
    problem(&tracker.write("PUT", config, &large).await, 413);
    let typed = format!("Authorization: Bearer {TOKEN}\r\nContent-Type: text/plain\r\n");
    problem(&tracker.call("PUT", config, &typed, "{}").await, 415);

    let first = tracker.get("/api/v1/devices").await;
    // The head is in lower case; the tag is weak, `W/`, and its digits are in lower case anyway.
    let tag = first
        .head
        .lines()
        .find_map(|line| line.strip_prefix("etag: w/"));
    let known = format!("If-None-Match: W/{}\r\n", tag.unwrap());
    let again = tracker.call("GET", "/api/v1/devices", &known, "").await;
    assert_eq!((again.status, again.body.as_str()), (304, ""));
    let packed = tracker
        .bytes("/api/v1/summary", "Accept-Encoding: gzip\r\n")
        .await;
    let text = String::from_utf8_lossy(&packed);
    assert!(text.contains("content-encoding: gzip"), "{text}");

    tracker.process.terminate();
    assert_eq!(tracker.process.exit(LONG).await, 0);
}

/// Errors are problem details.
fn problem(answer: &super::Answer, status: u16) {
    assert_eq!(
        (answer.status, &answer.json()["status"]),
        (status, &json!(status))
    );
    assert!(
        answer
            .head
            .contains("content-type: application/problem+json"),
        "{}",
        answer.head
    );
}

#[actix::test]
async fn reads_need_the_token_when_that_is_asked_for_and_guessing_is_slowed_down() {
    let site = Site::on_sqlite().await;
    let locked = |program: Program| program.arg("--require-token");
    let tracker = Tracker::with(&site, "status-1", locked).await;
    assert_eq!(tracker.get("/api/v1/devices").await.status, 401);
    assert_eq!(tracker.get("/api/v1/events").await.status, 401);
    // The page itself has nothing to hide, or nobody could type the token in.
    assert_eq!(tracker.get("/").await.status, 200);
    assert_eq!(
        tracker.write("GET", "/api/v1/devices", "").await.status,
        200
    );
    let mut last = 401;
    for _ in 0..200 {
        let guess = "Authorization: Bearer guess\r\n";
        last = tracker
            .call("GET", "/api/v1/devices", guess, "")
            .await
            .status;
        if last == 429 {
            break;
        }
    }
    assert_eq!(last, 429);
    assert_eq!(
        tracker.write("GET", "/api/v1/devices", "").await.status,
        200
    );
}

#[actix::test]
async fn the_summary_tells_what_ingest_stores_how_fast_and_who_takes_which_share() {
    let site = Site::on_sqlite().await;
    let tracker = Tracker::start(&site, "status-1").await;
    let mut workers = [
        site.ingest("ingest-0").start(),
        site.ingest("ingest-1").start(),
    ];
    for worker in &mut workers {
        worker.ready(LONG).await;
    }
    let voice = Voice::of(&site, "voice").await;
    let told = eventually(LONG, "both replicas report their share", async || {
        for number in 0..50 {
            voice.temperature(&format!("s{number}"), 20.0).await;
        }
        voice
            .say("sensors/lab/temperature", "not a reading", false)
            .await;
        let summary = tracker.summary().await;
        let mut services = summary["services"].as_array().into_iter().flatten();
        let ingest = services.find(|it| it["service"] == "ingest").cloned();
        let replicas = ingest.unwrap_or_default()["replicas"].clone();
        let both = replicas.as_array().is_some_and(|replicas| {
            let shares: f64 = replicas.iter().filter_map(|it| it["share"].as_f64()).sum();
            let each = replicas.iter().all(|it| it["share"].as_f64() > Some(0.0));
            replicas.len() == 2 && each && (shares - 1.0).abs() < 1e-6
        });
        if both && summary["delivery_ms"].is_object() && summary["dead_letters"].as_u64() > Some(0)
        {
            Ok(summary)
        } else {
            Err(summary)
        }
    })
    .await;
    assert!(
        told["readings"]["stored_per_second"].as_f64() > Some(0.0),
        "{told}"
    );
    let delays = &told["delivery_ms"];
    let (p50, p99) = (
        delays["p50"].as_f64().unwrap(),
        delays["p99"].as_f64().unwrap(),
    );
    assert!(p50 > 0.0 && p50 <= p99 && p99 < 60_000.0, "{delays}");
    assert_eq!(told["dead_letter_reasons"][0]["reason"], "malformed");
    assert_eq!(
        (&told["store"]["backend"], &told["store"]["up"]),
        (&json!("sqlite"), &json!(true))
    );

    // A replica that is gone has no share, and the other has all.
    workers[1].kill();
    eventually(LONG, "the one that is left takes all", async || {
        voice.temperature("s1", 21.0).await;
        let summary = tracker.summary().await;
        let services = summary["services"].as_array().unwrap();
        let ingest = services
            .iter()
            .find(|it| it["service"] == "ingest")
            .unwrap();
        let replicas = &ingest["replicas"];
        if ingest["online"] == 1 && replicas[0]["share"] == 1.0 && replicas[1]["share"].is_null() {
            Ok(())
        } else {
            Err(ingest.clone())
        }
    })
    .await;
}

#[actix::test]
async fn a_refused_status_is_one_dead_letter_whoever_refuses_it_and_however_often() {
    let site = Site::on_sqlite().await;
    let mut listener = options(site.broker.addr(), "listener");
    let filter = "fleet/dead-letter/status-tracker";
    listener
        .subscriptions
        .push(Subscription::new(filter, QoS::AtLeastOnce));
    let listener = Client::connected(listener, Acknowledge::AtOnce).await;
    let mut one = Tracker::start(&site, "status-1").await;
    let other = Tracker::start(&site, "status-2").await;
    let voice = Voice::of(&site, "voice").await;
    voice
        .say("devices/ext-5/status", b"\xffjunk".to_vec(), true)
        .await;

    listener.received_at_least(1, LONG).await;
    let said = listener.received().remove(0);
    let properties = said.properties.unwrap();
    assert_eq!(said.payload, b"\xffjunk");
    assert_eq!(properties.user("reason"), Some("not_utf8"));
    assert_eq!(properties.user("topic"), Some("devices/ext-5/status"));
    let letters = async |tracker: &Tracker, outcome| {
        let metrics = tracker.process.metrics().await.unwrap();
        metrics.sum("status_dead_letters_total", &[("outcome", outcome)])
    };
    eventually(LONG, "both replicas are done with it", async || {
        let stored = letters(&one, "stored").await + letters(&other, "stored").await;
        let known = letters(&one, "known").await + letters(&other, "known").await;
        if (stored, known) == (1.0, 1.0) {
            Ok(())
        } else {
            Err((stored, known))
        }
    })
    .await;

    // A replica that starts later has it from what the broker retains, and finds it known.
    one.process.terminate();
    assert_eq!(one.process.exit(LONG).await, 0);
    let late = Tracker::start(&site, "status-3").await;
    eventually(LONG, "the retained one is known", async || {
        match letters(&late, "known").await {
            1.0 => Ok(()),
            count => Err(count),
        }
    })
    .await;

    // Another bad message is another letter, and harms nobody else.
    voice
        .say(
            "devices/ext-6/telemetry",
            r#"{"battery_percent":150}"#,
            false,
        )
        .await;
    listener.received_at_least(2, LONG).await;
    voice.status("d1", true).await;
    late.counts("online", 1).await;
    let stored = late
        .get("/api/v1/dead-letters?service=status-tracker")
        .await
        .json();
    let reasons: Vec<_> = stored["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["reason"])
        .collect();
    assert_eq!(reasons, ["invalid_field", "not_utf8"]);
    assert_eq!(listener.count(), 2);
}

#[actix::test]
async fn dead_letters_are_published_again_and_deleted() {
    let site = Site::on_sqlite().await;
    let tracker = Tracker::start(&site, "status-1").await;
    let mut ingest = site.ingest("ingest-0").start();
    ingest.ready(LONG).await;
    let voice = Voice::of(&site, "voice").await;
    // A device whose clock is ahead: refused, and a second try later succeeds.
    let ahead = jiff::Timestamp::now() + Duration::from_secs(3_600);
    voice
        .say(
            "sensors/lab/temperature",
            super::reading("early", 20.0, ahead),
            false,
        )
        .await;
    for text in ["junk 1", "junk 2"] {
        voice.say("sensors/lab/temperature", text, false).await;
    }
    let letters = async |query: &str| {
        let page = tracker
            .get(&format!("/api/v1/dead-letters{query}"))
            .await
            .json();
        page["items"].as_array().unwrap().clone()
    };
    eventually(LONG, "three dead letters are stored", async || {
        let count = letters("").await.len();
        if count == 3 { Ok(()) } else { Err(count) }
    })
    .await;
    assert_eq!(letters("?reason=malformed").await.len(), 2);

    let replay = "/api/v1/dead-letters/replay";
    assert_eq!(tracker.write("POST", replay, "{}").await.status, 400);
    let unknown = r#"{"ids":["019aaf0e-5b1c-7c3e-8e55-0c3d8e0c4e11"]}"#;
    assert_eq!(tracker.write("POST", replay, unknown).await.status, 404);
    let old = letters("?reason=malformed").await;
    let ids: Vec<&Value> = old.iter().map(|it| &it["id"]).collect();
    let answer = tracker
        .write("POST", replay, &json!({"ids": ids}).to_string())
        .await;
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({"replayed": 2, "failed": 0}))
    );
    // They are still refused, and come back under new names: nothing is lost.
    eventually(LONG, "what is still refused comes back", async || {
        let now = letters("?reason=malformed").await;
        let new = now.iter().filter(|it| !old.contains(it)).count();
        if new == 2 && now.len() == 2 {
            Ok(())
        } else {
            Err(now)
        }
    })
    .await;

    // An ingest that allows for such clocks takes the third.
    ingest.terminate();
    assert_eq!(ingest.exit(LONG).await, 0);
    let mut patient = site
        .ingest("ingest-0")
        .flag("--max-clock-skew", "2h")
        .start();
    patient.ready(LONG).await;
    let of_clocks = r#"{"reason":"future_timestamp"}"#;
    let answer = tracker.write("POST", replay, of_clocks).await;
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({"replayed": 1, "failed": 0}))
    );
    site.stored_at_least(1).await;
    assert_eq!(letters("?reason=future_timestamp").await.len(), 0);
}

#[actix::test]
async fn events_are_live_and_go_on_where_they_were() {
    let site = Site::on_sqlite().await;
    let tracker = Tracker::start(&site, "status-1").await;
    let voice = Voice::of(&site, "d").await;
    let mut stream = listen(&tracker, "").await;
    until(&mut stream, "retry: ").await;
    voice.status("d1", true).await;
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
    voice.status("d2", true).await;
    tracker.counts("online", 2).await;
    let mut stream = listen(&tracker, &format!("Last-Event-ID: {id}\r\n")).await;
    let seen = until(&mut stream, "\"device_id\":\"d2\"").await;
    assert!(!seen.contains("event: reset"), "{seen}");
    let mut stream = listen(&tracker, "Last-Event-ID: of-another\r\n").await;
    until(&mut stream, "event: reset").await;
}

#[actix::test]
async fn a_reader_that_does_not_read_holds_nobody_up_and_is_told_to_look_anew() {
    let site = Site::on_sqlite().await;
    let tracker = Tracker::start(&site, "status-1").await;
    let voice = Voice::of(&site, "voice").await;
    let mut slow = listen(&tracker, "").await;
    until(&mut slow, "retry: ").await;
    // More than what is kept for a slow reader, the buffers of both sockets included.
    let message = "x".repeat(4_000);
    for round in 0..30 {
        let alerts = (0..200).map(async |number| {
            let alert = json!({
                "alert_id": format!("a-{round}-{number}"), "severity": "info", "message": &message,
                "sensor_id": "s", "timestamp": "2026-01-01T00:00:00Z",
                "metadata": {"rule": "r", "value": "1", "state": "firing"},
            });
            voice.say("alerts/info/s", alert.to_string(), false).await;
        });
        join_all(alerts).await;
    }
    voice.status("last", true).await;
    eventually(LONG, "the tracker has seen all", async || {
        let answer = tracker.get("/api/v1/devices/last").await.status;
        if answer == 200 { Ok(()) } else { Err(answer) }
    })
    .await;
    assert!(tracker.process.resident_bytes() < 200 << 20);
    until(&mut slow, "event: reset\ndata: {}").await;
    until(&mut slow, "\"device_id\":\"last\"").await;
}

async fn listen(tracker: &Tracker, headers: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    // Small, so that a reader that does not read is soon felt at the other end.
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let mut stream = socket.connect(tracker.addr).await.unwrap();
    let request = format!("GET /api/v1/events HTTP/1.1\r\nHost: fleet\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn until(stream: &mut TcpStream, text: &str) -> String {
    let mut seen = String::new();
    let mut buffer = [0; 16 * 1024];
    let read = async {
        loop {
            let count = stream.read(&mut buffer).await.unwrap();
            assert_ne!(count, 0, "the stream ended: {seen}");
            let known = seen.len().saturating_sub(text.len());
            seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
            if seen.get(known..).is_some_and(|new| new.contains(text)) {
                return;
            }
        }
    };
    tokio::time::timeout(LONG, read).await.unwrap();
    seen
}
