//! The pool of connections, and what each connection is told at its start.

use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use std::{fs, io};

use deadpool_postgres::{Connect, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::settings::Settings;
use super::tls;
use crate::{OpenOptions, Role, StoreError};

/// Two at least: retention reads with one while it deletes with another.
const POOL_MIN: usize = 2;

pub(super) fn pool(settings: &Settings, options: &OpenOptions) -> Result<Pool, StoreError> {
    let connector = Connector {
        tls: Tls::new(settings)?,
        password_file: options.password_file.clone(),
        greeting: greeting(options),
        greeting_timeout: options.connect_timeout,
        runtime: Handle::current(),
    };
    if let Some(file) = &options.password_file {
        read_password(file).map_err(|source| {
            StoreError::permanent(
                format!(
                    "cannot read PostgreSQL's password from {}: name a file this user can read",
                    file.display()
                ),
                source,
            )
        })?;
    }
    let manager = Manager::from_connect(
        settings.config.clone(),
        connector,
        ManagerConfig {
            // A broken connection shows at its first use, which is tried again on a new one.
            recycling_method: RecyclingMethod::Fast,
        },
    );
    // A connection is made within one limit for TCP and TLS, and a second for the greeting.
    let patience = options.connect_timeout * 2;
    Pool::builder(manager)
        .max_size(options.pool_size.max(POOL_MIN))
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(options.statement_timeout))
        .create_timeout(Some(patience))
        .recycle_timeout(Some(patience))
        .build()
        .map_err(|source| StoreError::permanent("cannot set up the connection pool", source))
}

/// The statements that every connection begins with.
///
/// The server gives up a statement a little after its caller did: one whose caller is gone must not
/// hold locks on. Synchronous commit is raised where it is too weak for what is acknowledged to
/// survive a crash, and left alone where it is stronger.
fn greeting(options: &OpenOptions) -> String {
    let statement_ms = options.statement_timeout.as_millis() + 1_000;
    let read_only = match options.role {
        Role::Reader => "SET default_transaction_read_only = on;",
        Role::Writer => "",
    };
    format!(
        "SET statement_timeout = {statement_ms};
         SET idle_in_transaction_session_timeout = {statement_ms};
         SELECT set_config('synchronous_commit', 'on', false)
          WHERE current_setting('synchronous_commit') IN ('off', 'local');
         {read_only}"
    )
}

/// TLS from files that are read for every connection, so that a renewed certificate needs no
/// restart. Files that cannot be used leave the former ones in force.
struct Tls {
    trust: tls::Trust,
    identity: Option<tls::Identity>,
    last: Mutex<MakeRustlsConnect>,
}

impl Tls {
    fn new(settings: &Settings) -> Result<Self, StoreError> {
        let (trust, identity) = (settings.trust.clone(), settings.identity.clone());
        let config = tls::client_config(&trust, identity.as_ref())?;
        Ok(Self {
            trust,
            identity,
            last: Mutex::new(MakeRustlsConnect::new(config)),
        })
    }

    fn current(&self) -> MakeRustlsConnect {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match tls::client_config(&self.trust, self.identity.as_ref()) {
            Ok(config) => *last = MakeRustlsConnect::new(config),
            Err(error) => {
                let reason = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(%error, reason, "certificates cannot be read; the former ones stay in force");
            }
        }
        last.clone()
    }
}

struct Connector {
    tls: Tls,
    password_file: Option<PathBuf>,
    greeting: String,
    greeting_timeout: Duration,
    /// Connections are shared by all threads, so they live on the runtime that outlives the others.
    runtime: Handle,
}

type Connecting<'a> =
    Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + 'a>>;

impl Connect for Connector {
    fn connect(&self, config: &Config) -> Connecting<'_> {
        let mut config = config.clone();
        // A file that cannot be read any more leaves the connection without a password, which the
        // server refuses with a message of its own.
        match self.password_file.as_deref().map(read_password) {
            Some(Ok(password)) => {
                config.password(password);
            }
            Some(Err(error)) => {
                tracing::error!(%error, file = ?self.password_file, "cannot read the password file");
            }
            None => {}
        }
        let mut connecting = Box::pin(self.greet(config));
        Box::pin(poll_fn(move |context| {
            let _entered = self.runtime.enter();
            connecting.as_mut().poll(context)
        }))
    }
}

impl Connector {
    async fn greet(&self, config: Config) -> Result<(Client, JoinHandle<()>), Error> {
        let (client, connection) = config.connect(self.tls.current()).await?;
        let driver = self.runtime.spawn(async move {
            // Whoever uses the connection gets the error; here it is one of an idle connection.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a database connection ended");
            }
        });
        let greeted = client.batch_execute(&self.greeting);
        match tokio::time::timeout(self.greeting_timeout, greeted).await {
            Ok(Ok(())) => Ok((client, driver)),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                // With its driver gone, the call below fails as any on a lost connection.
                driver.abort();
                client.batch_execute("").await.map(|()| (client, driver))
            }
        }
    }
}

fn read_password(file: &Path) -> io::Result<String> {
    let text = fs::read_to_string(file)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
