//! The PostgreSQL store: a pool of connections, with TimescaleDB where it is installed.

mod alert;
mod columns;
mod connect;
mod error;
mod history;
mod insert;
mod migrate;
mod notice;
mod reader;
mod retain;
mod settings;
mod tls;
mod value;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Client, Object, Pool};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use self::error::{classify, classify_pool, is_disconnection};
use self::settings::Settings;
use crate::{
    Backend, Batch, DeadLetterCount, DeadLetterFilter, OpenOptions, Outcome, ReadingKey,
    RetainReport, Role, Store, StoreError, StoreFuture, StoredDeadLetter, StoredReading,
};

/// What is done on one connection, boxed so that it can be done again on another.
type Work<'c, T> = Pin<Box<dyn Future<Output = Result<T, tokio_postgres::Error>> + Send + 'c>>;

/// A PostgreSQL database.
#[derive(Debug)]
pub(crate) struct PostgresStore {
    pool: Pool,
    /// The server for error messages.
    server: String,
    backend: Backend,
    role: Role,
    statement_timeout: Duration,
}

impl PostgresStore {
    pub(crate) async fn open(url: &SecretString, options: OpenOptions) -> Result<Self, StoreError> {
        let settings = Settings::parse(url.expose_secret(), &options)?;
        let pool = connect::pool(&settings, &options)?;
        let server = settings.server;
        let connection = pool
            .get()
            .await
            .map_err(|error| classify_pool(&server, error))?;
        // Not given back: its session holds the migration lock and has no statement timeout.
        let mut connection = Object::take(connection);
        if options.role == Role::Writer {
            migrate::migrate(&mut connection, &server).await?;
        } else {
            migrate::require_schema(&connection, &server).await?;
        }
        let backend = if migrate::is_hypertable(&connection, &server).await? {
            Backend::Timescale
        } else {
            Backend::Postgres
        };
        Ok(Self {
            pool,
            server,
            backend,
            role: options.role,
            statement_timeout: options.statement_timeout,
        })
    }

    /// Runs `work` on a connection, and once more on a new one if the first turns out to be lost, as
    /// all are after a restart of the server. All that is done here may be done twice.
    async fn run<T>(
        &self,
        what: &str,
        work: impl for<'c> Fn(&'c mut Client) -> Work<'c, T> + Send,
    ) -> Result<T, StoreError> {
        let mut retried = false;
        loop {
            let mut client = self.client().await?;
            let done = tokio::time::timeout(self.statement_timeout, work(&mut client)).await;
            match done {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) if is_disconnection(&error) && !retried => {
                    retried = true;
                    drop(Object::take(client));
                    // Its fellows are as old; a new one is made for the second attempt.
                    self.pool.retain(|_, _| false);
                }
                Ok(Err(error)) => {
                    return Err(classify(format!("cannot {what} on {}", self.server), error));
                }
                Err(_) => {
                    // An answer to this statement may still come, so nobody else gets the connection.
                    drop(Object::take(client));
                    return Err(StoreError::transient_because(format!(
                        "cannot {what}: no answer from {} within {:?}",
                        self.server, self.statement_timeout
                    )));
                }
            }
        }
    }

    async fn client(&self) -> Result<Client, StoreError> {
        self.pool
            .get()
            .await
            .map_err(|error| classify_pool(&self.server, error))
    }

    fn require_writer(&self) -> Result<(), StoreError> {
        match self.role {
            Role::Writer => Ok(()),
            Role::Reader => Err(StoreError::permanent_because(format!(
                "{} was opened for reading only",
                self.server
            ))),
        }
    }
}

impl Store for PostgresStore {
    fn backend(&self) -> Backend {
        self.backend
    }

    fn write_batch(&self, batch: Arc<Batch>) -> StoreFuture<'_, Vec<Outcome>> {
        Box::pin(async move {
            self.require_writer()?;
            let known = self
                .run("write a batch", |client| {
                    let batch = Arc::clone(&batch);
                    Box::pin(async move { insert::write(client, &batch).await })
                })
                .await?;
            let outcomes: Option<Vec<Outcome>> = known.into_iter().collect();
            outcomes.ok_or_else(|| {
                StoreError::transient_because("a reading was deleted while it was written again")
            })
        })
    }

    fn ping(&self) -> StoreFuture<'_, ()> {
        Box::pin(self.run("reach the database", |client| {
            Box::pin(async move { client.simple_query("SELECT 1").await.map(|_| ()) })
        }))
    }

    fn retain(&self, before: Timestamp) -> StoreFuture<'_, RetainReport> {
        Box::pin(async move {
            self.require_writer()?;
            retain::retain(self, before).await
        })
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            // Connections in use come back closed; every write is answered by its own call.
            self.pool.close();
            Ok(())
        })
    }

    fn count_readings(&self) -> StoreFuture<'_, u64> {
        Box::pin(self.run("count readings", |client| {
            Box::pin(reader::count_readings(client))
        }))
    }

    fn lookup<'a>(&'a self, keys: &'a [ReadingKey]) -> StoreFuture<'a, Vec<Option<f64>>> {
        Box::pin(async move {
            let keys: Arc<[ReadingKey]> = keys.into();
            self.run("look up readings", |client| {
                let keys = Arc::clone(&keys);
                Box::pin(async move { reader::lookup(client, &keys).await })
            })
            .await
        })
    }

    fn scan_readings(
        &self,
        after: Option<ReadingKey>,
        limit: u32,
    ) -> StoreFuture<'_, Vec<StoredReading>> {
        Box::pin(async move {
            let rows = self
                .run("read readings", |client| {
                    let after = after.clone();
                    Box::pin(async move { reader::scan_readings(client, after, limit).await })
                })
                .await?;
            reader::decoded(&self.server, rows.iter().map(reader::stored_reading))
        })
    }

    fn duplicate_keys(&self) -> StoreFuture<'_, u64> {
        Box::pin(self.run("look for duplicate keys", |client| {
            Box::pin(reader::duplicate_keys(client))
        }))
    }

    fn dead_letters(
        &self,
        filter: DeadLetterFilter,
        after: Option<Uuid>,
        limit: u32,
    ) -> StoreFuture<'_, Vec<StoredDeadLetter>> {
        Box::pin(async move {
            let rows = self
                .run("read dead letters", |client| {
                    let filter = filter.clone();
                    Box::pin(
                        async move { reader::dead_letters(client, &filter, after, limit).await },
                    )
                })
                .await?;
            reader::decoded(&self.server, rows.iter().map(reader::stored_dead_letter))
        })
    }

    fn count_dead_letters(&self) -> StoreFuture<'_, Vec<DeadLetterCount>> {
        Box::pin(self.run("count dead letters", |client| {
            Box::pin(reader::count_dead_letters(client))
        }))
    }

    fn delete_dead_letters<'a>(&'a self, ids: &'a [Uuid]) -> StoreFuture<'a, u64> {
        Box::pin(async move {
            self.require_writer()?;
            let ids = ids.to_vec();
            self.run("delete dead letters", |client| {
                let ids = ids.clone();
                Box::pin(async move {
                    let delete = "DELETE FROM dead_letters WHERE id = ANY($1)";
                    client.execute(delete, &[&ids]).await
                })
            })
            .await
        })
    }
}
