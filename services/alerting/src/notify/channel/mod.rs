//! Ways out: how a notification gets to a receiver.

mod email;
mod http;
mod request;
mod webhook;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fleet_shared::config;
use fleet_shared::tls::{self, TlsOptions, WatchedFiles};
use jiff::Timestamp;
use rustls::{ClientConfig, RootCertStore};
use secrecy::{ExposeSecret as _, SecretString};

use super::notification::Notification;
use super::retry::Response;
use super::text;
use crate::route::{Channel, Kind};

pub use webhook::signature;

/// Longest time for one attempt, from the first byte to the answer.
pub(crate) const SEND_TIMEOUT: Duration = Duration::from_secs(10);

const SETTINGS: tls::Settings = tls::Settings {
    address: "url",
    ca: "ca_file",
    cert: "cert_file",
    key: "key_file",
    plain: "use http://",
};

/// Why a notification did not get there.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct SendError {
    /// For people, without secrets.
    pub(crate) what: String,
    /// Whether it is tried again: never [`Response::Taken`].
    pub(crate) response: Response,
}

impl SendError {
    pub(crate) fn later(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            response: Response::Later(None),
        }
    }

    pub(crate) fn refused(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            response: Response::Refused,
        }
    }
}

/// What a channel sends with.
pub(crate) struct Transport {
    channel: Arc<Channel>,
    http: Option<reqwest::Client>,
    files: WatchedFiles,
}

impl Transport {
    /// Prepares to send.
    ///
    /// # Errors
    /// If the files for TLS cannot be used.
    pub(crate) fn new(channel: Arc<Channel>) -> Result<Self, SendError> {
        let tls = channel.kind.tls();
        // Before they are read.
        let files = WatchedFiles::new(tls.files().cloned().collect());
        let http = match &channel.kind {
            Kind::Log | Kind::Email(_) => None,
            _ => Some(http::client(secured(&tls)?)?),
        };
        Ok(Self {
            channel,
            http,
            files,
        })
    }

    /// Whether the files for TLS have changed since the last question.
    pub(crate) fn is_outdated(&mut self) -> bool {
        self.files.changed()
    }

    /// Sends a notification. `id` is the same for every attempt, so that a receiver can tell a second
    /// one from another notification.
    ///
    /// # Errors
    /// What the network or the receiver said, and whether it is worth another attempt.
    pub(crate) async fn send(
        &self,
        id: &str,
        notification: &Notification,
        now: Timestamp,
    ) -> Result<(), SendError> {
        let rendered = text::render(&self.channel, notification);
        match (&self.channel.kind, &self.http) {
            (Kind::Log, _) => {
                tracing::info!(
                    receiver = self.channel.receiver,
                    id,
                    status = notification.status,
                    severity = notification.severity(),
                    title = rendered.title,
                    text = rendered.text,
                    "notification"
                );
                Ok(())
            }
            (Kind::Email(file), _) => email::send(file, id, notification, &rendered).await,
            (kind, Some(client)) => {
                let request = request::of(kind, id, notification, &rendered, now)?;
                http::send(
                    client,
                    request,
                    notification.traceparent.as_deref(),
                    id,
                    now,
                )
                .await
            }
            (kind, None) => Err(SendError::refused(format!(
                "{} has no HTTP client",
                kind.as_str()
            ))),
        }
    }
}

/// The secret in a file. It is read for each attempt: a secret that was exchanged needs no restart.
fn secret(path: &Path, setting: &str) -> Result<SecretString, SendError> {
    let read = config::secret(None, setting, Some(path), setting);
    match read {
        Ok(Some(secret)) => Ok(secret),
        Ok(None) => Err(SendError::later(format!("{setting} is empty"))),
        Err(error) => Err(SendError::later(format!("{:#}", anyhow::Error::new(error)))),
    }
}

fn bearer(path: Option<&std::path::PathBuf>) -> Result<Option<String>, SendError> {
    let token = path.map(|path| secret(path, "token_file")).transpose()?;
    Ok(token.map(|token| format!("Bearer {}", token.expose_secret())))
}

/// TLS by the files, if there are any.
fn secured(files: &TlsOptions) -> Result<ClientConfig, SendError> {
    if *files != TlsOptions::default() {
        // Tried again: while it is being replaced, a certificate may not fit its key.
        return tls::client_config(files, &SETTINGS)
            .map_err(|error| SendError::later(error.to_string()));
    }
    // The system may have no authorities, which is an error only where a server shows a certificate.
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| SendError::refused(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
