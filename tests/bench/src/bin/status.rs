//! What status-tracker takes for a large fleet: memory a device, and how long a page of it takes
//! under load.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use fleet_bench::{Report, tell};
use fleet_shared::session::Publish;
use fleet_tests::{
    Acknowledge, Client, Mosquitto, Process, Program, TempDir, eventually, free_port,
};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Longest wait for the tracker to know all devices.
const LIMIT: Duration = Duration::from_secs(120);

/// Publishes on their way to the broker at once.
const FLIGHT: u64 = 200;

/// Fills a Mosquitto with retained statuses, starts a tracker on it, and asks for pages at a fixed
/// rate: a request that has to wait for the one before it is late, and that
/// counts.
#[derive(Parser)]
#[command(name = "bench-status", version)]
struct Args {
    /// Devices.
    #[arg(long, default_value_t = 100_000)]
    devices: u64,
    /// Requests a second.
    #[arg(long, default_value_t = 1_000)]
    rate: u64,
    /// How long, in seconds.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Connections that the requests take turns on.
    #[arg(long, default_value_t = 32)]
    connections: u64,
    /// Devices a page.
    #[arg(long, default_value_t = 100)]
    page: u64,
    /// Write the figures as JSON too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What was measured.
#[derive(Serialize)]
struct Measured {
    machine: String,
    version: &'static str,
    devices: u64,
    /// Resident without a device, and with all.
    empty_mib: f64,
    full_mib: f64,
    bytes_a_device: f64,
    runs: Vec<Run>,
}

/// Requests of one kind.
#[derive(Serialize)]
struct Run {
    what: &'static str,
    requests: u64,
    answered_per_second: f64,
    /// Mean size of an answer.
    kib: f64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    /// Processor time of the tracker a request.
    cpu_us: f64,
}

#[actix::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let broker = Mosquitto::start().await;
    let empty = Tracker::start(&broker, 0).await?;
    let empty_mib = mib(&empty.process);
    drop(empty);
    fill(&broker, args.devices).await?;
    let tracker = Tracker::start(&broker, args.devices).await?;
    let full_mib = mib(&tracker.process);

    let (devices, page) = (args.devices, args.page);
    let some = move |number: u64| device(number.wrapping_mul(7_919) % devices);
    let pages = move |number| format!("/api/v1/devices?limit={page}&cursor={}", some(number));
    let one = move |number| format!("/api/v1/devices/{}", some(number));
    let rare = move |_| format!("/api/v1/devices?limit={page}&state=offline");
    let mut runs = vec![
        load(&args, &tracker, "a page of devices", args.rate, pages).await?,
        load(&args, &tracker, "one device", args.rate, one).await?,
        load(&args, &tracker, "the summary", args.rate, |_| {
            "/api/v1/summary".to_owned()
        })
        .await?,
    ];
    // Every device is looked at, and none found.
    runs.push(load(&args, &tracker, "a page of a state nobody is in", 20, rare).await?);
    let report = Report::new();
    let measured = Measured {
        machine: report.machine,
        version: report.version,
        devices: args.devices,
        empty_mib,
        full_mib,
        bytes_a_device: (full_mib - empty_mib) * 1_048_576.0 / args.devices as f64,
        runs,
    };
    tell(args.json.as_deref(), &measured, &table(&measured))
}

fn table(measured: &Measured) -> String {
    let mut text = format!(
        "{}\n\n{} devices: {:.1} MiB resident, {:.1} without any, {:.0} bytes a device\n\n{:<34} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}\n",
        measured.machine,
        measured.devices,
        measured.full_mib,
        measured.empty_mib,
        measured.bytes_a_device,
        "",
        "per s",
        "KiB",
        "p50 ms",
        "p99 ms",
        "max ms",
        "CPU µs"
    );
    for run in &measured.runs {
        text.push_str(&format!(
            "{:<34} {:>8.0} {:>8.1} {:>8.2} {:>8.2} {:>8.2} {:>8.0}\n",
            run.what,
            run.answered_per_second,
            run.kib,
            run.p50_ms,
            run.p99_ms,
            run.max_ms,
            run.cpu_us
        ));
    }
    text
}

fn device(number: u64) -> String {
    format!("device-{number:06}")
}

/// Has every device say that it is there.
async fn fill(broker: &Mosquitto, devices: u64) -> anyhow::Result<()> {
    let options = fleet_tests::options(broker.addr(), "filler");
    let client = Client::connected(options, Acknowledge::AtOnce).await;
    let now = jiff::Timestamp::now().to_string();
    let mut lanes = Vec::new();
    for lane in 0..FLIGHT {
        let (session, now) = (client.session.clone(), now.clone());
        lanes.push(actix::spawn(async move {
            for number in (lane..devices).step_by(FLIGHT as usize) {
                let published = session.publish(status(number, &now)).await;
                published.with_context(|| format!("publishing a status of {}", device(number)))?;
            }
            anyhow::Ok(())
        }));
    }
    for lane in lanes {
        lane.await.context("publishing")??;
    }
    Ok(())
}

fn status(number: u64, now: &str) -> Publish {
    let id = device(number);
    let session = format!("01900000-0000-7000-8000-{number:012}");
    let status = json!({
        "device_id": id, "online": true, "last_seen": now, "firmware_version": format!("2.4.{}", number % 5),
        "signal_strength": -40 - (number % 50) as i64, "uptime_seconds": number, "session_id": session,
    });
    let topic = format!("devices/{id}/status");
    let publish = Publish::new(
        topic,
        "devices/{device_id}/status",
        status.to_string().into_bytes(),
    );
    publish.retain(true)
}

/// A tracker that knows its devices.
struct Tracker {
    process: Process,
    addr: SocketAddr,
    _dir: TempDir,
}

impl Tracker {
    async fn start(broker: &Mosquitto, devices: u64) -> anyhow::Result<Self> {
        let dir = TempDir::new()?;
        let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let database = dir.path().join("fleet.db");
        let mut process = Program::service("status-tracker")
            .env("MQTT_URL", broker.url())
            .env("DATABASE_URL", format!("sqlite://{}", database.display()))
            .env("HTTP_ADDR", addr)
            .flag("--silence-max", "1h")
            .start();
        process.ready(LIMIT).await;
        let tracker = Self {
            process,
            addr,
            _dir: dir,
        };
        eventually(LIMIT, "all devices are known and stored", async || {
            let summary = tracker
                .get("/api/v1/summary")
                .await
                .map_err(|error| error.to_string())?;
            let waiting = tracker
                .process
                .metrics()
                .await
                .map_err(|error| error.to_string())?;
            let waiting = waiting.sum("status_transitions_waiting", &[]);
            let known = summary["devices"]["online"] == devices;
            if known && waiting == 0.0 {
                Ok(())
            } else {
                Err(format!("{}, {waiting} wait", summary["devices"]))
            }
        })
        .await;
        Ok(tracker)
    }

    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let mut connection = Connection::open(self.addr).await?;
        Ok(serde_json::from_slice(&connection.get(path).await?)?)
    }
}

fn mib(process: &Process) -> f64 {
    process.resident_bytes() as f64 / 1_048_576.0
}

/// A connection that is kept.
struct Connection(BufReader<TcpStream>);

impl Connection {
    async fn open(addr: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::with_capacity(64 * 1024, stream)))
    }

    /// The body of an answer.
    async fn get(&mut self, path: &str) -> anyhow::Result<Vec<u8>> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n");
        self.0.write_all(request.as_bytes()).await?;
        let mut length = None;
        let mut line = String::new();
        self.0.read_line(&mut line).await?;
        ensure!(line.contains(" 200 "), "{path}: {line}");
        loop {
            line.clear();
            self.0.read_line(&mut line).await?;
            let header = line.trim_end();
            if header.is_empty() {
                break;
            }
            if let Some((name, value)) = header.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = Some(value.trim().parse()?);
            }
        }
        let Some(length) = length else {
            bail!("{path}: an answer without a length");
        };
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await?;
        Ok(body)
    }
}

/// Asks at a fixed rate, and measures each answer from when its request was due.
async fn load(
    args: &Args,
    tracker: &Tracker,
    what: &'static str,
    rate: u64,
    path: impl Fn(u64) -> String + Copy + 'static,
) -> anyhow::Result<Run> {
    let total = rate * args.seconds;
    let connections = args.connections.min(rate);
    let mut asking = Vec::new();
    let (cpu, began) = (
        tracker.process.cpu(),
        Instant::now() + Duration::from_millis(200),
    );
    for lane in 0..connections {
        let mut connection = Connection::open(tracker.addr).await?;
        asking.push(actix::spawn(async move {
            let mut taken = Vec::new();
            let mut bytes = 0;
            for number in (lane..total).step_by(connections as usize) {
                let due = began + Duration::from_secs_f64(number as f64 / rate as f64);
                tokio::time::sleep_until(due).await;
                bytes += connection.get(&path(number)).await?.len() as u64;
                taken.push(due.elapsed());
            }
            anyhow::Ok((taken, bytes))
        }));
    }
    let (mut taken, mut bytes) = (Vec::new(), 0);
    for lane in asking {
        let (some, size) = lane.await.context("asking")??;
        taken.extend(some);
        bytes += size;
    }
    let (took, cpu) = (began.elapsed(), tracker.process.cpu() - cpu);
    taken.sort_unstable();
    let at = |percent: usize| taken[(taken.len() * percent / 100).min(taken.len() - 1)];
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    Ok(Run {
        what,
        requests: total,
        answered_per_second: total as f64 / took.as_secs_f64(),
        kib: bytes as f64 / total as f64 / 1_024.0,
        p50_ms: ms(at(50)),
        p99_ms: ms(at(99)),
        max_ms: ms(at(100)),
        cpu_us: cpu.as_secs_f64() * 1e6 / total as f64,
    })
}
