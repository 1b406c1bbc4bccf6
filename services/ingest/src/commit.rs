//! Makes a batch durable, whatever it takes, and says what became of it.

use std::sync::Arc;
use std::time::Duration;

use fleet_shared::model::RejectReason;
use fleet_shared::telemetry::Span;
use fleet_store::{Batch, DeadLetter, NewReading, Outcome, Store, StoreError};
use jiff::Timestamp;
use uuid::Uuid;

use crate::pending::{Load, Origin, Traced};

/// Pauses between attempts while the store is away.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What became of a batch that is durable.
#[derive(Debug, Default)]
pub struct Committed {
    /// New rows.
    pub stored: u64,
    /// Readings that were there already.
    pub duplicates: u64,
    /// Readings whose key was there with another value; dead-lettered.
    pub conflicts: u64,
    /// Readings that the store refused by themselves; dead-lettered.
    pub failed: u64,
    /// All dead letters of the batch, those of conflicts included.
    pub dead_letters: Vec<DeadLetter>,
    /// Of each new row, from its timestamp to the commit, in seconds.
    pub delivery_seconds: Vec<f64>,
    /// The spans of the messages that are traced; each says what became of its message.
    pub traced: Vec<Span>,
}

/// Reports attempts that failed, so that readiness and the log can follow.
pub trait Watch {
    /// The store did not take the batch; it is tried again after a pause.
    fn store_away(&self, error: &StoreError, attempt: u32, retry_in: Duration);
    /// The store took it.
    fn store_back(&self);
}

/// Writes the batch, tries again for as long as the store is away, and writes what it refused as
/// dead letters. When this answers, everything is durable and may be acknowledged.
///
/// # Errors
/// Only a permanent error of the store: nothing may be acknowledged then.
pub async fn commit(
    store: &dyn Store,
    load: Load,
    watch: &impl Watch,
) -> Result<Committed, StoreError> {
    let Load {
        batch,
        origins,
        traced,
        ..
    } = load;
    let batch = Arc::new(batch);
    let outcomes = write(store, &batch, watch).await?;
    let now = Timestamp::now();
    let mut committed = Committed {
        traced: told(traced, &outcomes),
        ..Committed::default()
    };
    let mut refused = Refused::default();
    for ((outcome, new), origin) in outcomes.into_iter().zip(&batch.readings).zip(&origins) {
        match outcome {
            Outcome::Stored => {
                committed.stored += 1;
                let delivery = now.duration_since(new.reading.timestamp).as_secs_f64();
                committed.delivery_seconds.push(delivery);
            }
            Outcome::Duplicate => committed.duplicates += 1,
            Outcome::Conflict => {
                committed.conflicts += 1;
                let detail = new.reading.conflict().to_string();
                refused.add(new, origin, RejectReason::Conflict, detail);
            }
            Outcome::Failed(reason) => {
                committed.failed += 1;
                refused.add(new, origin, RejectReason::InvalidField, reason);
            }
        }
    }
    let refused = refused.letters();
    if !refused.is_empty() {
        let letters = Arc::new(Batch {
            readings: Vec::new(),
            dead_letters: refused,
        });
        write(store, &letters, watch).await?;
        committed
            .dead_letters
            .extend(letters.dead_letters.iter().cloned());
    }
    committed
        .dead_letters
        .extend(batch.dead_letters.iter().cloned());
    Ok(committed)
}

/// The spans with what became of their messages.
fn told(traced: Vec<Traced>, outcomes: &[Outcome]) -> Vec<Span> {
    let told = traced.into_iter().map(|Traced { mut span, reading }| {
        let outcome = match reading.and_then(|at| outcomes.get(at)) {
            Some(Outcome::Stored) => "stored",
            Some(Outcome::Duplicate) => "duplicate",
            Some(Outcome::Conflict) => "conflict",
            Some(Outcome::Failed(_)) | None => "dead_letter",
        };
        match reading.and_then(|at| outcomes.get(at)) {
            Some(Outcome::Conflict) => {
                span.fail("conflict", "the key is stored with another value");
            }
            Some(Outcome::Failed(reason)) => span.fail("invalid_field", reason.clone()),
            // Of a dead letter it was said before why.
            _ => {}
        }
        span.set("fleet.outcome", outcome);
        span
    });
    told.collect()
}

async fn write(
    store: &dyn Store,
    batch: &Arc<Batch>,
    watch: &impl Watch,
) -> Result<Vec<Outcome>, StoreError> {
    let mut pause = RETRY.0;
    let mut attempt = 1;
    loop {
        match store.write_batch(batch.clone()).await {
            Ok(outcomes) => {
                watch.store_back();
                return Ok(outcomes);
            }
            Err(error) if error.is_transient() => {
                watch.store_away(&error, attempt, pause);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY.1);
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Dead letters of what the store refused: one for a message and a reason, for a letter has the whole
/// payload, and a payload may hold hundreds of readings.
#[derive(Default)]
struct Refused<'a> {
    letters: Vec<(DeadLetter, &'a Origin, usize)>,
}

impl<'a> Refused<'a> {
    /// Adds a reading; those of a message come one after the other.
    fn add(&mut self, new: &NewReading, origin: &'a Origin, reason: RejectReason, detail: String) {
        // The readings of a message share its bytes.
        let is_same = |of: &Origin| {
            of.payload.as_ptr() == origin.payload.as_ptr() && of.topic == origin.topic
        };
        let mut of_message = self.letters.iter_mut().rev();
        if let Some((.., more)) = of_message
            .by_ref()
            .take_while(|(_, of, _)| is_same(of))
            .find(|(letter, ..)| letter.reason == reason.as_str())
        {
            *more += 1;
            return;
        }
        let letter = DeadLetter {
            id: Uuid::now_v7(),
            service: "ingest".to_owned(),
            topic: origin.topic.to_string(),
            payload: origin.payload.to_vec(),
            reason: reason.as_str().to_owned(),
            detail,
            received_at: new.received_at,
            redelivered: origin.redelivered,
        };
        self.letters.push((letter, origin, 0));
    }

    fn letters(self) -> Vec<DeadLetter> {
        let told = self.letters.into_iter().map(|(mut letter, _, more)| {
            if more > 0 {
                letter.detail += &format!("; and so {more} more of the same message");
            }
            letter
        });
        told.collect()
    }
}

#[cfg(test)]
mod tests {
    use fleet_shared::model::{Limits, SensorReading};
    use fleet_shared::session::Bytes;

    use super::*;

    fn reading(sensor: usize) -> NewReading {
        let json = format!(
            r#"{{"sensor_id":"s-{sensor}","type":"t","value":1,"unit":"u","location":"l","timestamp":"2026-01-02T03:04:05Z"}}"#
        );
        NewReading {
            reading: SensorReading::parse(json.as_bytes(), &Limits::default()).unwrap(),
            received_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn origin(payload: &'static str) -> Origin {
        Origin {
            payload: Bytes::from(payload.as_bytes().to_vec()),
            topic: "t".into(),
            redelivered: false,
        }
    }

    #[test]
    fn of_hundreds_of_readings_of_a_message_there_is_one_letter_a_reason() {
        // Long enough to be shared: what fits into a few words is copied, and has no room for many.
        const PAYLOAD: &str = "the same bytes, of which two messages may have as many as they like";
        let (one, other) = (origin(PAYLOAD), origin(PAYLOAD));
        let same = one.clone();
        let mut refused = Refused::default();
        for (count, of) in [(200, &one), (56, &same), (1, &other)] {
            for sensor in 0..count {
                let new = reading(sensor);
                let detail = || format!("s-{sensor}");
                refused.add(&new, of, RejectReason::Conflict, detail());
                if sensor % 2 == 1 {
                    refused.add(&new, of, RejectReason::InvalidField, detail());
                }
            }
        }
        let letters = refused.letters();
        let told: Vec<_> = letters
            .iter()
            .map(|letter| (letter.reason.as_str(), letter.detail.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                ("conflict", "s-0; and so 255 more of the same message"),
                ("invalid_field", "s-1; and so 127 more of the same message"),
                ("conflict", "s-0"),
            ]
        );
    }
}
