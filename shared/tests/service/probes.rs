//! The admin server over a real socket.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use actix::Actor as _;
use fleet_shared::health::{Health, Observe, serve};
use fleet_shared::telemetry::Metrics;
use serde_json::{Value, json};

use crate::child::start;

/// One request; gives status line, headers and body.
fn get(addr: SocketAddr, path: &str) -> (String, String, String) {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let (status, headers) = head.split_once("\r\n").unwrap();
    (status.to_owned(), headers.to_lowercase(), body.to_owned())
}

async fn asked(addr: SocketAddr, path: &'static str) -> (String, String, String) {
    tokio::task::spawn_blocking(move || get(addr, path))
        .await
        .unwrap()
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

#[actix::test]
async fn readiness_follows_the_checks_and_ends_with_the_drain() {
    let health = Health::new();
    let admin = serve(any_port(), health.clone(), Metrics::new()).unwrap();
    let check = health.check("mqtt");
    check.down("refused");
    let (status, headers, body) = asked(admin.addr(), "/readyz").await;
    assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
    assert!(
        headers.contains("content-type: application/json"),
        "{headers}"
    );
    let mut body: Value = serde_json::from_str(&body).unwrap();
    let since = body["checks"][0]
        .as_object_mut()
        .unwrap()
        .remove("since")
        .unwrap();
    assert!(
        since.as_str().unwrap().parse::<jiff::Timestamp>().is_ok(),
        "{since}"
    );
    let down = json!({"name": "mqtt", "up": false, "reason": "refused"});
    assert_eq!(
        body,
        json!({"ready": false, "draining": false, "checks": [down]})
    );

    check.up();
    assert_eq!(asked(admin.addr(), "/readyz").await.0, "HTTP/1.1 200 OK");

    health.drain();
    assert_eq!(
        asked(admin.addr(), "/readyz").await.0,
        "HTTP/1.1 503 Service Unavailable"
    );
    admin.stop().await;
}

#[actix::test]
async fn metrics_and_liveness_are_served_and_the_rest_is_not() {
    let metrics = Metrics::new();
    metrics.counter("taken_total", "Taken.").inc();
    let admin = serve(any_port(), Health::new(), metrics).unwrap();

    let (status, headers, body) = asked(admin.addr(), "/metrics").await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(
        headers.contains("content-type: text/plain; version=0.0.4"),
        "{headers}"
    );
    assert!(body.contains("taken_total 1\n"), "{body}");

    let (status, _, body) = asked(admin.addr(), "/livez").await;
    assert_eq!(
        (status.as_str(), body.as_str()),
        ("HTTP/1.1 200 OK", "{\"status\":\"alive\"}")
    );

    let (status, headers, body) = asked(admin.addr(), "/health").await;
    assert_eq!(status, "HTTP/1.1 404 Not Found");
    assert!(
        headers.contains("content-type: application/problem+json"),
        "{headers}"
    );
    assert!(body.contains("there is no GET /health"), "{body}");
    admin.stop().await;
}

#[actix::test]
async fn stuck_event_loop_is_not_alive() {
    let admin = serve(any_port(), Health::new(), Metrics::new()).unwrap();
    let addr = admin.addr();
    assert_eq!(asked(addr, "/livez").await.0, "HTTP/1.1 200 OK");
    // Waiting for the answer on this thread is what keeps its loop from turning.
    let asking = std::thread::spawn(move || get(addr, "/livez"));
    let (status, _, body) = asking.join().unwrap();
    assert_eq!(
        (status.as_str(), body.as_str()),
        (
            "HTTP/1.1 503 Service Unavailable",
            "{\"loops\":[\"main\"],\"status\":\"stuck\"}"
        )
    );
    admin.stop().await;
}

#[actix::test]
async fn blocked_loop_of_another_thread_is_named_until_it_turns_again() {
    let health = Health::new();
    let admin = serve(any_port(), health.clone(), Metrics::new()).unwrap();
    let arbiter = actix::Arbiter::new();
    let watched = health.event_loop("session-1", arbiter.handle());
    assert_eq!(asked(admin.addr(), "/livez").await.0, "HTTP/1.1 200 OK");
    let (release, wait) = std::sync::mpsc::channel::<()>();
    arbiter.spawn_fn(move || wait.recv().unwrap_or_default());
    let (status, _, body) = asked(admin.addr(), "/livez").await;
    assert_eq!(
        (status.as_str(), body.as_str()),
        (
            "HTTP/1.1 503 Service Unavailable",
            "{\"loops\":[\"session-1\"],\"status\":\"stuck\"}"
        )
    );
    release.send(()).unwrap();
    assert_eq!(asked(admin.addr(), "/livez").await.0, "HTTP/1.1 200 OK");
    // A loop that ended on purpose is nobody's fault.
    arbiter.stop();
    arbiter.join().unwrap();
    assert_eq!(asked(admin.addr(), "/livez").await.0, "HTTP/1.1 200 OK");
    drop(watched);
    admin.stop().await;
}

/// Says how often it was asked.
#[derive(Default)]
struct Counter(u64);

impl actix::Actor for Counter {
    type Context = actix::Context<Self>;
}

impl actix::Handler<Observe> for Counter {
    type Result = actix::MessageResult<Observe>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        self.0 += 1;
        actix::MessageResult(json!({"asked": self.0}))
    }
}

#[actix::test]
async fn actors_say_what_state_they_are_in_and_only_so_many() {
    let health = Health::new();
    let admin = serve(any_port(), health.clone(), Metrics::new()).unwrap();
    let counter = Counter::default().start();
    let watched = health.actor("counter", counter.clone().recipient());
    let answer = asked(admin.addr(), "/debug/actors").await;
    assert_eq!(answer.0, "HTTP/1.1 200 OK");
    let shown: Value = serde_json::from_str(&answer.2).unwrap();
    assert_eq!(
        shown,
        json!({"actors": [{"name": "counter", "state": {"asked": 1}}], "not_shown": 0})
    );
    let more: Vec<_> = (0..100)
        .map(|n| health.actor(format!("device-{n}"), counter.clone().recipient()))
        .collect();
    let shown: Value = serde_json::from_str(&asked(admin.addr(), "/debug/actors").await.2).unwrap();
    assert_eq!(shown["actors"].as_array().unwrap().len(), 64);
    assert_eq!(shown["not_shown"], 37);
    drop((watched, more));
    let shown: Value = serde_json::from_str(&asked(admin.addr(), "/debug/actors").await.2).unwrap();
    assert_eq!(shown, json!({"actors": [], "not_shown": 0}));
    admin.stop().await;
}

#[actix::test]
async fn actor_that_does_not_answer_is_shown_without_a_state() {
    let health = Health::new();
    let admin = serve(any_port(), health.clone(), Metrics::new()).unwrap();
    let arbiter = actix::Arbiter::new();
    let busy = Counter::start_in_arbiter(&arbiter.handle(), |_| Counter::default());
    let _watched = health.actor("busy", busy.recipient());
    let (release, wait) = std::sync::mpsc::channel::<()>();
    arbiter.spawn_fn(move || wait.recv().unwrap_or_default());
    let shown: Value = serde_json::from_str(&asked(admin.addr(), "/debug/actors").await.2).unwrap();
    assert_eq!(
        shown["actors"],
        json!([{"name": "busy", "error": "it did not answer within 1s"}])
    );
    release.send(()).unwrap();
    admin.stop().await;
}

#[actix::test]
async fn taken_address_is_a_configuration_error() {
    let admin = serve(any_port(), Health::new(), Metrics::new()).unwrap();
    let error = serve(admin.addr(), Health::new(), Metrics::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "--admin-addr (ADMIN_ADDR) is `{}`: another process listens there; choose another address, or `off`",
            admin.addr()
        )
    );
    let addr = admin.addr().to_string();
    let ended = tokio::task::spawn_blocking(move || {
        start(&["--log=warn"], &[("ADMIN_ADDR", &addr)]).ended()
    })
    .await
    .unwrap();
    assert_eq!(
        (ended.code, ended.stderr),
        (Some(2), format!("error: {error}\n"))
    );
    admin.stop().await;
}
