//! From ended spans to the collector: OTLP over HTTP, on a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanExporter, SpanProcessor as _,
};
use percent_encoding::percent_decode_str;
use uuid::Uuid;

use super::sampler::Sampler;
use super::tracer::{Pipeline, Tally, Tracer};
use crate::config::{ConfigError, TraceArgs};
use crate::telemetry::Metrics;

const ENDPOINT: &str = "--otel-exporter-otlp-endpoint (OTEL_EXPORTER_OTLP_ENDPOINT)";
const RESOURCE: &str = "--otel-resource-attributes (OTEL_RESOURCE_ATTRIBUTES)";

/// The tracer that the settings ask for: off without an endpoint.
///
/// # Errors
/// When an endpoint or the resource attributes cannot be used.
pub(crate) fn start(
    args: &TraceArgs,
    service: &str,
    version: &'static str,
    metrics: &Metrics,
) -> Result<Tracer, ConfigError> {
    let Some(endpoint) = args.endpoint()? else {
        return Ok(Tracer::off());
    };
    let resource = resource(args, service, version)?;
    let refused = |error: String| ConfigError::value(ENDPOINT, &endpoint, error);
    // With its own runtime inside, the client must not be made or dropped on one of ours.
    let client = std::thread::spawn(|| {
        // The ring provider is the only one there is; a second caller finds it installed.
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        reqwest::blocking::Client::builder().build()
    });
    let client = client
        .join()
        .map_err(|_| refused("its HTTP client cannot be made".to_owned()))?
        .map_err(|error| refused(format!("its HTTP client cannot be made: {error}")))?;
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(endpoint.as_str())
        .build()
        .map_err(|error| refused(error.to_string()))?;
    let tally = Arc::new(Tally::new(metrics, args.otel_bsp_max_queue_size));
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(args.otel_bsp_max_queue_size)
        .build();
    let exporter = Watched {
        exporter,
        tally: tally.clone(),
        failing: AtomicBool::new(false),
        endpoint: endpoint.clone(),
    };
    let mut processor = BatchSpanProcessor::new(exporter, batches);
    processor.set_resource(&resource);
    tracing::info!(%endpoint, sampler = ?args.otel_traces_sampler, "traces are exported");
    Ok(Tracer::new(Pipeline {
        sampler: Sampler::new(args.otel_traces_sampler, args.otel_traces_sampler_arg),
        scope: InstrumentationScope::builder("mqtt-fleet")
            .with_version(version)
            .build(),
        processor: Box::new(processor),
        tally,
    }))
}

/// What all spans of the process have in common. Its own attributes yield to those that are set, and
/// the service's name to `OTEL_SERVICE_NAME`, as the specification says.
fn resource(
    args: &TraceArgs,
    service: &str,
    version: &'static str,
) -> Result<Resource, ConfigError> {
    let given = args.otel_resource_attributes.as_deref().unwrap_or_default();
    let mut attributes = vec![
        KeyValue::new("service.name", service.to_owned()),
        KeyValue::new("service.namespace", "mqtt-fleet"),
        KeyValue::new("service.version", version),
        KeyValue::new("service.instance.id", Uuid::now_v7().to_string()),
    ];
    for pair in given.split(',').filter(|pair| !pair.trim().is_empty()) {
        let wrong = || {
            let remedy = "give key=value pairs with commas between them, other characters as %2C";
            ConfigError::value(RESOURCE, given, remedy)
        };
        let (key, value) = pair.split_once('=').ok_or_else(wrong)?;
        let text = |part: &str| {
            percent_decode_str(part.trim())
                .decode_utf8()
                .map(String::from)
        };
        let (key, value) = (
            text(key).map_err(|_| wrong())?,
            text(value).map_err(|_| wrong())?,
        );
        attributes.retain(|known| known.key.as_str() != key);
        attributes.push(KeyValue::new(key, value));
    }
    if let Some(name) = &args.otel_service_name {
        attributes.retain(|known| known.key.as_str() != "service.name");
        attributes.push(KeyValue::new("service.name", name.clone()));
    }
    Ok(Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes(attributes)
        .build())
}

/// An exporter whose outcomes are counted, and logged when they change.
#[derive(Debug)]
struct Watched<E> {
    exporter: E,
    tally: Arc<Tally>,
    failing: AtomicBool,
    endpoint: String,
}

impl<E: SpanExporter> SpanExporter for Watched<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let outcome = self.exporter.export(batch).await;
        self.tally.settled(spans, outcome.is_ok());
        let failed_before = self.failing.swap(outcome.is_err(), Ordering::Relaxed);
        match &outcome {
            Err(error) if !failed_before => {
                tracing::warn!(endpoint = %self.endpoint, %error, spans, "spans are lost: the collector does not take them");
            }
            Ok(()) if failed_before => {
                tracing::info!(endpoint = %self.endpoint, "the collector takes spans again");
            }
            _ => {}
        }
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn shutdown(&self) -> OTelSdkResult {
        self.exporter.shutdown()
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
