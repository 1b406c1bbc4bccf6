//! `fleet record` and `fleet replay`: what goes through a broker, kept in a file and said again.
//!
//! The form of the file is described in docs/recording.md and implemented in [`format`].

mod format;
mod record;
mod replay;
mod shift;
mod writer;

pub use format::{Gap, Header, Line, Lines, Recorded, RecordingError};
pub use record::{RecordArgs, run as record};
pub use replay::{ReplayArgs, Speed, run as replay};
