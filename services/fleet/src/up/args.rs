//! The command line of `fleet up`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use fleet_shared::config::{Common, ConfigError, HasCommon, MqttArgs, MqttUrl, duration, part};
use fleet_shared::session::BrokerAddr;
use status_tracker::HttpArgs;

use crate::broker::SharedStrategy;
use crate::place::DATA_DIR;

const EXAMPLES: &str = "\
Everything is kept in the data folder: the store fleet.db, the ledger ledger.jsonl, and api-token,
which is made when no token is set, and which the dashboard asks for before it changes something.
Stopping (Ctrl-C) ends the devices first, then the services once they have stored everything, then
the broker. The embedded broker keeps its queues in memory: what is in them is lost if this process
is killed.

Examples:
  fleet up                                              # until Ctrl-C
  fleet up --devices 500 --duration 1m --seed 7         # a bounded, repeatable run
  fleet up --data-dir /tmp/try --mqtt-addr 127.0.0.1:0 --http-addr 127.0.0.1:0 --admin-addr off
  fleet up --rules rules.yaml --routes routes.yaml      # other rules, and who is told
  fleet up --secure --mqtt-addr 127.0.0.1:8883          # with TLS, accounts and rules
  fleet up --broker mqtt://broker:1883                  # instead of the embedded one
  fleet up --kafka-brokers localhost:9092               # and the bridge to Kafka
  fleet up | jq .readings_per_second                    # elsewhere than on a terminal: JSON";

/// status-tracker by itself makes no token, and its own help says so.
const API_TOKEN: &str = "\
Bearer token for writes; without one it is that of DIR/api-token, which is made at the first run. \
Others can see flags, so prefer the variable or a file";

/// Runs broker, simulated devices, ingest, alerting, status-tracker and bridge in this process.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
#[command(mut_arg("log", |arg| arg.default_value("warn")))]
#[command(mut_arg("http_addr", |arg| arg.default_value("127.0.0.1:8080")))]
#[command(mut_arg("api_token", |arg| arg.help(API_TOKEN)))]
pub struct UpArgs {
    /// Folder for the store and the ledger; created when it is missing.
    #[arg(
        long,
        env = "FLEET_DATA_DIR",
        value_name = "DIR",
        default_value = DATA_DIR
    )]
    pub data_dir: PathBuf,
    /// Where the embedded broker listens; port 0 takes a free one.
    #[arg(
        long,
        env = "FLEET_MQTT_ADDR",
        value_name = "IP:PORT",
        default_value = "127.0.0.1:1883"
    )]
    pub mqtt_addr: SocketAddr,
    /// Which member of a shared subscription at the embedded broker gets a message.
    #[arg(
        long,
        env = "FLEET_SHARED_STRATEGY",
        value_enum,
        default_value_t,
        value_name = "STRATEGY"
    )]
    pub shared_strategy: SharedStrategy,
    /// `embedded`, or the URL of another broker; the MQTT_* variables hold for it.
    #[arg(
        long,
        env = "FLEET_BROKER",
        hide_env_values = true,
        value_name = "embedded|URL",
        default_value = "embedded"
    )]
    pub broker: BrokerChoice,
    /// TLS, accounts and rules at the embedded broker; all that takes is kept in DIR/secure.
    #[arg(long, env = "FLEET_SECURE")]
    pub secure: bool,
    /// Time between two lines when standard output is no terminal.
    #[arg(long, env = "FLEET_SUMMARY_INTERVAL", value_name = "DURATION", default_value = "1s", value_parser = interval)]
    pub summary_interval: Duration,

    /// Simulated devices.
    #[arg(long, env = "FLEET_DEVICES", value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000_000), help_heading = "Devices")]
    pub devices: u32,
    /// Ends the run after this time and all that follows from it; without it, runs until stopped.
    #[arg(long, env = "FLEET_DURATION", value_name = "DURATION", value_parser = duration, help_heading = "Devices")]
    pub duration: Option<Duration>,
    /// Makes values and schedule repeatable; without it they differ from run to run.
    #[arg(long, env = "FLEET_SEED", value_name = "S", help_heading = "Devices")]
    pub seed: Option<u64>,

    /// Ingest workers, each with an MQTT session and a thread.
    #[arg(long, env = "FLEET_INGEST", value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64), help_heading = "Ingest")]
    pub ingest: u16,

    /// File of alerting's rules; those that ship with the program without.
    #[arg(
        long,
        env = "ALERTING_RULES",
        value_name = "FILE",
        help_heading = "Alerting"
    )]
    pub rules: Option<PathBuf>,

    /// File of alerting's routes: who is told of which alerts, and how. Without, notifications go to
    /// the log.
    #[arg(
        long,
        env = "ALERTING_ROUTES",
        value_name = "FILE",
        help_heading = "Alerting"
    )]
    pub routes: Option<PathBuf>,

    /// Kafka brokers, HOST:PORT and commas between: runs the bridge too; its other settings are
    /// variables, which `bridge --help` tells.
    #[arg(
        long,
        env = "KAFKA_BROKERS",
        value_name = "LIST",
        help_heading = "Bridge"
    )]
    pub kafka_brokers: Option<String>,

    /// API and dashboard.
    #[command(flatten)]
    pub http: HttpArgs,

    /// What every program has.
    #[command(flatten)]
    pub common: Common,
}

impl HasCommon for UpArgs {
    fn common(&self) -> &Common {
        &self.common
    }
}

/// Which broker is used.
#[derive(Clone, Debug)]
pub enum BrokerChoice {
    /// The one in this process.
    Embedded,
    /// Another one.
    Url(MqttUrl),
}

impl FromStr for BrokerChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "embedded" {
            return Ok(Self::Embedded);
        }
        text.parse()
            .map(Self::Url)
            .map_err(|error| format!("{error}, or `embedded`"))
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        value if value < Duration::from_millis(100) => Err("it is at least 100ms".to_owned()),
        value => Ok(value),
    }
}

/// The settings of sessions to a broker in this process: what the environment says of another
/// broker, its TLS files and credentials, is not for it.
pub(crate) fn embedded_mqtt(listens: SocketAddr) -> Result<MqttArgs, ConfigError> {
    let host = match listens.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.to_string(),
        ip => ip.to_string(),
    };
    let addr = BrokerAddr {
        host,
        port: listens.port(),
        tls: false,
    };
    let mqtt = external_mqtt(MqttUrl {
        addr,
        username: None,
        password: None,
    })?;
    Ok(MqttArgs {
        mqtt_username: None,
        mqtt_password: None,
        mqtt_password_file: None,
        mqtt_ca_file: None,
        mqtt_cert_file: None,
        mqtt_key_file: None,
        ..mqtt
    })
}

/// The settings of sessions to another broker, as the MQTT_* variables give them.
pub(crate) fn external_mqtt(url: MqttUrl) -> Result<MqttArgs, ConfigError> {
    // With the flag given, a wrong MQTT_URL does not matter.
    let mqtt: MqttArgs = part("fleet", ["--mqtt-url=mqtt://localhost:1883".to_owned()])?;
    Ok(MqttArgs {
        mqtt_url: url,
        ..mqtt
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_reach_a_broker_that_listens_everywhere() {
        for (listens, url) in [
            ("0.0.0.0:1883", "mqtt://127.0.0.1:1883"),
            ("[::]:1884", "mqtt://[::1]:1884"),
            ("192.0.2.1:1", "mqtt://192.0.2.1:1"),
        ] {
            let mqtt = embedded_mqtt(listens.parse().unwrap()).unwrap();
            assert_eq!(mqtt.mqtt_url.to_string(), url);
        }
    }

    #[test]
    fn a_broker_is_embedded_or_a_url() {
        assert!(matches!("embedded".parse(), Ok(BrokerChoice::Embedded)));
        assert!(matches!("mqtts://b".parse(), Ok(BrokerChoice::Url(url)) if url.addr.port == 8883));
        let error = "broker:1883".parse::<BrokerChoice>().unwrap_err();
        assert!(error.ends_with("or `embedded`"), "{error}");
    }
}
