//! An empty database of either kind.

use std::path::PathBuf;
use std::sync::Arc;

use fleet_shared::config::DatabaseUrl;
use fleet_store::{OpenOptions, Store};
use rusqlite::Connection;
use rusqlite::types::Value;
use tempfile::TempDir;

use crate::server::Server;

/// An empty database, with a way to look into it that is not ours.
pub(crate) enum Database<'s> {
    Sqlite(TempDir),
    Postgres(&'s Server, String),
}

impl<'s> Database<'s> {
    pub(crate) fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    pub(crate) fn postgres(server: &'s Server, name: &str) -> Self {
        server.create_database(name);
        Self::Postgres(server, name.to_owned())
    }

    pub(crate) fn url(&self) -> DatabaseUrl {
        match self {
            Self::Sqlite(folder) => DatabaseUrl::Sqlite(file(folder)),
            Self::Postgres(server, name) => server.url(name).parse().unwrap(),
        }
    }

    pub(crate) async fn writer(&self) -> Arc<dyn Store> {
        fleet_store::open(&self.url(), OpenOptions::writer("test"))
            .await
            .unwrap()
    }

    pub(crate) async fn reader(&self) -> Arc<dyn Store> {
        fleet_store::open(&self.url(), OpenOptions::reader("test"))
            .await
            .unwrap()
    }

    /// Runs one statement as another program would, and returns its rows, columns parted by `|`.
    pub(crate) fn sql(&self, sql: &str) -> String {
        match self {
            Self::Sqlite(folder) => sqlite_sql(&Connection::open(file(folder)).unwrap(), sql),
            Self::Postgres(server, name) => server.sql(name, sql),
        }
    }
}

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("data/fleet.db")
}

fn sqlite_sql(connection: &Connection, sql: &str) -> String {
    let mut statement = connection.prepare(sql).unwrap();
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| {
        let cells = (0..columns).map(|column| {
            Ok(match row.get(column)? {
                Value::Null => String::new(),
                Value::Integer(number) => number.to_string(),
                Value::Real(number) => number.to_string(),
                Value::Text(text) => text,
                Value::Blob(bytes) => format!("{bytes:02x?}"),
            })
        });
        Ok(cells.collect::<rusqlite::Result<Vec<_>>>()?.join("|"))
    });
    rows.unwrap()
        .collect::<rusqlite::Result<Vec<_>>>()
        .unwrap()
        .join("\n")
}
