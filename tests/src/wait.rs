//! Waiting for a state, never for a time.

use std::fmt::Debug;
use std::panic::Location;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// Asks `probe` again and again until it answers `Ok`, and gives that answer.
///
/// A probe answers `Err` with the state it saw. When `limit` has passed, or the probe itself
/// hangs until then, the test fails with `what` and the last state seen.
#[track_caller]
pub fn eventually<T, S: Debug>(
    limit: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Result<T, S>,
) -> impl Future<Output = T> {
    let caller = Location::caller();
    async move {
        let deadline = Instant::now() + limit;
        let mut pause = Duration::from_millis(2);
        let mut last = None;
        loop {
            match timeout_at(deadline, probe()).await {
                Ok(Ok(value)) => return value,
                Ok(Err(state)) if Instant::now() < deadline => last = Some(state),
                Ok(Err(state)) => {
                    panic!("{caller}: not within {limit:?}: {what}; last seen: {state:?}")
                }
                Err(_) => panic!(
                    "{caller}: not within {limit:?}: {what}; the last question was not answered, \
                     before it was seen: {last:?}"
                ),
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }
}
