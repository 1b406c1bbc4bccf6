//! `fleet devices`: who is there, asked of status-tracker.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use fleet_shared::config::LogArgs;
use fleet_shared::service::Host;
use jiff::Timestamp;
use serde_json::Value;

use crate::api::{Api, ApiArgs, Problem};
use crate::place::Output;

/// Devices asked for at once.
const PAGE: u64 = 500;

const EXAMPLES: &str = "\
Examples:
  fleet devices                                  # all of them
  fleet devices --state offline --location site-1
  fleet devices sensor-001                       # one, with its history
  fleet devices --output json | jq -r 'select(.battery_percent < 20) | .device_id'";

/// Lists devices and their state, or shows one.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
#[command(mut_arg("log", |arg| arg.default_value("warn")))]
pub struct DevicesArgs {
    /// One device, with its last transitions.
    #[arg(value_name = "DEVICE", conflicts_with_all = ["state", "location", "sensor_type", "limit"])]
    pub device: Option<String>,
    /// Only those in this state.
    #[arg(long, value_name = "STATE", value_parser = ["online", "offline", "flapping", "unknown"])]
    pub state: Option<String>,
    /// Only those at this location, or below it.
    #[arg(long, value_name = "LOCATION")]
    pub location: Option<String>,
    /// Only those with a sensor of this type.
    #[arg(long = "type", value_name = "TYPE", id = "sensor_type")]
    pub sensor_type: Option<String>,
    /// How many at most; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub limit: u64,
    /// Form; json is one object a line.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
    /// Where to ask.
    #[command(flatten)]
    pub api: ApiArgs,
    /// What is logged, and how.
    #[command(flatten)]
    pub logs: LogArgs,
}

/// The command.
///
/// # Errors
/// If the API cannot be used, or there is no such device.
pub async fn run(args: DevicesArgs, host: Host) -> anyhow::Result<ExitCode> {
    let api = Api::new(&args.api)?;
    let asked = async {
        match &args.device {
            Some(device) => one(&args, &api, device).await,
            None => list(&args, &api).await,
        }
    };
    tokio::select! {
        outcome = asked => outcome.map(|()| ExitCode::SUCCESS),
        () = host.stopping() => anyhow::bail!("interrupted"),
    }
}

async fn list(args: &DevicesArgs, api: &Api) -> anyhow::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout());
    let mut left = match args.limit {
        0 => u64::MAX,
        limit => limit,
    };
    let mut cursor: Option<String> = None;
    let mut shown = 0_u64;
    while left > 0 {
        let limit = left.min(PAGE).to_string();
        let mut query = vec![("limit", limit.as_str())];
        for (name, value) in [
            ("state", &args.state),
            ("location", &args.location),
            ("type", &args.sensor_type),
            ("cursor", &cursor),
        ] {
            query.extend(value.as_deref().map(|value| (name, value)));
        }
        let page = api.get(&["devices"], &query).await?;
        let devices = page["items"].as_array().map_or(&[][..], Vec::as_slice);
        for device in devices {
            let line = match args.output {
                Output::Json => device.to_string() + "\n",
                Output::Text if shown == 0 => header() + &row(device, Timestamp::now()),
                Output::Text => row(device, Timestamp::now()),
            };
            out.write_all(line.as_bytes()).context("writing the list")?;
            shown += 1;
        }
        left = left.saturating_sub(devices.len() as u64);
        cursor = page["next_cursor"].as_str().map(ToOwned::to_owned);
        if cursor.is_none() || devices.is_empty() {
            break;
        }
    }
    if shown == 0 && args.output == Output::Text {
        writeln!(out, "no devices")?;
    }
    out.flush().context("writing the list")
}

async fn one(args: &DevicesArgs, api: &Api, id: &str) -> anyhow::Result<()> {
    let device = api.get(&["devices", id], &[]).await;
    let device = device.map_err(|error| match error.downcast_ref::<Problem>() {
        Some(problem) if problem.is_not_found() => anyhow::anyhow!(
            "DEVICE is `{}`: nothing was heard of it at {} (404); `fleet devices` lists who is there",
            id.escape_debug(),
            api.base()
        ),
        _ => error,
    })?;
    let history = api
        .get(&["devices", id, "transitions"], &[("limit", "20")])
        .await?;
    let mut out = std::io::stdout();
    if args.output == Output::Json {
        let mut device = device;
        device["transitions"] = history["items"].clone();
        return writeln!(out, "{device}").context("writing the device");
    }
    let mut text = header() + &row(&device, Timestamp::now());
    for transition in history["items"].as_array().into_iter().flatten() {
        let state = match transition["online"].as_bool() {
            Some(true) => "online",
            _ => "offline",
        };
        let reason = transition["reason"].as_str().unwrap_or_default();
        text += &format!("  {}  {state:8} {reason}\n", field(transition, "at"));
    }
    out.write_all(text.as_bytes()).context("writing the device")
}

fn header() -> String {
    format!(
        "{:24} {:9} {:>7} {:>7} {:>5} {:>7} {:10} {}\n",
        "DEVICE", "STATE", "SINCE", "SEEN", "RSSI", "BATTERY", "FIRMWARE", "LOCATION"
    )
}

/// A line of the table; times are how long ago.
fn row(device: &Value, now: Timestamp) -> String {
    let number = |name: &str, unit: &str| {
        let value = device[name].as_i64();
        value.map_or_else(|| "-".to_owned(), |value| format!("{value}{unit}"))
    };
    format!(
        "{:24} {:9} {:>7} {:>7} {:>5} {:>7} {:10} {}\n",
        field(device, "device_id"),
        field(device, "state"),
        ago(device, "since", now),
        ago(device, "last_seen", now),
        number("signal_strength", ""),
        number("battery_percent", "%"),
        field(device, "firmware_version"),
        field(device, "location"),
    )
}

fn field(of: &Value, name: &str) -> String {
    of[name].as_str().unwrap_or("-").escape_debug().to_string()
}

/// The largest unit that fits: `47s`, `12m`, `3h`, `9d`.
fn ago(device: &Value, name: &str, now: Timestamp) -> String {
    let Some(at) = device[name]
        .as_str()
        .and_then(|at| at.parse::<Timestamp>().ok())
    else {
        return "-".to_owned();
    };
    let seconds = now.duration_since(at).as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_says_what_is_known_and_how_long_ago() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let known = json!({
            "device_id": "sensor-001", "state": "online", "since": "2026-01-01T00:00:00Z",
            "last_seen": "2026-01-01T23:59:13Z", "signal_strength": -47, "battery_percent": 81,
            "firmware_version": "1.2.3", "location": "hall"
        });
        let unknown = json!({"device_id": "a\u{1b}[2J", "state": "unknown", "since": null});
        insta::assert_snapshot!(header() + &row(&known, now) + &row(&unknown, now));
    }
}
