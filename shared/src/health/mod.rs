//! Whether a process lives and is ready, and the server that says so.

mod actor;
mod admin;
mod check;

pub use actor::{Observe, Watched};
pub use admin::{Admin, serve};
pub use check::{Check, CheckState, Health, Snapshot};
