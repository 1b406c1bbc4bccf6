//! Dead letters: messages of devices that were refused, on their way to the store.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use fleet_shared::health::Check;
use fleet_shared::session::{Message, Properties, Publish};
use fleet_shared::topic::{self, templates};
use fleet_store::{Batch, DeadLetter, DeadLetterFilter, Store, StoreError};
use jiff::Timestamp;
use uuid::Uuid;

const SERVICE: &str = "status-tracker";

/// Letters that wait for the store; more are counted only. A fleet whose every message is refused must
/// not grow us, and a thousand letters a transaction are more than a store takes for long.
const LETTERS_MAX: usize = 1_000;

/// Bytes of their payloads, 16 MiB: the largest packet we take is 1 MiB.
const BYTES_MAX: usize = 16 * 1_024 * 1_024;

/// Letters read at once to see which are new.
const PAGE: u32 = 500;

/// Pause before the store is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// What waits for the store.
#[derive(Debug, Default)]
pub(super) struct Letters {
    waiting: Vec<DeadLetter>,
    bytes: usize,
    /// Some are with the store.
    writing: bool,
}

impl Letters {
    /// Takes a message that was refused; false if there is no room for it.
    pub(super) fn push(
        &mut self,
        message: &Message,
        reason: &str,
        detail: String,
        now: Timestamp,
    ) -> bool {
        let bytes = self.bytes + message.payload.len();
        if self.waiting.len() >= LETTERS_MAX || bytes > BYTES_MAX {
            return false;
        }
        self.bytes = bytes;
        self.waiting.push(DeadLetter {
            id: Uuid::now_v7(),
            service: SERVICE.to_owned(),
            topic: message.topic.to_string(),
            payload: message.payload.to_vec(),
            reason: reason.to_owned(),
            detail,
            received_at: now,
            // Every replica refuses the same message, and a retained one is refused anew at each
            // subscription. The store keeps one letter of them until somebody deletes that.
            redelivered: true,
        });
        true
    }

    /// What is to be written now, if anything is and nothing else is being written.
    pub(super) fn take(&mut self) -> Option<Arc<Batch>> {
        if self.writing || self.waiting.is_empty() {
            return None;
        }
        self.writing = true;
        self.bytes = 0;
        Some(Arc::new(Batch {
            dead_letters: std::mem::take(&mut self.waiting),
            ..Batch::default()
        }))
    }

    /// The store has answered to what was taken.
    pub(super) fn answered(&mut self) {
        self.writing = false;
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && !self.writing
    }
}

/// Writes letters until the store has taken them or refuses them for good; tells which were new to it.
pub(super) async fn write(
    store: &dyn Store,
    batch: Arc<Batch>,
    check: &Check,
) -> Result<HashSet<Uuid>, StoreError> {
    loop {
        let written = match store.write_batch(batch.clone()).await {
            Ok(_) => new_among(store, &batch.dead_letters).await,
            Err(error) => Err(error),
        };
        match written {
            Err(error) if error.is_transient() => {
                let chain = format!("{:#}", anyhow::Error::new(error));
                tracing::warn!(error = %chain, retry_in = ?RETRY, "the store did not take dead letters");
                check.down(chain);
                tokio::time::sleep(RETRY).await;
            }
            answer => return answer,
        }
    }
}

/// Which letters of a batch are in the store by their own names: of the others it has the like.
async fn new_among(store: &dyn Store, letters: &[DeadLetter]) -> Result<HashSet<Uuid>, StoreError> {
    let mut new = HashSet::new();
    let own: BTreeSet<Uuid> = letters.iter().map(|letter| letter.id).collect();
    let (Some(first), Some(last)) = (own.first(), own.last()) else {
        return Ok(new);
    };
    // Names sort by time: only what came since the first of ours has to be looked at.
    let mut after = Some(Uuid::from_u128(first.as_u128().saturating_sub(1)));
    loop {
        let filter = DeadLetterFilter {
            service: Some(SERVICE.to_owned()),
            reason: None,
        };
        let page = store.dead_letters(filter, after, PAGE).await?;
        new.extend(page.iter().map(|it| it.id).filter(|id| own.contains(id)));
        after = match page.last() {
            Some(found) if found.id < *last => Some(found.id),
            _ => return Ok(new),
        };
    }
}

/// The publish of a letter that the store has.
pub(super) fn publish(letter: &DeadLetter) -> Option<Publish> {
    let id = letter.id.to_string();
    let properties = Properties::dead_letter(&letter.reason, &letter.topic, &letter.detail, &id);
    let to = topic::dead_letter(SERVICE).ok()?;
    let publish = Publish::new(to, templates::DEAD_LETTER, letter.payload.clone());
    Some(publish.properties(properties))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(letters: &mut Letters, payload: Vec<u8>) -> bool {
        let message = Message::new("devices/d1/status", payload);
        letters.push(
            &message,
            "malformed",
            "why".to_owned(),
            Timestamp::UNIX_EPOCH,
        )
    }

    #[test]
    fn letters_wait_within_bounds_and_go_one_batch_at_a_time() {
        let mut letters = Letters::default();
        assert!(letters.take().is_none());
        for _ in 0..LETTERS_MAX {
            assert!(push(&mut letters, b"junk".to_vec()));
        }
        assert!(!push(&mut letters, b"junk".to_vec()));
        let batch = letters.take().unwrap();
        assert_eq!(batch.dead_letters.len(), LETTERS_MAX);
        let megabyte = vec![0; 1_024 * 1_024];
        for _ in 0..16 {
            assert!(push(&mut letters, megabyte.clone()));
        }
        assert!(!push(&mut letters, b"junk".to_vec()));
        // The first batch is with the store.
        assert!(letters.take().is_none());
        letters.answered();
        assert_eq!(letters.take().unwrap().dead_letters.len(), 16);
        assert!(!letters.is_empty());
        letters.answered();
        assert!(letters.is_empty());
    }

    #[test]
    fn a_letter_is_published_as_it_came_with_reason_and_topic() {
        let mut letters = Letters::default();
        assert!(push(&mut letters, b"\xffjunk".to_vec()));
        let letter = publish(&letters.take().unwrap().dead_letters[0]).unwrap();
        assert_eq!(letter.topic.as_str(), "fleet/dead-letter/status-tracker");
        assert_eq!(&letter.payload[..], b"\xffjunk");
        let properties = letter.properties.unwrap();
        assert_eq!(properties.user("reason"), Some("malformed"));
        assert_eq!(properties.user("topic"), Some("devices/d1/status"));
        assert_eq!(properties.user("detail"), Some("why"));
    }
}
