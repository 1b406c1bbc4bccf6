//! Which trace something belongs to, as it travels between processes (W3C Trace Context, level 1).

use std::cell::Cell;
use std::fmt;
use std::str::FromStr as _;

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// Name of the header and user property that carries ids and flags.
pub const TRACEPARENT: &str = "traceparent";

/// Name of the header and user property that carries what vendors add.
pub const TRACESTATE: &str = "tracestate";

/// What a `tracestate` may have at least to be passed on (section 3.3.1.5); a longer one is left out.
const STATE_BYTES_MAX: usize = 512;

/// The span that something happens in or because of, here or in another process.
#[derive(Clone, PartialEq)]
pub struct TraceContext(SpanContext);

/// A `traceparent` that is none; whoever gets it begins a trace of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no traceparent: it is version-trace-span-flags in lower-case hex, ids not zero")]
pub struct InvalidTraceparent;

impl TraceContext {
    /// Reads the two values as another process sent them. A `tracestate` that breaks the rules is
    /// left out, as the specification asks; the ids still count.
    ///
    /// # Errors
    /// When `traceparent` is malformed, all zero or of the forbidden version `ff`.
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Result<Self, InvalidTraceparent> {
        let bytes = traceparent.as_bytes();
        let dashes = |at: &usize| bytes.get(*at) == Some(&b'-');
        // A later version may add fields behind another dash (section 3.2.2.1).
        let ends = match bytes.len() {
            55 => true,
            56.. => &bytes[..2] != b"00" && bytes[55] == b'-',
            _ => false,
        };
        if !ends || ![2, 35, 52].iter().all(dashes) || &bytes[..2] == b"ff" {
            return Err(InvalidTraceparent);
        }
        // The version's value does not matter, its form does.
        hex(&bytes[..2])?;
        let (trace, span) = (hex(&bytes[3..35])?, hex(&bytes[36..52])?);
        let flags = hex(&bytes[53..55])?;
        if trace == 0 || span == 0 {
            return Err(InvalidTraceparent);
        }
        let state = tracestate
            .filter(|state| !state.is_empty() && state.len() <= STATE_BYTES_MAX)
            .and_then(|state| TraceState::from_str(state).ok())
            .unwrap_or_default();
        Ok(Self(SpanContext::new(
            TraceId::from_bytes(trace.to_be_bytes()),
            SpanId::from_bytes((span as u64).to_be_bytes()),
            // Only the flag that this level defines is passed on.
            TraceFlags::new(flags as u8 & TraceFlags::SAMPLED.to_u8()),
            true,
            state,
        )))
    }

    pub(super) fn of_span(trace: TraceId, span: SpanId, state: TraceState) -> Self {
        Self(SpanContext::new(
            trace,
            span,
            TraceFlags::SAMPLED,
            false,
            state,
        ))
    }

    pub(super) fn span_context(&self) -> &SpanContext {
        &self.0
    }

    /// Whether whoever began the trace wants it recorded.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.0.is_sampled()
    }

    /// The value of `traceparent`.
    #[must_use]
    pub fn traceparent(&self) -> String {
        format!(
            "00-{}-{}-{:02x}",
            self.0.trace_id(),
            self.0.span_id(),
            self.0.trace_flags().to_u8()
        )
    }

    /// The value of `tracestate`; none when there is nothing to say in it.
    #[must_use]
    pub fn tracestate(&self) -> Option<String> {
        Some(self.0.trace_state().header()).filter(|state| !state.is_empty())
    }

    /// The id that all spans of the trace share, 32 hex digits.
    #[must_use]
    pub fn trace_id(&self) -> String {
        self.0.trace_id().to_string()
    }

    /// The id of the span, 16 hex digits.
    #[must_use]
    pub fn span_id(&self) -> String {
        self.0.span_id().to_string()
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.traceparent())
    }
}

/// The number in lower-case hex; upper case is not allowed (section 3.2.2).
fn hex(digits: &[u8]) -> Result<u128, InvalidTraceparent> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return Err(InvalidTraceparent),
        };
        Ok(number << 4 | u128::from(value))
    })
}

thread_local! {
    /// Trace and span that this thread works for; zero for none.
    static CURRENT: Cell<(u128, u64)> = const { Cell::new((0, 0)) };
}

/// Trace and span id that this thread works for, for log lines.
pub(crate) fn current() -> Option<(String, String)> {
    let (trace, span) = CURRENT.get();
    (trace != 0).then(|| (format!("{trace:032x}"), format!("{span:016x}")))
}

/// Makes `context` the thread's own and gives what was before.
pub(super) fn replace_current(context: Option<&TraceContext>) -> (u128, u64) {
    CURRENT.replace(context.map_or((0, 0), |TraceContext(span)| {
        (
            u128::from_be_bytes(span.trace_id().to_bytes()),
            u64::from_be_bytes(span.span_id().to_bytes()),
        )
    }))
}

pub(super) fn restore_current(before: (u128, u64)) {
    CURRENT.set(before);
}
