//! TLS of what listens: certificates from files that are read again when they change.
//!
//! Clients read their files at every connect (see [`crate::session`]); a server looks at its own
//! at every handshake, so that a renewed certificate is used for the next connection without a
//! restart, and connections that are open stay so.

mod reload;
mod server;

pub use server::{ServerFiles, TlsFileError, server_config};
