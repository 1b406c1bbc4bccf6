//! A second try for dead letters: each is published again to its own topic, then deleted.

use std::time::Duration;

use fleet_shared::session::{Publish, Retry, Session};
use fleet_shared::topic;
use futures_util::future::join_all;
use uuid::Uuid;

use crate::{DeadLetterFilter, Store, StoreError, StoredDeadLetter};

/// Dead letters in memory at once: at most 100 MB, should each be as large as a packet may be.
const PAGE: u32 = 100;

/// With it begin the topics that dead letters of notifications have, before the receiver: nobody reads
/// topics of that name.
pub const NOTIFICATIONS: &str = "notifications/";

/// A publish that the broker refuses for the moment is tried again so often.
const RETRY: Retry = Retry {
    attempts: 5,
    first: Duration::from_millis(100),
    max: Duration::from_secs(2),
};

/// Which dead letters are published again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// Those of these names; each must be there.
    Ids(Vec<Uuid>),
    /// Those that pass the filter and are there at the beginning, the oldest first, at most so many.
    Passing(DeadLetterFilter, u64),
}

/// What a replay has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Published, acknowledged and deleted.
    pub replayed: u64,
    /// Refused by the broker, or a notification, which never was a message; they stay.
    pub failed: u64,
}

/// Why a replay ended early; what was acknowledged until then is deleted.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The store did not do its part.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no dead letter of that name.
    #[error("there is no dead letter {0}")]
    Unknown(Uuid),
    /// The broker did not acknowledge a page in time.
    #[error("the broker did not acknowledge within {patience:?}")]
    Unacknowledged {
        /// How long was waited.
        patience: Duration,
    },
}

/// Publishes dead letters again at QoS 1, to their own topics, and deletes each that the broker has
/// acknowledged: none is lost, and an interrupted replay may be run again, since a reading that was
/// stored meanwhile stays one row. What is still refused comes back as a new dead letter.
///
/// # Errors
/// As [`ReplayError`] says; the letters of the page at hand are then all still there.
pub async fn replay(
    store: &dyn Store,
    session: &Session,
    chosen: Chosen,
    patience: Duration,
) -> Result<Replayed, ReplayError> {
    let mut done = Replayed::default();
    match chosen {
        Chosen::Ids(ids) => {
            for page in ids.chunks(PAGE as usize) {
                let mut letters = Vec::with_capacity(page.len());
                for id in page {
                    letters.push(find(store, *id).await?);
                }
                again(store, session, letters, patience, &mut done).await?;
            }
        }
        Chosen::Passing(filter, most) => {
            // What comes back is a new dead letter with a later name: without an end it would be
            // replayed again and again.
            let mut left = count(store, &filter).await?.min(most);
            let mut after = None;
            while left > 0 {
                let limit = PAGE.min(u32::try_from(left).unwrap_or(PAGE));
                let letters = store.dead_letters(filter.clone(), after, limit).await?;
                let Some(last) = letters.last() else { break };
                after = Some(last.id);
                left = left.saturating_sub(letters.len() as u64);
                again(store, session, letters, patience, &mut done).await?;
            }
        }
    }
    Ok(done)
}

/// How many dead letters pass the filter.
///
/// # Errors
/// When the store does not answer.
pub async fn count(store: &dyn Store, filter: &DeadLetterFilter) -> Result<u64, StoreError> {
    let passes = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|it| it == is);
    let counts = store.count_dead_letters().await?;
    let meant = counts
        .iter()
        .filter(|of| passes(&filter.reason, &of.reason) && passes(&filter.service, &of.service));
    Ok(meant.map(|of| of.count).sum())
}

/// The dead letter of that name. Names sort, so it is the first after the one below it.
async fn find(store: &dyn Store, id: Uuid) -> Result<StoredDeadLetter, ReplayError> {
    let below = id.as_u128().checked_sub(1).map(Uuid::from_u128);
    let found = store.dead_letters(DeadLetterFilter::default(), below, 1);
    let mut found = found.await?.into_iter();
    let letter = found.next().filter(|letter| letter.id == id);
    letter.ok_or(ReplayError::Unknown(id))
}

async fn again(
    store: &dyn Store,
    session: &Session,
    letters: Vec<StoredDeadLetter>,
    patience: Duration,
    done: &mut Replayed,
) -> Result<(), ReplayError> {
    let published = join_all(letters.into_iter().map(|letter| publish(letter, session)));
    let published = tokio::time::timeout(patience, published).await;
    let outcomes = published.map_err(|_| ReplayError::Unacknowledged { patience })?;
    let refused = outcomes.iter().filter(|id| id.is_none()).count();
    let acknowledged: Vec<Uuid> = outcomes.into_iter().flatten().collect();
    store.delete_dead_letters(&acknowledged).await?;
    done.replayed += acknowledged.len() as u64;
    done.failed += refused as u64;
    Ok(())
}

/// The letter's name if the broker has taken it; a refusal is logged.
async fn publish(letter: StoredDeadLetter, session: &Session) -> Option<Uuid> {
    if letter.topic.starts_with(NOTIFICATIONS) {
        tracing::warn!(id = %letter.id, "a notification is not replayed: the dead letter is kept for its text");
        return None;
    }
    let label = topic::label(&letter.topic);
    let publish = Publish::new(letter.topic, label, letter.payload);
    match session.publish_retrying(publish, RETRY).await {
        Ok(()) => Some(letter.id),
        Err(error) => {
            tracing::error!(id = %letter.id, %error, "a dead letter was not replayed");
            None
        }
    }
}
