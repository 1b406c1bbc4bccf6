//! Tracks the presence of every device, and serves the API and the dashboard.

use std::process::ExitCode;

fn main() -> ExitCode {
    fleet_shared::service::main("status-tracker", status_tracker::run)
}
