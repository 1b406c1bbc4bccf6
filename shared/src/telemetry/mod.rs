//! What a process tells about itself: logs and metrics.

mod log;
mod metrics;

pub(crate) use log::log_filter;
pub use log::{LogFormat, init_logs};
pub use metrics::Metrics;
