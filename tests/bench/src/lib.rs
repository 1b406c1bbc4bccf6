//! What the benchmarks stand on: a broker that only feeds, and a report.
//!
//! A consumer measured through a real broker measures the broker, which is full long before it. So
//! [`Feed`] answers the handshake, sends readings that were encoded before the clock started, with
//! at most a window of them unacknowledged, and counts acknowledgements. The consumer's CPU time and
//! memory come from `/proc`.

mod feed;
mod peer;
mod plot;
mod publisher;
mod reading;
mod report;
mod spans;
mod swallow;
mod watched;
pub mod wire;

pub use feed::{Consumer, Fed, Feed, Packets};
pub use peer::measured;
pub use plot::{Panel, plot};
pub use publisher::{beat, publish};
pub use reading::{payload, reading};
pub use report::{Line, Report, tell};
pub use spans::SpanSink;
pub use swallow::Swallow;
pub use watched::{own_cpu, stop, watched};
