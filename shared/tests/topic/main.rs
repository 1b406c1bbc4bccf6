//! Topic names, filters, templates and the trie, by MQTT 5's own examples and by a naive reference.

#![expect(
    clippy::unwrap_used,
    reason = "what cannot be unwrapped fails its test"
)]

mod fleet;
mod property;
mod reference;
mod spec;
mod trie;
