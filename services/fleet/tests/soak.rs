//! Chaos against the embedded broker while ingest is killed at random: nothing is lost, nothing is
//! double, and nothing is there that the ledger does not explain.
//!
//! `make soak` runs it for ten minutes; `SOAK_DURATION` and `SOAK_SEED` set it otherwise.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use fleet::broker::EmbeddedBroker;
use fleet_shared::config::duration;
use fleet_tests::{Process, Program, TempDir};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde_json::Value;

/// Of everything that goes wrong in the field; see the manual of device-sim.
const CHAOS: &str = "
devices: 0.8
readings:
  missing: 0.01
  duplicate: { chance: 0.02, after: [0s, 3s] }
  reorder: { chance: 0.02, after: [100ms, 3s] }
  burst: { chance: 0.001, readings: [10, 60] }
  stuck: { chance: 0.002, lasts: [5s, 30s] }
  spike: { chance: 0.005, times: [5, 50] }
  drift: { chance: 0.002, lasts: [5s, 1m], per_hour: [-20, 20] }
wrong: { chance: 0.01 }
clock:
  skew: { chance: 0.1, back: 10m, ahead: 2m }
  jump: { every: [20s, 2m], back: 2m, ahead: 1m }
connection:
  drop: { every: [10s, 60s], away: [0s, 3s] }
  storm: { every: 20s, chance: 0.5, within: 1s, away: [0s, 2s] }
  half_open: { every: [20s, 90s], lasts: [1s, 5s] }
  slow_reader: { every: [15s, 60s], lasts: [2s, 8s], pause: [20ms, 200ms] }
";
const LONG: Duration = Duration::from_secs(90);

struct Soak {
    url: String,
    database_url: String,
    folder: TempDir,
}

impl Soak {
    fn ingest(&self, number: usize) -> Process {
        Program::service("ingest")
            .env("MQTT_URL", &self.url)
            .env("MQTT_CLIENT_ID", format!("ingest-{number}"))
            .env("MQTT_MAX_RECONNECT_DELAY", "1s")
            .env("DATABASE_URL", &self.database_url)
            .start()
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

#[actix::test]
async fn chaos_with_ingest_killed_at_random_loses_nothing_and_leaves_nothing_unexplained() {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test has no command line of its own for `make soak` to set"
    )]
    let setting = |name: &str| std::env::var(name).ok();
    let lasts = setting("SOAK_DURATION").unwrap_or_else(|| "20s".to_owned());
    let seed: u64 =
        setting("SOAK_SEED").map_or_else(|| rand::rng().random(), |it| it.parse().unwrap());
    let mut chance = Pcg64Mcg::seed_from_u64(seed);
    let folder = TempDir::new().unwrap();
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let broker = EmbeddedBroker::start(loopback, folder.path()).unwrap();
    let soak = Soak {
        url: format!("mqtt://{}", broker.local_addr()),
        database_url: format!("sqlite://{}", folder.path().join("fleet.db").display()),
        folder,
    };
    std::fs::write(soak.path("chaos.yaml"), CHAOS).unwrap();
    let mut workers = vec![soak.ingest(0), soak.ingest(1)];
    for worker in &mut workers {
        worker.ready(LONG).await;
    }
    let mut devices = Program::service("device-sim")
        .env("MQTT_URL", &soak.url)
        .env("MQTT_MAX_RECONNECT_DELAY", "1s")
        .flag("--devices", 60)
        .flag("--profile", "mixed")
        .flag("--rate", 400)
        .flag("--seed", seed)
        .flag("--duration", &lasts)
        .flag("--chaos", soak.path("chaos.yaml"))
        .flag("--ledger", soak.path("ledger.jsonl"))
        .flag("--output", "json")
        .start();
    let limit = Instant::now() + duration(&lasts).unwrap() + LONG;
    let mut kills = 0;
    while devices.is_running() {
        assert!(
            Instant::now() < limit,
            "the devices do not come to their end"
        );
        // The pauses are the test: workers die at any moment of their work.
        tokio::time::sleep(Duration::from_millis(chance.random_range(500..4_000))).await;
        let number = chance.random_range(0..workers.len());
        workers[number].kill();
        tokio::time::sleep(Duration::from_millis(chance.random_range(0..1_000))).await;
        workers[number] = soak.ingest(number);
        kills += 1;
    }
    assert_eq!(
        devices.exit(LONG).await,
        0,
        "seed {seed}: {}",
        devices.stderr()
    );
    let (code, answer) = Program::new("fleet")
        .arg("verify")
        .flag("--ledger", soak.path("ledger.jsonl"))
        .flag("--database-url", &soak.database_url)
        .flag("--wait", "60s")
        .arg("--strict")
        .flag("--html", soak.path("report.html"))
        .flag("--output", "json")
        .output(LONG + LONG)
        .await;
    let verified: Value = serde_json::from_str(&answer).unwrap_or_default();
    if let Some(report) = setting("SOAK_REPORT") {
        std::fs::copy(soak.path("report.html"), report).unwrap();
    }
    let summary = devices.stdout();
    eprintln!("seed {seed}, {kills} kills of ingest\n{summary}{answer}");
    assert_eq!(code, 0, "seed {seed}: {answer}");
    assert_eq!(
        (&verified["missing"], &verified["unexplained"]),
        (&0.into(), &0.into())
    );
    assert!(
        kills >= 3 && verified["acknowledged"].as_u64() > Some(1_000),
        "{answer}"
    );
    assert!(verified["faults"]["dropped"].as_u64() > Some(0), "{answer}");
    for worker in &mut workers {
        worker.terminate();
    }
    broker.stop(Duration::from_secs(5));
}
