//! A real OpenTelemetry Collector with the configuration that the fleet ships.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::{eventually, free_port, log};

/// Longest time the collector may take to listen.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running collector that keeps every trace, in a file.
#[derive(Debug)]
pub struct Collector {
    addr: SocketAddr,
    dir: TempDir,
    child: Child,
}

/// A span as the collector has written it down.
#[derive(Clone, Debug)]
pub struct CollectedSpan {
    /// `service.name` of its process.
    pub service: String,
    /// 32 hex digits.
    pub trace_id: String,
    /// 16 hex digits.
    pub span_id: String,
    /// 16 hex digits, or nothing for the first of a trace.
    pub parent_id: String,
    /// What it is called.
    pub name: String,
    /// `SpanKind` of OTLP: 2 server, 3 client, 4 producer, 5 consumer.
    pub kind: u64,
    /// Trace and span ids of its links.
    pub links: Vec<(String, String)>,
    /// Whether its status is an error.
    pub failed: bool,
    attributes: Value,
}

impl CollectedSpan {
    /// The value of an attribute, as text; nothing if it has none of that name.
    #[must_use]
    pub fn attribute(&self, key: &str) -> Option<String> {
        attribute(&self.attributes, key)
    }
}

/// The text of an attribute in a list of OTLP's JSON.
fn attribute(attributes: &Value, key: &str) -> Option<String> {
    let all = attributes.as_array()?;
    let found = all.iter().find(|it| it["key"] == key)?;
    let value = found["value"].as_object()?.values().next()?;
    Some(
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned),
    )
}

impl Collector {
    /// Starts one; none, said aloud, where it is not built and cannot be, for want of Go.
    ///
    /// # Panics
    /// Where Go is there and the collector is not: `make collector` builds it.
    pub async fn start() -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let program = built(root)?;
        let dir = TempDir::with_prefix("collector-").expect("a temporary directory");
        let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let configuration = root.join("../k8s/observability");
        let log = std::fs::File::create(dir.path().join("log")).expect("a new directory");
        let mut command = Command::new(program);
        for name in ["otel-collector.yaml", "otel-collector-file.yaml"] {
            command.arg("--config").arg(configuration.join(name));
        }
        let child = command
            .env_clear()
            .env("OTLP_HTTP_ADDR", addr.to_string())
            .env("OTLP_GRPC_ADDR", format!("127.0.0.1:{}", free_port()))
            .env("TRACES_FILE", dir.path().join("traces.json"))
            .env("TAIL_SAMPLING_WAIT", "2s")
            .env("TAIL_SAMPLING_PERCENT", "100")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the collector was built for this machine");
        let mut collector = Self { addr, dir, child };
        eventually(PATIENCE, "the collector listens", async || {
            if let Some(status) = collector.child.try_wait().expect("our own child") {
                panic!("the collector ended with {status}");
            }
            TcpStream::connect(addr).map(drop)
        })
        .await;
        Some(collector)
    }

    /// For `OTEL_EXPORTER_OTLP_ENDPOINT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What it has kept so far.
    #[must_use]
    pub fn spans(&self) -> Vec<CollectedSpan> {
        let file = self.dir.path().join("traces.json");
        let text = std::fs::read_to_string(file).unwrap_or_default();
        // The last line may be half written.
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.flat_map(|line| spans(&line)).collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        let file = self.dir.path().join("log");
        log::show_on_failure("otelcol", std::iter::once(file.as_path()));
    }
}

/// Where the collector is.
#[expect(clippy::print_stderr, reason = "what is skipped is said")]
fn built(root: &Path) -> Option<PathBuf> {
    let script = root.join("collector/build");
    let asked = Command::new("bash").arg(script).arg("--where").output();
    let answer = asked.expect("bash is there").stdout;
    let program = PathBuf::from(String::from_utf8_lossy(&answer).trim());
    if program.exists() {
        return Some(program);
    }
    let go = ["go", "/usr/local/go/bin/go"]
        .iter()
        .any(|go| Command::new(go).arg("version").output().is_ok());
    assert!(
        !go,
        "the OpenTelemetry Collector is not built: run `make collector` (`make test` does)"
    );
    eprintln!("SKIPPED: this test needs the OpenTelemetry Collector, which takes Go to build");
    None
}

fn spans(line: &Value) -> Vec<CollectedSpan> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut spans = Vec::new();
    for resource in list(&line["resourceSpans"]) {
        let service = attribute(&resource["resource"]["attributes"], "service.name");
        for scope in list(&resource["scopeSpans"]) {
            for span in list(&scope["spans"]) {
                let links = list(&span["links"]);
                spans.push(CollectedSpan {
                    service: service.clone().unwrap_or_default(),
                    trace_id: text(&span["traceId"]),
                    span_id: text(&span["spanId"]),
                    parent_id: text(&span["parentSpanId"]),
                    name: text(&span["name"]),
                    kind: span["kind"].as_u64().unwrap_or_default(),
                    links: links
                        .iter()
                        .map(|link| (text(&link["traceId"]), text(&link["spanId"])))
                        .collect(),
                    failed: span["status"]["code"] == 2,
                    attributes: span["attributes"].clone(),
                });
            }
        }
    }
    spans
}
