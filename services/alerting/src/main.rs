//! Watches readings and devices by rules, and publishes an alert for each crossing, once.

use std::process::ExitCode;

fn main() -> ExitCode {
    fleet_shared::service::main("alerting", alerting::run)
}
