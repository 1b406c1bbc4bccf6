//! What the store has of the time before this process was active, for rules that look back.
//!
//! It is read beside the work: alerts on what is new do not wait for it, and a rule that looks back
//! says nothing until it is there, or until it was watched for as long by this process.

use std::time::Duration;

use actix::prelude::*;
use fleet_shared::config::{DatabaseUrl, format_duration};
use fleet_store::{Chronology, OpenOptions, StoreError, StoredReading};
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::Worker;

/// How long ingest may take to store what was evaluated here, before it is looked for.
const SETTLE: Duration = Duration::from_secs(2);

/// How much further back than the longest window it is looked, for a reading from before it: that
/// says that the sensor was watched for all of it.
const BEYOND_MAX: Duration = Duration::from_secs(600);

/// Readings at most, and time in all. Rules that look back further than that gives are left out:
/// their windows fill by themselves.
const READINGS_MAX: u64 = 5_000_000;
const TIME_MAX: Duration = Duration::from_secs(60);

/// Readings after which it is told how many there will be.
const SAMPLE: u64 = 50_000;

/// Begins anew, with windows up to that length. Like the next, it answers whether anybody asks for it
/// any more.
#[derive(Message)]
#[rtype(result = "bool")]
pub(super) struct BeginToRemember {
    /// Which look it belongs to; of an earlier one it means nothing.
    look: u64,
    span: Duration,
}

/// A page of the past, oldest first.
#[derive(Message)]
#[rtype(result = "bool")]
pub(super) struct Remember {
    look: u64,
    readings: Vec<StoredReading>,
}

/// All of the past was told, as far as there is any.
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
    Obsolete,
}

impl Worker {
    /// Begins to fill the windows of the rules in force.
    pub(super) fn look_back(&mut self, ctx: &mut Context<Self>) {
        self.look += 1;
        let spans = self.setup.engine.spans();
        if spans.is_empty() || !self.setup.takes_all {
            // A sensor that is another group's may come here later: what was between is not known.
            self.forget_past();
            return;
        }
        let look = Look {
            number: self.look,
            worker: ctx.address(),
            database: self.setup.desk.database().clone(),
            max_clock_skew: self.setup.max_clock_skew,
            begun: Instant::now() + SETTLE,
        };
        actix::spawn(async move {
            tokio::time::sleep_until(look.begun).await;
            look.back(spans).await;
        });
    }

    /// Lets windows fill by themselves.
    pub(super) fn forget_past(&mut self) {
        self.look += 1;
        self.setup.engine.forget_past();
    }
}

/// One look into the past.
struct Look {
    number: u64,
    worker: Addr<Worker>,
    database: DatabaseUrl,
    max_clock_skew: Duration,
    begun: Instant,
}

impl Look {
    /// Looks back as far as can be: `spans` are the windows' lengths, the longest first.
    async fn back(&self, spans: Vec<Duration>) {
        let mut spans = spans.into_iter().peekable();
        while let Some(span) = spans.peek().copied() {
            let limit = self.begun + TIME_MAX;
            let told = tokio::time::timeout_at(limit, self.told(span)).await;
            let all = match told.unwrap_or(Err(PastError::TooMuch)) {
                Ok(readings) => Remembered {
                    look: self.number,
                    readings,
                    span,
                },
                Err(PastError::Obsolete) => return,
                Err(PastError::Store(error)) if error.is_transient() && self.has_time() => {
                    tracing::debug!(%error, "the past is asked for again");
                    tokio::time::sleep(SETTLE).await;
                    continue;
                }
                Err(error) => {
                    let again = matches!(error, PastError::TooMuch) && self.has_time();
                    let error = format!("{:#}", anyhow::Error::new(error));
                    let span = format_duration(span);
                    tracing::warn!(%error, span, "windows of that length fill by themselves, and say nothing before they are full");
                    spans.next();
                    if again && spans.peek().is_some() {
                        continue;
                    }
                    Remembered {
                        look: self.number,
                        readings: 0,
                        span: Duration::ZERO,
                    }
                }
            };
            // A worker that is gone needs no past.
            self.worker.send(all).await.ok();
            return;
        }
    }

    fn has_time(&self) -> bool {
        self.begun.elapsed() < TIME_MAX
    }

    /// Tells the worker of all readings of a span until now, and a little before; how many there were.
    async fn told(&self, span: Duration) -> Result<u64, PastError> {
        let look = self.number;
        let begin = self.worker.send(BeginToRemember { look, span });
        still_asked(begin.await)?;
        let now = Timestamp::now();
        let before = |span: Duration| now.checked_sub(span).unwrap_or(Timestamp::MIN);
        let from = before(span + span.min(BEYOND_MAX));
        // Clocks of devices may be ahead.
        let to = now
            .checked_add(self.max_clock_skew)
            .unwrap_or(Timestamp::MAX);
        let store = fleet_store::open(&self.database, OpenOptions::reader("alerting-past")).await?;
        let mut pages = Chronology::new(store.clone(), from, to, None);
        let mut told = 0;
        let outcome = loop {
            let readings = match pages.next().await {
                Ok(None) => break Ok(told),
                Ok(Some(readings)) => readings,
                Err(error) => break Err(error.into()),
            };
            told += readings.len() as u64;
            if expected(told, from, pages.position(), now) > READINGS_MAX {
                break Err(PastError::TooMuch);
            }
            let page = self.worker.send(Remember { look, readings });
            if let Err(gone) = still_asked(page.await) {
                break Err(gone);
            }
        };
        store.close().await?;
        outcome
    }
}

fn still_asked(answer: Result<bool, MailboxError>) -> Result<(), PastError> {
    match answer {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(PastError::Obsolete),
    }
}

/// How many readings a span will have, of which those up to `reached` are known.
fn expected(told: u64, from: Timestamp, reached: Timestamp, to: Timestamp) -> u64 {
    let length = |until: Timestamp| until.duration_since(from).max(SignedDuration::ZERO);
    let known = length(reached).as_secs_f64();
    if told < SAMPLE || known <= 0.0 {
        return told;
    }
    // Of no use for anything but a comparison, so it may be rounded.
    told.max((told as f64 * length(to).as_secs_f64() / known) as u64)
}

impl Handler<BeginToRemember> for Worker {
    type Result = bool;

    fn handle(&mut self, begin: BeginToRemember, _: &mut Self::Context) -> bool {
        let is_asked = begin.look == self.look;
        if is_asked {
            self.setup.engine.begin_to_remember(begin.span);
        }
        is_asked
    }
}

impl Handler<Remember> for Worker {
    type Result = bool;

    fn handle(&mut self, past: Remember, _: &mut Self::Context) -> bool {
        let is_asked = past.look == self.look;
        if is_asked {
            for stored in &past.readings {
                self.setup.engine.remember(&stored.reading);
            }
        }
        is_asked
    }
}

impl Handler<Remembered> for Worker {
    type Result = ();

    fn handle(&mut self, past: Remembered, _: &mut Self::Context) {
        if past.look == self.look {
            let (filled, left) = self.setup.engine.has_remembered();
            tracing::info!(
                readings = past.readings,
                span = %format_duration(past.span),
                filled,
                fill_by_themselves = left,
                "rules look back on what the store has"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_many_readings_there_will_be_is_told_by_the_first() {
        let at = |second: i64| Timestamp::from_second(1_790_000_000 + second).unwrap();
        assert_eq!(expected(10, at(0), at(1), at(1_000)), 10, "too few to tell");
        assert_eq!(expected(100_000, at(0), at(10), at(1_000)), 10_000_000);
        assert_eq!(expected(100_000, at(0), at(0), at(1_000)), 100_000);
        // Readings of clocks that are ahead are beyond the end.
        assert_eq!(expected(100_000, at(0), at(2_000), at(1_000)), 100_000);
    }
}
