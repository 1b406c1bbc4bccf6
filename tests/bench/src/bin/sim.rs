//! What a simulated device costs, beside a task of rumqttc a device.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use fleet_bench::{Report, tell};
use fleet_tests::{Mosquitto, Process, Program, Setup, TempDir, cpu_time, resident_bytes};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{LastWill, Packet};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Descriptors of a process beside those of its connections.
const SPARE: u64 = 500;
/// Longest time for all connections.
const CONNECT_MAX: Duration = Duration::from_secs(120);
/// Time between the last connection and the measurement: what a handshake needs for a moment is
/// given back.
const CALM: Duration = Duration::from_secs(3);

/// Measures connecting, idle memory and publishing of thousands of devices against Mosquitto, each
/// with a persistent session and a last will; then the same with rumqttc.
#[derive(Parser)]
#[command(name = "bench-sim", version)]
struct Args {
    /// Devices, each with a connection of its own.
    #[arg(long, default_value_t = 15_000)]
    devices: u32,
    /// Readings a second of all of them.
    #[arg(long, default_value_t = 15_000)]
    rate: u32,
    /// How long publishing is measured.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Leaves rumqttc out.
    #[arg(long)]
    alone: bool,
    /// Write the figures as JSON too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Used by this program itself: the port of the broker, for the process with rumqttc.
    #[arg(long, hide = true)]
    peer: Option<u16>,
}

/// The figures of one program.
#[derive(Debug, Serialize)]
struct Figures {
    what: String,
    devices: u32,
    connected: u32,
    connects_per_second: f64,
    kib_per_idle_device: f64,
    published_per_second: f64,
    cpu_seconds_per_million: f64,
}

#[derive(Serialize)]
struct Answer {
    machine: String,
    version: &'static str,
    /// CPU time with a ledger over that without, less one, in percent.
    ledger_overhead_percent: f64,
    figures: Vec<Figures>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(port) = args.peer {
        return peer::run(&args, port);
    }
    let devices = affordable(args.devices)?;
    actix::System::new().block_on(async move {
        let report = Report::new();
        let folder = TempDir::new()?;
        let plain = ours("device-sim", &args, devices, None).await?;
        let ledger = folder.path().join("ledger.jsonl");
        let with_ledger = ours("device-sim with a ledger", &args, devices, Some(&ledger)).await?;
        let overhead = with_ledger.cpu_seconds_per_million / plain.cpu_seconds_per_million - 1.0;
        let mut figures = vec![plain, with_ledger];
        if !args.alone {
            figures.push(rumqttc(&args, devices).await?);
        }
        let answer = Answer {
            machine: report.machine,
            version: report.version,
            ledger_overhead_percent: overhead * 100.0,
            figures,
        };
        tell(args.json.as_deref(), &answer, &table(&answer))
    })
}

/// A Mosquitto that does not write about every connection.
async fn quiet_broker() -> Mosquitto {
    let lines = ["log_type error", "connection_messages false"];
    Mosquitto::with(Setup {
        lines: lines.map(str::to_owned).to_vec(),
        ..Setup::default()
    })
    .await
}

/// As many devices as there are descriptors for, after the limit was raised as far as it goes. The
/// broker and the simulators inherit it.
#[expect(clippy::print_stderr, reason = "whoever reads the figures has to know")]
fn affordable(devices: u32) -> anyhow::Result<u32> {
    let wanted = u64::from(devices) + SPARE;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // Beyond the hard limit only root can go, and not everywhere.
    let raised = soft >= wanted
        || setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard).max(soft), hard).is_ok()
            && hard >= wanted
        || setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted.max(hard)).is_ok();
    if raised {
        return Ok(devices);
    }
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let affordable = u32::try_from(soft.saturating_sub(SPARE))?;
    ensure!(
        affordable > 0,
        "only {soft} descriptors are allowed; raise `ulimit -n`"
    );
    eprintln!(
        "only {soft} descriptors are allowed, so {affordable} devices are measured and not {devices}; \
         raise the hard limit (`ulimit -Hn`) for all of them"
    );
    Ok(affordable)
}

/// A run of device-sim with nothing to say, then one that publishes.
async fn ours(
    what: &str,
    args: &Args,
    devices: u32,
    ledger: Option<&std::path::Path>,
) -> anyhow::Result<Figures> {
    let broker = quiet_broker().await;
    let simulator = |devices: u32, rate: f64| {
        let program = Program::service("device-sim")
            .env("MQTT_URL", broker.url())
            .flag("--profile", "load")
            .flag("--devices", devices)
            .flag("--rate", rate)
            .flag("--seed", 1)
            .flag("--connect-rate", 1_000_000);
        match ledger {
            Some(ledger) => program.flag("--ledger", ledger.display()),
            None => program,
        }
    };
    // What the process takes whatever the number of its devices.
    let mut one = simulator(1, 0.001).start();
    one.ready(CONNECT_MAX).await;
    tokio::time::sleep(CALM).await;
    let base = one.resident_bytes();
    one.kill();

    let mut idle = simulator(devices, 0.001).start();
    let took = all_connected(&mut idle, devices).await?;
    tokio::time::sleep(CALM).await;
    let resident = idle.resident_bytes().saturating_sub(base);
    let connected = idle
        .metrics()
        .await?
        .sum("sim_devices", &[("state", "connected")]) as u32;
    idle.terminate();
    ensure!(
        idle.exit(CONNECT_MAX).await == 0,
        "device-sim did not end well: {}",
        idle.stderr()
    );

    let mut busy = simulator(devices, f64::from(args.rate)).start();
    all_connected(&mut busy, devices).await?;
    tokio::time::sleep(CALM).await;
    let published = async |process: &Process| -> anyhow::Result<f64> {
        let labels = [("outcome", "acknowledged"), ("qos", "1")];
        Ok(process.metrics().await?.sum("sim_publishes_total", &labels))
    };
    let (count, cpu, began) = (published(&busy).await?, busy.cpu(), Instant::now());
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    let (count, cpu) = (published(&busy).await? - count, busy.cpu() - cpu);
    let measured = began.elapsed();
    busy.kill();
    Ok(figures(
        what, devices, connected, took, resident, count, cpu, measured,
    ))
}

#[expect(clippy::too_many_arguments, reason = "each is a figure of its own")]
fn figures(
    what: &str,
    devices: u32,
    connected: u32,
    took: Duration,
    resident: u64,
    published: f64,
    cpu: Duration,
    measured: Duration,
) -> Figures {
    Figures {
        what: what.to_owned(),
        devices,
        connected,
        connects_per_second: f64::from(connected) / took.as_secs_f64(),
        kib_per_idle_device: resident as f64 / 1_024.0 / f64::from(devices),
        published_per_second: published / measured.as_secs_f64(),
        cpu_seconds_per_million: cpu.as_secs_f64() * 1e6 / published.max(1.0),
    }
}

/// Waits until all are connected; how long that took since the start of the process.
async fn all_connected(process: &mut Process, devices: u32) -> anyhow::Result<Duration> {
    let began = Instant::now();
    loop {
        ensure!(
            process.is_running(),
            "device-sim ended: {}",
            process.stderr()
        );
        // The admin server may not listen yet.
        if let Ok(metrics) = process.metrics().await {
            let connected = metrics.sum("sim_devices", &[("state", "connected")]);
            if connected >= f64::from(devices) {
                return Ok(began.elapsed());
            }
            ensure!(
                began.elapsed() < CONNECT_MAX,
                "{connected} of {devices} devices are connected after {CONNECT_MAX:?}: {}",
                process.stderr()
            );
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What the process with rumqttc says, again and again.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
struct Said {
    connected: u32,
    acknowledged: u64,
}

/// A process of this program with a task of rumqttc a device; ends with its value.
struct Peer {
    child: Child,
    said: Arc<std::sync::Mutex<Said>>,
}

impl Peer {
    fn start(args: &Args, devices: u32, rate: u32, broker: &Mosquitto) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--peer", &broker.port().to_string()])
            .args([
                "--devices",
                &devices.to_string(),
                "--rate",
                &rate.to_string(),
            ])
            .args(["--seconds", &args.seconds.to_string()])
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = child.stdout.take().context("its output")?;
        let said = Arc::<std::sync::Mutex<Said>>::default();
        std::thread::spawn({
            let said = Arc::clone(&said);
            move || {
                use std::io::BufRead as _;
                for line in std::io::BufReader::new(lines).lines().map_while(Result::ok) {
                    if let (Ok(new), Ok(mut said)) = (serde_json::from_str(&line), said.lock()) {
                        *said = new;
                    }
                }
            }
        });
        Ok(Self { child, said })
    }

    fn said(&self) -> Said {
        *self
            .said
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn resident(&self) -> anyhow::Result<u64> {
        resident_bytes(self.child.id()).context("reading /proc")
    }

    fn cpu(&self) -> anyhow::Result<Duration> {
        cpu_time(self.child.id()).context("reading /proc")
    }

    async fn connected(&self, devices: u32) -> anyhow::Result<Duration> {
        let began = Instant::now();
        while self.said().connected < devices {
            ensure!(
                began.elapsed() < CONNECT_MAX,
                "{:?} of {devices} of rumqttc's after {CONNECT_MAX:?}",
                self.said()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(began.elapsed())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

async fn rumqttc(args: &Args, devices: u32) -> anyhow::Result<Figures> {
    let broker = quiet_broker().await;
    let one = Peer::start(args, 1, 0, &broker)?;
    one.connected(1).await?;
    tokio::time::sleep(CALM).await;
    let base = one.resident()?;
    drop(one);
    let idle = Peer::start(args, devices, 0, &broker)?;
    let took = idle.connected(devices).await?;
    tokio::time::sleep(CALM).await;
    let (resident, connected) = (idle.resident()?.saturating_sub(base), idle.said().connected);
    drop(idle);
    let broker = quiet_broker().await;
    let busy = Peer::start(args, devices, args.rate, &broker)?;
    busy.connected(devices).await?;
    tokio::time::sleep(CALM).await;
    let (count, cpu, began) = (busy.said().acknowledged, busy.cpu()?, Instant::now());
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    let (count, cpu) = ((busy.said().acknowledged - count) as f64, busy.cpu()? - cpu);
    let measured = began.elapsed();
    Ok(figures(
        "rumqttc 0.25, a task a device",
        devices,
        connected,
        took,
        resident,
        count,
        cpu,
        measured,
    ))
}

fn table(answer: &Answer) -> String {
    let mut text = format!("{}\n\n", answer.machine);
    text.push_str(&format!(
        "{:<30} {:>9} {:>10} {:>11} {:>12} {:>9}\n",
        "", "connected", "connects/s", "KiB/idle", "published/s", "CPU s/M"
    ));
    for it in &answer.figures {
        text.push_str(&format!(
            "{:<30} {:>9} {:>10.0} {:>11.1} {:>12.0} {:>9.1}\n",
            it.what,
            it.connected,
            it.connects_per_second,
            it.kib_per_idle_device,
            it.published_per_second,
            it.cpu_seconds_per_million
        ));
    }
    text.push_str(&format!(
        "\nledger overhead: {:.1} % CPU\n",
        answer.ledger_overhead_percent
    ));
    text
}

/// The process with rumqttc.
mod peer {
    use super::*;

    /// Handshakes at once, as device-sim has them.
    const CONNECTING_MAX: usize = 64;

    #[derive(Default)]
    struct Counts {
        connected: AtomicU64,
        acknowledged: AtomicU64,
    }

    #[expect(clippy::print_stdout, reason = "this is how it is watched")]
    pub(super) fn run(args: &Args, port: u16) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(std::thread::available_parallelism().map_or(1, usize::from))
            .enable_all()
            .build()?;
        let counts = Arc::new(Counts::default());
        let gate = Arc::new(Semaphore::new(CONNECTING_MAX));
        runtime.block_on(async {
            for number in 0..args.devices {
                let (counts, gate) = (Arc::clone(&counts), Arc::clone(&gate));
                let pause = (args.rate > 0)
                    .then(|| Duration::from_secs(u64::from(args.devices)) / args.rate);
                tokio::spawn(device(number, args.devices, port, pause, counts, gate));
            }
            loop {
                let said = Said {
                    connected: counts.connected.load(Ordering::Relaxed) as u32,
                    acknowledged: counts.acknowledged.load(Ordering::Relaxed),
                };
                println!("{}", serde_json::to_string(&said)?);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
    }

    async fn device(
        number: u32,
        devices: u32,
        port: u16,
        pause: Option<Duration>,
        counts: Arc<Counts>,
        gate: Arc<Semaphore>,
    ) {
        let mut options = MqttOptions::new(format!("rumqttc-{number}"), "127.0.0.1", port);
        options.set_keep_alive(Duration::from_secs(60));
        options.set_clean_start(false);
        options.set_session_expiry_interval(Some(3_600));
        // With its default of 65,535 it takes 13.8 MB a client before the first publish.
        options.set_outgoing_inflight_upper_limit(100);
        let topic = format!("devices/rumqttc-{number}/status");
        let will = r#"{"online":false}"#;
        options.set_last_will(LastWill::new(topic, will, QoS::AtLeastOnce, true, None));
        let (client, mut events) = AsyncClient::new(options, 10);
        let topic = format!("sensors/hall-{}/temperature", number % 100);
        let mut turn = gate.acquire().await.ok();
        let every = pause.unwrap_or(Duration::from_secs(86_400));
        let first = every.mul_f64(f64::from(number) / f64::from(devices));
        let mut next = Box::pin(tokio::time::sleep(first));
        loop {
            tokio::select! {
                event = events.poll() => match event {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        turn = None;
                        counts.connected.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(Event::Incoming(Packet::PubAck(_))) => {
                        counts.acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
                },
                () = &mut next, if turn.is_none() && pause.is_some() => {
                    let payload = format!(
                        r#"{{"sensor_id":"load-{number:05}","type":"temperature","value":21.57,"unit":"celsius","location":"hall-{}","timestamp":"2026-01-02T03:04:05.123456Z","battery_percent":97,"quality":"good"}}"#,
                        number % 100
                    );
                    // A full channel is what an overloaded client looks like: it is seen in the rate.
                    let _sent = client.try_publish(topic.clone(), QoS::AtLeastOnce, false, payload);
                    let due = next.deadline() + every;
                    next.as_mut().reset(due);
                }
            }
        }
    }
}
