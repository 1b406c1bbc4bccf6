//! What the unit tests make messages of.

use fleet_shared::session::{Message, QoS};

/// A message of QoS 1 without properties.
pub(crate) fn message(topic: &str, payload: &str) -> Message {
    Message {
        topic: topic.to_owned().into(),
        payload: payload.as_bytes().to_vec().into(),
        qos: QoS::AtLeastOnce,
        retain: false,
        dup: false,
        properties: None,
        ticket: None,
    }
}
