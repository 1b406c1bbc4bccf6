use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry::{Context, InstrumentationScope};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanProcessor};
use proptest::prelude::*;

use super::sampler::Sampler;
use super::tracer::{Pipeline, Tally};
use super::*;
use crate::telemetry::Metrics;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[derive(Clone, Debug, Default)]
struct Ended(Arc<Mutex<Vec<SpanData>>>);

impl SpanProcessor for Ended {
    fn on_start(&self, _: &mut opentelemetry_sdk::trace::Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.lock().unwrap().push(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

fn tracer(name: SamplerName, ratio: &str, waiting_max: usize) -> (Tracer, Ended, Metrics) {
    let (ended, metrics) = (Ended::default(), Metrics::new());
    let tracer = Tracer::new(Pipeline {
        sampler: Sampler::new(name, ratio.parse().unwrap()),
        scope: InstrumentationScope::builder("test").build(),
        processor: Box::new(ended.clone()),
        tally: Arc::new(Tally::new(&metrics, waiting_max)),
    });
    (tracer, ended, metrics)
}

#[test]
fn context_comes_back_as_it_went() {
    let context = TraceContext::parse(PARENT, Some("vendor=a,other=b")).unwrap();
    assert_eq!(context.traceparent(), PARENT);
    assert_eq!(context.tracestate().as_deref(), Some("vendor=a,other=b"));
    assert_eq!(context.trace_id(), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(context.span_id(), "b7ad6b7169203331");
    assert!(context.is_sampled());
    let plain = TraceContext::parse(PARENT, None).unwrap();
    assert_eq!(plain.tracestate(), None);
    let unknown_state = TraceContext::parse(PARENT, Some("no pairs at all,,=")).unwrap();
    assert_eq!(
        unknown_state, plain,
        "a bad state is left out, the ids count"
    );
}

#[test]
fn traceparent_keeps_to_the_letter_of_the_specification() {
    for (text, why) in [
        ("", "empty"),
        (
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            "too short",
        ),
        (
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-011",
            "too long for version 0",
        ),
        (
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "version 0 ends there",
        ),
        (
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "forbidden version",
        ),
        (
            "0x-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "version is no hex",
        ),
        (
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "no trace",
        ),
        (
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "no span",
        ),
        (
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "upper case",
        ),
        (
            "00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01",
            "no dashes",
        ),
        (
            "00-0af7651916cd43dd8448eb211c8031+c-b7ad6b7169203331-01",
            "a sign",
        ),
    ] {
        assert_eq!(
            TraceContext::parse(text, None),
            Err(InvalidTraceparent),
            "{why}"
        );
    }
    let later = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03-more";
    assert_eq!(
        TraceContext::parse(later, None).unwrap().traceparent(),
        PARENT
    );
    let unsampled = PARENT.replace("-01", "-00");
    assert!(!TraceContext::parse(&unsampled, None).unwrap().is_sampled());
}

proptest! {
    #[test]
    fn no_text_breaks_the_parser(parent in "\\PC*", state in "\\PC*") {
        if let Ok(context) = TraceContext::parse(&parent, Some(&state)) {
            prop_assert_eq!(context.traceparent().len(), 55);
        }
    }

    #[test]
    fn near_misses_are_read_or_refused(parent in "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.{0,4})?") {
        if let Ok(context) = TraceContext::parse(&parent, None) {
            prop_assert_eq!(&context.traceparent()[3..52], &parent[3..52]);
        }
    }
}

#[test]
fn child_has_its_parents_trace_and_says_whose_child_it_is() {
    let (tracer, ended, _) = tracer(SamplerName::ParentBasedAlwaysOff, "1", 10);
    let parent = TraceContext::parse(PARENT, Some("vendor=a")).unwrap();
    let mut span = tracer.process("sensors/hall/door", Some(&parent));
    span.fail("malformed", "not a reading");
    let context = span.context().unwrap().clone();
    span.end();
    assert_eq!(context.trace_id(), parent.trace_id());
    assert_eq!(context.tracestate().as_deref(), Some("vendor=a"));
    let spans = ended.0.lock().unwrap();
    let span = &spans[0];
    assert_eq!(span.name, "process sensors/{location}/door");
    assert_eq!(span.parent_span_id.to_string(), "b7ad6b7169203331");
    assert!(span.parent_span_is_remote);
    assert_eq!(span.span_context.span_id().to_string(), context.span_id());
    assert!(span.end_time >= span.start_time);
    let attribute = |key: &str| {
        let found = span.attributes.iter().find(|it| it.key.as_str() == key);
        found.map(|it| it.value.to_string())
    };
    assert_eq!(attribute("messaging.system").as_deref(), Some("mqtt"));
    assert_eq!(
        attribute("messaging.destination.name").as_deref(),
        Some("sensors/hall/door")
    );
    assert_eq!(attribute("error.type").as_deref(), Some("malformed"));
}

#[test]
fn parent_that_is_not_sampled_is_passed_on_and_not_recorded() {
    let (tracer, ended, _) = tracer(SamplerName::ParentBasedAlwaysOn, "1", 10);
    let parent = TraceContext::parse(&PARENT.replace("-01", "-00"), None).unwrap();
    let span = tracer.send("alerts/info/a", Some(&parent));
    assert!(!span.is_recording());
    assert_eq!(span.context(), Some(&parent));
    span.end();
    assert!(ended.0.lock().unwrap().is_empty());
    // And a process that does not trace does not cut a trace in two.
    let sampled = TraceContext::parse(PARENT, None).unwrap();
    let passing = Tracer::off().send("a", Some(&sampled));
    assert_eq!(passing.context(), Some(&sampled));
    assert_eq!(Tracer::off().send("a", None).context(), None);
}

#[test]
fn ratio_records_its_share_and_every_process_the_same_one() {
    let (tracer, ended, _) = tracer(SamplerName::ParentBasedTraceIdRatio, "0.25", 100_000);
    for _ in 0..20_000 {
        tracer.send("t", None).end();
    }
    let recorded = ended.0.lock().unwrap().len();
    assert!(
        (4_400..5_600).contains(&recorded),
        "{recorded} of 20000 at a quarter"
    );
    let strict = Sampler::new(SamplerName::TraceIdRatio, "0.25".parse().unwrap());
    for span in ended.0.lock().unwrap().iter() {
        let text = format!(
            "00-{}-{}-00",
            span.span_context.trace_id(),
            span.span_context.span_id()
        );
        let context = TraceContext::parse(&text, None).unwrap();
        assert!(
            strict.takes_child(&context),
            "decided by the id alone: {text}"
        );
    }
    for (ratio, expected) in [("0", false), ("1", true)] {
        let all = Sampler::new(SamplerName::TraceIdRatio, ratio.parse().unwrap());
        assert_eq!(all.takes(u64::MAX), expected, "{ratio}");
        assert_eq!(all.takes(0), expected, "{ratio}");
    }
    for refused in ["1.01", "-0.1", "NaN", "all"] {
        assert!(refused.parse::<SamplingRatio>().is_err(), "{refused}");
    }
}

#[test]
fn spans_beyond_the_queue_are_dropped_and_counted() {
    let (tracer, ended, metrics) = tracer(SamplerName::AlwaysOn, "1", 3);
    for _ in 0..5 {
        tracer.send("t", None).end();
    }
    assert_eq!(ended.0.lock().unwrap().len(), 3);
    let text = metrics.encode();
    assert!(
        text.contains("trace_spans_total{outcome=\"dropped\"} 2\n"),
        "{text}"
    );
}

#[test]
fn batch_begins_a_trace_of_its_own_when_somebody_is_traced() {
    let (tracer, ended, _) = tracer(SamplerName::ParentBasedAlwaysOff, "1", 10);
    let none: [&TraceContext; 0] = [];
    assert!(
        !tracer
            .batch(SpanKind::Client, "commit", none)
            .is_recording()
    );
    let other = TraceContext::parse(PARENT, None).unwrap();
    tracer.batch(SpanKind::Client, "commit", [&other]).end();
    let span = &ended.0.lock().unwrap()[0];
    assert_eq!(
        span.links.links[0].span_context.span_id().to_string(),
        other.span_id()
    );
    assert_ne!(span.span_context.trace_id().to_string(), other.trace_id());
}

#[test]
fn links_beyond_the_limit_are_counted() {
    let (tracer, ended, _) = tracer(SamplerName::AlwaysOn, "1", 10);
    let other = TraceContext::parse(PARENT, None).unwrap();
    let mut span = tracer.span(SpanKind::Client, None, || "commit".into());
    for _ in 0..LINKS_MAX + 2 {
        span.link(&other);
    }
    span.end();
    let links = &ended.0.lock().unwrap()[0].links;
    assert_eq!((links.links.len(), links.dropped_count), (LINKS_MAX, 2));
}

#[actix::test]
async fn thread_works_for_the_innermost_span_and_for_none_after_it() {
    let (tracer, ..) = tracer(SamplerName::AlwaysOn, "1", 10);
    let outer = tracer.send("t", None);
    let inner = tracer.send("t", outer.context());
    let ids = |span: &Span| span.context().map(|it| (it.trace_id(), it.span_id()));
    assert_eq!(current(), None);
    {
        let _outer = outer.enter();
        assert_eq!(current(), ids(&outer));
        inner
            .scope(async {
                assert_eq!(current(), ids(&inner));
                tokio::task::yield_now().await;
                assert_eq!(current(), ids(&inner));
            })
            .await;
        assert_eq!(current(), ids(&outer));
    }
    assert_eq!(current(), None);
}
