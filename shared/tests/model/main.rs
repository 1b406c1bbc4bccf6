//! The wire contract: what is taken, what is refused and why, and how our own messages look.

mod messages;
mod property;
mod reject;
mod schema;
