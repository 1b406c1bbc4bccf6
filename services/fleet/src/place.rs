//! Where a run of `fleet up` keeps its things, and where other commands find them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command, FromArgMatches};
use fleet_shared::config::{ConfigError, DatabaseArgs, DatabaseUrl};
use fleet_store::{AlertStore, OpenOptions, Store, StoreError};

/// The data folder unless another one is named.
pub const DATA_DIR: &str = "data";

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

/// The token of the API inside the data folder, where no other one is set.
#[must_use]
pub fn token_file(data_dir: &Path) -> PathBuf {
    data_dir.join("api-token")
}

/// Where a command finds what a run has left: in a data folder, or elsewhere.
#[derive(Clone, Debug)]
pub struct StoreArgs {
    named: Named,
    /// The folder is no flag: a URL says more of the store, and the folder is about the ledger alone.
    url_decides: bool,
}

#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Store")]
struct Named {
    /// Folder of `fleet up`, with its store and its ledger [default: data].
    #[arg(long, env = "FLEET_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Another store: sqlite://FILE or postgres://USER@HOST/NAME [default: DIR/fleet.db].
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<DatabaseUrl>,

    /// File that holds the password for a postgres URL without one.
    #[arg(long, env = "DATABASE_PASSWORD_FILE", value_name = "FILE")]
    database_password_file: Option<PathBuf>,
}

impl FromArgMatches for StoreArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let named = Named::from_arg_matches(matches)?;
        let url_decides = matches.value_source("data_dir") != Some(ValueSource::CommandLine);
        Ok(Self { named, url_decides })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for StoreArgs {
    fn augment_args(command: Command) -> Command {
        Named::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Named::augment_args_for_update(command)
    }
}

impl StoreArgs {
    /// The data folder, whether it is there or not.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        let named = self.named.data_dir.as_deref();
        named.unwrap_or_else(|| Path::new(DATA_DIR))
    }

    /// The store to open.
    ///
    /// # Errors
    /// When two stores are named, the password file cannot be read, or there is no use for it.
    pub fn url(&self) -> Result<DatabaseUrl, ConfigError> {
        let database_url = match &self.named.database_url {
            None => DatabaseUrl::Sqlite(store_file(self.data_dir())),
            // A variable may be set for other programs: to guess would compare with the wrong one.
            Some(_) if self.named.data_dir.is_some() && !self.url_decides => {
                return Err(ConfigError::setting(
                    "--data-dir (FLEET_DATA_DIR) and --database-url (DATABASE_URL)",
                    "both name a store; keep one of them",
                ));
            }
            Some(url) => url.clone(),
        };
        DatabaseArgs {
            database_url,
            database_password_file: self.named.database_password_file.clone(),
        }
        .url()
    }

    /// Opens the store.
    ///
    /// # Errors
    /// As [`StoreArgs::url`], and when the store is not there or refuses.
    pub async fn open(&self, options: OpenOptions) -> Result<Arc<dyn Store>, ConfigError> {
        let url = self.url()?;
        let opened = fleet_store::open(&url, options).await;
        opened.map_err(|error| self.unusable(&url, error))
    }

    /// Opens the alerts of the store.
    ///
    /// # Errors
    /// As [`StoreArgs::open`].
    pub async fn open_alerts(
        &self,
        options: OpenOptions,
    ) -> Result<Arc<dyn AlertStore>, ConfigError> {
        let url = self.url()?;
        let opened = fleet_store::open_alerts(&url, options).await;
        opened.map_err(|error| self.unusable(&url, error))
    }

    fn unusable(&self, url: &DatabaseUrl, error: StoreError) -> ConfigError {
        let remedy = format!("{:#}", anyhow::Error::new(error));
        if self.named.database_url.is_some() {
            return ConfigError::value("--database-url (DATABASE_URL)", url, remedy);
        }
        let remedy = match store_file(self.data_dir()).exists() {
            true => remedy,
            false => "there is no store `fleet.db` in it; name the folder of a `fleet up`, or another store with --database-url".to_owned(),
        };
        let folder = self.data_dir().display();
        ConfigError::value("--data-dir (FLEET_DATA_DIR)", folder, remedy)
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
