//! TLS to Kafka: what the settings mean to librdkafka, and why a handshake fails.
//!
//! librdkafka speaks TLS by OpenSSL, and of a handshake that failed it says little. So the reason is
//! found by one handshake of our own with the same files.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use fleet_shared::config::ConfigError;
use fleet_shared::tls::{self, TlsOptions};
use rdkafka::ClientConfig;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

/// Limit of a connection, and of a handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(3);

/// How long a broker may take to object to a client certificate after the handshake (TLS 1.3).
const OBJECTION_MAX: Duration = Duration::from_secs(1);

const SETTINGS: tls::Settings = tls::Settings {
    address: "KAFKA_BROKERS",
    ca: "KAFKA_CA_FILE",
    cert: "KAFKA_CERT_FILE",
    key: "KAFKA_KEY_FILE",
    plain: "use the port of its TLS listener, or leave the files out",
};

/// Settings of librdkafka that give it a client certificate in another way than by files of ours.
const OTHER_IDENTITIES: [&str; 4] = [
    "ssl.keystore.location",
    "ssl.certificate.pem",
    "ssl.key.pem",
    // Our own handshake cannot open such a key.
    "ssl.key.password",
];

/// Sets what the files mean, on top of what was set by name.
///
/// # Errors
/// Files that do not fit together or the protocol, or cannot be used.
pub(crate) fn secure(
    config: &mut ClientConfig,
    files: &TlsOptions,
    with_password: bool,
) -> Result<(), ConfigError> {
    let named = [
        (&files.ca_file, SETTINGS.ca, "ssl.ca.location"),
        (&files.cert_file, SETTINGS.cert, "ssl.certificate.location"),
        (&files.key_file, SETTINGS.key, "ssl.key.location"),
    ];
    let first = named
        .iter()
        .find_map(|(file, setting, _)| Some((file.as_ref()?, setting)));
    match (config.get("security.protocol"), first) {
        (None, None) => return Ok(()),
        (None, Some(_)) => {
            let protocol = if with_password { "sasl_ssl" } else { "ssl" };
            config.set("security.protocol", protocol);
        }
        (Some(protocol), None) if !is_tls(protocol) => return Ok(()),
        (Some(protocol), Some((file, setting))) if !is_tls(protocol) => {
            let remedy = format!(
                "security.protocol is {protocol}, which is not TLS; use ssl or sasl_ssl, or leave \
                 the file out"
            );
            return Err(ConfigError::value(*setting, file.display(), remedy));
        }
        (Some(_), _) => {}
    }
    check(config, files)?;
    for (file, _, name) in named {
        if let Some(file) = file {
            config.set(name, file.display().to_string());
        }
    }
    if files.ca_file.is_none() && config.get("ssl.ca.pem").is_none() {
        // Where the system keeps its authorities: OpenSSL is compiled in and does not know.
        config.set("ssl.ca.location", "probe");
    }
    Ok(())
}

fn is_tls(protocol: &str) -> bool {
    protocol.eq_ignore_ascii_case("ssl") || protocol.eq_ignore_ascii_case("sasl_ssl")
}

/// Says what is wrong with the files in words that librdkafka has not.
fn check(config: &ClientConfig, files: &TlsOptions) -> Result<(), ConfigError> {
    let files = readable(config, files);
    // Without a file of ours, librdkafka's own search decides whom to trust.
    if files != TlsOptions::default() {
        tls::client_config(&files, &SETTINGS)?;
    }
    Ok(())
}

/// The files as far as we can read them ourselves.
fn readable(config: &ClientConfig, files: &TlsOptions) -> TlsOptions {
    let mut files = files.clone();
    if has_other_identity(config) {
        (files.cert_file, files.key_file) = (None, None);
    }
    files
}

fn has_other_identity(config: &ClientConfig) -> bool {
    OTHER_IDENTITIES
        .iter()
        .any(|name| config.get(name).is_some())
}

/// Why no broker of the settings can be reached by TLS, if that is the reason.
pub(crate) async fn diagnose(config: &ClientConfig, files: &TlsOptions) -> Option<String> {
    if !config.get("security.protocol").is_some_and(is_tls)
        || config.get("ssl.ca.pem").is_some()
        || has_other_identity(config)
    {
        return None;
    }
    for broker in config.get("bootstrap.servers")?.split(',') {
        let (host, port) = address(broker)?;
        let Ok(Ok(stream)) = timeout(HANDSHAKE_MAX, TcpStream::connect((host, port))).await else {
            continue;
        };
        let said = timeout(
            HANDSHAKE_MAX + OBJECTION_MAX,
            handshake(stream, host, files),
        )
        .await;
        return match said {
            Ok(Ok(())) => None,
            Ok(Err(problem)) => Some(format!("TLS with {host}:{port} failed: {problem}")),
            Err(_) => Some(format!(
                "TLS with {host}:{port} failed: no answer to our hello; {}",
                SETTINGS.plain
            )),
        };
    }
    None
}

async fn handshake(stream: TcpStream, host: &str, files: &TlsOptions) -> Result<(), String> {
    let config = tls::client_config(files, &SETTINGS).map_err(|error| error.to_string())?;
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| format!("`{host}` is not a name a certificate can carry"))?;
    let explain = |error: io::Error| {
        let own = files.cert_file.as_deref();
        tls::explain(host, &error, own, &SETTINGS)
    };
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(name, stream).await.map_err(explain)?;
    // A broker has nothing to say before it is asked, so what comes is an objection.
    match timeout(OBJECTION_MAX, stream.read(&mut [0])).await {
        Err(_) | Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(explain(error)),
    }
}

/// Host and port of one of Kafka's addresses; 9092 is the port of one without.
fn address(broker: &str) -> Option<(&str, u16)> {
    let broker = broker.trim();
    let broker = broker.split_once("://").map_or(broker, |(_, rest)| rest);
    let (host, port) = match broker.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (broker, 9092),
    };
    Some((host.trim_start_matches('[').trim_end_matches(']'), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_that_librdkafka_takes() {
        for (broker, expected) in [
            ("kafka:9093", Some(("kafka", 9093))),
            (" kafka ", Some(("kafka", 9092))),
            ("SSL://kafka:1", Some(("kafka", 1))),
            ("[::1]:9093", Some(("::1", 9093))),
            ("[::1]", Some(("::1", 9092))),
            ("kafka:port", None),
        ] {
            assert_eq!(address(broker), expected, "{broker}");
        }
    }

    #[test]
    fn files_ask_for_tls_and_contradictions_are_told() {
        let certified = rcgen::generate_simple_self_signed(vec!["kafka".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: String| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            Some(path)
        };
        let cert_file = file("cert", certified.cert.pem());
        let key_file = file("key", certified.signing_key.serialize_pem());
        let other = rcgen::KeyPair::generate().unwrap();
        let other_key = file("other", other.serialize_pem());
        let empty = file("empty", String::new());
        let trusting = TlsOptions {
            ca_file: cert_file.clone(),
            ..TlsOptions::default()
        };
        let secured = |protocol: Option<&str>, files: &TlsOptions, with_password| {
            let mut config = ClientConfig::new();
            if let Some(protocol) = protocol {
                config.set("security.protocol", protocol);
            }
            secure(&mut config, files, with_password).map(|()| config)
        };
        let nothing = TlsOptions::default();
        let get = |config: ClientConfig, name| config.get(name).map(str::to_owned);
        for (protocol, files, password, expected) in [
            (None, &nothing, true, None),
            (None, &trusting, false, Some("ssl")),
            (None, &trusting, true, Some("sasl_ssl")),
            (Some("SASL_SSL"), &trusting, false, Some("SASL_SSL")),
            (Some("plaintext"), &nothing, false, Some("plaintext")),
        ] {
            let config = secured(protocol, files, password).unwrap();
            assert_eq!(get(config, "security.protocol").as_deref(), expected);
        }
        let system = secured(Some("ssl"), &nothing, false).unwrap();
        assert_eq!(get(system, "ssl.ca.location").as_deref(), Some("probe"));

        let identity = |cert_file: &Option<_>, key_file: &Option<_>| TlsOptions {
            cert_file: cert_file.clone(),
            key_file: key_file.clone(),
            ..trusting.clone()
        };
        secured(None, &identity(&cert_file, &key_file), false).unwrap();
        for (files, said) in [
            (identity(&cert_file, &None), "KAFKA_KEY_FILE is missing"),
            (identity(&None, &key_file), "KAFKA_CERT_FILE is missing"),
            (identity(&cert_file, &other_key), "KAFKA_KEY_FILE"),
            (identity(&empty, &key_file), "no PEM certificate"),
        ] {
            let error = secured(None, &files, false).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let error = secured(Some("plaintext"), &trusting, false).unwrap_err();
        assert!(error.to_string().contains("is not TLS"), "{error}");
    }
}
