//! Readings of a long span in the order of time, page by page.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::{ReadingKey, Store, StoreError, StoredReading, TimePage};

/// Readings a page: some 2 MB, and the time of a query is well above that of asking.
const PAGE: u32 = 10_000;

/// The first slice of the span that is asked for.
const SLICE_FIRST: SignedDuration = SignedDuration::from_hours(1);

/// Reads a span in the order of time. A store sorts what it is asked for, so the span is asked for
/// in slices, which grow and shrink so that each holds about one page.
pub struct Chronology {
    store: Arc<dyn Store>,
    sensor_id: Option<String>,
    at: Timestamp,
    to: Timestamp,
    slice: SignedDuration,
    after: Option<ReadingKey>,
}

impl Chronology {
    /// Begins at `from`, included, and ends at `to`, not included; of one sensor if one is named.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        from: Timestamp,
        to: Timestamp,
        sensor_id: Option<String>,
    ) -> Self {
        Self {
            store,
            sensor_id,
            at: from,
            to,
            slice: SLICE_FIRST,
            after: None,
        }
    }

    /// How far it has come: every reading before this instant was handed out.
    #[must_use]
    pub const fn position(&self) -> Timestamp {
        self.at
    }

    /// The next readings, at least one; none at the end of the span. After an error it goes on where
    /// it was.
    ///
    /// # Errors
    /// What the store says.
    pub async fn next(&mut self) -> Result<Option<Vec<StoredReading>>, StoreError> {
        self.next_page(PAGE).await
    }

    async fn next_page(&mut self, limit: u32) -> Result<Option<Vec<StoredReading>>, StoreError> {
        while self.at < self.to {
            let end = self
                .at
                .saturating_add(self.slice)
                .map_or(self.to, |end| end.min(self.to));
            let page = TimePage {
                from: self.at,
                to: end,
                sensor_id: self.sensor_id.clone(),
                after: self.after.clone(),
                limit,
            };
            let readings = self.store.readings_by_time(page).await?;
            if let Some(last) = readings.last()
                && readings.len() == limit as usize
            {
                let took = last.reading.timestamp.duration_since(self.at);
                self.slice = took.max(SignedDuration::from_secs(1));
                self.at = last.reading.timestamp;
                self.after = Some(ReadingKey::of(&last.reading));
                return Ok(Some(readings));
            }
            if readings.len() < limit as usize / 2 {
                self.slice = self.slice.saturating_mul(2);
            }
            (self.at, self.after) = (end, None);
            if !readings.is_empty() {
                return Ok(Some(readings));
            }
        }
        Ok(None)
    }
}
