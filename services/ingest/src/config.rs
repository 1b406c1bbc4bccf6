//! What can be set.

use std::time::Duration;

use fleet_shared::config::{Common, DatabaseArgs, HasCommon, MqttArgs, duration};
use fleet_shared::member::Drain;

/// Takes readings from MQTT and stores each once: durable before acknowledged.
///
/// Any number of processes with the same --group share the readings. Each needs a client id of its
/// own that stays the same over a restart, so that the broker keeps what arrived meanwhile.
#[derive(clap::Parser, Clone, Debug)]
#[command(name = "ingest", version, about, long_about)]
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
    /// What this service does.
    #[command(flatten)]
    pub intake: Intake,
}

/// The part of the settings that is ingest's own.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Ingest")]
pub struct Intake {
    /// Members of a group share the readings: each reading goes to one of them.
    #[arg(
        long,
        env = "INGEST_GROUP",
        value_name = "NAME",
        default_value = "ingest"
    )]
    pub group: String,

    /// Topics to take readings from; repeat it for several.
    #[arg(
        long,
        env = "INGEST_FILTER",
        value_name = "FILTER",
        value_delimiter = ',',
        default_value = "sensors/#"
    )]
    pub filter: Vec<String>,

    /// MQTT sessions of this process, each with its own thread.
    #[arg(long, env = "INGEST_SESSIONS", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub sessions: u16,

    /// Messages that are stored in one transaction at most.
    #[arg(long, env = "INGEST_BATCH_MAX", value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub batch_max: u32,

    /// Longest wait for more messages before a transaction starts.
    #[arg(long, env = "INGEST_BATCH_LINGER", value_name = "DURATION", default_value = "5ms", value_parser = duration)]
    pub batch_linger: Duration,

    /// Largest payload of a reading in bytes; a larger one is a dead letter.
    #[arg(long, env = "INGEST_PAYLOAD_MAX", value_name = "BYTES", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(64..=1_048_576))]
    pub payload_max: u32,

    /// How far in the future a reading's timestamp may lie; beyond, it is a dead letter.
    #[arg(long, env = "INGEST_MAX_CLOCK_SKEW", value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub max_clock_skew: Duration,

    /// A file that maps other payloads to readings, or one of tasmota, zigbee2mqtt, shelly; repeat
    /// it for several. The topics that it maps are subscribed to.
    #[arg(
        long,
        env = "INGEST_MAPPING",
        value_name = "FILE",
        value_delimiter = ','
    )]
    pub mapping: Vec<String>,

    /// Age at which readings and dead letters are deleted, such as 90d; kept for ever when absent.
    #[arg(long, env = "INGEST_RETAIN", value_name = "DURATION", value_parser = duration)]
    pub retain: Option<Duration>,

    /// What SIGTERM does to the broker's session.
    #[arg(long, env = "INGEST_DRAIN", value_name = "MODE", value_enum, default_value_t = Drain::Auto)]
    pub drain: Drain,
}

impl Default for Intake {
    /// The defaults of the command line.
    fn default() -> Self {
        Self {
            group: "ingest".to_owned(),
            filter: vec!["sensors/#".to_owned()],
            sessions: 1,
            batch_max: 2_000,
            batch_linger: Duration::from_millis(5),
            payload_max: 65_536,
            max_clock_skew: Duration::from_secs(300),
            mapping: Vec::new(),
            retain: None,
            drain: Drain::Auto,
        }
    }
}

impl HasCommon for Config {
    fn common(&self) -> &Common {
        &self.common
    }
}

/// QoS 1 and 2 messages in flight to one session unless set otherwise. A reading is acknowledged
/// after its commit, so readings a second are at most this by the time of a commit: at 10,000 and a
/// commit of 50 ms still 200,000/s.
pub(crate) const RECEIVE_MAXIMUM: u16 = 10_000;
