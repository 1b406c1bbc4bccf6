//! A PostgreSQL server of its own for a test, on a free port, gone afterwards.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

pub(crate) const PASSWORD: &str = "geheim";

/// Where Debian puts the programs, newest first; elsewhere they are on the path.
fn programs() -> Option<PathBuf> {
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|found| {
            found
                .flatten()
                .map(|entry| entry.path().join("bin"))
                .collect()
        })
        .unwrap_or_default();
    versions.sort();
    versions.reverse();
    versions.push(PathBuf::new());
    versions
        .into_iter()
        .find(|folder| runs(Command::new(folder.join("initdb")).arg("--version")))
}

fn runs(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// PostgreSQL refuses to run as root, so root runs it as the user its package made.
fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout.starts_with(b"0")
}

pub(crate) struct Server {
    programs: PathBuf,
    folder: TempDir,
    port: u16,
}

impl Server {
    /// `None`, with a loud word, where PostgreSQL is not installed.
    #[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
    pub(crate) fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            eprintln!("SKIPPED: install postgresql (apt-get install postgresql) to run this test");
            return None;
        };
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let server = Self {
            programs,
            folder: tempfile::tempdir().unwrap(),
            port,
        };
        fs::write(server.path("password"), PASSWORD).unwrap();
        server.own();
        let data = server.path("data");
        let password = server.path("password");
        server.run(
            "initdb",
            &[
                "-D",
                text(&data),
                "-U",
                "fleet",
                "-A",
                "scram-sha-256",
                "--pwfile",
                text(&password),
                "-E",
                "UTF8",
                "--no-sync",
            ],
        );
        server.launch();
        Some(server)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Gives everything in the folder to the user the server runs as.
    pub(crate) fn own(&self) {
        if is_root() {
            assert!(runs(
                Command::new("chown")
                    .arg("-R")
                    .arg("postgres")
                    .arg(self.folder.path())
            ));
        }
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!(
            "postgres://fleet:{PASSWORD}@127.0.0.1:{}/{database}",
            self.port
        )
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn launch(&self) {
        let data = self.path("data");
        let log = self.path("log");
        let options = format!(
            "-p {} -h 127.0.0.1 -c unix_socket_directories={} -c fsync=on",
            self.port,
            text(self.folder.path())
        );
        self.run(
            "pg_ctl",
            &[
                "-D",
                text(&data),
                "-l",
                text(&log),
                "-o",
                &options,
                "-w",
                "start",
            ],
        );
    }

    /// Stops it as a crash would: without finishing anything.
    pub(crate) fn stop_immediately(&self) {
        let data = self.path("data");
        self.run(
            "pg_ctl",
            &["-D", text(&data), "-m", "immediate", "-w", "stop"],
        );
    }

    /// Stops or continues every process of the server.
    pub(crate) fn signal(&self, signal: Signal) {
        let main = fs::read_to_string(self.path("data/postmaster.pid")).unwrap();
        let main: i32 = main.lines().next().unwrap().parse().unwrap();
        let children = Command::new("ps")
            .args(["-o", "pid=", "--ppid", &main.to_string()])
            .output()
            .unwrap();
        let children = String::from_utf8(children.stdout).unwrap();
        let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
        for pid in std::iter::once(main).chain(children) {
            // A child may have ended between the listing and the signal.
            kill(Pid::from_raw(pid), signal).ok();
        }
    }

    pub(crate) fn create_database(&self, name: &str) {
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
    }

    /// Runs SQL and returns what psql prints, unaligned and without headers.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> String {
        let output = self.run(
            "psql",
            &[
                "-X",
                "-A",
                "-t",
                "-q",
                "-v",
                "ON_ERROR_STOP=1",
                "-d",
                &self.url(database),
                "-c",
                sql,
            ],
        );
        String::from_utf8(output.stdout)
            .unwrap()
            .trim_end()
            .to_owned()
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let program = self.programs.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        // pg_ctl leaves the server behind, which would hold captured pipes open for ever.
        let output = self.path("output");
        let file = fs::File::create(&output).unwrap();
        let errors = file.try_clone().unwrap();
        let status = command
            .args(arguments)
            .current_dir("/")
            .stdout(file)
            .stderr(errors)
            .status()
            .unwrap();
        let printed = fs::read(&output).unwrap();
        assert!(
            status.success(),
            "{command:?}: {}\n{}",
            String::from_utf8_lossy(&printed),
            fs::read_to_string(self.path("log")).unwrap_or_default()
        );
        Output {
            status,
            stdout: printed,
            stderr: Vec::new(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal(Signal::SIGCONT);
        self.stop_immediately();
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
