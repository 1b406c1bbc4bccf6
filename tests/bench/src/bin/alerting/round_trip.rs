//! From a reading published to its alert received, through a broker and alerting as a process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use fleet_tests::{Program, TempDir};
use serde::Serialize;

use crate::engine::file;
use crate::load::{Clock, listen, publish};

/// Before anything is measured: every series is known, every connection is warm.
const WARM_UP: Duration = Duration::from_secs(4);

/// How alerts came through.
#[derive(Debug, Serialize)]
pub(crate) struct RoundTrip {
    pub(crate) broker: &'static str,
    pub(crate) readings_per_second: f64,
    pub(crate) alerts: usize,
    /// Published to received.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
    /// Of alerting alone.
    pub(crate) cpu_seconds_per_million: f64,
    pub(crate) resident_mib: f64,
}

pub(crate) async fn run(
    broker: &'static str,
    url: String,
    rate: u64,
    seconds: u64,
) -> anyhow::Result<RoundTrip> {
    let dir = TempDir::new()?;
    let rules = dir.path().join("rules.yaml");
    std::fs::write(&rules, file(1_000, 3))?;
    let database = format!("sqlite://{}", dir.path().join("fleet.db").display());
    let mut process = Program::service("alerting")
        .flag("--mqtt-url", &url)
        .flag("--mqtt-client-id", "bench-alerting")
        .flag("--database-url", database)
        .flag("--rules", rules.display())
        .env("LOG", "error")
        .start();
    process.ready(Duration::from_secs(30)).await;
    let addr = url
        .strip_prefix("mqtt://")
        .context("a broker without TLS")?
        .to_owned();
    let clock = Clock::new();
    let feed = async |time: Duration| {
        let (addr, clock) = (addr.clone(), clock.clone());
        let feeding = std::thread::spawn(move || publish(&addr, rate, time, &clock));
        while !feeding.is_finished() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let fed = feeding
            .join()
            .map_err(|_| anyhow::anyhow!("the publisher panicked"))?;
        fed.context("publishing")
    };
    feed(WARM_UP).await?;
    let done = Arc::new(AtomicBool::new(false));
    let listening = listen(&addr, clock.clone(), done.clone())?;
    let (cpu, started) = (process.cpu(), Instant::now());
    let sent = feed(Duration::from_secs(seconds)).await?;
    let (cpu, took) = (process.cpu() - cpu, started.elapsed());
    // What is still on its way.
    tokio::time::sleep(Duration::from_millis(500)).await;
    done.store(true, Ordering::Release);
    let told = listening
        .join()
        .map_err(|_| anyhow::anyhow!("the listener panicked"))?;
    let mut told = told.context("listening to alerts")?;
    let resident = process.resident_bytes();
    process.terminate();
    ensure!(
        process.exit(Duration::from_secs(20)).await == 0,
        "alerting did not stop in time"
    );
    told.sort_unstable();
    let ms = |share: f64| {
        let place = ((told.len() as f64 * share) as usize).min(told.len().saturating_sub(1));
        told.get(place)
            .map_or(f64::NAN, |nanoseconds| *nanoseconds as f64 / 1e6)
    };
    ensure!(
        told.len() as u64 >= seconds * 40,
        "{} alerts came",
        told.len()
    );
    Ok(RoundTrip {
        broker,
        readings_per_second: sent as f64 / took.as_secs_f64(),
        alerts: told.len(),
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
        max_ms: ms(1.0),
        cpu_seconds_per_million: cpu.as_secs_f64() * 1e6 / sent as f64,
        resident_mib: resident as f64 / 1_048_576.0,
    })
}

pub(crate) fn table(runs: &[RoundTrip]) -> String {
    if runs.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "{:<18} {:>11} {:>8} {:>8} {:>8} {:>8} {:>9} {:>7}\n",
        "through", "readings/s", "alerts", "p50 ms", "p99 ms", "max ms", "CPU s/M", "MiB"
    );
    for run in runs {
        text.push_str(&format!(
            "{:<18} {:>11.0} {:>8} {:>8.2} {:>8.2} {:>8.2} {:>9.2} {:>7.1}\n",
            run.broker,
            run.readings_per_second,
            run.alerts,
            run.p50_ms,
            run.p99_ms,
            run.max_ms,
            run.cpu_seconds_per_million,
            run.resident_mib
        ));
    }
    text
}
