//! The wire contract: what is taken, what is refused and why, and how our own messages look.

#![expect(
    clippy::unwrap_used,
    reason = "what cannot be unwrapped fails its test"
)]

mod messages;
mod property;
mod reject;
mod schema;
mod telemetry;
