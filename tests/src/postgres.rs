//! A real PostgreSQL.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use crate::process::{exit_code, signal};
use crate::{eventually, free_port, log};

/// Longest time for a start with crash recovery, or for an end.
const PATIENCE: Duration = Duration::from_secs(60);

/// An empty database cluster on a free port of 127.0.0.1, user `fleet` without a password.
///
/// It commits to the kernel and not to the disk (`fsync` off): what it committed survives its own
/// sudden end, which is all that a test can cause, and the tests do not wait for the disk.
#[derive(Debug)]
pub struct Postgres {
    dir: TempDir,
    port: u16,
    server: Option<Child>,
    /// The user to run as when the test runs as root, which PostgreSQL refuses to do.
    owner: Option<(u32, u32)>,
}

impl Postgres {
    /// Makes a cluster and starts it.
    pub async fn start() -> Self {
        for _ in 0..5 {
            let mut server = Self::initialised();
            if server.spawn().await.is_ok() {
                return server;
            }
        }
        panic!("PostgreSQL does not start; its log is above");
    }

    fn initialised() -> Self {
        let dir = TempDir::with_prefix("postgres-").expect("a temporary directory");
        let uid = fs::metadata(dir.path()).expect("just made").uid();
        let owner = (uid == 0).then(unprivileged_user);
        if let Some((uid, gid)) = owner {
            chown(dir.path(), Some(uid), Some(gid)).expect("root may give files away");
        }
        let postgres = Self {
            dir,
            port: free_port(),
            server: None,
            owner,
        };
        let made = postgres
            .command("initdb")
            .args(["-U", "fleet", "-A", "trust", "-E", "UTF8"])
            .args(["--no-locale", "--no-sync"])
            .output()
            .expect("initdb was found");
        assert!(
            made.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        postgres
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(programs().join(program));
        command.arg("-D").arg(self.dir.path().join("data"));
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        if let Some((uid, gid)) = self.owner {
            command.uid(uid).gid(gid);
        }
        command
    }

    async fn spawn(&mut self) -> Result<(), String> {
        let log = File::options().create(true).append(true).open(self.log());
        let log = log.expect("the temporary directory is writable");
        let settings = [
            "listen_addresses=127.0.0.1",
            "fsync=off",
            "full_page_writes=off",
            "max_connections=100",
        ];
        let server = self
            .command("postgres")
            .args(["-p", &self.port.to_string(), "-k"])
            .arg(self.dir.path())
            .args(settings.iter().flat_map(|setting| ["-c", setting]))
            .stdout(log.try_clone().expect("an open file"))
            .stderr(log)
            .spawn()
            .expect("postgres is beside initdb");
        self.server = Some(server);
        let url = self.url();
        let server = self.server.as_mut().expect("just started");
        let answering = eventually(PATIENCE, "PostgreSQL answers", async || {
            if let Some(status) = server.try_wait().expect("our own child") {
                return Ok(Err(format!("postgres ended with {status}")));
            }
            match connect(&url).await {
                Ok(_) => Ok(Ok(())),
                Err(error) => Err(error.to_string()),
            }
        });
        let started = answering.await;
        if started.is_err() {
            self.server = None;
        }
        started
    }

    /// Its `DATABASE_URL`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://fleet@127.0.0.1:{}/postgres", self.port)
    }

    /// The number a query answers with, its only row's only column, a `bigint`.
    pub async fn number(&self, query: &str) -> Result<i64, tokio_postgres::Error> {
        connect(&self.url())
            .await?
            .query_one(query, &[])
            .await?
            .try_get(0)
    }

    /// Ends it at once, without checkpoint and with every connection broken, and starts it again:
    /// `pg_ctl restart -m immediate`. Returns when it has recovered.
    pub async fn restart_immediate(&mut self) {
        let mut server = self.server.take().expect("PostgreSQL runs");
        signal(server.id(), Signal::SIGQUIT);
        exit_code(&mut server, PATIENCE, "PostgreSQL").await;
        self.spawn().await.expect("PostgreSQL starts again");
    }

    /// Stops its execution (SIGSTOP), of the server and every backend: connections stay open.
    pub fn pause(&self) {
        let server = self.pid();
        // The server first: it starts no backend behind our back.
        signal(server, Signal::SIGSTOP);
        for backend in children(server) {
            signal(backend, Signal::SIGSTOP);
        }
    }

    /// Lets it go on after [`Postgres::pause`].
    pub fn resume(&self) {
        let server = self.pid();
        for backend in children(server) {
            signal(backend, Signal::SIGCONT);
        }
        signal(server, Signal::SIGCONT);
    }

    fn pid(&self) -> u32 {
        self.server.as_ref().expect("PostgreSQL runs").id()
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("postgres.log")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.resume();
            signal(self.pid(), Signal::SIGQUIT);
            if let Some(mut server) = self.server.take() {
                server.wait().expect("our own child");
            }
        }
        log::show_on_failure("postgres", [self.log().as_path()]);
    }
}

/// A connection that is driven until it is dropped.
async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // Its error is the client's error as well.
    tokio::spawn(async move { connection.await.ok() });
    Ok(client)
}

/// The directory of the newest installed PostgreSQL's programs.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let newest = versions
        .map(|entry| entry.path().join("bin"))
        .filter(|bin| bin.join("initdb").exists())
        .max_by_key(|bin| version(bin));
    newest.unwrap_or_else(|| {
        panic!(
            "this test needs PostgreSQL and finds no /usr/lib/postgresql/*/bin/initdb: install it \
             with `apt-get install postgresql`, or run `make test`"
        )
    })
}

fn version(bin: &Path) -> u32 {
    let folder = bin.parent().and_then(Path::file_name);
    folder
        .and_then(|name| name.to_str()?.parse().ok())
        .unwrap_or(0)
}

/// User and group to run PostgreSQL as: `postgres`, which its package makes, or `nobody`.
fn unprivileged_user() -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").expect("every system has it");
    let find = |name: &str| {
        let line = users
            .lines()
            .find(|line| line.split(':').next() == Some(name))?;
        let mut ids = line.split(':').skip(2).map(str::parse);
        Some((ids.next()?.ok()?, ids.next()?.ok()?))
    };
    find("postgres")
        .or_else(|| find("nobody"))
        .expect("the user `postgres` or `nobody` to run PostgreSQL as, because root may not")
}

/// The direct children of a process, from `/proc`.
fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("Linux").flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| parent_of(*id) == Some(parent)).collect()
}

fn parent_of(process: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}
