//! What tells a consumer that it has seen a message before.

use std::fmt::Write as _;

use fleet_shared::session::Message;
use sha2::{Digest, Sha256};

/// Header of the record, and the user property by which a publisher gives an id of its own.
pub(crate) const HEADER: &str = "message-id";

/// Bytes of the hash that are kept: two different messages in 2^64 share them by chance.
const BYTES: usize = 16;

/// The id of a message: the publisher's own if it sent one, else a hash of topic and payload.
///
/// MQTT gives a message no identity of its own: a packet identifier is used again, and DUP says
/// only that there may have been a first. What stays the same over every redelivery, by any broker
/// to any member of the group, is where the message was published and what it says. So a reading,
/// which carries its sensor and time, has the same id however often it comes; and two messages that
/// are equal to the byte (an `ON` and the next `ON`) have the same id although they are two.
pub(crate) fn write(message: &Message, into: &mut String) {
    into.clear();
    let own = message
        .properties
        .as_ref()
        .and_then(|properties| properties.user(HEADER));
    if let Some(own) = own {
        into.push_str(own);
        return;
    }
    // No topic holds a NUL (MQTT 5, section 4.7.3), so no two pairs hash the same bytes.
    let hash = Sha256::new()
        .chain_update(message.topic.as_bytes())
        .chain_update([0])
        .chain_update(&message.payload)
        .finalize();
    for byte in hash.iter().take(BYTES) {
        write!(into, "{byte:02x}").expect("a string takes everything");
    }
}
