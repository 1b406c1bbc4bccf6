//! Why a store could not do what it was asked.

use std::error::Error;
use std::sync::Arc;

/// A failure of the store as a whole; what is wrong with one reading alone is an
/// [`Outcome`](crate::Outcome) instead.
///
/// After either nothing of the batch is promised to be stored, and writing the same batch again is
/// always right: what had been committed after all is answered as a duplicate.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// It may go away by itself: the connection was lost, a lock or an answer did not come in time,
    /// the disk is full. Try again after a pause.
    #[error("{what}")]
    Transient {
        /// What was attempted, and on what.
        what: String,
        /// What the database or the system said.
        #[source]
        source: Option<Cause>,
    },
    /// Somebody must change something: the schema is missing, the password is refused, the database
    /// is read-only. The text says what.
    #[error("{what}")]
    Permanent {
        /// What was attempted, and what to change.
        what: String,
        /// What the database or the system said.
        #[source]
        source: Option<Cause>,
    },
}

/// The error below a [`StoreError`]; shared, because one failed commit answers several batches.
pub type Cause = Arc<dyn Error + Send + Sync>;

impl StoreError {
    /// Whether the same call may succeed later with nothing changed.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transient { .. })
    }

    pub(crate) fn transient(
        what: impl Into<String>,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self::Transient {
            what: what.into(),
            source: Some(Arc::new(source)),
        }
    }

    pub(crate) fn permanent(
        what: impl Into<String>,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self::Permanent {
            what: what.into(),
            source: Some(Arc::new(source)),
        }
    }

    pub(crate) fn transient_because(what: impl Into<String>) -> Self {
        Self::Transient {
            what: what.into(),
            source: None,
        }
    }

    pub(crate) fn permanent_because(what: impl Into<String>) -> Self {
        Self::Permanent {
            what: what.into(),
            source: None,
        }
    }
}
