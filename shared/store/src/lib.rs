//! Durable readings: SQLite and PostgreSQL (with TimescaleDB where it is installed) behind one trait.
//!
//! Everything of a [`Batch`] becomes durable in one transaction, and every reading in it gets its own
//! [`Outcome`]: a reading written again is found by its key `(sensor_id, type, timestamp)` and is
//! not stored a second time, so any batch may be written any number of times. Instants are kept at
//! microseconds in both stores, and so are keys.
//!
//! Both stores show the same tables to other programs, `readings` and `dead_letters`. In SQLite
//! `readings` is a view over a smaller, faster form of the same rows, and instants are RFC 3339 text
//! with six decimals; in PostgreSQL it is a plain table or a hypertable.

mod alert;
mod batch;
mod chronology;
mod error;
mod history;
mod notice;
mod postgres;
mod query;
pub mod replay;
mod silence;
mod sqlite;

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use fleet_shared::config::DatabaseUrl;
use jiff::Timestamp;
use uuid::Uuid;

pub use alert::{
    AlertBatch, AlertMarks, AlertState, AlertStore, Firing, Lease, MQTT_CHANNEL, NewAlert,
    NewOutgoing, Outgoing, StoredAlert, StoredOutgoing, Written, open_alerts,
};
pub use batch::{Batch, DeadLetter, NewReading, Outcome};
pub use chronology::Chronology;
pub use error::{Cause, StoreError};
pub use history::{Bucket, DeviceTransition, History, Recorded, Span, TimePage};
pub use notice::{
    ALERT_EVENTS_MAX, ATTEMPTS_KEPT_MAX, Acknowledgement, AlertCursor, AlertEvent, AlertFilter,
    AlertPhase, AlertStory, AttemptOutcome, EventKind, GivenUp, NewAlertEvent, NewAttempt,
    NewNotification, Notices, StoredAttempt, StoryMessage, Told, Unsettled,
};
pub use query::{
    DeadLetterCount, DeadLetterFilter, ReadingKey, RetainReport, StoredDeadLetter, StoredReading,
};
pub use silence::{MatchOp, Matcher, SILENCES_MAX, Silence};

/// The answer of a [`Store`], to be awaited on any thread.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Durable readings and dead letters.
///
/// Dropping a future never leaves half a batch: what was handed over is committed whole or not at
/// all, only its answer is lost.
pub trait Store: History + Send + Sync {
    /// Which database this is.
    fn backend(&self) -> Backend;

    /// Makes `batch` durable in one transaction and tells what became of each reading, in order.
    ///
    /// When the answer comes, everything in the batch would survive a power cut. A reading that
    /// cannot be stored fails alone, with [`Outcome::Failed`]; the others are stored. After an
    /// error, write the same batch again: rows that were committed after all are then duplicates.
    fn write_batch(&self, batch: Arc<Batch>) -> StoreFuture<'_, Vec<Outcome>>;

    /// Asks the database for a sign of life.
    fn ping(&self) -> StoreFuture<'_, ()>;

    /// Deletes readings and dead letters from before `before`, in slices small enough that a batch
    /// never waits long for one, and tells how many went.
    ///
    /// SQLite keeps readings of the minute that `before` lies in, and TimescaleDB those of its
    /// chunk. A run that fails or is dropped halfway has deleted the slices so far.
    fn retain(&self, before: Timestamp) -> StoreFuture<'_, RetainReport>;

    /// Lets the database go; every later call fails. Await the answers to all writes before it.
    fn close(&self) -> StoreFuture<'_, ()>;

    /// The number of readings stored. Reads an index to its end: a second for some ten million.
    fn count_readings(&self) -> StoreFuture<'_, u64>;

    /// The stored value for each key in order, `None` where there is no such reading. Made for
    /// a few thousand keys at a time.
    fn lookup<'a>(&'a self, keys: &'a [ReadingKey]) -> StoreFuture<'a, Vec<Option<f64>>>;

    /// Up to `limit` readings after the key `after`, in an order of the store's own that stays the
    /// same from call to call: pass the last key of one page to get the next, `None` to begin.
    fn scan_readings(
        &self,
        after: Option<ReadingKey>,
        limit: u32,
    ) -> StoreFuture<'_, Vec<StoredReading>>;

    /// The number of keys that have more than one row. It does not trust the unique key that should
    /// keep this at 0, but groups the rows.
    fn duplicate_keys(&self) -> StoreFuture<'_, u64>;

    /// Up to `limit` dead letters that pass `filter`, oldest name first, after the name `after`.
    fn dead_letters(
        &self,
        filter: DeadLetterFilter,
        after: Option<Uuid>,
        limit: u32,
    ) -> StoreFuture<'_, Vec<StoredDeadLetter>>;

    /// How many dead letters there are for each service and reason.
    fn count_dead_letters(&self) -> StoreFuture<'_, Vec<DeadLetterCount>>;

    /// Deletes dead letters by name, as after a replay, and tells how many there were.
    fn delete_dead_letters<'a>(&'a self, ids: &'a [Uuid]) -> StoreFuture<'a, u64>;
}

/// The database behind a [`Store`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backend {
    /// A SQLite file.
    Sqlite,
    /// A PostgreSQL server.
    Postgres,
    /// A PostgreSQL server where `readings` is a TimescaleDB hypertable.
    Timescale,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
            Self::Timescale => "timescaledb",
        })
    }
}

/// What a store is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Creates and migrates the schema, and writes.
    Writer,
    /// Reads only; the schema must be there. Writing calls fail.
    Reader,
}

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Reading only, or writing too.
    pub role: Role,
    /// The name PostgreSQL shows for the connections.
    pub application_name: String,
    /// A file with PostgreSQL's password, instead of one in the URL. It is read for every new
    /// connection, so a changed password needs no restart.
    pub password_file: Option<PathBuf>,
    /// The most PostgreSQL connections, at least 2; one a writing session and one to spare.
    pub pool_size: usize,
    /// The longest wait for a PostgreSQL connection, new or free.
    pub connect_timeout: Duration,
    /// The longest wait for an answer of PostgreSQL, and for SQLite's write lock while another
    /// process has it. After it the call fails as transient.
    pub statement_timeout: Duration,
}

impl OpenOptions {
    /// Options for a program called `application_name` that writes.
    pub fn writer(application_name: impl Into<String>) -> Self {
        Self {
            role: Role::Writer,
            application_name: application_name.into(),
            password_file: None,
            pool_size: 4,
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(15),
        }
    }

    /// Options for a program called `application_name` that only reads.
    pub fn reader(application_name: impl Into<String>) -> Self {
        Self {
            role: Role::Reader,
            // Counting and grouping tens of millions of rows takes its time.
            statement_timeout: Duration::from_secs(300),
            ..Self::writer(application_name)
        }
    }
}

/// Opens the store at `url`; a writer also creates what is missing: folder, file and schema.
///
/// Any number of processes may open the same store, and start at once. PostgreSQL's connections live
/// on the runtime this is called on, so it must outlive the store.
pub async fn open(url: &DatabaseUrl, options: OpenOptions) -> Result<Arc<dyn Store>, StoreError> {
    match url {
        DatabaseUrl::Sqlite(path) => Ok(Arc::new(
            sqlite::SqliteStore::open(path.clone(), options).await?,
        )),
        DatabaseUrl::Postgres(url) => {
            Ok(Arc::new(postgres::PostgresStore::open(url, options).await?))
        }
    }
}
