//! What a process tells about itself: logs, metrics and traces.

mod log;
mod metrics;
mod trace;

pub(crate) use log::log_filter;
pub use log::{LogFormat, init_logs};
pub use metrics::Metrics;
pub(crate) use trace::start as start_traces;
pub use trace::{
    Entered, InvalidTraceparent, LINKS_MAX, SamplerName, SamplingRatio, Span, SpanKind,
    TRACEPARENT, TRACESTATE, TraceContext, Tracer,
};
