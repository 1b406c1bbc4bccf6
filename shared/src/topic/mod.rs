//! Topic names, topic filters and what the fleet publishes where.
//!
//! Names and filters follow MQTT 5, sections 4.7 and 4.8.2, to the letter. All of this is pure:
//! nothing here knows a connection or a clock.
//!
//! - [`TopicName`] and [`TopicFilter`] are checked once and then trusted.
//! - [`matches()`] answers for one pair; a [`Trie`] finds every filter that matches a topic.
//! - A [`Router`] hands a message to the handlers of every filter that matches.
//! - A [`Template`] such as `sensors/{location}/{type}` formats topics and takes them apart.
//! - [`FleetTopic`] is the closed list of the fleet's own topics, and [`label`] makes of any topic
//!   one of a bounded number of metric labels.

mod edges;
mod error;
mod excerpt;
mod filter;
mod fleet;
mod label;
mod level;
mod name;
mod node;
mod router;
mod template;
mod text;
mod trie;

pub use error::TopicError;
pub use excerpt::Excerpt;
pub use filter::{TopicFilter, matches};
pub use fleet::{
    FleetTopic, alert, alerting_request, alerting_state, dead_letter, device_command,
    device_config, device_config_reported, device_status, device_telemetry, response, sensor,
    service_report, service_status, templates,
};
pub use label::label;
pub use name::TopicName;
pub use router::Router;
pub use template::{Template, Values};
pub(crate) use text::forbidden;
pub use text::printable;
pub use trie::{LEVELS_MAX, Trie};

/// Longest topic name or filter in bytes: a UTF-8 string of MQTT has a length of two bytes.
pub const TOPIC_BYTES_MAX: usize = 65_535;
