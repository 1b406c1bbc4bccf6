//! The HTTP API of status-tracker, as an operator's command uses it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use fleet_shared::config::{ConfigError, secret};
use fleet_shared::tls::{self, TlsOptions};
use reqwest::{StatusCode, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

/// Longest wait for an answer.
const LIMIT: Duration = Duration::from_secs(35);

/// Where the API is and how to get in.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "API")]
pub struct ApiArgs {
    /// status-tracker's address; `fleet up` prints it.
    #[arg(
        long,
        env = "FLEET_API_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:8080"
    )]
    pub api_url: Url,

    /// Bearer token, where the API asks for one; prefer the variable or a file.
    #[arg(long, env = "API_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub api_token: Option<SecretString>,

    /// File that holds the token.
    #[arg(long, env = "API_TOKEN_FILE", value_name = "FILE")]
    pub api_token_file: Option<PathBuf>,

    /// Authorities to trust instead of the system's, PEM.
    #[arg(long, env = "FLEET_API_CA_FILE", value_name = "FILE")]
    pub api_ca_file: Option<PathBuf>,

    /// Client certificate chain, for an API that asks for one, PEM.
    #[arg(long, env = "FLEET_API_CERT_FILE", value_name = "FILE")]
    pub api_cert_file: Option<PathBuf>,

    /// Private key of the client certificate, PEM.
    #[arg(long, env = "FLEET_API_KEY_FILE", value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
}

const SETTINGS: tls::Settings = tls::Settings {
    address: "--api-url (FLEET_API_URL)",
    ca: "--api-ca-file (FLEET_API_CA_FILE)",
    cert: "--api-cert-file (FLEET_API_CERT_FILE)",
    key: "--api-key-file (FLEET_API_KEY_FILE)",
    plain: "use http://",
};

/// A client of the API.
pub(crate) struct Api {
    client: reqwest::Client,
    base: Url,
    token: Option<SecretString>,
}

impl Api {
    /// # Errors
    /// If a setting cannot be used.
    pub(crate) fn new(args: &ApiArgs) -> anyhow::Result<Self> {
        let token = secret(
            args.api_token.as_ref(),
            "--api-token (API_TOKEN)",
            args.api_token_file.as_deref(),
            "--api-token-file (API_TOKEN_FILE)",
        )?;
        // Set once a process; a second call finds the same one there.
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let mut builder = reqwest::Client::builder()
            .timeout(LIMIT)
            .user_agent(concat!("fleet/", env!("CARGO_PKG_VERSION")));
        let files = TlsOptions {
            ca_file: args.api_ca_file.clone(),
            cert_file: args.api_cert_file.clone(),
            key_file: args.api_key_file.clone(),
        };
        if files != TlsOptions::default() {
            let config = tls::client_config(&files, &SETTINGS).map_err(ConfigError::from)?;
            builder = builder.tls_backend_preconfigured(config);
        } else if args.api_url.scheme() == "http" {
            // A small image has no authorities, and without TLS none are needed.
            builder = builder.tls_certs_only([]);
        }
        if args.api_url.cannot_be_a_base() {
            let remedy = "give a URL such as http://127.0.0.1:8080";
            return Err(
                ConfigError::value("--api-url (FLEET_API_URL)", &args.api_url, remedy).into(),
            );
        }
        Ok(Self {
            client: builder.build().context("setting up the HTTP client")?,
            base: args.api_url.clone(),
            token,
        })
    }

    /// Reads `/api/v1/{path}`; the parts of the path are escaped.
    ///
    /// # Errors
    /// If the API cannot be reached or answers with a problem, which is told in its own words.
    pub(crate) async fn get(&self, path: &[&str], query: &[(&str, &str)]) -> anyhow::Result<Value> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.client.get(url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose_secret());
        }
        let unreachable = || {
            format!(
                "asking {} (--api-url, FLEET_API_URL); see whether status-tracker runs there",
                self.base
            )
        };
        let answer = request.send().await.with_context(unreachable)?;
        let status = answer.status();
        let body = answer.bytes().await.with_context(unreachable)?;
        let parsed: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_success() {
            return Ok(parsed);
        }
        let told = |field: &str| parsed[field].as_str().unwrap_or_default();
        let detail = [told("title"), told("detail")]
            .into_iter()
            .filter(|text| !text.is_empty())
            .collect::<Vec<_>>()
            .join(": ");
        Err(Problem {
            api: self.base.to_string(),
            status,
            known: !detail.is_empty(),
            text: match (status, detail.is_empty()) {
                (StatusCode::UNAUTHORIZED, false) => {
                    format!("{detail}; set API_TOKEN or --api-token-file")
                }
                (_, true) => "see whether status-tracker is what listens there".to_owned(),
                (_, false) => detail,
            },
        }
        .into())
    }

    /// Where the API is.
    pub(crate) fn base(&self) -> &Url {
        &self.base
    }
}

/// What the API answered instead of what was asked for.
#[derive(Debug, thiserror::Error)]
#[error("{api} (--api-url, FLEET_API_URL) answers {status}: {text}")]
pub(crate) struct Problem {
    api: String,
    status: StatusCode,
    /// Whether it is status-tracker that speaks, in problem details.
    known: bool,
    text: String,
}

impl Problem {
    /// Whether there is an API and it does not have what was asked for.
    pub(crate) fn is_not_found(&self) -> bool {
        self.known && self.status == StatusCode::NOT_FOUND
    }
}
