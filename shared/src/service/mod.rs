//! How a process lives and dies: settings, logs, probes, signals, drain, exit code.
//!
//! A service is a library with a `run`; its `main.rs` only names it:
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use fleet_shared::config::{Common, HasCommon};
//! use fleet_shared::service::{self, Host};
//!
//! /// Greets until it is told to stop.
//! #[derive(clap::Parser, Debug)]
//! #[command(version, about)]
//! struct Config {
//!     #[command(flatten)]
//!     common: Common,
//! }
//!
//! impl HasCommon for Config {
//!     fn common(&self) -> &Common {
//!         &self.common
//!     }
//! }
//!
//! async fn run(_config: Config, host: Host) -> anyhow::Result<()> {
//!     let check = host.health().check("greeter");
//!     check.up();
//!     host.stopping().await;
//!     Ok(())
//! }
//!
//! fn main() -> ExitCode {
//!     service::main("greeter", run)
//! }
//! ```

mod host;
mod supervise;

use std::future::poll_fn;
use std::pin::pin;
use std::process::ExitCode;
use std::task::Poll;
use std::time::{Duration, Instant};

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

pub use host::{Host, StopHandle};
use supervise::{Outcome, supervise};

use crate::config::{self, AdminAddr, ConfigError, HasCommon, LogArgs, TraceArgs};
use crate::health;
use crate::telemetry::{Metrics, Tracer, init_logs, start_traces};

/// Reads the settings and runs the service until it ends or a signal tells it to.
///
/// Exit code 0: the service returned `Ok`, by itself or within the drain timeout after SIGTERM or
/// SIGINT. 1: it failed, did not finish in time, or a second signal came (a tenth of a second or
/// more after the first). 2: a setting cannot be
/// used, printed as one line; `run` may find that too by returning a [`ConfigError`].
pub fn main<C, R>(name: &'static str, run: R) -> ExitCode
where
    C: Parser + HasCommon,
    R: AsyncFnOnce(C, Host) -> anyhow::Result<()>,
{
    match config::parse(name) {
        Ok(config) => start(name, config, run),
        Err(code) => code,
    }
}

/// As [`main`], with settings that were read before: for a program of several commands.
pub fn start<C, R>(name: &'static str, config: C, run: R) -> ExitCode
where
    C: HasCommon,
    R: AsyncFnOnce(C, Host) -> anyhow::Result<()>,
{
    let common = config.common().clone();
    let run = async |host| run(config, host).await.map(|()| ExitCode::SUCCESS);
    let way = Way {
        logs: &common.logs,
        admin_addr: common.admin_addr,
        drain_timeout: common.drain_timeout,
        traces: Some(&common.traces),
    };
    frame(name, &way, run)
}

/// Runs an operator's command: logs and signals as a service has them, no admin server, and the
/// exit code is the command's own. The first signal makes [`Host::stopping`] resolve.
pub fn command<R>(name: &'static str, logs: &LogArgs, run: R) -> ExitCode
where
    R: AsyncFnOnce(Host) -> anyhow::Result<ExitCode>,
{
    let way = Way {
        logs,
        admin_addr: AdminAddr(None),
        drain_timeout: Duration::from_secs(5),
        traces: None,
    };
    frame(name, &way, run)
}

/// How a program is set up.
struct Way<'a> {
    logs: &'a LogArgs,
    admin_addr: AdminAddr,
    drain_timeout: Duration,
    traces: Option<&'a TraceArgs>,
}

/// The spans of the last moments take a round trip; a collector that is away must not hold the end up.
const FLUSH_MAX: Duration = Duration::from_secs(5);

fn frame<R>(name: &'static str, way: &Way<'_>, run: R) -> ExitCode
where
    R: AsyncFnOnce(Host) -> anyhow::Result<ExitCode>,
{
    if let Err(error) = init_logs(name, &way.logs.log, way.logs.log_format) {
        return config::report(&error.into());
    }
    let metrics = Metrics::new();
    let tracer = way
        .traces
        .map(|traces| start_traces(traces, name, VERSION, &metrics));
    let tracer = match tracer.transpose() {
        Ok(tracer) => tracer.unwrap_or_default(),
        Err(error) => return config::report(&error.into()),
    };
    let system = actix_rt::System::new();
    let mut stopped_at = None;
    let served = serve(name, way, metrics, tracer.clone(), &mut stopped_at, run);
    let outcome = system.block_on(served);
    // Dropping the runtime would wait for work on blocking threads, which may never end. What
    // had to be finished is finished; the process ends with `main`, Arbiters and all.
    std::mem::forget(system);
    if !matches!(outcome, Outcome::SecondSignal(_)) {
        let used = stopped_at.map_or(Duration::ZERO, |at: Instant| at.elapsed());
        tracer.shut_down(way.drain_timeout.saturating_sub(used).min(FLUSH_MAX));
    }
    conclude(name, outcome, way.drain_timeout)
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

async fn serve<R>(
    name: &'static str,
    way: &Way<'_>,
    metrics: Metrics,
    tracer: Tracer,
    stopped_at: &mut Option<Instant>,
    run: R,
) -> Outcome
where
    R: AsyncFnOnce(Host) -> anyhow::Result<ExitCode>,
{
    let (host, stop) = Host::new(name, way.drain_timeout, metrics, tracer);
    let (mut terminate, mut interrupt) = match (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) {
        (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
        (Err(error), _) | (_, Err(error)) => return Outcome::Failed(error.into()),
    };
    host.metrics().build_info(name, VERSION);
    let admin = way.admin_addr.0.map(|addr| {
        let served = health::serve(addr, host.health().clone(), host.metrics().clone());
        served.map(|admin| admin.addr())
    });
    let admin = match admin.transpose() {
        Ok(admin) => admin,
        Err(error) => return Outcome::Failed(error.into()),
    };
    if let Some(addr) = admin {
        host.serves_admin(addr);
    }
    let (health, instance) = (host.health().clone(), host.instance().to_owned());
    let mut running = pin!(run(host));
    // A service checks its settings before it waits for anything. What is wrong with them is to be the
    // only line that is written.
    let ended = poll_fn(|cx| Poll::Ready(running.as_mut().poll(cx))).await;
    if let Poll::Ready(Err(error)) = ended {
        return Outcome::Failed(error);
    }
    if let Some(addr) = admin {
        tracing::info!(%addr, "admin server listens");
    }
    tracing::info!(version = VERSION, instance, "service starts");
    let running = async {
        match ended {
            Poll::Ready(ended) => ended,
            Poll::Pending => running.await,
        }
    };
    let on_stop = || {
        *stopped_at = Some(Instant::now());
        health.drain();
        stop.stop();
    };
    let signals = async || {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    };
    supervise(running, signals, on_stop, way.drain_timeout).await
}

fn conclude(name: &str, outcome: Outcome, drain_timeout: Duration) -> ExitCode {
    match outcome {
        Outcome::Finished(code) => {
            tracing::info!("service ends");
            code
        }
        Outcome::Failed(error) if error.chain().any(|cause| cause.is::<ConfigError>()) => {
            config::report(&error)
        }
        Outcome::Failed(error) => {
            tracing::error!(error = format!("{error:#}"), "service failed");
            ExitCode::FAILURE
        }
        Outcome::DrainTimedOut => {
            tracing::warn!(
                service = name,
                limit = config::format_duration(drain_timeout),
                "service did not finish in time: raise --drain-timeout (DRAIN_TIMEOUT)"
            );
            ExitCode::FAILURE
        }
        Outcome::SecondSignal(signal) => {
            tracing::warn!(signal, "second signal, service ends unfinished");
            ExitCode::FAILURE
        }
    }
}
