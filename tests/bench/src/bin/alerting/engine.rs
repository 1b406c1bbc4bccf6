//! The engine alone: readings in, changes out, without broker and store.

use std::fmt::Write as _;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alerting::{Engine, RuleSet};
use anyhow::{Context as _, ensure};
use fleet_bench::Panel;
use fleet_shared::model::{Quality, SensorReading};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Sensors that take turns.
const SERIES: u64 = 10_000;

/// All rules and those that look at each reading: first the number of all grows, then of these.
const CASES: [(u32, u32); 7] = [
    (10, 3),
    (1_000, 3),
    (10_000, 3),
    (100_000, 3),
    (1_000, 1),
    (1_000, 10),
    (1_000, 30),
];

/// What a run of the engine cost.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Evaluated {
    /// Rules in the file.
    pub(crate) rules: u32,
    /// Rules that look at each reading.
    pub(crate) matching: u32,
    /// To read the file and compile its rules.
    pub(crate) load_seconds: f64,
    /// Memory of the compiled rules.
    pub(crate) rules_mib: f64,
    /// Memory of the state of 10,000 series.
    pub(crate) series_mib: f64,
    /// One reading.
    pub(crate) nanoseconds_per_reading: f64,
    /// Rules evaluated a second.
    pub(crate) evaluations_per_second: f64,
}

/// Every case in a process of its own.
pub(crate) fn all(readings: u64) -> anyhow::Result<Vec<Evaluated>> {
    CASES
        .iter()
        .map(|(rules, matching)| {
            let output = Command::new(std::env::current_exe()?)
                .args([
                    "--readings",
                    &readings.to_string(),
                    "--one",
                    &format!("{rules}/{matching}"),
                ])
                .output()?;
            let error = String::from_utf8_lossy(&output.stderr);
            ensure!(
                output.status.success(),
                "the run with {rules} rules failed: {error}"
            );
            Ok(serde_json::from_slice(&output.stdout)?)
        })
        .collect()
}

/// One case, written as `rules/matching`.
pub(crate) fn run(case: &str, readings: u64) -> anyhow::Result<Evaluated> {
    let (rules, matching) = case
        .split_once('/')
        .context("a case is written as 1000/3")?;
    let (rules, matching): (u32, u32) = (rules.parse()?, matching.parse()?);
    let text = file(rules, matching);
    let (before, started) = (resident()?, Instant::now());
    let set = Arc::new(RuleSet::parse(&text).map_err(|errors| anyhow::anyhow!("{}", errors[0]))?);
    let load = started.elapsed();
    let loaded = resident()?;
    let start = Timestamp::from_second(1_790_000_000)?;
    let mut messages: Vec<(String, SensorReading)> = (0..SERIES)
        .map(|sensor| {
            let reading = reading(sensor, start);
            (reading.topic(), reading)
        })
        .collect();
    let prepared = resident()?;
    let mut engine = Engine::new(set);
    let mut changes = Vec::new();
    // Once around, so that every series is known before the clock starts.
    for (topic, reading) in &messages {
        engine.reading(topic, reading, reading.timestamp, &mut changes);
    }
    let (mut evaluations, started) = (0_u64, Instant::now());
    let mut left = readings;
    while left > 0 {
        for (topic, reading) in messages.iter_mut().take(usize::try_from(left)?) {
            reading.timestamp += Duration::from_secs(1);
            let evaluated = engine.reading(topic, reading, reading.timestamp, &mut changes);
            evaluations += u64::from(evaluated.evaluations);
        }
        left = left.saturating_sub(SERIES);
    }
    let took = started.elapsed();
    ensure!(changes.is_empty(), "nothing was to fire");
    ensure!(
        evaluations == readings * u64::from(matching),
        "{evaluations} evaluations"
    );
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    Ok(Evaluated {
        rules,
        matching,
        load_seconds: load.as_secs_f64(),
        rules_mib: mib(loaded.saturating_sub(before)),
        series_mib: mib(resident()?.saturating_sub(prepared)),
        nanoseconds_per_reading: took.as_secs_f64() * 1e9 / readings as f64,
        evaluations_per_second: evaluations as f64 / took.as_secs_f64(),
    })
}

fn reading(sensor: u64, at: Timestamp) -> SensorReading {
    SensorReading {
        sensor_id: format!("temp-sensor-{sensor:05}"),
        kind: "temperature".to_owned(),
        value: 20.0 + (sensor % 900) as f64 / 100.0,
        unit: "celsius".to_owned(),
        location: format!("plant/hall-{}/line-{:03}", sensor % 7, sensor % 300),
        timestamp: at,
        battery_percent: Some(80),
        quality: Some(Quality::Good),
    }
}

/// A file of `rules` rules of which `matching` look at a reading.
pub(crate) fn file(rules: u32, matching: u32) -> String {
    let mut text = "groups:\n  - name: bench\n    rules:\n".to_owned();
    for n in 0..rules {
        // Those that do not match are as different as those of many sites, types and sensors.
        let what = match n {
            n if n < matching => "type: temperature".to_owned(),
            n if n % 3 == 0 => format!("topic: sensors/site-{n}/+/temperature"),
            n if n % 3 == 1 => format!("topic: sensors/plant/hall-{n}/#, type: humidity"),
            n => format!("topic: sensors/+/cellar-{n}/temperature"),
        };
        // Writing to a string never fails.
        writeln!(
            text,
            "      - {{ alert: Rule{n}, {what}, when: value > {}, clear: value < 29, severity: warning }}",
            30 + n % 5
        )
        .ok();
    }
    text
}

fn resident() -> anyhow::Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages = statm
        .split_whitespace()
        .nth(1)
        .context("reading /proc/self/statm")?;
    Ok(pages.parse::<u64>()? * 4_096)
}

pub(crate) fn table(runs: &[Evaluated]) -> String {
    if runs.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "{:>8} {:>9} {:>11} {:>15} {:>9} {:>10} {:>11}\n",
        "rules", "matching", "ns/reading", "evaluations/s", "load s", "rules MiB", "series MiB"
    );
    for run in runs {
        text.push_str(&format!(
            "{:>8} {:>9} {:>11.0} {:>15.0} {:>9.2} {:>10.1} {:>11.1}\n",
            run.rules,
            run.matching,
            run.nanoseconds_per_reading,
            run.evaluations_per_second,
            run.load_seconds,
            run.rules_mib,
            run.series_mib
        ));
    }
    text + "\n"
}

/// Cost by the number of rules: all of them, and those that match.
pub(crate) fn plot(runs: &[Evaluated]) -> String {
    let points = |taken: fn(&Evaluated) -> bool, by: fn(&Evaluated) -> u32| {
        let mut points: Vec<(f64, f64)> = runs
            .iter()
            .filter(|run| taken(run))
            .map(|run| (f64::from(by(run)), run.nanoseconds_per_reading))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points
    };
    let label = |rules: f64, ns: f64| format!("{rules} rules: {ns:.0} ns");
    fleet_bench::plot(&[
        Panel {
            title: "A reading that 3 rules look at, by the number of all rules",
            points: &points(|run| run.matching == 3, |run| run.rules),
            decades: true,
            label,
        },
        Panel {
            title: "A reading, by the number of rules that look at it (of 1,000)",
            points: &points(|run| run.rules == 1_000, |run| run.matching),
            decades: false,
            label,
        },
    ])
}
