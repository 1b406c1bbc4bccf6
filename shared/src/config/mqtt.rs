//! How to reach the broker.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use super::{ConfigError, MqttUrl, duration, secret};
use crate::session::Options;
use crate::session::tls::SETTINGS;
use crate::tls::{self, TlsOptions};

const URL: &str = "--mqtt-url (MQTT_URL)";
const CLIENT_ID: &str = "--mqtt-client-id (MQTT_CLIENT_ID)";
const USERNAME: &str = "--mqtt-username (MQTT_USERNAME)";
const PASSWORD: &str = "--mqtt-password (MQTT_PASSWORD)";
const PASSWORD_FILE: &str = "--mqtt-password-file (MQTT_PASSWORD_FILE)";
const CA_FILE: &str = "--mqtt-ca-file (MQTT_CA_FILE)";
const CERT_FILE: &str = "--mqtt-cert-file (MQTT_CERT_FILE)";
const KEY_FILE: &str = "--mqtt-key-file (MQTT_KEY_FILE)";

/// MQTT strings carry their length in two bytes (MQTT 5, section 1.5.4).
const STRING_BYTES_MAX: usize = 65_535;

/// Settings of an MQTT session; flatten it into the service's own.
#[derive(clap::Args, Clone, Debug)]
pub struct MqttArgs {
    /// Broker: mqtt://HOST:PORT, or mqtts:// for TLS; may hold USER:PASSWORD@.
    #[arg(
        long,
        help_heading = "MQTT",
        env = "MQTT_URL",
        hide_env_values = true,
        value_name = "URL",
        default_value = "mqtt://localhost:1883"
    )]
    pub mqtt_url: MqttUrl,

    /// Client id, stable per replica; by default the service and the host name.
    #[arg(long, help_heading = "MQTT", env = "MQTT_CLIENT_ID", value_name = "ID")]
    pub mqtt_client_id: Option<String>,

    /// User name.
    #[arg(
        long,
        help_heading = "MQTT",
        env = "MQTT_USERNAME",
        value_name = "NAME"
    )]
    pub mqtt_username: Option<String>,

    /// Password; others can see flags, so prefer the variable or a file.
    #[arg(
        long,
        help_heading = "MQTT",
        env = "MQTT_PASSWORD",
        hide_env_values = true,
        value_name = "PASSWORD"
    )]
    pub mqtt_password: Option<SecretString>,

    /// File that holds the password.
    #[arg(
        long,
        help_heading = "MQTT",
        env = "MQTT_PASSWORD_FILE",
        value_name = "FILE"
    )]
    pub mqtt_password_file: Option<PathBuf>,

    /// Authorities to trust instead of the system's, PEM.
    #[arg(long, help_heading = "MQTT", env = "MQTT_CA_FILE", value_name = "FILE")]
    pub mqtt_ca_file: Option<PathBuf>,

    /// Client certificate chain, PEM.
    #[arg(
        long,
        help_heading = "MQTT",
        env = "MQTT_CERT_FILE",
        value_name = "FILE"
    )]
    pub mqtt_cert_file: Option<PathBuf>,

    /// Private key of the client certificate, PEM.
    #[arg(
        long,
        help_heading = "MQTT",
        env = "MQTT_KEY_FILE",
        value_name = "FILE"
    )]
    pub mqtt_key_file: Option<PathBuf>,

    /// Longest time without a packet to the broker; 0 for no keep-alive.
    #[arg(
        long,
        help_heading = "MQTT",
        env = "MQTT_KEEP_ALIVE",
        value_name = "DURATION",
        default_value = "60s",
        value_parser = keep_alive
    )]
    pub mqtt_keep_alive: Duration,

    /// Limit for name, connection, TLS and the broker's answer together.
    #[arg(
        long,
        help_heading = "MQTT",
        env = "MQTT_CONNECT_TIMEOUT",
        value_name = "DURATION",
        default_value = "30s",
        value_parser = above_zero
    )]
    pub mqtt_connect_timeout: Duration,

    /// Limit for the answer to a ping; at most half the keep-alive is waited.
    #[arg(
        long,
        help_heading = "MQTT",
        env = "MQTT_PING_TIMEOUT",
        value_name = "DURATION",
        default_value = "10s",
        value_parser = above_zero
    )]
    pub mqtt_ping_timeout: Duration,

    /// Longest pause between attempts to connect.
    #[arg(
        long,
        help_heading = "MQTT",
        env = "MQTT_MAX_RECONNECT_DELAY",
        value_name = "DURATION",
        default_value = "60s",
        value_parser = above_zero
    )]
    pub mqtt_max_reconnect_delay: Duration,

    /// How long the broker keeps what is undelivered after a disconnect.
    #[arg(
        long,
        help_heading = "MQTT",
        env = "MQTT_SESSION_EXPIRY",
        value_name = "DURATION",
        default_value = "1h",
        value_parser = session_expiry
    )]
    pub mqtt_session_expiry: Duration,

    /// Ask the broker to forget an earlier session at the start.
    #[arg(
        long,
        help_heading = "MQTT",
        env = "MQTT_CLEAN_START",
        value_name = "BOOL",
        default_value = "false",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = clap::ArgAction::Set
    )]
    pub mqtt_clean_start: bool,

    /// QoS 1 and 2 messages in flight to us, 1 to 65535; the default is the service's own.
    #[arg(
        long,
        help_heading = "MQTT",
        env = "MQTT_RECEIVE_MAXIMUM",
        value_name = "COUNT",
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub mqtt_receive_maximum: Option<u16>,
}

impl MqttArgs {
    /// The options of a session: the client id is `{service}-{instance}` unless one is set, the
    /// receive maximum the session's default unless one is set ([`MqttArgs::receive_maximum_or`]).
    ///
    /// # Errors
    /// When settings do not fit together or the password file cannot be read.
    pub fn options(&self, service: &str, instance: &str) -> Result<Options, ConfigError> {
        let client_id = match self.mqtt_client_id.as_deref().filter(|id| !id.is_empty()) {
            Some(id) => id.to_owned(),
            None => format!("{service}-{instance}"),
        };
        mqtt_string(CLIENT_ID, &client_id)?;
        let (username, password) = self.credentials()?;

        let mut options = Options::new(self.mqtt_url.addr.clone(), client_id);
        options.username = username;
        options.password = password;
        options.tls = self.tls()?;
        options.keep_alive = self.mqtt_keep_alive;
        options.connect_timeout = self.mqtt_connect_timeout;
        options.ping_timeout = self.mqtt_ping_timeout;
        options.reconnect.max = self.mqtt_max_reconnect_delay;
        options.reconnect.first = options.reconnect.first.min(self.mqtt_max_reconnect_delay);
        options.session_expiry = self.mqtt_session_expiry;
        options.clean_start = self.mqtt_clean_start;
        options.receive_maximum = self.receive_maximum_or(options.receive_maximum);
        Ok(options)
    }

    /// The receive maximum, or the service's own default.
    #[must_use]
    pub fn receive_maximum_or(&self, default: u16) -> u16 {
        self.mqtt_receive_maximum.unwrap_or(default)
    }

    fn credentials(&self) -> Result<(Option<String>, Option<SecretString>), ConfigError> {
        let username = self.mqtt_username.clone().filter(|name| !name.is_empty());
        let password = secret(
            self.password(),
            PASSWORD,
            self.mqtt_password_file.as_deref(),
            PASSWORD_FILE,
        )?;
        let url = &self.mqtt_url;
        for (in_url, apart, setting) in [
            (url.username.is_some(), username.is_some(), USERNAME),
            (url.password.is_some(), self.password().is_some(), PASSWORD),
            (
                url.password.is_some(),
                self.mqtt_password_file.is_some(),
                PASSWORD_FILE,
            ),
        ] {
            if in_url && apart {
                return Err(ConfigError::setting(
                    format!("{URL} and {setting}"),
                    "both are set; keep one of them",
                ));
            }
        }
        let username = username.or_else(|| url.username.clone());
        let password = password.or_else(|| url.password.clone());
        if let Some(name) = &username {
            mqtt_string(USERNAME, name)?;
        }
        Ok((username, password))
    }

    fn password(&self) -> Option<&SecretString> {
        let password = self.mqtt_password.as_ref();
        password.filter(|password| !password.expose_secret().is_empty())
    }

    fn tls(&self) -> Result<TlsOptions, ConfigError> {
        let files = [
            (&self.mqtt_ca_file, CA_FILE),
            (&self.mqtt_cert_file, CERT_FILE),
            (&self.mqtt_key_file, KEY_FILE),
        ];
        if !self.mqtt_url.addr.tls
            && let Some((Some(path), setting)) = files.into_iter().find(|(path, _)| path.is_some())
        {
            return Err(ConfigError::value(
                setting,
                path.display(),
                format!(
                    "{URL} is {}, which is not TLS; use mqtts:// or leave the file out",
                    self.mqtt_url
                ),
            ));
        }
        match (&self.mqtt_cert_file, &self.mqtt_key_file) {
            (Some(path), None) => Err(ConfigError::value(
                CERT_FILE,
                path.display(),
                format!("its key is missing; set {KEY_FILE}"),
            )),
            (None, Some(path)) => Err(ConfigError::value(
                KEY_FILE,
                path.display(),
                format!("its certificate is missing; set {CERT_FILE}"),
            )),
            (cert_file, key_file) => {
                let options = TlsOptions {
                    ca_file: self.mqtt_ca_file.clone(),
                    cert_file: cert_file.clone(),
                    key_file: key_file.clone(),
                };
                if options.files().next().is_some() {
                    // They are read at every connect; who starts with wrong ones is told at once.
                    tls::client_config(&options, &SETTINGS)?;
                }
                Ok(options)
            }
        }
    }
}

fn mqtt_string(setting: &'static str, text: &str) -> Result<(), ConfigError> {
    if text.len() > STRING_BYTES_MAX {
        let remedy = format!(
            "it has {} bytes; MQTT allows {STRING_BYTES_MAX}",
            text.len()
        );
        return Err(ConfigError::setting(setting, remedy));
    }
    if text.chars().any(char::is_control) {
        return Err(ConfigError::value(
            setting,
            text.escape_debug(),
            "control characters are not allowed in MQTT; remove them",
        ));
    }
    Ok(())
}

fn keep_alive(text: &str) -> Result<Duration, String> {
    whole_seconds(text, u64::from(u16::MAX))
}

fn session_expiry(text: &str) -> Result<Duration, String> {
    whole_seconds(text, u64::from(u32::MAX))
}

/// MQTT carries both as seconds; a fraction would silently become another value.
fn whole_seconds(text: &str, max: u64) -> Result<Duration, String> {
    let value = duration(text)?;
    if value.subsec_nanos() != 0 || value.as_secs() > max {
        return Err(format!("MQTT takes whole seconds from 0 to {max}s"));
    }
    Ok(value)
}

fn above_zero(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("it must be longer than 0".to_owned()),
        value => Ok(value),
    }
}
