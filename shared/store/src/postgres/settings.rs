//! Reading `postgres://…`: what tokio-postgres knows, and TLS as libpq means it.

use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};
use url::form_urlencoded;

use super::tls::{Identity, Roots, Trust};
use crate::{OpenOptions, StoreError};

/// Unanswered data after this long means that the other end is gone.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// Where and how to connect.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) config: Config,
    pub(super) trust: Trust,
    /// Our own certificate, for a server that asks for one.
    pub(super) identity: Option<Identity>,
    /// The server for error messages; no user, no password.
    pub(super) server: String,
}

impl Settings {
    pub(super) fn parse(url: &str, options: &OpenOptions) -> Result<Self, StoreError> {
        let (address, parameters) = url.split_once('?').unwrap_or((url, ""));
        let (parameters, rest) = TlsParameters::take(parameters);
        let (ssl_mode, trust) = tls(&parameters.mode, parameters.root)?;
        let identity = match (parameters.cert, parameters.key) {
            (Some(cert), Some(key)) => Some(Identity { cert, key }),
            (None, None) => None,
            _ => {
                return Err(StoreError::permanent_because(
                    "sslcert and sslkey in DATABASE_URL belong together: name both files or none"
                        .to_owned(),
                ));
            }
        };
        // The text of the URL is in no message, for it may hold a password.
        let mut config: Config = format!("{address}?{rest}").parse().map_err(|source| {
            StoreError::permanent(
                "DATABASE_URL is not understood: it should be postgres://USER@HOST:PORT/DATABASE",
                source,
            )
        })?;
        config
            .ssl_mode(ssl_mode)
            .application_name(&options.application_name)
            .connect_timeout(options.connect_timeout)
            .tcp_user_timeout(SILENCE_MAX)
            .keepalives(true)
            .keepalives_idle(SILENCE_MAX)
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3);
        let server = server(&config);
        Ok(Self {
            config,
            trust,
            identity,
            server,
        })
    }
}

/// Names the server without user and password.
fn server(config: &Config) -> String {
    let ports = config.get_ports();
    let hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .enumerate()
        .map(|(index, host)| {
            // One port may stand for all hosts.
            let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(name) => format!("{name}:{port}"),
                #[cfg(unix)]
                Host::Unix(folder) => format!("{}:{port}", folder.display()),
            }
        })
        .collect();
    let database = config
        .get_dbname()
        .or(config.get_user())
        .unwrap_or_default();
    format!("PostgreSQL at {}/{database}", hosts.join(","))
}

/// The parameters of TLS, which have the names and meanings of libpq: tokio-postgres knows half of
/// the first and nothing of the others.
struct TlsParameters {
    mode: String,
    root: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl TlsParameters {
    /// Takes them out of the URL's parameters, and returns the rest.
    fn take(parameters: &str) -> (Self, String) {
        let mut taken = Self {
            mode: "prefer".to_owned(),
            root: None,
            cert: None,
            key: None,
        };
        let mut rest = Vec::new();
        for parameter in parameters.split('&') {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let file = || {
                let decoded = form_urlencoded::parse(parameter.as_bytes()).next();
                decoded.map(|(_, path)| PathBuf::from(path.into_owned()))
            };
            match name {
                "sslmode" => taken.mode = value.to_owned(),
                "sslrootcert" => taken.root = file(),
                "sslcert" => taken.cert = file(),
                "sslkey" => taken.key = file(),
                _ => rest.push(parameter),
            }
        }
        (taken, rest.join("&"))
    }
}

fn tls(mode: &str, root: Option<PathBuf>) -> Result<(SslMode, Trust), StoreError> {
    let named = root
        .filter(|path| path.as_os_str() != "system")
        .map(Roots::File);
    let settled = match (mode, named) {
        ("disable", _) => (SslMode::Disable, Trust::Anybody),
        ("prefer", _) => (SslMode::Prefer, Trust::Anybody),
        ("require", None) => (SslMode::Require, Trust::Anybody),
        ("require" | "verify-ca", Some(roots)) => (SslMode::Require, Trust::Authority(roots)),
        ("verify-ca", None) => (SslMode::Require, Trust::Authority(Roots::System)),
        ("verify-full", roots) => (
            SslMode::Require,
            Trust::Server(roots.unwrap_or(Roots::System)),
        ),
        _ => {
            return Err(StoreError::permanent_because(format!(
                "sslmode={mode} in DATABASE_URL is none of disable, prefer, require, verify-ca and verify-full"
            )));
        }
    };
    Ok(settled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Settings, StoreError> {
        Settings::parse(url, &OpenOptions::writer("test"))
    }

    #[test]
    fn sslmode_means_what_libpq_means() {
        let file = || Roots::File(PathBuf::from("/ca.pem"));
        let cases = [
            ("", SslMode::Prefer, Trust::Anybody),
            ("?sslmode=disable", SslMode::Disable, Trust::Anybody),
            ("?sslmode=require", SslMode::Require, Trust::Anybody),
            (
                "?sslmode=require&sslrootcert=/ca.pem",
                SslMode::Require,
                Trust::Authority(file()),
            ),
            (
                "?sslrootcert=/ca.pem&sslmode=verify-ca",
                SslMode::Require,
                Trust::Authority(file()),
            ),
            (
                "?sslmode=verify-full&sslrootcert=system",
                SslMode::Require,
                Trust::Server(Roots::System),
            ),
        ];
        for (query, mode, trust) in cases {
            let settings = parse(&format!("postgres://u@h:1/d{query}")).unwrap();
            assert_eq!(settings.config.get_ssl_mode(), mode, "{query}");
            assert_eq!(settings.trust, trust, "{query}");
        }
        let error = parse("postgres://u@h/d?sslmode=allowed").unwrap_err();
        assert!(error.to_string().contains("sslmode=allowed"), "{error}");
    }

    #[test]
    fn other_parameters_are_kept() {
        let settings = parse("postgres://u@h/d?sslmode=disable&options=-c%20jit%3Doff").unwrap();
        assert_eq!(settings.config.get_options(), Some("-c jit=off"));
    }

    #[test]
    fn a_password_shows_in_no_message() {
        let settings = parse("postgres://u:geheim@h:1,g:2/d").unwrap();
        assert_eq!(settings.server, "PostgreSQL at h:1,g:2/d");
        for broken in [
            "postgres://u:geheim@h:99999/d",
            "postgres://u:geheim@h/d?no=1",
        ] {
            let error = parse(broken).unwrap_err();
            assert!(!format!("{error:?}").contains("geheim"), "{error:?}");
        }
    }
}
