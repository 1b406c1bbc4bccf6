//! Kafka to MQTT: commands to devices.
//!
//! A thread of its own polls the consumer group, as librdkafka wants it polled. It publishes each
//! record as a command, and stores its offset when the broker has acknowledged the command, or Kafka
//! the dead letter, and the same holds for every record before it. So a crash or a rebalance makes
//! commands come again and never makes them vanish.

mod consumer;
mod letter;
mod offsets;
pub(crate) mod request;

pub(crate) use consumer::{Consumer, Setup};
pub use request::CommandRecord;
