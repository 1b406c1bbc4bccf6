//! What the benchmarks stand on: a broker that only feeds, and a report.
//!
//! A consumer measured through a real broker measures the broker, which is full long before it. So
//! [`Feed`] answers the handshake, sends readings that were encoded before the clock started, with
//! at most a window of them unacknowledged, and counts acknowledgements. The consumer's CPU time and
//! memory come from `/proc`.

mod feed;
mod reading;
mod report;
mod spans;
mod swallow;

pub use feed::{Fed, Feed};
pub use reading::{payload, reading};
pub use report::{Line, Report};
pub use spans::SpanSink;
pub use swallow::Swallow;
