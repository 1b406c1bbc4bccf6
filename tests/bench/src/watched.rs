//! Work on a thread of its own while the measured process is looked after.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use fleet_tests::Process;

/// Runs `work`; fails with what the process wrote when that ends meanwhile.
///
/// # Errors
/// When the work fails, or the process ends before it is done.
pub async fn watched<T: Send + 'static>(
    process: &mut Process,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let working = thread::spawn(work);
    while !working.is_finished() {
        ensure!(
            process.is_running(),
            "the measured process ended: {}",
            process.stderr()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let done = working
        .join()
        .map_err(|_| anyhow::anyhow!("the thread that drives it panicked"))?;
    done.context("driving the measured process")
}

/// Ends a service as an operator does.
///
/// # Errors
/// When it does not end well within twenty seconds.
pub async fn stop(process: &mut Process) -> anyhow::Result<()> {
    process.terminate();
    let code = process.exit(Duration::from_secs(20)).await;
    ensure!(code == 0, "it ended with {code}: {}", process.stderr());
    Ok(())
}

/// CPU time of this process so far, all threads.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn own_cpu() -> anyhow::Result<Duration> {
    fleet_tests::cpu_time(std::process::id()).context("reading /proc")
}
