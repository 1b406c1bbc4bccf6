//! Dead letters of messages: published to `fleet/dead-letter/bridge`.

use fleet_shared::session::{Message, Properties, Publish};
use fleet_shared::topic::{self, templates};
use rdkafka::message::{Headers as _, Message as _, OwnedMessage};

use crate::message_id;
use crate::reason::Refusal;
use crate::record;

/// Bytes of a payload that are kept when the broker takes no more.
const SHORTENED: usize = 16 * 1024;

/// The letter of a message that never got to Kafka.
pub(crate) fn of_message(message: &Message, refusal: &Refusal) -> Publish {
    let mut id = String::new();
    message_id::write(message, &mut id);
    // A copy: the payload shares the memory of its socket read.
    let payload = message.payload.to_vec();
    letter(&message.topic, &id, payload, refusal)
}

/// The letter of a record that Kafka gave back.
pub(crate) fn of_record(record: &OwnedMessage, refusal: &Refusal) -> Publish {
    let header = |name: &str| {
        let found = record.headers()?.iter().find(|header| header.key == name)?;
        std::str::from_utf8(found.value?).ok()
    };
    let topic = header(record::TOPIC).unwrap_or_default();
    let id = header(message_id::HEADER).unwrap_or_default();
    let payload = record.payload().unwrap_or_default().to_vec();
    letter(topic, id, payload, refusal)
}

fn letter(topic: &str, id: &str, payload: Vec<u8>, refusal: &Refusal) -> Publish {
    let reason = refusal.reason.as_str();
    let properties = Properties::dead_letter(reason, topic, &refusal.detail, id);
    let to = topic::dead_letter("bridge").expect("`bridge` is a topic level");
    Publish::new(to, templates::DEAD_LETTER, payload).properties(properties)
}

/// Cuts the payload of a letter that the broker finds too large; false if it is cut already.
pub(crate) fn shorten(publish: &mut Publish) -> bool {
    if publish.payload.len() <= SHORTENED {
        return false;
    }
    publish.payload = publish.payload[..SHORTENED].to_vec().into();
    if let Some(properties) = &mut publish.properties {
        properties.user.push(("shortened".into(), "true".into()));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;
    use crate::testing::message;

    #[test]
    fn letter_says_what_was_wrong_and_can_be_cut_once() {
        let message = message("sensors/a/b", &"x".repeat(20_000));
        let refusal = Refusal::new(Reason::TooLarge, "why");
        let mut letter = of_message(&message, &refusal);
        assert_eq!(letter.topic.as_str(), "fleet/dead-letter/bridge");
        let properties = letter.properties.as_ref().unwrap();
        assert_eq!(properties.user("reason"), Some("too_large"));
        assert_eq!(properties.user("topic"), Some("sensors/a/b"));
        assert!(shorten(&mut letter));
        assert_eq!(letter.payload.len(), SHORTENED);
        assert!(!shorten(&mut letter));
    }
}
