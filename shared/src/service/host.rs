//! What a service gets from the process it runs in.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::watch;

use crate::health::Health;
use crate::telemetry::{Metrics, Tracer};

/// Drain timeout of [`Host::embedded`].
const EMBEDDED_DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// A service's view of its process; cheap to clone.
#[derive(Clone, Debug)]
pub struct Host {
    name: Arc<str>,
    process: Arc<Process>,
    health: Health,
    drain_timeout: Duration,
    stopping: watch::Receiver<bool>,
}

#[derive(Debug)]
struct Process {
    instance: String,
    metrics: Metrics,
    tracer: Tracer,
    admin_addr: OnceLock<SocketAddr>,
}

/// Tells a [`Host`] and its children to stop; dropping it does too.
#[derive(Debug)]
#[must_use = "dropping it stops the host"]
pub struct StopHandle {
    stopping: watch::Sender<bool>,
}

impl StopHandle {
    /// Resolves every [`Host::stopping`], those asked for later too.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }
}

impl Host {
    pub(super) fn new(
        name: &str,
        drain_timeout: Duration,
        metrics: Metrics,
        tracer: Tracer,
    ) -> (Self, StopHandle) {
        let (sender, stopping) = watch::channel(false);
        let host = Self {
            name: name.into(),
            process: Arc::new(Process {
                instance: hostname(),
                metrics,
                tracer,
                admin_addr: OnceLock::new(),
            }),
            health: Health::new(),
            drain_timeout,
            stopping,
        };
        (host, StopHandle { stopping: sender })
    }

    /// A host without signals and admin server, for tests and for services inside a program.
    pub fn embedded(name: &str) -> (Self, StopHandle) {
        Self::new(name, EMBEDDED_DRAIN_TIMEOUT, Metrics::new(), Tracer::off())
    }

    /// The same process under another name, for one of several services in it.
    #[must_use]
    pub fn child(&self, name: impl Into<String>) -> Self {
        Self {
            name: name.into().into(),
            ..self.clone()
        }
    }

    /// As [`Host::child`], for a service that is stopped by the handle alone and has a drain timeout
    /// of its own: where one service has to end before another, as a sender before its receiver. Its
    /// checks carry its name.
    pub fn part(&self, name: impl Into<String>, drain_timeout: Duration) -> (Self, StopHandle) {
        let (sender, stopping) = watch::channel(false);
        let name = name.into();
        let part = Self {
            health: self.health.scoped(&name),
            drain_timeout,
            stopping,
            ..self.child(name)
        };
        (part, StopHandle { stopping: sender })
    }

    /// The service's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What tells this replica from others: the host name.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.process.instance
    }

    /// The metrics of the process.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.process.metrics
    }

    /// Begins the spans of the process.
    #[must_use]
    pub fn tracer(&self) -> &Tracer {
        &self.process.tracer
    }

    /// Where probes and metrics of the process are served, with the port it got when 0 was asked for;
    /// none when they are not.
    #[must_use]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.process.admin_addr.get().copied()
    }

    /// They are served there; the first address stays.
    pub(super) fn serves_admin(&self, addr: SocketAddr) {
        self.process.admin_addr.get_or_init(|| addr);
    }

    /// The health of the process.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// How long the service has from [`Host::stopping`] until it is given up.
    #[must_use]
    pub fn drain_timeout(&self) -> Duration {
        self.drain_timeout
    }

    /// How much of that its work may take when `goodbye` is to be left for what comes after it; never
    /// less than half.
    #[must_use]
    pub fn drain_time(&self, goodbye: Duration) -> Duration {
        self.drain_timeout - goodbye.min(self.drain_timeout / 2)
    }

    /// Resolves once the service is to finish and return, at once if that was before.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let mut stopping = self.stopping.clone();
        async move {
            // An error means that nobody is left who could ask for a stop, which is a stop.
            stopping
                .wait_for(|stopping| *stopping)
                .await
                .map(drop)
                .unwrap_or_default();
        }
    }

    /// Whether [`Host::stopping`] would resolve at once.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow() || self.stopping.has_changed().is_err()
    }
}

/// The host name, or `localhost` where it cannot be had or is no text.
fn hostname() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix::test]
    async fn stop_reaches_children_and_late_askers() {
        let (host, stop) = Host::embedded("fleet");
        let child = host.child("ingest-1");
        let waiting = child.stopping();
        assert!(!host.is_stopping());
        stop.stop();
        waiting.await;
        child.stopping().await;
        assert!(child.is_stopping());
        assert_eq!((host.name(), child.name()), ("fleet", "ingest-1"));
        assert_eq!(host.instance(), child.instance());
        assert_eq!(child.admin_addr(), None);
        let addr = SocketAddr::from(([127, 0, 0, 1], 9100));
        host.serves_admin(addr);
        assert_eq!(child.admin_addr(), Some(addr));
    }

    #[actix::test]
    async fn dropped_handle_stops() {
        let (host, stop) = Host::embedded("ingest");
        drop(stop);
        assert!(host.is_stopping());
        host.stopping().await;
    }

    #[test]
    fn children_share_metrics_and_health() {
        let (host, _stop) = Host::embedded("fleet");
        let child = host.child("ingest");
        child.metrics().counter("taken_total", "Taken.").inc();
        assert!(host.metrics().encode().contains("taken_total 1"));
        let check = child.health().check("mqtt");
        check.up();
        assert!(host.health().ready());
        let (part, _stop) = host.part("alerting", Duration::ZERO);
        let _check = part.health().check("mqtt");
        assert!(!host.health().ready());
        let names = host.health().snapshot().checks.into_iter();
        let names: Vec<_> = names.map(|check| check.name).collect();
        assert_eq!(names, ["mqtt", "alerting/mqtt"]);
    }
}
