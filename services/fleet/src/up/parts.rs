//! The services in the process: started, watched, and stopped together.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use anyhow::Context as _;
use fleet_shared::service::{Host, StopHandle};
use tokio::task::JoinHandle;

/// One service.
struct Part {
    name: &'static str,
    stop: StopHandle,
    task: JoinHandle<anyhow::Result<()>>,
}

/// The services that run.
#[derive(Default)]
pub(super) struct Parts {
    running: Vec<Part>,
}

impl Parts {
    /// Starts a service, which is named in its checks and in errors.
    pub(super) fn start<F>(
        &mut self,
        host: &Host,
        name: &'static str,
        drain_timeout: Duration,
        run: impl FnOnce(Host) -> F,
    ) where
        F: Future<Output = anyhow::Result<()>> + 'static,
    {
        let (part, stop) = host.part(name, drain_timeout);
        let task = actix_rt::spawn(run(part));
        self.running.push(Part { name, stop, task });
    }

    /// Resolves when a service ends, which none should unasked, and says why.
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        let (index, outcome) = poll_fn(|context| {
            for (index, part) in self.running.iter_mut().enumerate() {
                if let Poll::Ready(outcome) = Pin::new(&mut part.task).poll(context) {
                    return Poll::Ready((index, outcome));
                }
            }
            Poll::Pending
        })
        .await;
        let name = self.running.swap_remove(index).name;
        match outcome {
            Ok(Ok(())) => anyhow::anyhow!("{name} ended although nobody asked it to"),
            Ok(Err(error)) => error.context(format!("running {name}")),
            Err(panic) => anyhow::Error::new(panic).context(format!("{name} panicked")),
        }
    }

    /// Asks every service to stop, waits for all, and tells the first error.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        let running: Vec<_> = self
            .running
            .into_iter()
            .map(|Part { name, stop, task }| {
                stop.stop();
                (name, task)
            })
            .collect();
        let mut outcome = Ok(());
        for (name, task) in running {
            let ended = task
                .await
                .with_context(|| format!("{name} panicked"))
                .and_then(|ended| ended.with_context(|| format!("running {name}")));
            outcome = outcome.and(ended);
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix::test]
    async fn a_service_that_ends_is_named_and_the_others_are_stopped() {
        let (host, _stop) = Host::embedded("fleet");
        let mut parts = Parts::default();
        parts.start(&host, "ingest", Duration::ZERO, async |part: Host| {
            part.stopping().await;
            Ok(())
        });
        parts.start(&host, "alerting", Duration::ZERO, async |_| {
            anyhow::bail!("no rules")
        });
        let error = parts.ended().await;
        assert_eq!(format!("{error:#}"), "running alerting: no rules");
        parts.stop().await.unwrap();
    }

    #[actix::test]
    async fn the_first_error_of_a_stop_is_told() {
        let (host, _stop) = Host::embedded("fleet");
        let mut parts = Parts::default();
        parts.start(&host, "ingest", Duration::ZERO, async |part: Host| {
            part.stopping().await;
            anyhow::bail!("the store is gone")
        });
        let error = parts.stop().await.unwrap_err();
        assert_eq!(format!("{error:#}"), "running ingest: the store is gone");
    }
}
