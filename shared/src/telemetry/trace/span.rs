//! One thing that a process does for a trace.

use std::borrow::Cow;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::SystemTime;

pub use opentelemetry::trace::SpanKind;
use opentelemetry::trace::{Link, SpanId, Status};
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::TraceContext;
use super::context::{replace_current, restore_current};
use super::tracer::Pipeline;

/// Links of a span; collectors cut off what is beyond (`OTEL_SPAN_LINK_COUNT_LIMIT`).
pub const LINKS_MAX: usize = 128;

/// Ends when it is dropped. One that is not recorded does nothing, and costs nothing.
#[derive(Debug, Default)]
#[must_use = "a span ends when it is dropped"]
pub struct Span(State);

#[derive(Debug, Default)]
enum State {
    #[default]
    Off,
    /// Not recorded, but what it causes belongs to that trace.
    Passing(TraceContext),
    Recording(Box<Recording>),
}

#[derive(Debug)]
struct Recording {
    pipeline: Arc<Pipeline>,
    context: TraceContext,
    data: SpanData,
}

impl Span {
    /// A span that is not recorded.
    pub fn off() -> Self {
        Self(State::Off)
    }

    pub(super) fn passing(parent: TraceContext) -> Self {
        Self(State::Passing(parent))
    }

    pub(super) fn recording(
        pipeline: &Arc<Pipeline>,
        context: TraceContext,
        parent: Option<&TraceContext>,
        kind: SpanKind,
        name: Cow<'static, str>,
    ) -> Self {
        let now = SystemTime::now();
        let parent = parent.map(TraceContext::span_context);
        let data = SpanData {
            span_context: context.span_context().clone(),
            parent_span_id: parent.map_or(SpanId::INVALID, |parent| parent.span_id()),
            parent_span_is_remote: parent.is_some_and(|parent| parent.is_remote()),
            span_kind: kind,
            name,
            start_time: now,
            end_time: now,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: pipeline.scope.clone(),
        };
        Self(State::Recording(Box::new(Recording {
            pipeline: pipeline.clone(),
            context,
            data,
        })))
    }

    /// Whether anything that is said to it is kept.
    #[must_use]
    pub fn is_recording(&self) -> bool {
        matches!(self.0, State::Recording(_))
    }

    /// What to pass on to whatever it causes.
    #[must_use]
    pub fn context(&self) -> Option<&TraceContext> {
        match &self.0 {
            State::Off => None,
            State::Passing(parent) => Some(parent),
            State::Recording(recording) => Some(&recording.context),
        }
    }

    fn data(&mut self) -> Option<&mut SpanData> {
        match &mut self.0 {
            State::Recording(recording) => Some(&mut recording.data),
            _ => None,
        }
    }

    /// Adds a fact; `key` is a name of the semantic conventions, or begins with `fleet.`.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(data) = self.data() {
            data.attributes.push(KeyValue::new(key, value));
        }
    }

    /// Says that it has to do with another span, in this trace or another.
    pub fn link(&mut self, other: &TraceContext) {
        if let Some(data) = self.data() {
            if data.links.links.len() < LINKS_MAX {
                let other = other.span_context().clone();
                data.links.links.push(Link::new(other, Vec::new(), 0));
            } else {
                data.links.dropped_count += 1;
            }
        }
    }

    /// Gives it another name, where the right one is known only at the end.
    pub fn rename(&mut self, name: impl Into<Cow<'static, str>>) {
        if let Some(data) = self.data() {
            data.name = name.into();
        }
    }

    /// It failed: `kind` is a word of a closed set, `detail` a sentence.
    pub fn fail(
        &mut self,
        kind: impl Into<Cow<'static, str>>,
        detail: impl Into<Cow<'static, str>>,
    ) {
        if let Some(data) = self.data() {
            data.attributes
                .push(KeyValue::new("error.type", kind.into()));
            data.status = Status::error(detail);
        }
    }

    /// Ends it now.
    pub fn end(self) {
        drop(self);
    }

    /// Until the answer is dropped, log lines of this thread carry the span's ids.
    pub fn enter(&self) -> Entered {
        enter(self.context())
    }

    /// Runs `work`; its log lines carry the span's ids.
    pub async fn scope<F: Future>(&self, work: F) -> F::Output {
        let context = self.context();
        let mut work = pin!(work);
        std::future::poll_fn(|cx| {
            let _entered = enter(context);
            work.as_mut().poll(cx)
        })
        .await
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let State::Recording(recording) = std::mem::take(&mut self.0) {
            let Recording {
                pipeline, mut data, ..
            } = *recording;
            data.end_time = SystemTime::now();
            pipeline.end(data);
        }
    }
}

/// The thread works for a span; see [`Span::enter`].
#[derive(Debug)]
#[must_use = "the thread leaves the span when it is dropped"]
pub struct Entered {
    before: (u128, u64),
    /// It is about this thread.
    _not_send: std::marker::PhantomData<*const ()>,
}

fn enter(context: Option<&TraceContext>) -> Entered {
    Entered {
        before: replace_current(context),
        _not_send: std::marker::PhantomData,
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        restore_current(self.before);
    }
}
