//! Messages that must be refused.

use std::time::Duration;

use fleet_shared::model::{Limits, RejectReason};
use fleet_shared::session::{ByteString, Publish, QoS};

use super::file::WrongKind;
use crate::schedule;
use crate::sensor::Measurement;

/// How far in the future a reading is dated that must be refused for it.
const NEXT_MONTH: Duration = Duration::from_secs(30 * 86_400);

/// A message that must be refused, made of a reading.
#[derive(Clone, Debug, PartialEq)]
pub struct Wrong {
    /// For this reason.
    pub reason: RejectReason,
    /// Where it is published.
    pub topic: ByteString,
    /// What is published.
    pub payload: Vec<u8>,
    /// The reading it was made of.
    pub of: Measurement,
}

impl Wrong {
    /// A message with this fault. It differs from all others, as the reading does.
    pub(super) fn new(kind: WrongKind, of: &Measurement) -> Self {
        let mut wrong = of.clone();
        wrong.padding_bytes = 0;
        let limits = Limits::default();
        let mut topic = of.sensor.channel.topic.clone();
        let payload = match kind {
            WrongKind::TooLarge => {
                wrong.padding_bytes = u32::try_from(limits.payload_max).unwrap_or(u32::MAX);
                wrong.payload()
            }
            WrongKind::NotUtf8 => with_field(&wrong, b"\"\xff\xfe\""),
            WrongKind::TooDeep => {
                let (open, close) = ("[".repeat(limits.depth_max), "]".repeat(limits.depth_max));
                with_field(&wrong, format!("{open}{close}").as_bytes())
            }
            WrongKind::Malformed => {
                let mut payload = wrong.payload();
                payload.pop();
                payload
            }
            WrongKind::NotFinite => replaced(&wrong, "\"value\":", "1e999"),
            WrongKind::InvalidField => {
                wrong.battery_percent = Some(250);
                wrong.payload()
            }
            WrongKind::FutureTimestamp => {
                wrong.timestamp = schedule::after(of.timestamp, NEXT_MONTH);
                wrong.payload()
            }
            WrongKind::TopicMismatch => {
                topic = ByteString::from(format!("{}-elsewhere", &*topic));
                wrong.payload()
            }
            WrongKind::Conflict => {
                // Too far off to be the same after rounding, whatever the value is.
                wrong.value = if of.value.abs() < 1e9 {
                    of.value + 1_000.0
                } else {
                    0.0
                };
                wrong.payload()
            }
        };
        Self {
            reason: kind.reason(),
            topic,
            payload,
            of: of.clone(),
        }
    }

    /// The guarantee it is published with.
    #[must_use]
    pub fn qos(&self) -> QoS {
        self.of.sensor.channel.qos.max(QoS::AtLeastOnce)
    }

    /// The publish that carries it: at QoS 1 or 2, since nothing else can be proven, and never
    /// retained.
    #[must_use]
    pub fn publish(&self) -> Publish {
        let channel = &self.of.sensor.channel;
        Publish::new(self.topic.clone(), channel.label, self.payload.clone()).qos(self.qos())
    }
}

/// The payload with one more field of that raw value.
fn with_field(measurement: &Measurement, value: &[u8]) -> Vec<u8> {
    let mut payload = measurement.payload();
    payload.pop();
    payload.extend_from_slice(b",\"extra\":");
    payload.extend_from_slice(value);
    payload.push(b'}');
    payload
}

/// The payload with another raw value behind `key`.
fn replaced(measurement: &Measurement, key: &str, value: &str) -> Vec<u8> {
    let payload = String::from_utf8_lossy(&measurement.payload()).into_owned();
    let Some((before, after)) = payload.split_once(key) else {
        return payload.into_bytes();
    };
    let rest = after.find([',', '}']).map_or("", |end| &after[end..]);
    format!("{before}{key}{value}{rest}").into_bytes()
}
