//! Takes readings from MQTT and stores each once, durable before acknowledged.

use std::process::ExitCode;

fn main() -> ExitCode {
    fleet_shared::service::main("ingest", ingest::run)
}
