//! Notifications: who is told what of alerts, when, and how it gets there.
//!
//! [`Dispatch`] is the core: alerts, silences, acknowledgements and the time go in, notifications
//! come out. A [`Notifier`](notifier::Notifier) makes them durable in the outbox; one task for each
//! channel sends what is there, so that a receiver that stalls holds up nobody else.

pub(crate) mod channel;
mod dispatch;
mod group;
mod notification;
pub(crate) mod notifier;
mod retry;
mod sender;
pub(crate) mod text;

pub use channel::signature;
pub use dispatch::{Decision, Decisions, Dispatch};
pub use notification::{Notification, NotifiedAlert, Why};
pub(crate) use retry::ATTEMPTS_MAX;
pub use retry::{Bucket, Pause, Response, retry_after};
