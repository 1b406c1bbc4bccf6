//! Why the bridge can no longer do its work.

use std::sync::Arc;

use fleet_shared::session::{ConnectionError, PublishError};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Nothing that is under way is acknowledged then, so whoever comes next gets it again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BridgeError {
    /// A session gave up.
    #[error("MQTT session `{client_id}` failed")]
    Session {
        /// Client id.
        client_id: String,
        /// Why.
        #[source]
        source: Arc<ConnectionError>,
    },
    /// Kafka takes nothing for a topic until somebody changes something.
    #[error(
        "Kafka refuses records for the topic `{topic}`: {code}; nothing of it was acknowledged"
    )]
    Refused {
        /// The Kafka topic.
        topic: String,
        /// Kafka's answer.
        code: RDKafkaErrorCode,
    },
    /// The producer takes nothing more.
    #[error("the Kafka producer takes nothing more; nothing was acknowledged meanwhile")]
    Producer(#[source] KafkaError),
    /// The broker takes no dead letters, so what is wrong can be neither passed on nor acknowledged.
    #[error(
        "the broker refuses dead letters: allow the bridge to publish to `fleet/dead-letter/bridge`"
    )]
    DeadLetters(#[source] PublishError),
    /// A topic cannot be created, or is missing.
    #[error("Kafka topic `{topic}`: {problem}")]
    Topic {
        /// The Kafka topic.
        topic: String,
        /// What is wrong, and the remedy.
        problem: String,
    },
    /// Commands cannot be consumed.
    #[error("commands cannot be consumed from Kafka")]
    Consumer(#[source] KafkaError),
    /// The thread that consumes them has panicked: a bug.
    #[error("the consumer of commands ended by a panic, whose message is above: please report it")]
    Panicked,
}
