//! From ended spans to the collector: OTLP over HTTP, on a thread of its own.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{
    Protocol, SpanExporter as OtlpExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanExporter};
use percent_encoding::percent_decode_str;
use uuid::Uuid;

use super::sampler::Sampler;
use super::tracer::{Pipeline, Tally, Tracer};
use crate::config::{ConfigError, TraceArgs};
use crate::telemetry::Metrics;
use crate::tls::{self, Reloading, TlsOptions};

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
    let refused = |error: String| ConfigError::value(ENDPOINT, &endpoint, error);
    let maker = Maker {
        endpoint: endpoint.clone(),
        tls: args.tls(),
        resource: resource(args, service, version)?,
    };
    // With its own runtime inside, the client must not be made or dropped on one of ours.
    let made = std::thread::spawn(move || {
        let files = maker.tls.files().cloned().collect();
        let load: Load = Box::new(move || maker.make());
        Reloading::new(files, load)
    });
    let exporter = made
        .join()
        .map_err(|_| refused("its HTTP client cannot be made".to_owned()))?
        .map_err(|error| match error {
            MakeError::File(error) => error.into(),
            MakeError::Client(error) => refused(error),
        })?;
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
    let processor = BatchSpanProcessor::new(exporter, batches);
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

/// What an exporter is made of.
#[derive(Debug)]
struct Maker {
    endpoint: String,
    tls: TlsOptions,
    resource: Resource,
}

/// Why there is no exporter.
#[derive(Debug, thiserror::Error)]
enum MakeError {
    #[error(transparent)]
    File(#[from] tls::ClientFileError),
    #[error("its HTTP client cannot be made: {0}")]
    Client(String),
}

const SETTINGS: tls::Settings = tls::Settings {
    address: "OTEL_EXPORTER_OTLP_ENDPOINT",
    ca: "OTEL_EXPORTER_OTLP_CERTIFICATE",
    cert: "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    key: "OTEL_EXPORTER_OTLP_CLIENT_KEY",
    plain: "use http://",
};

impl Maker {
    /// An exporter by the files as they are now.
    fn make(&self) -> Result<OtlpExporter, MakeError> {
        let client = |error: &dyn fmt::Display| MakeError::Client(error.to_string());
        // The ring provider is the only one there is; a second caller finds it installed.
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let mut builder = reqwest::blocking::Client::builder();
        if self.tls != TlsOptions::default() {
            let config = tls::client_config(&self.tls, &SETTINGS)?;
            builder = builder.tls_backend_preconfigured(config);
        }
        let mut exporter = OtlpExporter::builder()
            .with_http()
            .with_http_client(builder.build().map_err(|error| client(&error))?)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(self.endpoint.as_str())
            .build()
            .map_err(|error| client(&error))?;
        exporter.set_resource(&self.resource);
        Ok(exporter)
    }
}

type Load = Box<dyn Fn() -> Result<OtlpExporter, MakeError> + Send + Sync>;

/// An exporter whose outcomes are counted, and logged when they change; made anew when its files do.
struct Watched {
    exporter: Reloading<OtlpExporter, Load>,
    tally: Arc<Tally>,
    failing: AtomicBool,
    endpoint: String,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watched")
    }
}

impl SpanExporter for Watched {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let endpoint = &self.endpoint;
        // This is the processor's own thread, on which a client may be made and dropped.
        let exporter = self.exporter.current();
        let outcome = exporter.export(batch).await;
        self.tally.settled(spans, outcome.is_ok());
        let failed_before = self.failing.swap(outcome.is_err(), Ordering::Relaxed);
        match &outcome {
            Err(error) if !failed_before => {
                tracing::warn!(%endpoint, %error, spans, "spans are lost: the collector does not take them");
            }
            Ok(()) if failed_before => {
                tracing::info!(%endpoint, "the collector takes spans again");
            }
            _ => {}
        }
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.latest().shutdown_with_timeout(timeout)
    }

    fn shutdown(&self) -> OTelSdkResult {
        self.exporter.latest().shutdown()
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.latest().force_flush()
    }
}
