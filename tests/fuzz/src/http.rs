//! The HTTP API of a running status-tracker, fed with requests.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use fleet_tests::{Program, free_port};

use crate::mutate::input;

const TOKEN: &str = "fuzz";
const PATIENCE: Duration = Duration::from_secs(30);

/// Requests that are valid, but for what they are about.
fn requests() -> Vec<Vec<u8>> {
    let get =
        |target: &str| format!("GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let send = |method: &str, target: &str, body: &str| {
        format!(
            "{method} {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let texts = [
        get("/api/v1/summary"),
        get("/api/v1/devices?state=online&location=kitchen&type=temperature&limit=10&cursor=abc"),
        get("/api/v1/devices/sensor-001/transitions?limit=5"),
        get(
            "/api/v1/sensors/temp-001/readings?from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z&points=100",
        ),
        get("/api/v1/alerts?state=firing&severity=critical"),
        get("/api/v1/dead-letters?reason=malformed&cursor=1"),
        get("/openapi.json"),
        get("/"),
        send(
            "POST",
            "/api/v1/devices/sensor-001/commands/ping",
            "{\"a\":1}",
        ),
        send(
            "PUT",
            "/api/v1/devices/sensor-001/config",
            "{\"interval\":10}",
        ),
        send(
            "POST",
            "/api/v1/silences",
            "{\"matchers\":[{\"name\":\"rule\",\"op\":\"=~\",\"value\":\"a.*\"}],\"ends_at\":\"2027-01-01T00:00:00Z\",\"comment\":\"c\"}",
        ),
        send(
            "POST",
            "/api/v1/rules/backtest",
            "{\"from\":\"2026-01-01T00:00:00Z\",\"to\":\"2026-01-02T00:00:00Z\"}",
        ),
        send("POST", "/api/v1/dead-letters/replay", "{\"ids\":[1,2]}"),
    ];
    texts.map(String::into_bytes).into()
}

const WORDS: &[&str] = &[
    "%00",
    "%2F",
    "%zz",
    "&",
    "=",
    "limit=",
    "cursor=",
    "from=",
    "points=1000000",
    "\r\n",
    "Content-Length: 99\r\n",
    "Transfer-Encoding: chunked\r\n",
    "GET ",
    "PUT ",
    "/../",
    "?",
    "{",
    "\"",
    "Authorization: Bearer x\r\n",
];

/// Sends requests until `budget` is over; says how many were answered.
///
/// # Errors
/// A request that was answered with 500, or that ended the program.
pub fn drive_api(seed: u64, budget: Duration) -> Result<u64, String> {
    let port = free_port();
    let mut process = Program::service("status-tracker")
        .env("MQTT_URL", "mqtt://127.0.0.1:1")
        .env("DATABASE_URL", "sqlite://fleet.db")
        .env("HTTP_ADDR", format!("127.0.0.1:{port}"))
        .env("API_TOKEN", TOKEN)
        .env("STATUS_COMMAND_TIMEOUT", "1s")
        .env("LOG", "warn")
        .start();
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let began = Instant::now();
    while TcpStream::connect(addr).is_err() {
        if began.elapsed() > PATIENCE || !process.is_running() {
            return Err(format!(
                "status-tracker does not listen: {}",
                process.stderr()
            ));
        }
        std::thread::yield_now();
    }
    let (seeds, began) = (requests(), Instant::now());
    let (mut run, mut answered) = (0, 0);
    while began.elapsed() < budget {
        let request = input(&seeds, WORDS, seed, run);
        let answer = exchange(addr, &request);
        if !process.is_running() {
            return Err(format!(
                "run {run} ended it: {request:?}\n{}",
                process.stderr()
            ));
        }
        if let Some(answer) = answer {
            answered += 1;
            if answer.starts_with(b"HTTP/1.1 500") {
                let text = String::from_utf8_lossy(&request);
                return Err(format!(
                    "run {run}: {text:?} gave {}",
                    String::from_utf8_lossy(&answer)
                ));
            }
        }
        run += 1;
    }
    match answered {
        0 => Err("no request was answered".to_owned()),
        answered => Ok(answered),
    }
}

/// The head of the answer, if there is one: a request that is not whole is waited for by the
/// server, and given up here.
fn exchange(addr: SocketAddr, request: &[u8]) -> Option<Vec<u8>> {
    let mut socket = TcpStream::connect(addr).ok()?;
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .ok()?;
    socket.write_all(request).ok()?;
    let mut head = vec![0; 4_096];
    let length = socket.read(&mut head).ok().filter(|length| *length > 0)?;
    head.truncate(length);
    Some(head)
}
