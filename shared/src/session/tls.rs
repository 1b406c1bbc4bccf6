//! TLS to the broker.

use std::io;
use std::sync::Arc;

use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::ConnectionError;
use super::options::Options;
use crate::tls;

pub(crate) const SETTINGS: tls::Settings = tls::Settings {
    address: "MQTT_URL",
    ca: "MQTT_CA_FILE",
    cert: "MQTT_CERT_FILE",
    key: "MQTT_KEY_FILE",
    plain: "use mqtt:// or the port of its TLS listener",
};

pub(super) async fn handshake(
    stream: TcpStream,
    options: &Options,
) -> Result<TlsStream<TcpStream>, ConnectionError> {
    let config =
        tls::client_config(&options.tls, &SETTINGS).map_err(|error| ConnectionError::TlsFile {
            setting: error.setting,
            path: error.path.display().to_string(),
            reason: error.reason,
        })?;
    let broker = &options.broker;
    let name = ServerName::try_from(broker.host.clone()).map_err(|_| ConnectionError::Tls {
        broker: broker.clone(),
        hint: format!("`{}` is not a name a certificate can carry", broker.host),
        source: io::Error::new(io::ErrorKind::InvalidInput, "invalid server name"),
    })?;
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|source| failure(options, source))
}

/// The error of a handshake. With TLS 1.3 a broker that misses our certificate says so only after
/// the handshake, so reads before CONNACK come here too.
pub(super) fn failure(options: &Options, source: io::Error) -> ConnectionError {
    let broker = &options.broker;
    let own = options.tls.cert_file.as_deref();
    ConnectionError::Tls {
        hint: tls::explain(&broker.host, &source, own, &SETTINGS),
        broker: broker.clone(),
        source,
    }
}
