//! MQTT to Kafka and Kafka to MQTT.

use std::process::ExitCode;

fn main() -> ExitCode {
    fleet_shared::service::main("bridge", bridge::run)
}
