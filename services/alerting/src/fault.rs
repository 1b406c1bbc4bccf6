//! Places where a test ends the process as `kill -9` does.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A place between two steps of handling a message that changes an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FaultPoint {
    /// Evaluated, nothing written.
    Received,
    /// Written, nothing published or acknowledged.
    Persisted,
    /// Handed to the session to publish, not acknowledged.
    Publishing,
    /// The reading acknowledged, the broker's answer to the publish not seen.
    Acknowledged,
    /// The broker has acknowledged the alert, that is not written.
    Published,
    /// All is done.
    Noted,
    /// A receiver has taken a notification, that is not written.
    Notified,
}

/// Ends the process if this is the place to do so.
pub(crate) fn pass(armed: Option<FaultPoint>, here: FaultPoint) {
    if armed == Some(here)
        && let Err(error) = kill(Pid::this(), Signal::SIGKILL)
    {
        tracing::error!(%error, "the process cannot end itself");
    }
}
