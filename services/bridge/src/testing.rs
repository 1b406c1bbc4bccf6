//! What the unit tests make messages of.

use fleet_shared::session::Message;

/// A message of QoS 1 without properties.
pub(crate) fn message(topic: &str, payload: &str) -> Message {
    Message::new(topic.to_owned(), payload.as_bytes().to_vec())
}
