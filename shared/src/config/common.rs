//! Settings that every program has.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::{TraceArgs, duration};
use crate::telemetry::{LogFormat, log_filter};

/// Settings of every service; flatten it into the service's own.
#[derive(clap::Args, Clone, Debug)]
pub struct Common {
    /// TOML file of settings by flag name; a table of a program's name is for that program.
    #[arg(
        long,
        env = "FLEET_CONFIG",
        value_name = "FILE",
        help_heading = "Process"
    )]
    pub config: Option<PathBuf>,

    /// What is logged, and how.
    #[command(flatten)]
    pub logs: LogArgs,

    /// Where /livez, /readyz and /metrics are served, or `off`.
    #[arg(
        long,
        env = "ADMIN_ADDR",
        value_name = "IP:PORT",
        default_value = "0.0.0.0:9100",
        help_heading = "Process"
    )]
    pub admin_addr: AdminAddr,

    /// Longest time from the first signal to exit; what is unfinished then is given up.
    #[arg(
        long,
        env = "DRAIN_TIMEOUT",
        value_name = "DURATION",
        default_value = "20s",
        value_parser = duration,
        help_heading = "Process"
    )]
    pub drain_timeout: Duration,

    /// Where traces go.
    #[command(flatten)]
    pub traces: TraceArgs,
}

/// Log settings, for programs that have no other of [`Common`].
#[derive(clap::Args, Clone, Debug)]
pub struct LogArgs {
    /// Log filter: a level, or target=level, separated by commas.
    #[arg(
        long,
        env = "LOG",
        value_name = "FILTER",
        default_value = "info",
        value_parser = log_filter,
        help_heading = "Process"
    )]
    pub log: String,

    /// Log lines on standard error; auto is pretty on a terminal and JSON otherwise.
    #[arg(
        long,
        env = "LOG_FORMAT",
        value_name = "FORMAT",
        value_enum,
        default_value = "auto",
        help_heading = "Process"
    )]
    pub log_format: LogFormat,
}

/// Gives access to the common settings inside a program's own.
pub trait HasCommon {
    /// The common settings.
    fn common(&self) -> &Common;
}

/// Address of the admin server; absent when it is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdminAddr(pub Option<SocketAddr>);

impl FromStr for AdminAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || text == "off" {
            return Ok(Self(None));
        }
        text.parse().map(|addr| Self(Some(addr))).map_err(|_| {
            "give an IP address and a port, such as 127.0.0.1:9100 or [::1]:0, or `off`".to_owned()
        })
    }
}

impl std::fmt::Display for AdminAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(addr) => addr.fmt(f),
            None => f.write_str("off"),
        }
    }
}
