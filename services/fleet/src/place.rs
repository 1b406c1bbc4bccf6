//! Where a run of `fleet up` keeps its things, and where other commands find them.

use std::path::{Path, PathBuf};

use fleet_shared::config::{ConfigError, DatabaseArgs, DatabaseUrl};

/// The store inside the data folder.
#[must_use]
pub fn store_file(data_dir: &Path) -> PathBuf {
    data_dir.join("fleet.db")
}

/// The simulator's ledger inside the data folder.
#[must_use]
pub fn ledger_file(data_dir: &Path) -> PathBuf {
    data_dir.join("ledger.jsonl")
}

/// The store of a command: that of a data folder, or any other.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Store")]
pub struct StoreArgs {
    /// Folder of `fleet up`.
    #[arg(
        long,
        env = "FLEET_DATA_DIR",
        value_name = "DIR",
        default_value = "data"
    )]
    pub data_dir: PathBuf,

    /// Another store: sqlite://FILE or postgres://USER@HOST/NAME [default: DIR/fleet.db].
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Option<DatabaseUrl>,

    /// File that holds the password for a postgres URL without one.
    #[arg(long, env = "DATABASE_PASSWORD_FILE", value_name = "FILE")]
    pub database_password_file: Option<PathBuf>,
}

impl StoreArgs {
    /// The store to open.
    ///
    /// # Errors
    /// When the password file cannot be read, or there is no use for it.
    pub fn url(&self) -> Result<DatabaseUrl, ConfigError> {
        let database_url = match &self.database_url {
            Some(url) => url.clone(),
            None => DatabaseUrl::Sqlite(store_file(&self.data_dir)),
        };
        DatabaseArgs {
            database_url,
            database_password_file: self.database_password_file.clone(),
        }
        .url()
    }
}

/// The form of a command's answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}
