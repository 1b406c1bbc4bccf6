//! Who a simulated device is, and what it says about itself.

use std::sync::Arc;
use std::time::Duration;

use fleet_shared::model::{DeviceStatus, DeviceWill};
use fleet_shared::session::{ByteString, Publish, QoS, Will};
use fleet_shared::topic::{self, templates};
use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use crate::stamp;

/// Why a device that vanishes is offline, as its will says.
const UNEXPECTED: &str = "unexpected_disconnect";

/// A device's name and address. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// Device id and MQTT client id.
    pub(crate) id: Arc<str>,
    status_topic: ByteString,
    /// Version of its firmware.
    pub(crate) firmware: Arc<str>,
}

/// What a device knows of itself at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Condition {
    /// When it looked.
    pub(crate) now: Timestamp,
    /// How long it runs already.
    pub(crate) uptime: Duration,
    /// Strength of its radio signal in dBm.
    pub(crate) signal_strength: i32,
    /// The connection it speaks on.
    pub(crate) session_id: Uuid,
}

/// What a device measures of itself, on the wire.
#[derive(Serialize)]
struct Telemetry<'a> {
    device_id: &'a str,
    #[serde(serialize_with = "stamp::serialize")]
    timestamp: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    battery_percent: Option<u8>,
    signal_strength: i32,
    uptime_seconds: u64,
}

impl Identity {
    pub(crate) fn new(id: &str, firmware: impl Into<Arc<str>>) -> Self {
        let status_topic = ByteString::from(format!("devices/{id}/status"));
        Self {
            id: Arc::from(id),
            status_topic,
            firmware: firmware.into(),
        }
    }

    /// The status of a device that is there, or says goodbye.
    pub(crate) fn status(&self, online: bool, condition: &Condition) -> Publish {
        let status = DeviceStatus {
            device_id: self.id.to_string(),
            online,
            last_seen: condition.now,
            firmware_version: self.firmware.to_string(),
            signal_strength: condition.signal_strength,
            uptime_seconds: condition.uptime.as_secs(),
            session_id: Some(condition.session_id),
        };
        Publish::new(
            self.status_topic.clone(),
            templates::DEVICE_STATUS,
            status.to_json(),
        )
        .qos(QoS::AtLeastOnce)
        .retain(true)
    }

    /// What the device measures of itself; none if its id makes no topic.
    ///
    /// The topic is made anew each time: it is seldom used, and a fleet has many devices.
    pub(crate) fn telemetry(
        &self,
        condition: &Condition,
        battery_percent: Option<u8>,
    ) -> Option<Publish> {
        let topic = topic::device_telemetry(&self.id).ok()?;
        let telemetry = Telemetry {
            device_id: &self.id,
            timestamp: condition.now,
            battery_percent,
            signal_strength: condition.signal_strength,
            uptime_seconds: condition.uptime.as_secs(),
        };
        let json = serde_json::to_vec(&telemetry)
            .expect("a struct of texts and numbers always has a JSON form");
        Some(Publish::new(topic, templates::DEVICE_TELEMETRY, json).qos(QoS::AtMostOnce))
    }

    /// What the broker says about the device when that vanishes from a connection begun at `now`.
    pub(crate) fn will(&self, session_id: Uuid, now: Timestamp) -> Will {
        let will = DeviceWill {
            device_id: self.id.to_string(),
            online: false,
            timestamp: now,
            reason: UNEXPECTED.to_owned(),
            session_id: Some(session_id),
        };
        Will {
            topic: self.status_topic.clone(),
            payload: will.to_json().into(),
            qos: QoS::AtLeastOnce,
            retain: true,
            delay: Duration::ZERO,
            user: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: Uuid = Uuid::from_u128(0x019a_0000_0000_7000_8000_0000_0000_0001);

    #[test]
    fn birth_and_will_name_the_same_connection() {
        let identity = Identity::new("sensor-001", "1.2.3");
        let condition = Condition {
            now: "2026-01-02T03:04:05Z".parse().unwrap(),
            uptime: Duration::from_millis(61_900),
            signal_strength: -42,
            session_id: SESSION,
        };
        let birth = identity.status(true, &condition);
        assert_eq!(birth.topic.as_str(), "devices/sensor-001/status");
        assert!(birth.retain);
        insta::assert_snapshot!(String::from_utf8(birth.payload.to_vec()).unwrap());

        let will = identity.will(SESSION, condition.now);
        assert_eq!(
            (will.topic.as_str(), will.retain, will.qos),
            ("devices/sensor-001/status", true, QoS::AtLeastOnce)
        );
        insta::assert_snapshot!(String::from_utf8(will.payload.to_vec()).unwrap());
    }

    #[test]
    fn telemetry_says_what_the_device_measures_of_itself() {
        let identity = Identity::new("sensor-001", "1.2.3");
        let condition = Condition {
            now: "2026-01-02T03:04:05.25Z".parse().unwrap(),
            uptime: Duration::from_millis(61_900),
            signal_strength: -42,
            session_id: SESSION,
        };
        let said = |battery_percent| {
            let publish = identity.telemetry(&condition, battery_percent).unwrap();
            assert_eq!(publish.topic.as_str(), "devices/sensor-001/telemetry");
            assert_eq!((publish.qos, publish.retain), (QoS::AtMostOnce, false));
            String::from_utf8(publish.payload.to_vec()).unwrap()
        };
        insta::assert_snapshot!(said(Some(87)), @r#"{"device_id":"sensor-001","timestamp":"2026-01-02T03:04:05.25Z","battery_percent":87,"signal_strength":-42,"uptime_seconds":61}"#);
        insta::assert_snapshot!(said(None), @r#"{"device_id":"sensor-001","timestamp":"2026-01-02T03:04:05.25Z","signal_strength":-42,"uptime_seconds":61}"#);
    }
}
