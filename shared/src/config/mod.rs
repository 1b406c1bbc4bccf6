//! Settings: flags, above environment variables, above a TOML file, above defaults.
//!
//! A program declares one clap struct, flattens the groups of this module into it, and adds its
//! own settings. Help text is the documentation; there is no second list.

mod common;
mod database;
mod duration;
mod error;
mod file;
mod load;
mod mqtt;
mod mqtt_url;
mod secret;
mod trace;
mod usage;

pub use common::{AdminAddr, Common, HasCommon, LogArgs};
pub use database::{DatabaseArgs, DatabaseUrl};
pub use duration::{duration, format_duration};
pub use error::ConfigError;
pub(crate) use load::report;
pub use load::{Refused, load, parse, parse_from, part};
pub use mqtt::MqttArgs;
pub use mqtt_url::MqttUrl;
pub use secret::secret;
pub use trace::{TraceArgs, TracesExporter};
