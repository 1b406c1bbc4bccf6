//! Ways out: how a notification gets to a receiver.

mod email;
mod http;
mod request;
mod webhook;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fleet_shared::config;
use jiff::Timestamp;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use secrecy::{ExposeSecret as _, SecretString};

use super::notification::Notification;
use super::retry::Response;
use super::text;
use crate::route::{Channel, Kind};

pub use webhook::signature;

/// Longest time for one attempt, from the first byte to the answer.
pub(crate) const SEND_TIMEOUT: Duration = Duration::from_secs(10);

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
}

impl Transport {
    /// Prepares to send.
    ///
    /// # Errors
    /// If the authorities to trust cannot be read.
    pub(crate) fn new(channel: Arc<Channel>) -> Result<Self, SendError> {
        let http = match &channel.kind {
            Kind::Log | Kind::Email(_) => None,
            kind => Some(http::client(trusted(kind.ca_file().map(|path| &**path))?)?),
        };
        Ok(Self { channel, http })
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

/// TLS with ring that trusts the authorities in a file, or else the system's.
fn trusted(ca_file: Option<&Path>) -> Result<ClientConfig, SendError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        Some(path) => {
            let refused =
                |error: String| SendError::refused(format!("ca_file {}: {error}", path.display()));
            let certificates = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| refused(error.to_string()))?;
            for certificate in certificates {
                let added = roots.add(certificate);
                added.map_err(|error| refused(error.to_string()))?;
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| SendError::refused(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
