//! The client's side: whom it trusts, who it is, and what a failed handshake means.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::ConfigError;

/// PEM files for TLS; read again on every connect, so that renewed ones are used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// Authorities to trust; the system's when absent.
    pub ca_file: Option<PathBuf>,
    /// Client certificate chain.
    pub cert_file: Option<PathBuf>,
    /// Its private key.
    pub key_file: Option<PathBuf>,
}

impl TlsOptions {
    /// Of settings, where an empty path is none.
    #[must_use]
    pub fn set(ca: Option<&PathBuf>, cert: Option<&PathBuf>, key: Option<&PathBuf>) -> Self {
        let named = |file: Option<&PathBuf>| {
            let file = file.filter(|file| !file.as_os_str().is_empty());
            file.cloned()
        };
        Self {
            ca_file: named(ca),
            cert_file: named(cert),
            key_file: named(key),
        }
    }

    /// The files that there are.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let all = [&self.ca_file, &self.cert_file, &self.key_file];
        all.into_iter().flatten()
    }
}

/// What the settings of a connection are called, for errors that say what to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the server is.
    pub address: &'static str,
    /// Authorities to trust.
    pub ca: &'static str,
    /// Client certificate.
    pub cert: &'static str,
    /// Its key.
    pub key: &'static str,
    /// What to do about a server that does not speak TLS on its port.
    pub plain: &'static str,
}

/// A file of a client that cannot be used. The content is in no message.
#[derive(Debug, thiserror::Error)]
#[error("{setting} {}: {reason}", path.display())]
pub struct ClientFileError {
    /// The setting that names the file.
    pub setting: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, and what it should be.
    pub reason: String,
}

impl ClientFileError {
    fn new(setting: &'static str, path: &Path, reason: impl ToString) -> Self {
        Self {
            setting,
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }
}

impl From<ClientFileError> for ConfigError {
    fn from(error: ClientFileError) -> Self {
        Self::value(error.setting, error.path.display(), error.reason)
    }
}

/// What a client speaks TLS with, of its files as they are now: 1.2 and 1.3 by ring. The server's
/// certificate and name are always checked.
///
/// # Errors
/// A file that cannot be used, and a certificate without its key or the reverse.
pub fn client_config(
    options: &TlsOptions,
    settings: &Settings,
) -> Result<ClientConfig, ClientFileError> {
    let mut roots = RootCertStore::empty();
    match &options.ca_file {
        Some(path) => {
            for certificate in certificates(settings.ca, path)? {
                roots
                    .add(certificate)
                    .map_err(|error| ClientFileError::new(settings.ca, path, error))?;
            }
        }
        None => {
            let native = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(native.certs);
            if roots.is_empty() {
                return Err(ClientFileError::new(
                    settings.ca,
                    Path::new("(system roots)"),
                    format!("the system has no trusted authorities; set {}", settings.ca),
                ));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ClientFileError::new(settings.ca, Path::new(""), error))?
        .with_root_certificates(roots);
    match (&options.cert_file, &options.key_file) {
        (Some(cert), Some(key)) => {
            let chain = certificates(settings.cert, cert)?;
            let key_der = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| ClientFileError::new(settings.key, key, error))?;
            builder
                .with_client_auth_cert(chain, key_der)
                .map_err(|error| ClientFileError::new(settings.key, key, error))
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(cert), None) => Err(ClientFileError::new(
            settings.cert,
            cert,
            format!("{} is missing", settings.key),
        )),
        (None, Some(key)) => Err(ClientFileError::new(
            settings.key,
            key,
            format!("{} is missing", settings.cert),
        )),
    }
}

fn certificates(
    setting: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, ClientFileError> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| ClientFileError::new(setting, path, error))?;
    if certificates.is_empty() {
        return Err(ClientFileError::new(
            setting,
            path,
            "it holds no PEM certificate",
        ));
    }
    Ok(certificates)
}

/// What a failed handshake with `host` means and what to set; `own` is the file of our client
/// certificate, if we have one to show. With TLS 1.3 a server that misses or refuses our certificate
/// says so only after the handshake (RFC 8446, section 4.4.2.4 and 6.2), so the first read belongs to
/// it.
#[must_use]
pub fn explain(host: &str, source: &io::Error, own: Option<&Path>, settings: &Settings) -> String {
    let Settings {
        address,
        ca,
        cert,
        key,
        plain,
    } = settings;
    let rustls_error = source
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match rustls_error {
        Some(rustls::Error::InvalidCertificate(error)) => match error {
            // The latter where another authority has the name of one that we trust.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
                "its certificate is signed by an authority we do not trust; name that authority's file in {ca}"
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!(
                    "its certificate is not for the name `{host}`; use a name of the certificate in {address}"
                )
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired; renew it at the broker".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet; compare the clocks".to_owned()
            }
            other => format!("its certificate is not accepted ({other:?})"),
        },
        Some(rustls::Error::AlertReceived(alert)) => match alert {
            AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure => {
                format!("it asks for a client certificate; set {cert} and {key}")
            }
            // What Java says of a certificate that it misses.
            AlertDescription::BadCertificate if own.is_none() => {
                format!("it asks for a client certificate; set {cert} and {key}")
            }
            AlertDescription::CertificateExpired => {
                format!("our client certificate has expired; renew {cert}")
            }
            // Also what Java says of one that has expired.
            AlertDescription::CertificateUnknown if own.is_some_and(has_expired) => {
                format!("our client certificate has expired; renew {cert}")
            }
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown => format!(
                "it does not trust our client certificate; {cert} must be signed by its authority"
            ),
            other => format!("it sent the alert {other:?}"),
        },
        Some(rustls::Error::InvalidMessage(_)) => {
            format!("what listens there does not speak TLS; {plain}")
        }
        Some(other) => other.to_string(),
        None if matches!(
            source.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
        ) =>
        {
            "it closed the connection during the handshake; it may not speak TLS on this port"
                .to_owned()
        }
        None => source.to_string(),
    }
}

/// Whether the first certificate of a file is over its time; not if it cannot be read.
fn has_expired(file: &Path) -> bool {
    let read = || {
        let text = std::fs::read(file).ok()?;
        let pem = x509_parser::pem::Pem::iter_from_buffer(&text)
            .next()?
            .ok()?;
        let certificate = pem.parse_x509().ok()?;
        Some(certificate.validity().not_after < x509_parser::time::ASN1Time::now())
    };
    read().unwrap_or(false)
}
