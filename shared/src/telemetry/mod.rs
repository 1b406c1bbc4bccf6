//! What a process tells about itself: logs and metrics.

mod log;
mod metrics;

pub use log::{LogFormat, init_logs};
pub use metrics::Metrics;
