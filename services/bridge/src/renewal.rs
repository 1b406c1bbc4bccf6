//! The change from one pair of producers to another, without loss and without disorder.
//!
//! Nothing is handed to the new ones before the old ones have told of all that they had. What they
//! cannot get rid of they are made to give back; it goes first to the new ones, in its order. Where
//! an old producer had sent something and had no answer yet, it may come twice: of each message id
//! the first one keeps the order, as after a kill.

use rdkafka::message::OwnedMessage;
use tokio::sync::oneshot;

use crate::kafka::Producers;

/// A change under way.
pub(crate) struct Renewal {
    producers: Producers,
    /// What the old ones gave back.
    returned: Vec<Returned>,
    done: oneshot::Sender<()>,
}

/// A record that was given back.
pub(crate) struct Returned {
    /// Its place in the order of arrival.
    pub(crate) number: u64,
    pub(crate) slot: usize,
    pub(crate) record: OwnedMessage,
}

/// What a change ends with.
pub(crate) struct Renewed {
    pub(crate) producers: Producers,
    /// To be sent first, oldest first.
    pub(crate) returned: Vec<Returned>,
    pub(crate) done: oneshot::Sender<()>,
}

impl Renewal {
    /// A change to these, which takes the place of an earlier one that has not ended.
    pub(crate) fn new(
        producers: Producers,
        done: oneshot::Sender<()>,
        earlier: Option<Self>,
    ) -> Self {
        Self {
            producers,
            returned: earlier.map(|earlier| earlier.returned).unwrap_or_default(),
            done,
        }
    }

    /// Takes what an old producer gave back.
    pub(crate) fn give_back(&mut self, returned: Returned) {
        self.returned.push(returned);
    }

    /// Whether the old ones have nothing left, of `at_kafka` records that have no other answer.
    pub(crate) fn is_complete(&self, at_kafka: usize) -> bool {
        self.returned.len() == at_kafka
    }

    pub(crate) fn finish(mut self) -> Renewed {
        self.returned
            .sort_unstable_by_key(|returned| returned.number);
        Renewed {
            producers: self.producers,
            returned: self.returned,
            done: self.done,
        }
    }
}
