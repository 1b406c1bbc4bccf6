//! status-tracker on a real broker: presence that is true, the API and its description, the dashboard.

mod api;
mod dashboard;
mod description;
mod presence;
mod screenshots;

use std::net::SocketAddr;

use fleet_shared::session::Publish;
use fleet_tests::{Acknowledge, Client, Process, Program, eventually, free_port, options};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::site::{LONG, Site};

const TOKEN: &str = "token-of-the-test";

/// How long the trackers of the tests hold offline news back after a reconnect.
const SETTLE: &str = "20s";

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
            .flag("--settle", SETTLE)
            .flag("--command-timeout", "2s");
        let mut process = more(program).start();
        process.ready(LONG).await;
        Self { process, addr }
    }

    async fn call(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let answer = self.raw(method, path, headers, body).await;
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        Answer {
            status: head.split_whitespace().nth(1).unwrap().parse().unwrap(),
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }

    async fn raw(&self, method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: fleet\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        answer
    }

    /// An answer as it came.
    async fn bytes(&self, path: &str, headers: &str) -> Vec<u8> {
        self.raw("GET", path, headers, "").await
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
                .get(&format!("/api/v1/devices?limit=500{cursor}"))
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

/// Somebody who publishes what the tests say.
struct Voice(Client);

impl Voice {
    async fn of(site: &Site, client_id: &str) -> Self {
        let options = options(site.broker.addr(), client_id);
        Self(Client::connected(options, Acknowledge::AtOnce).await)
    }

    async fn say(&self, topic: &str, payload: impl Into<Vec<u8>>, retain: bool) {
        let publish = Publish::new(topic.to_owned(), "test", payload.into());
        self.0
            .session
            .publish(publish.retain(retain))
            .await
            .unwrap();
    }

    async fn status(&self, device: &str, online: bool) {
        let text = json!({"online": online}).to_string();
        self.say(&format!("devices/{device}/status"), text, true)
            .await;
    }

    async fn temperature(&self, sensor: &str, value: f64) {
        let text = reading(sensor, value, jiff::Timestamp::now());
        self.say("sensors/lab/temperature", text, false).await;
    }

    /// A reading of the sensor of a room.
    async fn room(&self, room: usize, value: f64) {
        let mut text = reading(&format!("temp-{room}"), value, jiff::Timestamp::now());
        text = text.replace(r#""lab""#, &format!(r#""room-{room}""#));
        self.say(&format!("sensors/room-{room}/temperature"), text, false)
            .await;
    }
}

/// A reading of a temperature as JSON.
fn reading(sensor: &str, value: f64, at: jiff::Timestamp) -> String {
    json!({
        "sensor_id": sensor, "type": "temperature", "value": value, "unit": "celsius",
        "location": "lab", "timestamp": at.to_string(),
    })
    .to_string()
}
