//! Where traces go, by the standard variables of OpenTelemetry.

use std::path::PathBuf;

use url::Url;

use super::ConfigError;
use crate::telemetry::{SamplerName, SamplingRatio};
use crate::tls::TlsOptions;

const ENDPOINT: &str = "--otel-exporter-otlp-endpoint (OTEL_EXPORTER_OTLP_ENDPOINT)";
const TRACES_ENDPOINT: &str =
    "--otel-exporter-otlp-traces-endpoint (OTEL_EXPORTER_OTLP_TRACES_ENDPOINT)";

/// Settings of tracing; without an endpoint there is none, and it costs nothing.
///
/// Read by the exporter itself, from the environment alone: `OTEL_EXPORTER_OTLP_HEADERS`,
/// `OTEL_EXPORTER_OTLP_TIMEOUT`, `OTEL_BSP_SCHEDULE_DELAY`, `OTEL_BSP_MAX_EXPORT_BATCH_SIZE`.
#[derive(clap::Args, Clone, Debug)]
pub struct TraceArgs {
    /// Collector that takes OTLP over HTTP, such as http://localhost:4318; no traces without.
    #[arg(
        long,
        help_heading = "Tracing",
        env = "OTEL_EXPORTER_OTLP_ENDPOINT",
        value_name = "URL"
    )]
    pub otel_exporter_otlp_endpoint: Option<String>,

    /// The same for traces alone, path and all.
    #[arg(
        long,
        help_heading = "Tracing",
        env = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        value_name = "URL",
        hide = true
    )]
    pub otel_exporter_otlp_traces_endpoint: Option<String>,

    /// Authorities to trust of a collector with https instead of the system's, PEM. The three files are
    /// read again when they change.
    #[arg(
        long,
        help_heading = "Tracing",
        env = "OTEL_EXPORTER_OTLP_CERTIFICATE",
        value_name = "FILE"
    )]
    pub otel_exporter_otlp_certificate: Option<PathBuf>,

    /// Client certificate chain for the collector, PEM.
    #[arg(
        long,
        help_heading = "Tracing",
        env = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
        value_name = "FILE"
    )]
    pub otel_exporter_otlp_client_certificate: Option<PathBuf>,

    /// Private key of the client certificate, PEM.
    #[arg(
        long,
        help_heading = "Tracing",
        env = "OTEL_EXPORTER_OTLP_CLIENT_KEY",
        value_name = "FILE"
    )]
    pub otel_exporter_otlp_client_key: Option<PathBuf>,

    /// The form of what is sent; there is one.
    #[arg(
        long,
        help_heading = "Tracing",
        env = "OTEL_EXPORTER_OTLP_PROTOCOL",
        value_name = "NAME",
        default_value = "http/protobuf",
        value_parser = ["http/protobuf"],
        hide = true
    )]
    pub otel_exporter_otlp_protocol: String,

    /// Who takes traces.
    #[arg(
        long,
        help_heading = "Tracing",
        env = "OTEL_TRACES_EXPORTER",
        value_name = "NAME",
        value_enum,
        default_value = "otlp"
    )]
    pub otel_traces_exporter: TracesExporter,

    /// No traces, whatever else is set.
    #[arg(
        long,
        help_heading = "Tracing",
        env = "OTEL_SDK_DISABLED",
        value_name = "BOOL",
        default_value = "false",
        num_args = 0..=1,
        default_missing_value = "true",
        value_parser = boolean
    )]
    pub otel_sdk_disabled: bool,

    /// Which traces are recorded.
    #[arg(
        long,
        help_heading = "Tracing",
        env = "OTEL_TRACES_SAMPLER",
        value_name = "NAME",
        value_enum,
        default_value = "parentbased_always_on"
    )]
    pub otel_traces_sampler: SamplerName,

    /// Share that a ratio sampler records, from 0 to 1.
    #[arg(
        long,
        help_heading = "Tracing",
        env = "OTEL_TRACES_SAMPLER_ARG",
        value_name = "RATIO",
        default_value = "1"
    )]
    pub otel_traces_sampler_arg: SamplingRatio,

    /// Name of the service in traces; by default the program's.
    #[arg(
        long,
        help_heading = "Tracing",
        env = "OTEL_SERVICE_NAME",
        value_name = "NAME"
    )]
    pub otel_service_name: Option<String>,

    /// What else all spans of the process carry: key=value, separated by commas.
    #[arg(
        long,
        help_heading = "Tracing",
        env = "OTEL_RESOURCE_ATTRIBUTES",
        value_name = "PAIRS"
    )]
    pub otel_resource_attributes: Option<String>,

    /// Spans that may wait for the collector, some 1 kB each; further ones are dropped and counted.
    #[arg(
        long,
        help_heading = "Tracing",
        env = "OTEL_BSP_MAX_QUEUE_SIZE",
        value_name = "N",
        default_value = "2048",
        value_parser = queue_size,
        hide = true
    )]
    pub otel_bsp_max_queue_size: usize,
}

/// Who takes traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TracesExporter {
    /// A collector, by OTLP.
    Otlp,
    /// Nobody.
    None,
}

impl Default for TraceArgs {
    /// No traces.
    fn default() -> Self {
        Self {
            otel_exporter_otlp_endpoint: None,
            otel_exporter_otlp_traces_endpoint: None,
            otel_exporter_otlp_certificate: None,
            otel_exporter_otlp_client_certificate: None,
            otel_exporter_otlp_client_key: None,
            otel_exporter_otlp_protocol: "http/protobuf".to_owned(),
            otel_traces_exporter: TracesExporter::Otlp,
            otel_sdk_disabled: false,
            otel_traces_sampler: SamplerName::default(),
            otel_traces_sampler_arg: SamplingRatio::default(),
            otel_service_name: None,
            otel_resource_attributes: None,
            otel_bsp_max_queue_size: 2048,
        }
    }
}

impl TraceArgs {
    /// Files of TLS to the collector.
    pub(crate) fn tls(&self) -> TlsOptions {
        // The specification takes a variable that is empty for one that is not set.
        TlsOptions::set(
            self.otel_exporter_otlp_certificate.as_ref(),
            self.otel_exporter_otlp_client_certificate.as_ref(),
            self.otel_exporter_otlp_client_key.as_ref(),
        )
    }

    /// Where spans are posted to, if anywhere.
    pub(crate) fn endpoint(&self) -> Result<Option<String>, ConfigError> {
        if self.otel_sdk_disabled || self.otel_traces_exporter == TracesExporter::None {
            return Ok(None);
        }
        // The specification takes a variable that is empty for one that is not set.
        let set = |url: &Option<String>| url.clone().filter(|url| !url.is_empty());
        if let Some(url) = &set(&self.otel_exporter_otlp_traces_endpoint) {
            return checked(TRACES_ENDPOINT, url).map(|url| Some(url.to_string()));
        }
        let Some(url) = &set(&self.otel_exporter_otlp_endpoint) else {
            return Ok(None);
        };
        let url = checked(ENDPOINT, url)?;
        // Signals share the endpoint; each has a path below it.
        Ok(Some(format!(
            "{}/v1/traces",
            url.as_str().trim_end_matches('/')
        )))
    }
}

fn checked(setting: &str, text: &str) -> Result<Url, ConfigError> {
    let wrong = || {
        // It may hold a password, which is not to be shown.
        ConfigError::setting(
            setting,
            "it is no http:// or https:// URL; give for example http://localhost:4318",
        )
    };
    let url = Url::parse(text).map_err(|_| wrong())?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(wrong());
    }
    if !url.username().is_empty() || url.password().is_some() {
        let remedy = "it must not hold a user or password; send them by OTEL_EXPORTER_OTLP_HEADERS";
        return Err(ConfigError::setting(setting, remedy));
    }
    Ok(url)
}

fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" | "" => Ok(false),
        _ => Err("give true or false".to_owned()),
    }
}

fn queue_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(size @ 1..=1_000_000) => Ok(size),
        _ => Err("give a number from 1 to 1000000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_of_nothing_is_none() {
        let at = |traces: &str, all: &str| {
            let args = TraceArgs {
                otel_exporter_otlp_traces_endpoint: Some(traces.to_owned()),
                otel_exporter_otlp_endpoint: Some(all.to_owned()),
                ..TraceArgs::default()
            };
            args.endpoint().unwrap()
        };
        assert_eq!(at("", ""), None);
        assert_eq!(
            at("", "http://c:4318").as_deref(),
            Some("http://c:4318/v1/traces")
        );
        assert_eq!(at("http://t/x", "").as_deref(), Some("http://t/x"));
    }
}
