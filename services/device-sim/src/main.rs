//! Simulates devices; see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    fleet_shared::service::main("device-sim", device_sim::run)
}
