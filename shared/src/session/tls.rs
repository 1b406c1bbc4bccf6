//! TLS to the broker: which files, and what a failed handshake means.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::ConnectionError;
use super::options::{BrokerAddr, Options, TlsOptions};

pub(super) async fn handshake(
    stream: TcpStream,
    options: &Options,
) -> Result<TlsStream<TcpStream>, ConnectionError> {
    let config = client_config(&options.tls)?;
    let broker = &options.broker;
    let name = ServerName::try_from(broker.host.clone()).map_err(|_| ConnectionError::Tls {
        broker: broker.clone(),
        hint: format!("`{}` is not a name a certificate can carry", broker.host),
        source: io::Error::new(io::ErrorKind::InvalidInput, "invalid server name"),
    })?;
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|source| failure(broker, source))
}

/// The error of a handshake. With TLS 1.3 a broker that misses our certificate says so only after
/// the handshake, so reads before CONNACK come here too.
pub(super) fn failure(broker: &BrokerAddr, source: io::Error) -> ConnectionError {
    ConnectionError::Tls {
        hint: hint(broker, &source),
        broker: broker.clone(),
        source,
    }
}

fn hint(broker: &BrokerAddr, source: &io::Error) -> String {
    let rustls_error = source
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match rustls_error {
        Some(rustls::Error::InvalidCertificate(error)) => match error {
            // The latter where another authority has the name of one that we trust.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "its certificate is signed by an authority we do not trust; name that authority's file in MQTT_CA_FILE".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => format!(
                "its certificate is not for the name `{}`; use a name of the certificate in MQTT_URL",
                broker.host
            ),
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
                "it asks for a client certificate; set MQTT_CERT_FILE and MQTT_KEY_FILE".to_owned()
            }
            AlertDescription::UnknownCA | AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => {
                "it does not trust our client certificate; MQTT_CERT_FILE must be signed by its authority".to_owned()
            }
            AlertDescription::CertificateExpired => {
                "our client certificate has expired; renew MQTT_CERT_FILE".to_owned()
            }
            other => format!("it sent the alert {other:?}"),
        },
        Some(rustls::Error::InvalidMessage(_)) => {
            "what listens there does not speak TLS; use mqtt:// or the port of its TLS listener".to_owned()
        }
        Some(other) => other.to_string(),
        None if matches!(
            source.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
        ) =>
        {
            "it closed the connection during the handshake; it may not speak TLS on this port".to_owned()
        }
        None => source.to_string(),
    }
}

fn client_config(options: &TlsOptions) -> Result<ClientConfig, ConnectionError> {
    let mut roots = RootCertStore::empty();
    match &options.ca_file {
        Some(path) => {
            for certificate in certificates("MQTT_CA_FILE", path)? {
                roots
                    .add(certificate)
                    .map_err(|error| file_error("MQTT_CA_FILE", path, error.to_string()))?;
            }
        }
        None => {
            let native = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(native.certs);
            if roots.is_empty() {
                return Err(file_error(
                    "MQTT_CA_FILE",
                    Path::new("(system roots)"),
                    "the system has no trusted authorities; set MQTT_CA_FILE".to_owned(),
                ));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| file_error("MQTT_CA_FILE", Path::new(""), error.to_string()))?
        .with_root_certificates(roots);
    match (&options.cert_file, &options.key_file) {
        (Some(cert), Some(key)) => {
            let chain = certificates("MQTT_CERT_FILE", cert)?;
            let key_der = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| file_error("MQTT_KEY_FILE", key, error.to_string()))?;
            builder
                .with_client_auth_cert(chain, key_der)
                .map_err(|error| file_error("MQTT_KEY_FILE", key, error.to_string()))
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(cert), None) => Err(file_error(
            "MQTT_CERT_FILE",
            cert,
            "MQTT_KEY_FILE is missing".to_owned(),
        )),
        (None, Some(key)) => Err(file_error(
            "MQTT_KEY_FILE",
            key,
            "MQTT_CERT_FILE is missing".to_owned(),
        )),
    }
}

fn certificates(
    setting: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, ConnectionError> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| file_error(setting, path, error.to_string()))?;
    if certificates.is_empty() {
        return Err(file_error(
            setting,
            path,
            "it holds no PEM certificate".to_owned(),
        ));
    }
    Ok(certificates)
}

fn file_error(setting: &'static str, path: &Path, reason: String) -> ConnectionError {
    ConnectionError::TlsFile {
        setting,
        path: path.display().to_string(),
        reason,
    }
}
