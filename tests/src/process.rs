//! Our own programs, as an operator starts and ends them.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::{Scrape, eventually, free_port, get, log};

/// The file of one of our programs, beside the test's own.
///
/// Cargo names only the binaries of a test's own package, so they are looked for in the target
/// directory; `cargo build --workspace --bins` puts them there.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a program knows its own file");
    let folder = own.parent().expect("a file is in a folder");
    // Tests are in target/PROFILE/deps, benchmarks in target/PROFILE like the programs.
    let profile = match folder.file_name() {
        Some(name) if name == "deps" => folder.parent().unwrap_or(folder),
        _ => folder,
    };
    let path = profile.join(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo build --workspace --bins` before the tests (`make test` does)",
        path.display()
    );
    path
}

/// A program about to be started: its arguments and environment.
#[derive(Debug)]
pub struct Program {
    name: String,
    command: Command,
    admin: Option<SocketAddr>,
}

impl Program {
    /// A program without arguments and with an empty environment, so that the settings of whoever
    /// runs the tests do not change them.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut command = Command::new(binary(name));
        command.env_clear().stdin(Stdio::null());
        Self {
            name: name.to_owned(),
            command,
            admin: None,
        }
    }

    /// A service, with its admin endpoints on a free port.
    #[must_use]
    pub fn service(name: &str) -> Self {
        let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut program = Self::new(name).env("ADMIN_ADDR", addr);
        program.admin = Some(addr);
        program
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds a flag and its value.
    #[must_use]
    pub fn flag(self, flag: &str, value: impl ToString) -> Self {
        self.arg(flag).arg(value.to_string())
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl ToString) -> Self {
        self.command.env(key, value.to_string());
        self
    }

    /// Feeds a file to its standard input.
    #[must_use]
    pub fn stdin(mut self, path: &Path) -> Self {
        let file = File::open(path).expect("the input was just written");
        self.command.stdin(file);
        self
    }

    /// Starts it.
    #[must_use]
    pub fn start(mut self) -> Process {
        let dir = TempDir::with_prefix("process-").expect("a temporary directory");
        let file = |name: &str| File::create(dir.path().join(name)).expect("a new directory");
        let child = self
            .command
            .current_dir(dir.path())
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", self.name));
        Process {
            name: self.name,
            admin: self.admin,
            dir,
            child,
        }
    }

    /// Runs it to its end and gives its exit code and what it wrote to standard output.
    pub async fn output(self, limit: Duration) -> (i32, String) {
        let mut process = self.start();
        let code = process.exit(limit).await;
        (code, process.stdout())
    }
}

/// A running program of ours; killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    admin: Option<SocketAddr>,
    dir: TempDir,
    child: Child,
}

impl Process {
    /// Waits until `/readyz` says yes.
    pub async fn ready(&mut self, limit: Duration) {
        let addr = self.admin.expect("only a service has probes");
        eventually(limit, "the service is ready", async || {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                panic!("{} ended with {status} before it was ready", self.name);
            }
            match get(addr, "/readyz").await {
                Ok((200, _)) => Ok(()),
                other => Err(other),
            }
        })
        .await;
    }

    /// Status and body of one of the service's admin endpoints.
    pub async fn admin(&self, path: &str) -> std::io::Result<(u16, String)> {
        get(self.admin.expect("only a service has probes"), path).await
    }

    /// The service's metrics now.
    pub async fn metrics(&self) -> std::io::Result<Scrape> {
        self.admin("/metrics")
            .await
            .map(|(_, text)| Scrape::new(text))
    }

    /// What it wrote to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("stdout")).unwrap_or_default()
    }

    /// What it wrote to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends it as a crash does (SIGKILL).
    pub fn kill(&mut self) {
        // It may have ended by itself: then there is nothing to kill.
        self.child.kill().ok();
        self.child.wait().expect("our own child");
    }

    /// Sends SIGTERM and does not wait.
    pub fn terminate(&self) {
        signal(self.child.id(), Signal::SIGTERM);
    }

    /// Sends SIGHUP: read your files again.
    pub fn hang_up(&self) {
        signal(self.child.id(), Signal::SIGHUP);
    }

    /// Waits for its end and gives the exit code; 128 and the signal's number when one ended it.
    pub async fn exit(&mut self, limit: Duration) -> i32 {
        exit_code(&mut self.child, limit, &self.name).await
    }

    /// Its arguments as every user of the machine sees them.
    #[must_use]
    pub fn command_line(&self) -> String {
        let bytes = std::fs::read(format!("/proc/{}/cmdline", self.child.id()));
        String::from_utf8_lossy(&bytes.expect("the process runs")).replace('\0', " ")
    }

    /// Resident memory in bytes.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        resident_bytes(self.child.id()).expect("the process runs")
    }

    /// Processor time used so far.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        cpu_time(self.child.id()).expect("the process runs")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let logs = ["stdout", "stderr"].map(|name| self.dir.path().join(name));
        log::show_on_failure(&self.name, logs.iter().map(PathBuf::as_path));
    }
}

/// Sends a signal to a process this test started.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.try_into().expect("a process id fits"));
    nix::sys::signal::kill(pid, signal).expect("a process of this test");
}

/// Waits for a child's end.
pub(crate) async fn exit_code(child: &mut Child, limit: Duration, name: &str) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    let status = eventually(limit, &format!("{name} ends"), async || {
        child.try_wait().expect("our own child").ok_or("still runs")
    })
    .await;
    match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, signal) => 128 + signal.expect("ended by a code or a signal"),
    }
}

/// Resident memory of a process, from `/proc`.
#[must_use]
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// User and system time of a process, all its threads, from `/proc`.
#[must_use]
pub fn cpu_time(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces; utime and stime are fields 14 and 15.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    // Linux shows them in hundredths of a second on every architecture we run on.
    Some(Duration::from_millis((user + system) * 10))
}
