//! Structured logs on standard error; standard output is for a program's results.

use std::io::IsTerminal as _;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::format::{Format, FormatEvent, FormatFields, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::trace;
use crate::config::ConfigError;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// These announce each of their steps at `info`; our own lines say what an operator needs.
const QUIET: &str = "actix_server=warn,actix_rt=warn,refinery_core=warn";

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Sends the process's logs to standard error; a second call changes nothing.
///
/// A JSON line has `timestamp` (RFC 3339, UTC), `level`, `service`, `target`, `message`, `fields`
/// and, inside spans, `spans` from the outermost; `trace_id` and `span_id` while the thread works for
/// a span of a trace.
///
/// # Errors
/// When `filter` is neither a level nor `target=level` pairs.
pub fn init_logs(service: &str, filter: &str, format: LogFormat) -> Result<(), ConfigError> {
    let filter =
        parse_filter(filter).map_err(|remedy| ConfigError::value("--log (LOG)", filter, remedy))?;
    let pretty = match format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    let installed = if pretty {
        registry
            .with(
                layer
                    .with_ansi(std::io::stderr().is_terminal())
                    .event_format(PrettyLines(Format::default())),
            )
            .try_init()
    } else {
        let service = service.to_owned();
        let lines = layer
            .fmt_fields(JsonSpanFields::new())
            .event_format(JsonLines { service });
        registry.with(lines).try_init()
    };
    if installed.is_err() {
        tracing::debug!(service, "logs were set up before");
    }
    Ok(())
}

type JsonSpanFields = tracing_subscriber::fmt::format::JsonFields;

/// A log filter as it was written, if it is one; for use as a clap value parser.
pub(crate) fn log_filter(text: &str) -> Result<String, String> {
    parse_filter(text).map(|_| text.to_owned())
}

fn parse_filter(filter: &str) -> Result<EnvFilter, String> {
    let directives: Vec<&str> = filter.split(',').map(str::trim).collect();
    for directive in &directives {
        let is_level = LEVELS
            .iter()
            .any(|level| level.eq_ignore_ascii_case(directive));
        // A single word would be taken as a target, and `LOG=inof` would silence the process.
        if !is_level && !directive.contains(['=', '[']) {
            return Err(format!(
                "`{directive}` is no level; give {} or target=level",
                LEVELS.join(", ")
            ));
        }
    }
    EnvFilter::builder()
        .parse(format!("{QUIET},{}", directives.join(",")))
        .map_err(|error| format!("{error}; give for example info,fleet_shared=debug"))
}

/// A JSON line, in this order.
#[derive(serde::Serialize)]
struct Line<'a> {
    timestamp: String,
    level: &'static str,
    service: &'a str,
    target: &'a str,
    message: String,
    fields: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    spans: Vec<Value>,
}

/// Lines for people, with the ids of the trace at the end.
struct PrettyLines(Format<Full>);

impl<S, N> FormatEvent<S, N> for PrettyLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let Some((trace_id, span_id)) = trace::current() else {
            return self.0.format_event(context, writer, event);
        };
        // Without colours: what writes into a text has none.
        let mut line = String::new();
        self.0
            .format_event(context, Writer::new(&mut line), event)?;
        let line = line.trim_end_matches('\n');
        writeln!(writer, "{line} trace_id={trace_id} span_id={span_id}")
    }
}

/// Formats events as JSON lines that carry the service.
struct JsonLines {
    service: String,
}

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let metadata = event.metadata();
        let mut fields = JsonFields::default();
        event.record(&mut fields);
        let spans: Vec<Value> = context
            .event_scope()
            .into_iter()
            .flat_map(|scope| scope.from_root())
            .map(|span| {
                let extensions = span.extensions();
                let mut value: Map<String, Value> = extensions
                    .get::<FormattedFields<N>>()
                    .and_then(|fields| serde_json::from_str(fields).ok())
                    .unwrap_or_default();
                value.insert("name".into(), span.name().into());
                Value::Object(value)
            })
            .collect();
        let (trace_id, span_id) = trace::current().unzip();
        let line = Line {
            timestamp: format!("{:.6}", jiff::Timestamp::now()),
            level: metadata.level().as_str(),
            service: &self.service,
            target: fields.log_target.as_deref().unwrap_or(metadata.target()),
            message: fields.message,
            fields: fields.others,
            trace_id,
            span_id,
            spans,
        };
        let line = serde_json::to_string(&line).map_err(|_| std::fmt::Error)?;
        writeln!(writer, "{line}")
    }
}

/// Collects an event's fields.
#[derive(Default)]
struct JsonFields {
    message: String,
    log_target: Option<String>,
    others: Map<String, Value>,
}

impl JsonFields {
    fn insert(&mut self, field: &Field, value: impl Into<Value>) {
        // Lines of the `log` crate all have the target `log` and bring their own as a field, with
        // file and line, which events do not show either.
        match (field.name(), value.into()) {
            ("log.target", Value::String(target)) => self.log_target = Some(target),
            (name, _) if name.starts_with("log.") => {}
            (name, value) => {
                self.others.insert(name.to_owned(), value);
            }
        }
    }
}

impl Visit for JsonFields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message = value.to_owned();
        } else {
            self.insert(field, value);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let chain: Vec<String> = std::iter::successors(Some(value), |error| error.source())
            .map(ToString::to_string)
            .collect();
        self.insert(field, chain.join(": "));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(write: impl FnOnce()) -> Value {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .fmt_fields(JsonSpanFields::new())
            .event_format(JsonLines {
                service: "ingest".into(),
            });
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), write);
        let bytes = lines.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let mut line: Value = serde_json::from_str(&text).unwrap();
        let timestamp = line.as_object_mut().unwrap().remove("timestamp").unwrap();
        timestamp
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .unwrap();
        line
    }

    #[test]
    fn json_line_carries_service_and_fields() {
        let line = logged(|| {
            tracing::warn!(
                rows = 3,
                late = true,
                share = 0.5,
                topic = "a\nb",
                service = "mine",
                "stored {}",
                3
            );
        });
        assert_eq!(
            line,
            serde_json::json!({
                "level": "WARN",
                "service": "ingest",
                "target": "fleet_shared::telemetry::log::tests",
                "message": "stored 3",
                "fields": {"rows": 3, "late": true, "share": 0.5, "topic": "a\nb", "service": "mine"},
            })
        );
    }

    #[test]
    fn line_of_the_log_crate_keeps_its_target() {
        let line = logged(|| {
            tracing::info!(target: "log", { log.target = "refinery_core", log.line = 7 }, "applied");
        });
        assert_eq!(
            (&line["target"], &line["fields"]),
            (&"refinery_core".into(), &serde_json::json!({}))
        );
    }

    #[test]
    fn json_line_names_its_spans_from_the_outermost() {
        let line = logged(|| {
            let _outer = tracing::info_span!("session", client = "a").entered();
            let _inner = tracing::info_span!("batch").entered();
            tracing::info!("stored");
        });
        assert_eq!(
            line["spans"],
            serde_json::json!([{"name": "session", "client": "a"}, {"name": "batch"}])
        );
    }

    #[test]
    fn error_field_holds_the_chain() {
        let inner = std::io::Error::other("disk full");
        let error = ConfigError::Unreadable {
            setting: "--x".into(),
            path: "f".into(),
            source: inner,
        };
        let line = logged(|| tracing::error!(error = &error as &dyn std::error::Error, "failed"));
        assert_eq!(
            line["fields"]["error"],
            "--x: cannot read `f`; check the path and its permissions: disk full"
        );
    }

    #[test]
    fn misspelt_level_is_refused() {
        for filter in ["inof", "", "info,", "fleet_shared=inof", "info,[", "a=b=c"] {
            assert!(log_filter(filter).is_err(), "{filter}");
            let error = init_logs("test", filter, LogFormat::Auto).unwrap_err();
            assert!(error.to_string().contains("--log (LOG)"), "{error}");
        }
        for filter in [
            "info",
            "WARN",
            "warn,fleet_shared=debug",
            "off",
            "debug, actix_server=info",
        ] {
            assert_eq!(log_filter(filter).as_deref(), Ok(filter));
        }
    }

    #[test]
    fn logs_may_be_set_up_twice() {
        init_logs("a", "info", LogFormat::Json).unwrap();
        init_logs("b", "debug", LogFormat::Pretty).unwrap();
    }
}
