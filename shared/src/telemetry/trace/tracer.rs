//! Begins spans, if anybody wants them.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry::trace::{SpanId, TraceId, TraceState};
use opentelemetry_sdk::trace::{SpanData, SpanProcessor};
use prometheus::IntCounterVec;

use super::TraceContext;
use super::sampler::Sampler;
use super::span::{Span, SpanKind};
use crate::telemetry::Metrics;
use crate::topic;

/// Begins the spans of a process; cheap to clone. The default is off.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<Arc<Pipeline>>);

/// Where ended spans go.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) sampler: Sampler,
    pub(super) scope: InstrumentationScope,
    pub(super) processor: Box<dyn SpanProcessor>,
    pub(super) tally: Arc<Tally>,
}

/// What became of spans.
#[derive(Debug)]
pub(super) struct Tally {
    /// Ended and not exported yet.
    waiting: AtomicUsize,
    waiting_max: usize,
    spans: IntCounterVec,
}

impl Tally {
    pub(super) fn new(metrics: &Metrics, waiting_max: usize) -> Self {
        let spans = metrics.counter_vec(
            "trace_spans_total",
            "Spans that ended, by whether they were exported, failed to be, or were dropped because too many waited.",
            &["outcome"],
        );
        for outcome in ["exported", "failed", "dropped"] {
            spans.with_label_values(&[outcome]);
        }
        Self {
            waiting: AtomicUsize::new(0),
            waiting_max,
            spans,
        }
    }

    pub(super) fn settled(&self, spans: usize, exported: bool) {
        self.waiting.fetch_sub(spans, Ordering::Relaxed);
        let outcome = if exported { "exported" } else { "failed" };
        self.spans
            .with_label_values(&[outcome])
            .inc_by(spans as u64);
    }

    /// Whether there is room for one more, which then waits.
    fn enter(&self) -> bool {
        let room = self.waiting.fetch_add(1, Ordering::Relaxed) < self.waiting_max;
        if !room {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.spans.with_label_values(&["dropped"]).inc();
        }
        room
    }
}

impl Pipeline {
    pub(super) fn end(&self, span: SpanData) {
        if self.tally.enter() {
            self.processor.on_end(span);
        }
    }
}

impl Tracer {
    pub(super) fn new(pipeline: Pipeline) -> Self {
        Self(Some(Arc::new(pipeline)))
    }

    /// A tracer that records nothing.
    #[must_use]
    pub fn off() -> Self {
        Self(None)
    }

    /// Whether spans go anywhere.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Begins a span of the trace of `parent`, or a trace without one, if it is to be recorded;
    /// `name` is asked for only then.
    pub fn span(
        &self,
        kind: SpanKind,
        parent: Option<&TraceContext>,
        name: impl FnOnce() -> Cow<'static, str>,
    ) -> Span {
        let Some(pipeline) = &self.0 else {
            // Off here does not end the trace for those who come after.
            return parent.cloned().map_or_else(Span::off, Span::passing);
        };
        match parent {
            Some(parent) if pipeline.sampler.takes_child(parent) => {
                let (trace, state) = {
                    let parent = parent.span_context();
                    (parent.trace_id(), parent.trace_state().clone())
                };
                let context = TraceContext::of_span(trace, span_id(), state);
                Span::recording(pipeline, context, Some(parent), kind, name())
            }
            Some(parent) => Span::passing(parent.clone()),
            None => {
                let low_bits = rand::random();
                if pipeline.sampler.takes(low_bits) {
                    begin(pipeline, low_bits, kind, name())
                } else {
                    Span::off()
                }
            }
        }
    }

    /// Begins the span of a publish to `topic`; its context goes with the message.
    pub fn send(&self, topic: &str, parent: Option<&TraceContext>) -> Span {
        self.messaging(SpanKind::Producer, "send", topic, parent)
    }

    /// Begins the span of a received message; `parent` is what came with it.
    pub fn process(&self, topic: &str, parent: Option<&TraceContext>) -> Span {
        self.messaging(SpanKind::Consumer, "process", topic, parent)
    }

    /// Begins a trace for work on behalf of several others, such as a transaction, and links it to
    /// them; it is recorded when there are any.
    pub fn batch<'a>(
        &self,
        kind: SpanKind,
        name: &'static str,
        links: impl IntoIterator<Item = &'a TraceContext>,
    ) -> Span {
        let mut links = links.into_iter().peekable();
        let (Some(pipeline), Some(_)) = (&self.0, links.peek()) else {
            return Span::off();
        };
        let mut span = begin(pipeline, rand::random(), kind, name.into());
        for link in links {
            span.link(link);
        }
        span
    }

    fn messaging(
        &self,
        kind: SpanKind,
        operation: &'static str,
        topic: &str,
        parent: Option<&TraceContext>,
    ) -> Span {
        // The template is looked for only where it is needed.
        let mut template = "";
        let mut span = self.span(kind, parent, || {
            template = topic::label(topic);
            format!("{operation} {template}").into()
        });
        if span.is_recording() {
            span.set("messaging.system", "mqtt");
            span.set("messaging.operation.name", operation);
            span.set("messaging.operation.type", operation);
            span.set("messaging.destination.template", template);
            span.set("messaging.destination.name", topic.to_owned());
        }
        span
    }

    /// Sends what waits, within `limit`; nothing is recorded after it. Blocks: not for an event loop.
    pub(crate) fn shut_down(&self, limit: Duration) {
        let Some(pipeline) = &self.0 else { return };
        if let Err(error) = pipeline.processor.shutdown_with_timeout(limit) {
            tracing::warn!(%error, "the last spans did not reach the collector in time");
        }
    }
}

/// Begins a trace with these last bits of its id.
fn begin(pipeline: &Arc<Pipeline>, low_bits: u64, kind: SpanKind, name: Cow<'static, str>) -> Span {
    let id = u128::from(rand::random::<u64>()) << 64 | u128::from(low_bits);
    let trace = TraceId::from_bytes(id.to_be_bytes());
    let context = TraceContext::of_span(trace, span_id(), TraceState::NONE);
    Span::recording(pipeline, context, None, kind, name)
}

/// Not zero, which means none.
fn span_id() -> SpanId {
    SpanId::from_bytes(rand::random_range(1..=u64::MAX).to_be_bytes())
}
