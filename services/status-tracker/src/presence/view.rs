//! A device as others see it.

use std::sync::Arc;

use fleet_shared::model::{DeviceStatus, DeviceWill};
use jiff::Timestamp;
use uuid::Uuid;

use super::{SILENT, State};

/// A device at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceView {
    /// Which one.
    pub device_id: Arc<str>,
    /// Whether it is connected.
    pub online: bool,
    /// In one word.
    pub state: State,
    /// When it came to be on or offline.
    pub since: Option<Timestamp>,
    /// When it was last heard, by our clock.
    pub last_seen: Option<Timestamp>,
    /// The time of its last status, by its own clock.
    pub reported_at: Option<Timestamp>,
    /// Why it is as it is.
    pub reason: Option<Arc<str>>,
    /// Version of its firmware.
    pub firmware_version: Option<Arc<str>>,
    /// Received signal strength in dBm.
    pub signal_strength: Option<i16>,
    /// Charge of its battery, 0 to 100, when it last said.
    pub battery_percent: Option<u8>,
    /// Seconds since it started, when it last said.
    pub uptime_seconds: Option<u32>,
    /// Its newest session; absent if it has no such ids.
    pub session_id: Option<Uuid>,
    /// Its clock less ours, in milliseconds; shown and never used.
    pub clock_skew_ms: Option<i32>,
    /// Silence after which it counts as offline.
    pub silence_limit_ms: u64,
    /// How long it has not been heard.
    pub silent_for_ms: u64,
}

impl DeviceView {
    /// The status that the broker should remember of it.
    #[must_use]
    pub fn retained(&self) -> Vec<u8> {
        let at = self.reported_at.or(self.last_seen).or(self.since);
        let at = at.unwrap_or(Timestamp::UNIX_EPOCH);
        if self.online {
            return DeviceStatus {
                device_id: self.device_id.to_string(),
                online: true,
                last_seen: at,
                firmware_version: self.firmware_version.as_deref().unwrap_or("").to_owned(),
                signal_strength: self.signal_strength.unwrap_or(0).into(),
                uptime_seconds: self.uptime_seconds.unwrap_or(0).into(),
                session_id: self.session_id,
            }
            .to_json();
        }
        DeviceWill {
            device_id: self.device_id.to_string(),
            online: false,
            timestamp: at,
            reason: self.reason.as_deref().unwrap_or(SILENT).to_owned(),
            session_id: self.session_id,
        }
        .to_json()
    }
}
