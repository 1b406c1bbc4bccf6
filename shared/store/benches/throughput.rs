//! How many readings a second the stores take, and what each costs this process.
//!
//! `cargo bench -p fleet-store` measures SQLite in a file under the target folder;
//! `cargo bench -p fleet-store -- postgres://…` measures that server as well, in a database that
//! may keep the rows.

#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use fleet_shared::config::DatabaseUrl;
use fleet_shared::model::{Quality, SensorReading};
use fleet_store::{Batch, NewReading, OpenOptions, Outcome, Store, StoreError};
use jiff::Timestamp;
use nix::sys::resource::{UsageWho, getrusage};

const SENSORS: u64 = 10_000;

/// Every sensor reports every 5 s.
const PERIOD_MICROS: u64 = 5_000_000;

/// Batch size, and how many rows give a steady figure at it.
const SIZES: [(usize, usize); 4] = [
    (1, 3_000),
    (100, 100_000),
    (1_000, 500_000),
    (5_000, 500_000),
];

#[derive(Clone, Copy)]
enum Keys {
    /// As a live fleet sends them: sensor after sensor, time going on.
    InOrder,
    /// As nothing sends them: any sensor, any time of thirty days.
    Random,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let mut urls = vec![DatabaseUrl::Sqlite(folder.path().join("fleet.db"))];
    for argument in std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
    {
        urls.push(argument.parse()?);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    println!("store        keys      batch      rows/s   CPU s/million");
    for url in urls {
        runtime.block_on(measure(&url))?;
    }
    Ok(())
}

async fn measure(url: &DatabaseUrl) -> Result<(), StoreError> {
    let store = fleet_store::open(url, OpenOptions::writer("throughput")).await?;
    // A run of its own for each line, told apart by the sensors' names.
    let mut run = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
    for (name, keys) in [("in order", Keys::InOrder), ("random", Keys::Random)] {
        for (size, rows) in SIZES {
            run += 1;
            let batches = batches(keys, size, rows, run);
            let began = (Instant::now(), cpu_time());
            write_all(&*store, &batches).await?;
            let took = (
                began.0.elapsed().as_secs_f64(),
                (cpu_time() - began.1).as_secs_f64(),
            );
            let rows = rows as f64;
            println!(
                "{:<12} {name:<9} {size:>5} {:>11.0} {:>15.2}",
                store.backend().to_string(),
                rows / took.0,
                took.1 / rows * 1e6
            );
        }
    }
    store.close().await
}

async fn write_all(store: &dyn Store, batches: &[Arc<Batch>]) -> Result<(), StoreError> {
    for batch in batches {
        let outcomes = store.write_batch(Arc::clone(batch)).await?;
        assert!(
            outcomes.iter().all(|outcome| *outcome == Outcome::Stored),
            "the rows of a run are new"
        );
    }
    Ok(())
}

fn batches(keys: Keys, size: usize, rows: usize, run: u64) -> Vec<Arc<Batch>> {
    let rows: Vec<u64> = (0..rows as u64).collect();
    let batch = |numbers: &[u64]| {
        Arc::new(Batch {
            readings: numbers.iter().map(|n| reading(keys, *n, run)).collect(),
            dead_letters: Vec::new(),
        })
    };
    rows.chunks(size).map(batch).collect()
}

fn reading(keys: Keys, n: u64, run: u64) -> NewReading {
    let (sensor, micros) = match keys {
        Keys::InOrder => (n % SENSORS, n * PERIOD_MICROS / SENSORS),
        // The number is in the microseconds, which keeps the keys apart.
        Keys::Random => {
            let mixed = mix(n);
            (mixed % SENSORS, (mixed >> 32) % 2_592_000 * 1_000_000 + n)
        }
    };
    let start = Timestamp::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
    let timestamp = start + Duration::from_micros(micros);
    NewReading {
        reading: SensorReading {
            sensor_id: format!("sensor-{run}-{sensor:05}"),
            kind: "temperature".to_owned(),
            value: 20.0 + (mix(n) % 1_000) as f64 / 100.0,
            unit: "celsius".to_owned(),
            location: format!("building-a/floor-{}/room-{}", sensor % 10, sensor % 100),
            timestamp,
            battery_percent: Some(87),
            quality: Some(Quality::Good),
        },
        received_at: timestamp + Duration::from_micros(1_500),
    }
}

/// Scatters numbers, the same way every time (splitmix64).
fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("a process may ask for its own usage");
    let of = |time: nix::sys::time::TimeVal| {
        let micros = time.tv_sec() * 1_000_000 + time.tv_usec();
        Duration::from_micros(u64::try_from(micros).unwrap_or_default())
    };
    of(usage.user_time()) + of(usage.system_time())
}
