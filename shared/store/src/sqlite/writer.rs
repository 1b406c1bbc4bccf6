//! The one thread that writes a SQLite file for this process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, Statement, params};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::connection::classify;
use super::history;
use super::insert::Inserter;
use crate::{Batch, DeviceTransition, Outcome, Recorded, StoreError};

/// Batches that wait for the thread. Each session has one under way, so this is more than are
/// ever sent at once; a sender that finds it full waits.
pub(super) const QUEUE_MAX: usize = 64;

/// Rows after which no further waiting batch joins a transaction: some 100 ms of work, which is what
/// another process waits for the lock.
const GROUP_ROWS_MAX: usize = 20_000;

/// Rows that retention deletes in one transaction, some 10 ms of work.
const SLICE_ROWS: u32 = 5_000;

pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the thread is asked to do; each is answered once it is durable.
pub(super) enum Command {
    Write(Arc<Batch>, Reply<Vec<Outcome>>),
    RetainReadings {
        before_minute: i64,
        reply: Reply<Slice>,
    },
    RetainDeadLetters {
        before: Uuid,
        reply: Reply<Slice>,
    },
    DeleteDeadLetters(Vec<Uuid>, Reply<u64>),
    RecordTransitions(Arc<[DeviceTransition]>, Reply<Vec<Recorded>>),
    Ping(Reply<()>),
    Close(Reply<()>),
}

/// What one slice of retention did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slice {
    pub(super) deleted: u64,
    /// Whether nothing was left to delete.
    pub(super) last: bool,
    pub(super) took: Duration,
}

type Waiting = (Arc<Batch>, Reply<Vec<Outcome>>);

/// Serves `commands` until they are closed, then lets the file go.
pub(super) fn run(connection: Connection, mut commands: mpsc::Receiver<Command>) {
    let closing = match Writer::new(&connection) {
        Ok(mut writer) => writer.serve(&mut commands),
        Err(error) => {
            refuse_all(commands, &classify("cannot prepare the statements", error));
            return;
        }
    };
    // Folds the log back into the file when no other process has it open.
    let closed = connection
        .close()
        .map_err(|(_, error)| classify("cannot close the database", error));
    match closing {
        Some(reply) => answer(reply, closed),
        None => {
            if let Err(error) = closed {
                tracing::warn!(%error, "the database was not closed cleanly");
            }
        }
    }
}

fn refuse_all(mut commands: mpsc::Receiver<Command>, error: &StoreError) {
    while let Some(command) = commands.blocking_recv() {
        let error = error.clone();
        match command {
            Command::Write(_, reply) => answer(reply, Err(error)),
            Command::RetainReadings { reply, .. } | Command::RetainDeadLetters { reply, .. } => {
                answer(reply, Err(error));
            }
            Command::DeleteDeadLetters(_, reply) => answer(reply, Err(error)),
            Command::RecordTransitions(_, reply) => answer(reply, Err(error)),
            Command::Ping(reply) | Command::Close(reply) => answer(reply, Err(error)),
        }
    }
}

/// The work is done whether or not anybody still waits to hear of it.
fn answer<T>(reply: Reply<T>, result: Result<T, StoreError>) {
    drop(reply.send(result));
}

struct Writer<'c> {
    connection: &'c Connection,
    inserter: Inserter<'c>,
    begin: Statement<'c>,
    commit: Statement<'c>,
    ping: Statement<'c>,
    old_readings: Statement<'c>,
    old_dead_letters: Statement<'c>,
    delete_dead_letter: Statement<'c>,
}

impl<'c> Writer<'c> {
    fn new(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            connection,
            inserter: Inserter::new(connection)?,
            begin: connection.prepare("BEGIN IMMEDIATE")?,
            commit: connection.prepare("COMMIT")?,
            ping: connection.prepare("SELECT 1 FROM reading LIMIT 1")?,
            old_readings: connection.prepare(
                "DELETE FROM reading WHERE (minute, series, \"offset\") IN
                 (SELECT minute, series, \"offset\" FROM reading WHERE minute < ?1 LIMIT ?2)",
            )?,
            old_dead_letters: connection.prepare(
                "DELETE FROM dead_letters WHERE id IN
                 (SELECT id FROM dead_letters WHERE id < ?1 ORDER BY id LIMIT ?2)",
            )?,
            delete_dead_letter: connection.prepare("DELETE FROM dead_letters WHERE id = ?1")?,
        })
    }

    /// Returns the reply owed to whoever asked to close, if somebody did.
    fn serve(&mut self, commands: &mut mpsc::Receiver<Command>) -> Option<Reply<()>> {
        let mut held = None;
        loop {
            let command = match held.take() {
                Some(command) => command,
                None => commands.blocking_recv()?,
            };
            match command {
                Command::Write(batch, reply) => {
                    let mut group = vec![(batch, reply)];
                    held = join_waiting(&mut group, commands);
                    self.write_group(group);
                }
                Command::RetainReadings {
                    before_minute,
                    reply,
                } => {
                    let began = Instant::now();
                    let deleted = self.transaction("delete old readings", |writer| {
                        writer
                            .old_readings
                            .execute(params![before_minute, SLICE_ROWS])
                    });
                    answer(reply, deleted.map(|deleted| slice(deleted, began)));
                }
                Command::RetainDeadLetters { before, reply } => {
                    let began = Instant::now();
                    let deleted = self.transaction("delete old dead letters", |writer| {
                        writer
                            .old_dead_letters
                            .execute(params![before.to_string(), SLICE_ROWS])
                    });
                    answer(reply, deleted.map(|deleted| slice(deleted, began)));
                }
                Command::DeleteDeadLetters(ids, reply) => {
                    let deleted = self.transaction("delete dead letters", |writer| {
                        let mut deleted = 0;
                        for id in &ids {
                            deleted += writer.delete_dead_letter.execute([id.to_string()])?;
                        }
                        Ok(deleted)
                    });
                    answer(reply, deleted.map(|deleted| deleted as u64));
                }
                Command::RecordTransitions(transitions, reply) => {
                    let recorded = self.transaction("store transitions", |writer| {
                        history::record(writer.connection, &transitions)
                    });
                    answer(reply, recorded);
                }
                Command::Ping(reply) => {
                    let pinged = self.ping.exists([]).map(|_| ());
                    answer(
                        reply,
                        pinged.map_err(|error| classify("cannot read", error)),
                    );
                }
                Command::Close(reply) => return Some(reply),
            }
        }
    }

    /// Commits all batches of `group` in one transaction: what one flush to the disk costs is
    /// shared by every session that waits for one.
    fn write_group(&mut self, group: Vec<Waiting>) {
        let written = self.transaction("write a batch", |writer| {
            let batches = group.iter().map(|(batch, _)| writer.inserter.write(batch));
            batches.collect::<rusqlite::Result<Vec<_>>>()
        });
        match written {
            Ok(outcomes) => {
                for ((_, reply), outcomes) in group.into_iter().zip(outcomes) {
                    answer(reply, Ok(outcomes));
                }
            }
            Err(error) => {
                for (_, reply) in group {
                    answer(reply, Err(error.clone()));
                }
            }
        }
    }

    /// Runs `work` in a transaction that holds the write lock from its start, so that it cannot
    /// fail halfway because another process wrote in between.
    fn transaction<T>(
        &mut self,
        what: &str,
        work: impl FnOnce(&mut Self) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let result = self.begin.execute([]).and_then(|_| {
            let done = work(self)?;
            self.commit.execute([])?;
            Ok(done)
        });
        result.map_err(|error| {
            self.inserter.forget_names();
            // SQLite has rolled back by itself after some errors, a full disk for one.
            if !self.connection.is_autocommit()
                && let Err(error) = self.connection.execute_batch("ROLLBACK")
            {
                tracing::error!(%error, "a failed transaction could not be rolled back");
            }
            classify(format!("cannot {what}"), error)
        })
    }
}

/// Takes batches that wait behind the first, up to the limit; returns the command that was no batch.
fn join_waiting(
    group: &mut Vec<Waiting>,
    commands: &mut mpsc::Receiver<Command>,
) -> Option<Command> {
    let mut rows: usize = group.iter().map(|(batch, _)| batch.len()).sum();
    while rows < GROUP_ROWS_MAX {
        match commands.try_recv() {
            Ok(Command::Write(batch, reply)) => {
                rows += batch.len();
                group.push((batch, reply));
            }
            Ok(other) => return Some(other),
            Err(_) => return None,
        }
    }
    None
}

fn slice(deleted: usize, began: Instant) -> Slice {
    Slice {
        deleted: deleted as u64,
        last: deleted < SLICE_ROWS as usize,
        took: began.elapsed(),
    }
}
