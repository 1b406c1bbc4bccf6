//! This test binary once more, as a small service.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use fleet_shared::config::{self, Common, ConfigError, DatabaseArgs, HasCommon, MqttArgs};
use fleet_shared::service::{self, Host};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Far above what any case needs, so that only a hang runs into it.
const DEADLINE: Duration = Duration::from_secs(30);

const ARGS: &str = "FLEET_TEST_CHILD_ARGS";
const RUNS: &str = "FLEET_TEST_CHILD_RUNS";

/// A service with all groups of settings.
#[derive(clap::Parser, Debug)]
#[command(name = "ingest", version)]
struct Config {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    mqtt: MqttArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// What the service does.
    #[arg(long, env = "BEHAVIOUR", value_enum, default_value = "obey")]
    behaviour: Behaviour,
    /// Topic filters.
    #[arg(
        long,
        env = "FILTER",
        value_delimiter = ',',
        default_value = "sensors/#"
    )]
    filter: Vec<String>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Behaviour {
    /// Stops when told.
    Obey,
    /// Does not stop when told.
    Ignore,
    /// Stops when told, but leaves a blocking thread at work.
    LeaveThread,
    /// Returns at once.
    End,
    /// Fails at once.
    Fail,
    /// Finds a setting that cannot be used.
    Misconfigured,
}

impl HasCommon for Config {
    fn common(&self) -> &Common {
        &self.common
    }
}

#[expect(clippy::print_stdout, reason = "the parent reads it")]
async fn run(config: Config, host: Host) -> anyhow::Result<()> {
    let check = host.health().check("behaviour");
    check.up();
    println!("ready");
    match config.behaviour {
        Behaviour::Obey => {
            host.stopping().await;
            assert!(!host.health().ready(), "unready before the service drains");
            Ok(())
        }
        Behaviour::Ignore => std::future::pending().await,
        Behaviour::LeaveThread => {
            let (keep, wait) = mpsc::channel::<()>();
            let (started, has_started) = tokio::sync::oneshot::channel();
            drop(tokio::task::spawn_blocking(move || {
                started.send(()).unwrap();
                wait.recv_timeout(DEADLINE * 2)
            }));
            has_started.await?;
            actix::Arbiter::new().spawn(std::future::pending::<()>());
            host.stopping().await;
            // The thread would end with the channel.
            std::mem::forget(keep);
            Ok(())
        }
        Behaviour::End => Ok(()),
        Behaviour::Fail => Err(anyhow::anyhow!("disk full").context("opening the store")),
        Behaviour::Misconfigured => {
            let error = ConfigError::value("--batch-max", 0, "give 1 or more");
            Err(anyhow::Error::new(error).context("starting the writer"))
        }
    }
}

/// Does nothing in the parent; in the child, becomes the service and exits as it would.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the parent says by variable what to be"
)]
fn child() {
    let Ok(args) = std::env::var(ARGS) else {
        return;
    };
    // The harness has begun a line.
    println!();
    let args = serde_json::from_str::<Vec<String>>(&args).unwrap();
    let config = config::parse_from::<Config>("ingest", args.into_iter().map(Into::into));
    let code = match config {
        Err(code) => code,
        Ok(config) if std::env::var_os(RUNS).is_some() => service::start("ingest", config, run),
        Ok(config) => match config.mqtt.options("ingest", "host-1") {
            Ok(options) => {
                let database = config.database.url();
                println!("{config:#?}\n{options:#?}\n{database:?}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("error: {:#}", anyhow::Error::new(error));
                ExitCode::from(2)
            }
        },
    };
    let code = (0..=2)
        .find(|number| ExitCode::from(*number) == code)
        .unwrap();
    std::process::exit(code.into());
}

/// What a child left behind.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A child at work.
pub(crate) struct Running {
    child: Child,
    stdout: mpsc::Receiver<String>,
    stderr: mpsc::Receiver<String>,
}

/// Reads the settings and prints them.
pub(crate) fn settings(args: &[&str], variables: &[(&str, &str)]) -> Ended {
    command(args, variables).ended()
}

/// Runs the service.
pub(crate) fn start(args: &[&str], variables: &[(&str, &str)]) -> Running {
    command(args, &[variables, &[(RUNS, "1")]].concat())
}

fn command(args: &[&str], variables: &[(&str, &str)]) -> Running {
    let args: Vec<&str> = std::iter::once("ingest")
        .chain(args.iter().copied())
        .collect();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child::child", "--nocapture", "--test-threads=1"])
        .env_clear()
        .envs(variables.iter().copied())
        .env(ARGS, serde_json::to_string(&args).unwrap())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let mut stderr = child.stderr.take().unwrap();
    let (send_line, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in stdout.lines() {
            if send_line.send(line.unwrap()).is_err() {
                break;
            }
        }
    });
    let (send_text, text) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        send_text.send(text).unwrap();
    });
    Running {
        child,
        stdout: lines,
        stderr: text,
    }
}

impl Running {
    /// Waits until the service runs.
    pub(crate) fn ready(self) -> Self {
        while self
            .stdout
            .recv_timeout(DEADLINE)
            .expect("the child says that it is ready")
            != "ready"
        {}
        self
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Whether the child closes its output so soon.
    pub(crate) fn ends_within(&self, limit: Duration) -> bool {
        matches!(
            self.stdout.recv_timeout(limit),
            Err(mpsc::RecvTimeoutError::Disconnected)
        )
    }

    /// Waits for the end; kills the child when it does not come.
    pub(crate) fn ended(mut self) -> Ended {
        let stderr = self.stderr.recv_timeout(DEADLINE);
        if stderr.is_err() {
            self.child.kill().unwrap();
        }
        let status = self.child.wait().unwrap();
        // The harness speaks first.
        let lines = self
            .stdout
            .iter()
            .skip_while(|line| !line.starts_with("test "));
        Ended {
            code: status.code(),
            stdout: lines.skip(1).collect::<Vec<_>>().join("\n"),
            stderr: stderr.expect("the child ends"),
        }
    }
}
