//! Opening a SQLite file: pragmas, migrations, and what its errors mean.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::StoreError;

refinery::embed_migrations!("migrations/sqlite");

/// Pages in the write-ahead log before it is folded back into the file: 16 MiB, so that the pages
/// of one minute are written back once for many commits.
const CHECKPOINT_PAGES: u32 = 4_000;

/// Memory for pages, in KiB.
const CACHE_KIB: u32 = 8_000;

/// Statements that stay compiled: those of alerts alone are some fifty, and one that is compiled anew
/// costs more than it takes to run it.
const STATEMENTS: usize = 128;

/// Racing processes each win or see the winner's work at the second look; more is for the case that
/// several migrations are raced for.
const MIGRATION_ATTEMPTS: u32 = 8;

/// Opens `path` to write: creates folder, file and schema where they are missing.
pub(super) fn open_writer(path: &Path, lock_timeout: Duration) -> Result<Connection, StoreError> {
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        fs::create_dir_all(folder).map_err(|source| {
            StoreError::permanent(
                format!(
                    "cannot create the folder {} of the SQLite database: create it writable for this user, or name another one in DATABASE_URL",
                    folder.display()
                ),
                source,
            )
        })?;
    }
    let mut connection = Connection::open(path).map_err(|source| unwritable(path, source))?;
    prepare_writer(&connection, lock_timeout).map_err(|source| unwritable(path, source))?;
    migrate(&mut connection, path)?;
    Ok(connection)
}

/// Opens `path` to read only; the file and its schema must be there.
pub(super) fn open_reader(path: &Path, lock_timeout: Duration) -> Result<Connection, StoreError> {
    if !path.exists() {
        return Err(StoreError::permanent_because(format!(
            "there is no SQLite database at {}: start ingest once, or correct DATABASE_URL",
            path.display()
        )));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)
        .map_err(|source| classify(format!("cannot open {}", path.display()), source))?;
    connection
        .busy_timeout(lock_timeout)
        .map_err(|source| classify(format!("cannot set up {}", path.display()), source))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection
        .prepare("SELECT 1 FROM reading, dead_letters")
        .map_err(|source| {
            classify(
                format!(
                    "{} is not a fleet database, or an older one: start ingest on it once",
                    path.display()
                ),
                source,
            )
        })?;
    Ok(connection)
}

fn prepare_writer(connection: &Connection, lock_timeout: Duration) -> rusqlite::Result<()> {
    connection.busy_timeout(lock_timeout)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Changing to the log needs the file alone, and does not wait for another process by itself.
    let mut switched = set_wal(connection);
    for _ in 1..MIGRATION_ATTEMPTS {
        if !matches!(&switched, Err(error) if is_busy(error)) {
            break;
        }
        connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK")?;
        switched = set_wal(connection);
    }
    switched?;
    // FULL: a commit that was answered survives a power cut, not only the end of the process.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -i64::from(CACHE_KIB))?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)
}

fn set_wal(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))
}

/// Brings the schema up to date. Each attempt is one transaction; an attempt that fails because another
/// process did the same in the meantime finds nothing left to do the next time.
fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let runner = migrations::runner().set_grouped(true);
    let mut attempt = 1;
    loop {
        let error = match runner.run(connection) {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        let raced = matches!(error.kind(), refinery::error::Kind::Connection(..));
        if !raced || attempt == MIGRATION_ATTEMPTS {
            let what = format!("cannot bring the schema of {} up to date", path.display());
            return Err(StoreError::permanent(what, error));
        }
        attempt += 1;
    }
}

fn unwritable(path: &Path, source: rusqlite::Error) -> StoreError {
    classify(
        format!(
            "cannot open the SQLite database {} for writing: make the file and its folder writable for this user, or name another one in DATABASE_URL",
            path.display()
        ),
        source,
    )
}

/// Tells by SQLite's code whether a failure may go away by itself.
pub(super) fn classify(what: impl Into<String>, source: rusqlite::Error) -> StoreError {
    let passing = matches!(
        source.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::OutOfMemory
                | ErrorCode::OperationInterrupted
                | ErrorCode::OperationAborted
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::SchemaChanged
        )
    );
    if passing {
        StoreError::transient(what, source)
    } else {
        StoreError::permanent(what, source)
    }
}

/// Whether SQLite refused one row for what is in it, and the transaction can go on.
pub(super) fn is_about_the_row(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::ConstraintViolation
                | ErrorCode::TooBig
                | ErrorCode::TypeMismatch
                | ErrorCode::ParameterOutOfRange
        )
    )
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}
