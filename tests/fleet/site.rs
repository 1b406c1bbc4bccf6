//! A broker, a place for files, and our programs pointed at them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet_tests::{Mosquitto, Program, TempDir, eventually};
use rusqlite::{Connection, OpenFlags};
use serde::Deserialize;

/// Longest wait for what a busy machine has to work on.
pub(crate) const LONG: Duration = Duration::from_secs(90);

/// One installation of the fleet.
pub(crate) struct Site {
    pub(crate) broker: Mosquitto,
    pub(crate) database_url: String,
    dir: TempDir,
}

/// The answer of `fleet verify --output json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Verified {
    pub(crate) published: u64,
    pub(crate) acknowledged: u64,
    pub(crate) stored: u64,
    pub(crate) missing: u64,
    pub(crate) duplicates: u64,
    pub(crate) conflicts: u64,
}

impl Site {
    /// A Mosquitto and a SQLite file that does not exist yet.
    pub(crate) async fn on_sqlite() -> Self {
        let dir = TempDir::with_prefix("site-").unwrap();
        let database_url = format!("sqlite://{}", dir.path().join("fleet.db").display());
        Self {
            broker: Mosquitto::start().await,
            database_url,
            dir,
        }
    }

    /// A Mosquitto and another database.
    pub(crate) async fn on(database_url: String) -> Self {
        let site = Self::on_sqlite().await;
        Self {
            database_url,
            ..site
        }
    }

    /// A file of this installation.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// An `ingest` under a client id of its own, that connects again without long pauses.
    pub(crate) fn ingest(&self, client_id: &str) -> Program {
        Program::service("ingest")
            .env("MQTT_URL", self.broker.url())
            .env("MQTT_CLIENT_ID", client_id)
            .env("MQTT_MAX_RECONNECT_DELAY", "1s")
            .env("DATABASE_URL", &self.database_url)
    }

    /// A `device-sim` that writes the ledger.
    pub(crate) fn device_sim(&self) -> Program {
        Program::service("device-sim")
            .env("MQTT_URL", self.broker.url())
            .env("MQTT_MAX_RECONNECT_DELAY", "1s")
            .flag("--ledger", self.path("ledger.jsonl").display())
    }

    /// A `device-sim` that replays a file as fast as the broker takes it.
    pub(crate) fn replay(&self, csv: &Path) -> Program {
        let sim = self.device_sim();
        sim.flag("--replay", csv.display()).flag("--speed", "max")
    }

    /// What `fleet verify` says, once nothing is missing any more or `limit` has passed. Its exit
    /// code has to agree with its numbers.
    pub(crate) async fn verified(&self, limit: Duration) -> Verified {
        let (code, answer) = Program::new("fleet")
            .arg("verify")
            .flag("--ledger", self.path("ledger.jsonl").display())
            .flag("--database-url", &self.database_url)
            .flag("--wait", format!("{}s", limit.as_secs()))
            .flag("--output", "json")
            .output(limit + LONG)
            .await;
        let verified: Verified = serde_json::from_str(&answer)
            .unwrap_or_else(|error| panic!("exit code {code}, `{answer}` is no answer: {error}"));
        let good = (verified.missing, verified.duplicates, verified.conflicts) == (0, 0, 0);
        assert_eq!(code == 0, good, "exit code {code} for {verified:?}");
        verified
    }

    /// The number a query on the SQLite file answers with; none while there is no such table.
    pub(crate) fn number(&self, query: &str) -> Option<u64> {
        let file = self.database_url.strip_prefix("sqlite://").unwrap();
        number(Path::new(file), query)
    }

    /// Waits until that many readings are stored.
    pub(crate) async fn stored_at_least(&self, count: u64) {
        eventually(
            LONG,
            &format!("{count} readings are stored"),
            async || match self.number("SELECT count(*) FROM readings") {
                Some(stored) if stored >= count => Ok(()),
                other => Err(other),
            },
        )
        .await;
    }
}

/// The number a query on a SQLite file answers with; none while there is no such table or file.
pub(crate) fn number(file: &Path, query: &str) -> Option<u64> {
    let database = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
    database.busy_timeout(Duration::from_secs(5)).unwrap();
    let number: i64 = database.query_row(query, [], |row| row.get(0)).ok()?;
    Some(number.try_into().unwrap())
}
