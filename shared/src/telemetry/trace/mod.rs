//! Traces: one id from a device's reading to the notification that it caused.
//!
//! Spans follow OpenTelemetry's conventions for messaging and go out by OTLP over HTTP. They are made
//! by hand, not by the layers of the `tracing` crate: a message that is not sampled costs one draw of
//! a random number and allocates nothing, and without an endpoint not even that. The context travels
//! as W3C `traceparent` and `tracestate`, in MQTT 5 user properties and in HTTP headers.

mod context;
mod export;
mod sampler;
mod span;
mod tracer;

#[cfg(test)]
mod tests;

pub(crate) use context::current;
pub use context::{InvalidTraceparent, TRACEPARENT, TRACESTATE, TraceContext};
pub(crate) use export::start;
pub use sampler::{SamplerName, SamplingRatio};
pub use span::{Entered, LINKS_MAX, Span, SpanKind};
pub use tracer::Tracer;
