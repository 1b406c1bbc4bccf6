//! The fleet as a whole, and its parts against what they meet in the field.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed, and the line says where"
)]

mod alerting;
mod bridge;
mod doctor;
mod ingest_faults;
mod leaving;
mod main_job;
mod matching;
mod notify;
mod observability;
mod outgoing;
mod patterns;
mod session;
mod settings;
mod site;
mod status;
mod tracing;
