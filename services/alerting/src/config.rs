//! What can be set.

use std::path::PathBuf;
use std::time::Duration;

use fleet_shared::config::{Common, DatabaseArgs, HasCommon, MqttArgs, duration};

use crate::fault::FaultPoint;
use crate::share;

/// Watches readings and devices by rules, and publishes an alert for each crossing, once.
///
/// Of the processes with the same --group and DATABASE_URL one is active; the others stand by and
/// take over within --lease, without a second notification.
#[derive(clap::Parser, Clone, Debug)]
#[command(name = "alerting", version, about, long_about)]
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
    pub watch: WatchArgs,
}

/// The part of the settings that is alerting's own.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Alerting")]
pub struct WatchArgs {
    /// File of rules; those that ship with the program without. Read again when it changes and on
    /// SIGHUP.
    #[arg(long, env = "ALERTING_RULES", value_name = "FILE")]
    pub rules: Option<PathBuf>,

    /// File of routes: who is told of which alerts, and how. Without, notifications go to the log.
    /// Read again when it changes and on SIGHUP.
    #[arg(long, env = "ALERTING_ROUTES", value_name = "FILE")]
    pub routes: Option<PathBuf>,

    /// Names the session at the broker that the active process of the group has.
    #[arg(
        long,
        env = "ALERTING_GROUP",
        value_name = "NAME",
        default_value = "alerting"
    )]
    pub group: String,

    /// Readings and presence that the group looks at. Groups that share the work have a filter each, or
    /// `$share/NAME/sensors/#` where the broker keeps a topic on one member.
    #[arg(
        long,
        env = "ALERTING_FILTER",
        value_name = "FILTER",
        value_delimiter = ',',
        default_values = share::ALL
    )]
    pub filter: Vec<String>,

    /// Time after which another process takes over from one that says nothing.
    #[arg(long, env = "ALERTING_LEASE", value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub lease: Duration,

    /// How far in the future a reading's timestamp may lie; beyond, it is not evaluated.
    #[arg(long, env = "ALERTING_MAX_CLOCK_SKEW", value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub max_clock_skew: Duration,

    /// For tests of crashes: ends the process with SIGKILL when it first gets there.
    #[arg(long, value_name = "NAME", value_enum, hide = true)]
    pub fault_point: Option<FaultPoint>,
}

impl Default for WatchArgs {
    /// The defaults of the command line.
    fn default() -> Self {
        Self {
            rules: None,
            routes: None,
            group: "alerting".to_owned(),
            filter: share::ALL.map(str::to_owned).to_vec(),
            lease: Duration::from_secs(10),
            max_clock_skew: Duration::from_secs(300),
            fault_point: None,
        }
    }
}

impl HasCommon for Config {
    fn common(&self) -> &Common {
        &self.common
    }
}
