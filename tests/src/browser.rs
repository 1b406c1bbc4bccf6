//! Debian's Chromium without a screen, driven by WebDriver (W3C) over plain HTTP on the loopback.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::{eventually, free_port, log};

/// Longest wait for the browser to do one thing.
const LIMIT: Duration = Duration::from_secs(60);

/// The screen of a browser.
#[derive(Clone, Copy, Debug)]
pub enum Screen {
    /// A window of so many pixels.
    Window(u32, u32),
    /// A phone of so many pixels, two dots each, with touch.
    Phone(u32, u32),
}

/// A running browser with one page; killed when dropped.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    addr: SocketAddr,
    session: String,
    dir: TempDir,
}

impl Browser {
    /// Starts a browser with an empty profile.
    pub async fn start(screen: Screen) -> Self {
        let dir = TempDir::with_prefix("browser-").expect("a temporary directory");
        let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let file = File::create(dir.path().join("chromedriver.log")).expect("a new directory");
        let both = file.try_clone().expect("an open file");
        let driver = Command::new("chromedriver")
            .arg(format!("--port={}", addr.port()))
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(both)
            // The browser's processes are in the group of the driver, and end with it.
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start chromedriver: {error}; `make test-tools` installs it"));
        let mut browser = Self {
            driver,
            addr,
            session: String::new(),
            dir,
        };
        eventually(LIMIT, "chromedriver answers", async || {
            match browser.ask("GET", "/status", None).await {
                Ok(answer) if answer["ready"] == true => Ok(()),
                other => Err(other),
            }
        })
        .await;
        let wanted = capabilities(screen, browser.dir.path());
        let session = browser.ask("POST", "/session", Some(wanted)).await;
        let session = session.unwrap_or_else(|error| panic!("no browser: {error}"));
        let id = session["sessionId"].as_str().expect("a session has an id");
        browser.session = format!("/session/{id}");
        browser
    }

    /// Opens a page and waits until it is loaded.
    pub async fn open(&self, url: &str) {
        self.must("POST", "/url", json!({"url": url})).await;
    }

    /// What a function body gives back, run in the page.
    pub async fn run(&self, script: &str) -> Value {
        let body = json!({"script": script, "args": []});
        self.must("POST", "/execute/sync", body).await
    }

    /// The text of the first element that a CSS selector finds.
    pub async fn text(&self, selector: &str) -> Option<String> {
        let selector = json!(selector);
        let text = self
            .run(&format!(
                "return document.querySelector({selector})?.innerText"
            ))
            .await;
        text.as_str().map(ToOwned::to_owned)
    }

    /// Waits for text in an element.
    pub async fn shows(&self, selector: &str, text: &str) {
        let what = format!("`{selector}` shows `{text}`");
        eventually(LIMIT, &what, async || match self.text(selector).await {
            Some(shown) if shown.contains(text) => Ok(()),
            other => Err(other),
        })
        .await;
    }

    /// Clicks an element as a person does, once it is there and can be clicked.
    pub async fn click(&self, selector: &str) {
        self.element(selector, "click", json!({})).await;
    }

    /// Types into an element.
    pub async fn write(&self, selector: &str, text: &str) {
        self.element(selector, "value", json!({"text": text})).await;
    }

    /// The page in sight as a PNG.
    pub async fn screenshot(&self) -> Vec<u8> {
        let path = format!("{}/screenshot", self.session);
        let image = self.ask("GET", &path, None).await.expect("a screenshot");
        let text = image.as_str().expect("text");
        STANDARD.decode(text).expect("base64")
    }

    /// What the page wrote to the console since the last question, reports of the content security
    /// policy included, at the level `warning` and above.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self
            .must("POST", "/se/log", json!({"type": "browser"}))
            .await;
        let entries = log.as_array().into_iter().flatten();
        entries
            .filter(|entry| matches!(entry["level"].as_str(), Some("WARNING" | "SEVERE")))
            .map(|entry| entry["message"].to_string())
            .collect()
    }

    async fn element(&self, selector: &str, act: &str, body: Value) {
        let what = format!("`{selector}` takes {act}");
        let find = json!({"using": "css selector", "value": selector});
        let look = format!("{}/element", self.session);
        eventually(LIMIT, &what, async || {
            let found = self.ask("POST", &look, Some(find.clone())).await?;
            let ids = found.as_object().into_iter().flat_map(|it| it.values());
            let id = ids.filter_map(Value::as_str).next();
            let id = id.ok_or_else(|| "an element without an id".to_owned())?;
            // It may be drawn anew in between, or covered: then it is looked for again.
            let path = format!("{}/element/{id}/{act}", self.session);
            self.ask("POST", &path, Some(body.clone())).await
        })
        .await;
    }

    async fn must(&self, method: &str, path: &str, body: Value) -> Value {
        let path = format!("{}{path}", self.session);
        let answer = self.ask(method, &path, Some(body)).await;
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// One command of WebDriver: its value, or what went wrong.
    async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Result<Value, String> {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.addr,
            body.len()
        );
        let answer = tokio::time::timeout(LIMIT, exchange(self.addr, &request)).await;
        let answer = answer.map_err(|_| format!("no answer within {LIMIT:?}"))?;
        let answer = answer.map_err(|error| error.to_string())?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no HTTP answer")?;
        let value: Value = serde_json::from_str(body).map_err(|error| error.to_string())?;
        if head.split_whitespace().nth(1) == Some("200") {
            return Ok(value["value"].clone());
        }
        Err(value["value"]["message"].to_string())
    }
}

/// Sends a request and reads its answer, whose length the head tells: chromedriver keeps connections
/// open whatever it is asked for.
async fn exchange(addr: SocketAddr, request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let mut buffer = vec![0; 64 * 1_024];
    loop {
        let count = stream.read(&mut buffer).await?;
        answer.extend_from_slice(&buffer[..count]);
        if count == 0 || is_whole(&answer) {
            return Ok(String::from_utf8_lossy(&answer).into_owned());
        }
    }
}

fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|it| it == b"\r\n\r\n") else {
        return false;
    };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    let length = length.and_then(|length| length.trim().parse::<usize>().ok());
    length.is_some_and(|length| answer.len() >= end + 4 + length)
}

fn capabilities(screen: Screen, dir: &Path) -> Value {
    let (width, height) = match screen {
        Screen::Window(width, height) | Screen::Phone(width, height) => (width, height),
    };
    let mut options = json!({
        "binary": "/usr/bin/chromium",
        // The tests run as root in a container: the sandbox needs what neither has. The page is ours.
        "args": [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--disable-extensions", "--no-first-run", "--hide-scrollbars", "--lang=en-US",
            "--force-color-profile=srgb",
            format!("--window-size={width},{height}"),
            format!("--user-data-dir={}", dir.join("profile").display()),
        ],
    });
    if let Screen::Phone(..) = screen {
        options["mobileEmulation"] = json!({
            "deviceMetrics": {"width": width, "height": height, "pixelRatio": 2.0, "touch": true},
        });
    }
    json!({"capabilities": {"alwaysMatch": {
        "browserName": "chrome",
        "goog:chromeOptions": options,
        "goog:loggingPrefs": {"browser": "ALL"},
    }}})
}

impl Drop for Browser {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.driver.id().try_into().expect("a process id fits"));
        // It may have ended by itself: then there is nothing to kill.
        killpg(group, Signal::SIGKILL).ok();
        self.driver.wait().ok();
        let path = self.dir.path().join("chromedriver.log");
        log::show_on_failure("chromedriver", [path.as_path()]);
    }
}
