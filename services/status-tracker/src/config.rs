//! What can be set.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use fleet_shared::config::{Common, ConfigError, DatabaseArgs, HasCommon, MqttArgs, duration};
use fleet_shared::tls::ServerFiles;
use secrecy::SecretString;

use crate::presence::Settings;

/// Tracks the presence of every device, and serves the API and the dashboard.
///
/// Any number of replicas may run: each sees every device, a transition is stored once. Each needs a
/// client id of its own.
#[derive(clap::Parser, Clone, Debug)]
#[command(name = "status-tracker", version, about, long_about)]
pub struct Config {
    /// Settings of every service.
    #[command(flatten)]
    pub common: Common,
    /// The broker.
    #[command(flatten)]
    pub mqtt: MqttArgs,
    /// The store.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// When a device is there.
    #[command(flatten)]
    pub tracking: Tracking,
    /// The API.
    #[command(flatten)]
    pub http: HttpArgs,
}

/// When a device counts as online.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Presence")]
pub struct Tracking {
    /// Silence after which any device counts as offline; one that reports at an interval has a limit
    /// of three intervals when that is shorter.
    #[arg(long, env = "STATUS_SILENCE_MAX", value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub silence_max: Duration,

    /// After a reconnect, how long wills wait for their device to come back.
    #[arg(long, env = "STATUS_SETTLE", value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub settle: Duration,

    /// Three times offline within it is flapping.
    #[arg(long, env = "STATUS_FLAP_WINDOW", value_name = "DURATION", default_value = "10m", value_parser = duration)]
    pub flap_window: Duration,

    /// Devices held at most; further ones are counted and left out.
    #[arg(
        long,
        env = "STATUS_DEVICES_MAX",
        value_name = "N",
        default_value_t = 1_000_000
    )]
    pub devices_max: u32,

    /// Sensors held at most; further ones are left out.
    #[arg(
        long,
        env = "STATUS_SENSORS_MAX",
        value_name = "N",
        default_value_t = 300_000
    )]
    pub sensors_max: u32,
}

impl Default for Tracking {
    /// The defaults of the command line.
    fn default() -> Self {
        Self {
            silence_max: Duration::from_secs(300),
            settle: Duration::from_secs(30),
            flap_window: Duration::from_secs(600),
            devices_max: 1_000_000,
            sensors_max: 300_000,
        }
    }
}

impl Tracking {
    /// For the presence.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings {
            silence_max: self.silence_max,
            settle: self.settle,
            flap_window: self.flap_window,
            devices_max: self.devices_max as usize,
        }
    }
}

/// The HTTP API.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "HTTP")]
pub struct HttpArgs {
    /// Where API and dashboard are served.
    #[arg(
        long,
        env = "HTTP_ADDR",
        value_name = "IP:PORT",
        default_value = "0.0.0.0:8080"
    )]
    pub http_addr: SocketAddr,

    /// Certificate to serve HTTPS with, PEM; read again when it changes.
    #[arg(long, env = "TLS_CERT_FILE", value_name = "FILE")]
    pub tls_cert_file: Option<PathBuf>,

    /// Private key of the certificate, PEM.
    #[arg(long, env = "TLS_KEY_FILE", value_name = "FILE")]
    pub tls_key_file: Option<PathBuf>,

    /// Authorities of client certificates, PEM; with them, only clients with one are served.
    #[arg(long, env = "TLS_CLIENT_CA_FILE", value_name = "FILE")]
    pub tls_client_ca_file: Option<PathBuf>,

    /// Bearer token for writes; without one the API answers reads only. Others can see flags, so
    /// prefer the variable or a file.
    #[arg(long, env = "API_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub api_token: Option<SecretString>,

    /// File that holds the token.
    #[arg(long, env = "API_TOKEN_FILE", value_name = "FILE")]
    pub api_token_file: Option<PathBuf>,

    /// Ask for the token for reads too.
    #[arg(long, env = "API_REQUIRE_TOKEN")]
    pub require_token: bool,

    /// Longest wait for a device's answer to a command.
    #[arg(long, env = "STATUS_COMMAND_TIMEOUT", value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub command_timeout: Duration,
}

impl HttpArgs {
    /// The files of HTTPS; none for plain HTTP.
    ///
    /// # Errors
    /// When one is named without the others it needs.
    pub fn tls(&self) -> Result<Option<ServerFiles>, ConfigError> {
        const CERT: &str = "--tls-cert-file (TLS_CERT_FILE)";
        const KEY: &str = "--tls-key-file (TLS_KEY_FILE)";
        const CLIENT_CA: &str = "--tls-client-ca-file (TLS_CLIENT_CA_FILE)";
        match (
            &self.tls_cert_file,
            &self.tls_key_file,
            &self.tls_client_ca_file,
        ) {
            (Some(cert), Some(key), client_ca) => Ok(Some(ServerFiles {
                cert: cert.clone(),
                key: key.clone(),
                client_ca: client_ca.clone(),
                client_required: true,
            })),
            (None, None, None) => Ok(None),
            (Some(cert), None, _) => {
                let remedy = format!("its key is missing; set {KEY}");
                Err(ConfigError::value(CERT, cert.display(), remedy))
            }
            (None, Some(key), _) => {
                let remedy = format!("its certificate is missing; set {CERT}");
                Err(ConfigError::value(KEY, key.display(), remedy))
            }
            (None, None, Some(ca)) => {
                let remedy = format!("client certificates need HTTPS; set {CERT} and {KEY}");
                Err(ConfigError::value(CLIENT_CA, ca.display(), remedy))
            }
        }
    }
}

impl HasCommon for Config {
    fn common(&self) -> &Common {
        &self.common
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn programs_that_run_a_tracker_have_the_defaults_of_the_command_line() {
        let config = Config::parse_from(["status-tracker"]);
        let (flags, default) = (config.tracking, Tracking::default());
        assert_eq!(format!("{flags:?}"), format!("{default:?}"));
    }
}
