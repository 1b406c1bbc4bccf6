//! Simulated devices, each with its own MQTT connection, last will and persistent session.
//!
//! What a device says, and when, is a [`schedule`]: an iterator of steps that depends on a seed
//! and a start time and on nothing else. It comes from a [`profile`] or, for a [`replay`], from a
//! file. One actor a device carries the steps out. What the broker has acknowledged stands in the
//! [`ledger`].

pub mod bounds;
pub mod chaos;
pub mod ledger;
pub mod profile;
pub mod replay;
pub mod schedule;
pub mod sensor;
pub mod yaml;

mod config;
mod configuration;
mod credentials;
mod crew;
mod deck;
mod device;
mod flight;
mod identity;
mod latency;
mod progress;
mod request;
mod run;
mod scenario;
mod seed;
mod simulation;
mod source;
mod stall;
mod stamp;
mod tally;
mod timetable;

use fleet_shared::service::Host;

pub use config::Config;
pub use latency::Times;
pub use progress::Summary;
pub use scenario::{Output, Scenario};
pub use simulation::simulate;
pub use source::Sources;

/// The program: runs the scenario of the command line. See [`simulate`].
pub async fn run(config: Config, host: Host) -> anyhow::Result<()> {
    let options = config.mqtt.options(host.name(), host.instance())?;
    simulate(config.scenario, options, host).await?;
    Ok(())
}
