//! What is written: readings and dead letters, committed together.

use fleet_shared::model::SensorReading;
use jiff::Timestamp;
use uuid::Uuid;

/// Readings and dead letters that become durable in one transaction.
///
/// Any size works; one to five thousand readings is where the cost of a reading is lowest.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Readings, in the order in which their outcomes are answered.
    pub readings: Vec<NewReading>,
    /// Messages that could not be taken. One whose `id` is stored already is left as it is.
    pub dead_letters: Vec<DeadLetter>,
}

impl Batch {
    /// The number of rows asked for, readings and dead letters together.
    pub fn len(&self) -> usize {
        self.readings.len() + self.dead_letters.len()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.readings.is_empty() && self.dead_letters.is_empty()
    }
}

/// A reading on its way into the store.
#[derive(Clone, Debug, PartialEq)]
pub struct NewReading {
    /// The reading; stored with its timestamp cut to microseconds.
    pub reading: SensorReading,
    /// When the service took it from the broker.
    pub received_at: Timestamp,
}

impl NewReading {
    /// Why no store can keep this reading, found without asking one.
    pub(crate) fn flaw(&self) -> Option<String> {
        let value = self.reading.value;
        (!value.is_finite()).then(|| format!("the value {value} is not a finite number"))
    }
}

/// A message that was refused, kept as it came so that it can be looked at and replayed.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// Its name; UUID version 7, so that names sort by time.
    pub id: Uuid,
    /// The service that refused it.
    pub service: String,
    /// The topic it was published to.
    pub topic: String,
    /// The payload, byte for byte.
    pub payload: Vec<u8>,
    /// One word of a closed set.
    pub reason: String,
    /// The reason in a sentence, with the values that caused it.
    pub detail: String,
    /// When the service took it from the broker.
    pub received_at: Timestamp,
    /// The broker said that it had delivered this message before. Such a message is not written
    /// when a dead letter with the same service, topic, payload and reason is there already.
    pub redelivered: bool,
}

impl DeadLetter {
    /// A 64 bit FNV-1a hash of what makes two dead letters the same message.
    ///
    /// It only finds candidates; the fields themselves are compared after it, so a collision
    /// hides nothing. It is stored: changing it would need a migration.
    pub(crate) fn content_hash(&self) -> i64 {
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        let fields = [
            self.service.as_bytes(),
            self.topic.as_bytes(),
            &self.payload,
            self.reason.as_bytes(),
        ];
        let mut hash = OFFSET;
        for field in fields {
            let length = (field.len() as u64).to_le_bytes();
            for byte in length.iter().chain(field) {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
            }
        }
        hash.cast_signed()
    }

    /// Whether both came from the same message and were refused for the same reason.
    pub(crate) fn same_content(&self, other: &Self) -> bool {
        self.service == other.service
            && self.topic == other.topic
            && self.reason == other.reason
            && self.payload == other.payload
    }
}

/// What became of one reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is a new row.
    Stored,
    /// Its key was there with the same value: the same reading, delivered again. The other fields
    /// are not compared, and the row stays as it was first stored.
    Duplicate,
    /// Its key was there with another value, in the store or earlier in the batch. The row keeps
    /// its first value, and this reading is not stored.
    Conflict,
    /// The store cannot keep this reading, ever; the text says why.
    Failed(String),
}

impl Outcome {
    /// The outcome for a key that was there with the value `stored`.
    pub(crate) fn of_known_key(stored: f64, offered: f64) -> Self {
        if stored == offered {
            Self::Duplicate
        } else {
            Self::Conflict
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(topic: &str, payload: &[u8]) -> DeadLetter {
        DeadLetter {
            id: Uuid::nil(),
            service: "ingest".to_owned(),
            topic: topic.to_owned(),
            payload: payload.to_owned(),
            reason: "malformed".to_owned(),
            detail: String::new(),
            received_at: Timestamp::UNIX_EPOCH,
            redelivered: false,
        }
    }

    #[test]
    fn content_hash_does_not_run_fields_together() {
        assert_ne!(
            letter("ab", b"c").content_hash(),
            letter("a", b"bc").content_hash()
        );
    }

    #[test]
    fn content_hash_never_changes() {
        assert_eq!(
            letter("sensors/a/temperature", b"{").content_hash(),
            4_289_408_908_495_371_404
        );
    }
}
