//! Dead letters of commands: what a record was, in the topic of what is no command.

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use rdkafka::types::RDKafkaErrorCode;

use super::offsets::Place;
use crate::kafka::OF_COMMANDS;
use crate::reason::{Reason, Refusal};
use crate::route::CommandRoutes;

/// Bytes of a value that are kept when the whole is too large; as many as in a letter for the broker.
const VALUE_MAX: usize = 16 * 1024;

/// Bytes of a key that are kept then. Those of devices are shorter.
const KEY_MAX: usize = 1024;

/// What a dead letter is made of.
#[derive(Debug, Default)]
pub(super) struct Original {
    key: Option<Vec<u8>>,
    value: Vec<u8>,
    shortened: bool,
    refusal: Option<Refusal>,
}

impl Original {
    pub(super) fn new(key: Option<&[u8]>, value: &[u8]) -> Self {
        Self {
            key: key.map(<[u8]>::to_vec),
            value: value.to_vec(),
            ..Self::default()
        }
    }

    /// It is to be a dead letter.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.refusal = Some(refusal);
    }

    /// Why it is one, if it is.
    pub(super) fn refused(&self) -> Option<Reason> {
        self.refusal.as_ref().map(|refusal| refusal.reason)
    }

    /// The letter, if it is to be one.
    pub(super) fn letter<'a>(
        &'a self,
        place: Place,
        slot: usize,
        routes: &'a CommandRoutes,
    ) -> Option<BaseRecord<'a, [u8], [u8], usize>> {
        let refusal = self.refusal.as_ref()?;
        let (partition, offset) = (place.partition.to_string(), place.offset.to_string());
        let said = [
            ("reason", refusal.reason.as_str()),
            ("detail", &refusal.detail),
            ("topic", &routes.topic),
            ("partition", &partition),
            ("offset", &offset),
        ];
        let shortened = self.shortened.then_some(("shortened", "true"));
        let headers =
            said.into_iter()
                .chain(shortened)
                .fold(OwnedHeaders::new(), |all, (key, value)| {
                    let value = Some(value);
                    all.insert(Header { key, value })
                });
        let mut letter = BaseRecord::with_opaque_to(&routes.dead_letters, slot | OF_COMMANDS)
            .payload(self.value.as_slice())
            .headers(headers);
        letter.key = self.key.as_deref();
        Some(letter)
    }

    /// Makes the letter smaller, because Kafka finds it too large: first it keeps the beginnings, then
    /// it only says where the record is. False if nothing is left to cut.
    pub(super) fn shorten(&mut self) -> bool {
        let key = self.key.as_ref().map_or(0, Vec::len);
        if key == 0 && self.value.is_empty() {
            return false;
        }
        self.shortened = true;
        if self.value.len() > VALUE_MAX || key > KEY_MAX {
            self.value.truncate(VALUE_MAX);
            if let Some(key) = &mut self.key {
                key.truncate(KEY_MAX);
            }
        } else {
            self.value.clear();
            self.key = None;
        }
        true
    }
}

/// Whether a record was refused for its size: by the producer, or by the limit of the topic.
pub(super) fn is_too_large(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::MessageBatchTooLarge
            | RDKafkaErrorCode::InvalidMessageSize
    )
}

#[cfg(test)]
mod tests {
    use rdkafka::message::Headers as _;

    use super::*;
    use crate::commands::offsets::Offsets;

    #[test]
    fn a_letter_is_cut_until_nothing_is_left_to_cut() {
        let routes = CommandRoutes {
            topic: "commands".to_owned(),
            responses: "responses".to_owned(),
            dead_letters: "letters".to_owned(),
            create: None,
        };
        let mut original = Original::new(Some(&[b'k'; 2_000]), &[b'v'; 20_000]);
        original.refuse(Refusal::new(Reason::Malformed, "why"));
        let place = Offsets::default().taken(1, 7);
        let mut sizes = Vec::new();
        loop {
            let letter = original.letter(place, 3, &routes).unwrap();
            let headers = letter.headers.unwrap();
            let last = headers.get(headers.count() - 1);
            sizes.push((
                letter.key.map_or(0, <[u8]>::len),
                letter.payload.map_or(0, <[u8]>::len),
                last.key == "shortened",
            ));
            if !original.shorten() {
                break;
            }
        }
        let expected = [
            (2_000, 20_000, false),
            (KEY_MAX, VALUE_MAX, true),
            (0, 0, true),
        ];
        assert_eq!(sizes, expected);
    }
}
