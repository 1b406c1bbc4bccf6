//! The SQLite store: one writing thread, and a connection that reads beside it.

mod alert;
mod connection;
mod history;
mod insert;
mod notice;
mod reader;
mod row;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use uuid::Uuid;

pub(crate) use self::alert::SqliteAlerts;
use self::reader::Reader;
use self::row::Instant;
use self::writer::{Command, QUEUE_MAX, Reply, Slice};
use crate::query::first_id_at;
use crate::{
    Backend, Batch, DeadLetterCount, DeadLetterFilter, OpenOptions, Outcome, ReadingKey,
    RetainReport, Role, Store, StoreError, StoreFuture, StoredDeadLetter, StoredReading,
};

/// A SQLite file. Dropping it ends its thread once what waits there is written.
#[derive(Debug)]
pub(crate) struct SqliteStore {
    path: PathBuf,
    /// `None` in a store that only reads.
    writer: Option<mpsc::Sender<Command>>,
    reader: Reader,
}

impl SqliteStore {
    pub(crate) async fn open(path: PathBuf, options: OpenOptions) -> Result<Self, StoreError> {
        let opened = spawn_blocking(move || Self::open_blocking(path, &options)).await;
        opened.unwrap_or_else(|error| Err(StoreError::permanent("opening was cut off", error)))
    }

    fn open_blocking(path: PathBuf, options: &OpenOptions) -> Result<Self, StoreError> {
        let writer = match options.role {
            Role::Reader => None,
            Role::Writer => {
                let connection = connection::open_writer(&path, options.statement_timeout)?;
                let (sender, commands) = mpsc::channel(QUEUE_MAX);
                thread::Builder::new()
                    .name("sqlite-writer".to_owned())
                    .spawn(move || writer::run(connection, commands))
                    .map_err(|source| {
                        StoreError::transient("cannot start the writing thread", source)
                    })?;
                Some(sender)
            }
        };
        let reader = Reader::open(&path, options.statement_timeout)?;
        Ok(Self {
            path,
            writer,
            reader,
        })
    }

    /// Hands a command to the thread and waits for its answer.
    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, StoreError> {
        let Some(writer) = &self.writer else {
            return Err(StoreError::permanent_because(format!(
                "{} was opened for reading only",
                self.path.display()
            )));
        };
        let (reply, answer) = oneshot::channel();
        let sent = writer.send(command(reply)).await.is_ok();
        match answer.await {
            Ok(result) if sent => result,
            _ => Err(StoreError::permanent_because(format!(
                "the store at {} is closed",
                self.path.display()
            ))),
        }
    }

    /// Deletes slice after slice, leaving the thread to the batches for as long as each one took.
    async fn retain_slices(
        &self,
        mut command: impl FnMut(Reply<Slice>) -> Command + Send,
    ) -> Result<u64, StoreError> {
        let mut deleted = 0;
        loop {
            let slice = self.ask(&mut command).await?;
            deleted += slice.deleted;
            if slice.last {
                return Ok(deleted);
            }
            tokio::time::sleep(slice.took.max(Duration::from_millis(1))).await;
        }
    }
}

impl Store for SqliteStore {
    fn backend(&self) -> Backend {
        Backend::Sqlite
    }

    fn write_batch(&self, batch: Arc<Batch>) -> StoreFuture<'_, Vec<Outcome>> {
        Box::pin(self.ask(|reply| Command::Write(batch, reply)))
    }

    fn ping(&self) -> StoreFuture<'_, ()> {
        if self.writer.is_some() {
            Box::pin(self.ask(Command::Ping))
        } else {
            Box::pin(self.reader.ping())
        }
    }

    fn retain(&self, before: Timestamp) -> StoreFuture<'_, RetainReport> {
        Box::pin(async move {
            let before_minute = Instant::of(before).minute;
            let before = first_id_at(before);
            let readings = self
                .retain_slices(|reply| Command::RetainReadings {
                    before_minute,
                    reply,
                })
                .await?;
            let dead_letters = self
                .retain_slices(|reply| Command::RetainDeadLetters { before, reply })
                .await?;
            Ok(RetainReport {
                readings,
                dead_letters,
                chunks: 0,
            })
        })
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.reader.close().await?;
            if self.writer.is_some() {
                self.ask(Command::Close).await?;
            }
            Ok(())
        })
    }

    fn count_readings(&self) -> StoreFuture<'_, u64> {
        Box::pin(self.reader.count_readings())
    }

    fn lookup<'a>(&'a self, keys: &'a [ReadingKey]) -> StoreFuture<'a, Vec<Option<f64>>> {
        Box::pin(self.reader.lookup(keys.to_vec()))
    }

    fn scan_readings(
        &self,
        after: Option<ReadingKey>,
        limit: u32,
    ) -> StoreFuture<'_, Vec<StoredReading>> {
        Box::pin(self.reader.scan_readings(after, limit))
    }

    fn duplicate_keys(&self) -> StoreFuture<'_, u64> {
        Box::pin(self.reader.duplicate_keys())
    }

    fn dead_letters(
        &self,
        filter: DeadLetterFilter,
        after: Option<Uuid>,
        limit: u32,
    ) -> StoreFuture<'_, Vec<StoredDeadLetter>> {
        Box::pin(self.reader.dead_letters(filter, after, limit))
    }

    fn count_dead_letters(&self) -> StoreFuture<'_, Vec<DeadLetterCount>> {
        Box::pin(self.reader.count_dead_letters())
    }

    fn delete_dead_letters<'a>(&'a self, ids: &'a [Uuid]) -> StoreFuture<'a, u64> {
        Box::pin(self.ask(|reply| Command::DeleteDeadLetters(ids.to_vec(), reply)))
    }
}
