//! The fleet as a whole, and its parts against what they meet in the field.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed, and the line says where"
)]

mod alerting;
mod bridge;
mod ingest_faults;
mod main_job;
mod matching;
mod patterns;
mod notify;
mod observability;
mod session;
mod site;
mod status;
mod tracing;
