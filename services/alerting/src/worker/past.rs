//! What the store has of the time before this process was active, for rules that look back.
//!
//! It is read beside the work: alerts on what is new do not wait for it, and a rule that looks back
//! says nothing until it is there, or until it was watched for as long by this process.

use std::time::Duration;

use actix::prelude::*;
use fleet_shared::config::{DatabaseUrl, format_duration};
use fleet_store::{Chronology, OpenOptions, StoreError, StoredReading};
use jiff::Timestamp;
use tokio::time::Instant;

use super::Worker;

/// How much further back than the longest window it is looked, for a reading from before it: that
/// says that the sensor was watched for all of it.
const BEYOND_MAX: Duration = Duration::from_secs(600);

/// Readings at most, and time: some pages of ten thousand a second on a database that is busy. What
/// is more is left, and windows fill by themselves.
const READINGS_MAX: u64 = 5_000_000;
const TIME_MAX: Duration = Duration::from_secs(60);

/// A page of the past, oldest first.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Remember {
    /// Which look it belongs to; of an earlier one it means nothing.
    look: u64,
    readings: Vec<StoredReading>,
}

/// All of the past was told.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Remembered {
    look: u64,
    readings: u64,
    span: Duration,
}

/// Why windows fill by themselves.
#[derive(Debug, thiserror::Error)]
enum PastError {
    #[error("the store cannot tell of the past")]
    Store(#[from] StoreError),
    #[error("there are more than {READINGS_MAX} readings, or they take longer than {TIME_MAX:?}")]
    TooMuch,
    /// The worker is gone, or another look has begun.
    #[error("nobody asks for it any more")]
    Obsolete(#[from] MailboxError),
}

impl Worker {
    /// Begins to fill the windows of the rules in force.
    pub(super) fn look_back(&mut self, ctx: &mut Context<Self>) {
        self.look += 1;
        let Some(span) = self.setup.engine.looks_back() else {
            return;
        };
        let (look, worker) = (self.look, ctx.address());
        let database = self.setup.desk.database().clone();
        actix::spawn(async move {
            match told(&database, span, look, &worker).await {
                Ok(readings) => {
                    let all = Remembered {
                        look,
                        readings,
                        span,
                    };
                    // A worker that is gone needs no past.
                    worker.send(all).await.ok();
                }
                Err(PastError::Obsolete(_)) => {}
                Err(error) => {
                    let error = format!("{:#}", anyhow::Error::new(error));
                    tracing::warn!(%error, "windows of rules fill by themselves, and say nothing before they are full");
                }
            }
        });
    }
}

/// Tells the worker of all readings of a span until now, and a little before; how many there were.
async fn told(
    database: &DatabaseUrl,
    span: Duration,
    look: u64,
    worker: &Addr<Worker>,
) -> Result<u64, PastError> {
    let to = Timestamp::now();
    let from = to
        .checked_sub(span + span.min(BEYOND_MAX))
        .unwrap_or(Timestamp::MIN);
    let store = fleet_store::open(database, OpenOptions::reader("alerting-past")).await?;
    let mut pages = Chronology::new(store.clone(), from, to, None);
    let (begun, mut told) = (Instant::now(), 0);
    let outcome = loop {
        match pages.next().await {
            Ok(None) => break Ok(told),
            Ok(Some(_)) if told > READINGS_MAX || begun.elapsed() > TIME_MAX => {
                break Err(PastError::TooMuch);
            }
            Ok(Some(readings)) => {
                told += readings.len() as u64;
                if let Err(gone) = worker.send(Remember { look, readings }).await {
                    break Err(gone.into());
                }
            }
            Err(error) => break Err(error.into()),
        }
    };
    store.close().await?;
    outcome
}

impl Handler<Remember> for Worker {
    type Result = ();

    fn handle(&mut self, past: Remember, _: &mut Self::Context) {
        if past.look == self.look {
            let now = Timestamp::now();
            for stored in &past.readings {
                let engine = &mut self.setup.engine;
                engine.remember(&stored.reading, self.setup.takes_all, now);
            }
        }
    }
}

impl Handler<Remembered> for Worker {
    type Result = ();

    fn handle(&mut self, past: Remembered, _: &mut Self::Context) {
        if past.look == self.look {
            self.setup.engine.has_remembered();
            tracing::info!(
                readings = past.readings,
                span = %format_duration(past.span),
                "rules look back on what the store has"
            );
        }
    }
}
