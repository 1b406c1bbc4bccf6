//! From the first signal to the end, with a limit.

use std::future::Future;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;

/// How a service ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It returned.
    Finished(ExitCode),
    /// It failed.
    Failed(anyhow::Error),
    /// It was told to stop and did not in time.
    DrainTimedOut,
    /// It was told to stop twice.
    SecondSignal(&'static str),
}

/// Signals this close to the first are the same one. `timeout` and shells that stop a process
/// group signal the process twice, and the second must not cut the drain off; a person who
/// presses Ctrl-C again takes longer.
const SAME_SIGNAL: Duration = Duration::from_millis(100);

/// Runs `run` to its end. `next_signal` waits for one signal and must be cancel-safe; the first
/// calls `on_stop` and starts the drain timeout, the second ends everything at once. `run` is
/// dropped when this returns.
pub(super) async fn supervise(
    run: impl Future<Output = anyhow::Result<ExitCode>>,
    mut next_signal: impl AsyncFnMut() -> &'static str,
    on_stop: impl FnOnce(),
    drain_timeout: Duration,
) -> Outcome {
    let mut run = pin!(run);
    let ended = |result| match result {
        Ok(code) => Outcome::Finished(code),
        Err(error) => Outcome::Failed(error),
    };
    let signal = tokio::select! {
        result = &mut run => return ended(result),
        signal = next_signal() => signal,
    };
    tracing::info!(signal, "service stops");
    on_stop();
    let stopped_at = Instant::now();
    let second_signal = async {
        loop {
            let signal = next_signal().await;
            if stopped_at.elapsed() >= SAME_SIGNAL {
                break signal;
            }
        }
    };
    tokio::select! {
        result = &mut run => ended(result),
        signal = second_signal => Outcome::SecondSignal(signal),
        () = tokio::time::sleep(drain_timeout) => Outcome::DrainTimedOut,
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::sync::mpsc;
    use tokio::time::sleep;

    use super::*;
    use crate::service::Host;

    const DRAIN: Duration = Duration::from_secs(20);

    /// Supervises with signals at these seconds of simulated time; gives the end and its second.
    async fn ended(
        run: impl AsyncFnOnce(Host) -> anyhow::Result<ExitCode>,
        signals: &[u64],
    ) -> (String, u64) {
        let start = Instant::now();
        let (host, stop) = Host::embedded("test");
        let (sender, mut receiver) = mpsc::channel(4);
        for at in signals.iter().copied() {
            let sender = sender.clone();
            actix_rt::spawn(async move {
                sleep(Duration::from_secs(at)).await;
                sender.send("SIGTERM").await.unwrap();
            });
        }
        let next_signal = async || match receiver.recv().await {
            Some(signal) => signal,
            None => pending().await,
        };
        let outcome = supervise(run(host), next_signal, || stop.stop(), DRAIN).await;
        (format!("{outcome:?}"), start.elapsed().as_secs())
    }

    #[actix::test]
    async fn service_that_drains_in_time_finishes() {
        tokio::time::pause();
        let run = async |host: Host| {
            host.stopping().await;
            sleep(Duration::from_secs(19)).await;
            Ok(ExitCode::SUCCESS)
        };
        let (outcome, at) = ended(run, &[5]).await;
        assert!(outcome.starts_with("Finished"), "{outcome}");
        assert_eq!(at, 24);
    }

    #[actix::test]
    async fn service_that_does_not_stop_is_given_up_after_the_drain_timeout() {
        tokio::time::pause();
        let (outcome, at) = ended(async |_| pending().await, &[5]).await;
        assert_eq!((outcome.as_str(), at), ("DrainTimedOut", 25));
    }

    #[actix::test]
    async fn second_signal_ends_at_once() {
        tokio::time::pause();
        let (outcome, at) = ended(async |_| pending().await, &[5, 7]).await;
        assert_eq!((outcome.as_str(), at), ("SecondSignal(\"SIGTERM\")", 7));
    }

    #[actix::test]
    async fn signal_that_comes_doubled_is_one() {
        tokio::time::pause();
        let (outcome, at) = ended(async |_| pending().await, &[5, 5]).await;
        assert_eq!((outcome.as_str(), at), ("DrainTimedOut", 25));
    }

    #[actix::test]
    async fn failure_while_draining_is_a_failure() {
        tokio::time::pause();
        let run = async |host: Host| {
            host.stopping().await;
            anyhow::bail!("store is gone")
        };
        let (outcome, at) = ended(run, &[5]).await;
        assert!(outcome.contains("store is gone"), "{outcome}");
        assert_eq!(at, 5);
    }

    #[actix::test]
    async fn service_may_end_by_itself() {
        tokio::time::pause();
        let (outcome, at) = ended(async |_| Ok(ExitCode::SUCCESS), &[]).await;
        assert!(outcome.starts_with("Finished"), "{outcome}");
        assert_eq!(at, 0);
    }
}
