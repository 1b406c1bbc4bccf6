//! Topic names, filters, templates and the trie, by MQTT 5's own examples and by a naive reference.

mod fleet;
mod property;
mod reference;
mod spec;
mod trie;
