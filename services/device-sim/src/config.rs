//! The command line of the simulator.

use fleet_shared::config::{Common, HasCommon, MqttArgs};

use crate::scenario::Scenario;

/// Simulates devices: each has its own MQTT connection, last will and persistent session.
///
/// Runs until it is stopped, or until the end of --duration or --replay and the last
/// acknowledgement after it.
#[derive(clap::Parser, Clone, Debug)]
#[command(name = "device-sim", version)]
pub struct Config {
    /// What to simulate.
    #[command(flatten)]
    pub scenario: Scenario,
    /// The broker. Devices connect with their own ids: the client id is not used.
    #[command(flatten)]
    pub mqtt: MqttArgs,
    /// What every program has.
    #[command(flatten)]
    pub common: Common,
}

impl HasCommon for Config {
    fn common(&self) -> &Common {
        &self.common
    }
}
