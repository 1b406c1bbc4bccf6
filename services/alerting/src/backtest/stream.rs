//! Readings out of the store, into a backtest.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fleet_store::{Chronology, Store, StoreError};
use jiff::Timestamp;

use super::{Backtest, Report, Trace};

/// Readings between two looks at the time: with thousands of rules some milliseconds each.
const LOOK_EVERY: u64 = 64;

/// When a run ends before the end of its span.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Readings at most.
    pub readings: u64,
    /// Rules asked of a reading at most, each of which may keep it in its window.
    pub evaluations: u64,
    /// Time at most.
    pub time: Duration,
}

impl Bounds {
    /// None: for a person who can see how far it is, and stop it.
    pub const NONE: Self = Self {
        readings: u64::MAX,
        evaluations: u64::MAX,
        time: Duration::MAX,
    };
}

/// How far a run is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Everything before this instant was looked at.
    pub at: Timestamp,
    /// Readings so far.
    pub readings: u64,
}

/// Runs `backtest` over what `store` has of its span, of one sensor if one is named. After each page
/// of readings `progress` is told, and ends the run by answering false.
///
/// # Errors
/// What the store says.
pub async fn backtest(
    store: Arc<dyn Store>,
    mut backtest: Backtest,
    sensor_id: Option<String>,
    bounds: Bounds,
    mut progress: impl FnMut(Progress) -> bool,
) -> Result<(Report, Option<Trace>), StoreError> {
    let started = Instant::now();
    let mut readings = Chronology::new(store, backtest.from, backtest.to, sensor_id);
    let mut reached = backtest.from;
    let mut complete = true;
    'run: while let Some(page) = readings.next().await? {
        for stored in &page {
            let over = backtest.readings >= bounds.readings
                || backtest.evaluations >= bounds.evaluations
                || (backtest.readings.is_multiple_of(LOOK_EVERY)
                    && started.elapsed() >= bounds.time);
            if over {
                complete = false;
                break 'run;
            }
            backtest.reading(&stored.reading);
            reached = stored.reading.timestamp;
        }
        let told = Progress {
            at: readings.position(),
            readings: backtest.readings,
        };
        if started.elapsed() >= bounds.time || !progress(told) {
            complete = false;
            break;
        }
    }
    Ok(backtest.end(reached, complete))
}
