//! What can be set.

use std::path::PathBuf;
use std::time::Duration;

use fleet_shared::config::{Common, ConfigError, HasCommon, MqttArgs, duration, secret};
use fleet_shared::member::Drain;
use fleet_shared::tls::TlsOptions;
use rdkafka::ClientConfig;
use secrecy::{ExposeSecret as _, SecretString};

use crate::kafka;

/// Passes messages from MQTT to Kafka and commands from Kafka to devices: each is durable on the other
/// side before it is acknowledged on its own.
///
/// Processes with the same --group share the messages. Each needs a client id of its own that stays
/// the same over a restart, so that the broker keeps what arrived meanwhile.
#[derive(clap::Parser, Clone, Debug)]
#[command(name = "bridge", version, about, long_about)]
pub struct Config {
    /// Settings of every service.
    #[command(flatten)]
    pub common: Common,
    /// The broker.
    #[command(flatten)]
    pub mqtt: MqttArgs,
    /// What this service does.
    #[command(flatten)]
    pub bridge: BridgeArgs,
}

/// The part of the settings that is the bridge's own.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Bridge")]
pub struct BridgeArgs {
    /// Kafka brokers to begin with: HOST:PORT, separated by commas.
    #[arg(long, env = "KAFKA_BROKERS", value_name = "LIST", required = true)]
    pub kafka_brokers: String,

    /// File of routes; those that ship with the program without.
    #[arg(long, env = "BRIDGE_ROUTES", value_name = "FILE")]
    pub routes: Option<PathBuf>,

    /// Members of a group share the messages, and the commands in Kafka.
    #[arg(
        long,
        env = "BRIDGE_GROUP",
        value_name = "NAME",
        default_value = "bridge"
    )]
    pub group: String,

    /// Largest record in bytes, with its key and headers; a larger one is a dead letter.
    #[arg(long, env = "BRIDGE_RECORD_MAX", value_name = "BYTES", default_value_t = 900_000, value_parser = clap::value_parser!(u32).range(1_000..=100_000_000))]
    pub record_max: u32,

    /// Longest wait for more records before a batch goes to Kafka.
    #[arg(long, env = "BRIDGE_LINGER", value_name = "DURATION", default_value = "5ms", value_parser = linger)]
    pub linger: Duration,

    /// How batches are compressed.
    #[arg(long, env = "BRIDGE_COMPRESSION", value_name = "CODEC", value_enum, default_value_t = Compression::Zstd)]
    pub compression: Compression,

    /// What SIGTERM does to the broker's session.
    #[arg(long, env = "BRIDGE_DRAIN", value_name = "MODE", value_enum, default_value_t = Drain::Auto)]
    pub drain: Drain,

    /// User name for SASL.
    #[arg(long, env = "KAFKA_USERNAME", value_name = "NAME")]
    pub kafka_username: Option<String>,

    /// Password for SASL; others can see flags, so prefer the variable or a file.
    #[arg(
        long,
        env = "KAFKA_PASSWORD",
        hide_env_values = true,
        value_name = "PASSWORD"
    )]
    pub kafka_password: Option<SecretString>,

    /// File that holds the password.
    #[arg(long, env = "KAFKA_PASSWORD_FILE", value_name = "FILE")]
    pub kafka_password_file: Option<PathBuf>,

    /// Speak TLS to Kafka, and trust the authorities in this file; the system's with
    /// --kafka-setting security.protocol=ssl. PEM, like the next two; all are read again when they
    /// change.
    #[arg(long, env = "KAFKA_CA_FILE", value_name = "FILE")]
    pub kafka_ca_file: Option<PathBuf>,

    /// Client certificate chain for Kafka.
    #[arg(long, env = "KAFKA_CERT_FILE", value_name = "FILE")]
    pub kafka_cert_file: Option<PathBuf>,

    /// Private key of the client certificate.
    #[arg(long, env = "KAFKA_KEY_FILE", value_name = "FILE")]
    pub kafka_key_file: Option<PathBuf>,

    /// A setting of librdkafka, such as sasl.mechanism=PLAIN; repeat it for several. NAME=@FILE takes
    /// the value from a file.
    #[arg(
        long,
        env = "KAFKA_SETTINGS",
        hide_env_values = true,
        value_name = "NAME=VALUE",
        value_delimiter = ','
    )]
    pub kafka_setting: Vec<String>,
}

/// Codecs of Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Compression {
    Zstd,
    Lz4,
    Snappy,
    Gzip,
    None,
}

impl Compression {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::Snappy => "snappy",
            Self::Gzip => "gzip",
            Self::None => "none",
        }
    }
}

impl HasCommon for Config {
    fn common(&self) -> &Common {
        &self.common
    }
}

/// QoS 1 and 2 messages in flight to the session unless set otherwise: records a second are at most
/// this by the time from a message to its delivery report, linger included.
pub(crate) const RECEIVE_MAXIMUM: u16 = 10_000;

/// Room in the producer's queue, above what the intake lets under way and the dead letters of commands.
const QUEUE_MESSAGES: u32 = 200_000;
const QUEUE_KIB: u32 = 128 * 1024;

/// Settings of librdkafka that the bridge's guarantees rest on, with what to do instead.
const RESERVED: [(&str, &str); 20] = [
    ("bootstrap.servers", "use --kafka-brokers"),
    ("metadata.broker.list", "use --kafka-brokers"),
    ("group.id", "use --group"),
    ("linger.ms", "use --linger"),
    ("queue.buffering.max.ms", "use --linger"),
    ("compression.type", "use --compression"),
    ("compression.codec", "use --compression"),
    ("message.max.bytes", "use --record-max"),
    ("acks", "records are acknowledged by all replicas"),
    (
        "request.required.acks",
        "records are acknowledged by all replicas",
    ),
    ("enable.idempotence", "it keeps order and prevents doubles"),
    (
        "message.timeout.ms",
        "records wait for Kafka as long as it takes",
    ),
    (
        "delivery.timeout.ms",
        "records wait for Kafka as long as it takes",
    ),
    (
        "enable.auto.offset.store",
        "offsets follow the broker's acknowledgement",
    ),
    ("transactional.id", "the bridge uses no transactions"),
    ("ssl.ca.location", "use --kafka-ca-file"),
    ("ssl.certificate.location", "use --kafka-cert-file"),
    ("ssl.key.location", "use --kafka-key-file"),
    (
        "enable.ssl.certificate.verification",
        "Kafka's certificate is always checked",
    ),
    (
        "ssl.endpoint.identification.algorithm",
        "the name in Kafka's certificate is always checked",
    ),
];

impl BridgeArgs {
    /// Settings of every Kafka client of the process.
    ///
    /// # Errors
    /// A setting that cannot be used.
    pub(crate) fn client(&self, client_id: &str) -> Result<ClientConfig, ConfigError> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.kafka_brokers)
            .set("client.id", client_id)
            .set("reconnect.backoff.max.ms", "2000")
            // A new partitioner must not split what the old one kept together: this is the one of
            // the Java clients, so records of one key meet whoever produced them.
            .set("partitioner", "murmur2_random");
        if let Some(username) = self.kafka_username.as_ref().filter(|name| !name.is_empty()) {
            config.set("sasl.username", username);
        }
        let password = secret(
            self.kafka_password.as_ref(),
            "--kafka-password (KAFKA_PASSWORD)",
            self.kafka_password_file.as_deref(),
            "--kafka-password-file (KAFKA_PASSWORD_FILE)",
        )?;
        if let Some(password) = password {
            config.set("sasl.password", password.expose_secret());
        }
        for setting in self
            .kafka_setting
            .iter()
            .filter(|setting| !setting.is_empty())
        {
            let (name, value) = parse_setting(setting)?;
            config.set(name, value);
        }
        let with_password = config.get("sasl.password").is_some();
        kafka::secure(&mut config, &self.kafka_tls(), with_password)?;
        Ok(config)
    }

    /// Files of TLS to Kafka.
    pub(crate) fn kafka_tls(&self) -> TlsOptions {
        TlsOptions::set(
            self.kafka_ca_file.as_ref(),
            self.kafka_cert_file.as_ref(),
            self.kafka_key_file.as_ref(),
        )
    }

    /// Every file that settings of Kafka's clients come from.
    pub(crate) fn kafka_files(&self) -> Vec<PathBuf> {
        let tls = self.kafka_tls();
        let named = tls.files().chain(&self.kafka_password_file).cloned();
        let settings = self.kafka_setting.iter().filter_map(|setting| {
            let (name, value) = setting.split_once('=')?;
            let path = match value.strip_prefix('@') {
                Some(path) => path,
                None if name.ends_with(".location") => value,
                None => return None,
            };
            Some(PathBuf::from(path))
        });
        named.chain(settings).collect()
    }

    /// Settings of the producer, with those of every client.
    pub(crate) fn producer(&self, client: &ClientConfig) -> ClientConfig {
        let mut config = client.clone();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // For ever: the message waits at the broker as well, so nothing is won by giving up.
            .set("message.timeout.ms", "0")
            .set("linger.ms", (self.linger.as_micros() as f64 / 1_000.0).to_string())
            .set("compression.type", self.compression.as_str())
            // The record's own overhead is well below the tenth that is added.
            .set("message.max.bytes", (self.record_max + self.record_max / 10).to_string())
            .set("queue.buffering.max.messages", QUEUE_MESSAGES.to_string())
            .set("queue.buffering.max.kbytes", QUEUE_KIB.to_string());
        config
    }

    /// Settings of the consumer of commands, with those of every client.
    pub(crate) fn consumer(&self, client: &ClientConfig) -> ClientConfig {
        let mut config = client.clone();
        config
            .set("group.id", &self.group)
            .set("auto.offset.reset", "earliest")
            // What is stored is what the broker has acknowledged; that is committed, soon and when
            // partitions move.
            .set("enable.auto.offset.store", "false")
            .set("enable.auto.commit", "true")
            .set("auto.commit.interval.ms", "1000")
            .set("queued.min.messages", "1000")
            .set("queued.max.messages.kbytes", "4096");
        config
    }
}

fn parse_setting(setting: &str) -> Result<(&str, String), ConfigError> {
    const FLAG: &str = "--kafka-setting (KAFKA_SETTINGS)";
    let Some((name, value)) = setting.split_once('=') else {
        return Err(ConfigError::value(
            FLAG,
            setting,
            "write NAME=VALUE, such as security.protocol=sasl_plaintext",
        ));
    };
    if let Some((_, instead)) = RESERVED.iter().find(|(reserved, _)| *reserved == name) {
        return Err(ConfigError::value(
            FLAG,
            name,
            format!("the bridge's guarantees rest on it; {instead}"),
        ));
    }
    let value = match value.strip_prefix('@') {
        None => value.to_owned(),
        Some(path) => std::fs::read_to_string(path)
            .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
            .map_err(|error| {
                ConfigError::value(
                    FLAG,
                    format!("{name}=@{path}"),
                    format!("cannot read the file: {error}"),
                )
            })?,
    };
    Ok((name, value))
}

fn linger(text: &str) -> Result<Duration, String> {
    let value = duration(text)?;
    if value > Duration::from_secs(10) {
        return Err("it is 10s at most: a message is acknowledged after it".to_owned());
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn args(more: &[&str]) -> BridgeArgs {
        let fixed = ["bridge", "--kafka-brokers", "k:9092"];
        Config::parse_from(fixed.iter().chain(more)).bridge
    }

    #[test]
    fn secrets_come_from_files_and_settings_pass_through() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hush\n").unwrap();
        let at = format!("sasl.oauthbearer.config=@{}", file.path().display());
        let args = args(&[
            "--kafka-setting",
            "security.protocol=sasl_plaintext,sasl.mechanism=PLAIN",
            "--kafka-setting",
            &at,
            "--kafka-username",
            "me",
            "--kafka-password-file",
            file.path().to_str().unwrap(),
        ]);
        let config = args.producer(&args.client("id").unwrap());
        for (name, expected) in [
            ("security.protocol", "sasl_plaintext"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", "me"),
            ("sasl.password", "hush"),
            ("sasl.oauthbearer.config", "hush"),
            ("enable.idempotence", "true"),
            ("linger.ms", "5"),
        ] {
            assert_eq!(config.get(name), Some(expected), "{name}");
        }
    }

    #[test]
    fn what_the_guarantees_rest_on_cannot_be_set() {
        for (setting, said) in [
            ("acks=1", "rest on it"),
            ("enable.idempotence=false", "rest on it"),
            ("message.timeout.ms=5", "rest on it"),
            ("nonsense", "NAME=VALUE"),
            ("ssl.key.password=@/missing", "cannot read"),
        ] {
            let error = args(&["--kafka-setting", setting])
                .client("id")
                .unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
