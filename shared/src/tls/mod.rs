//! TLS by certificates from files that are read again when they change.
//!
//! A client reads its files at every connect; a server looks at its own at every handshake, so that
//! a renewed certificate is used for the next connection without a restart, and connections that
//! are open stay so.

mod client;
mod reload;
mod server;

pub use client::{ClientFileError, Settings, TlsOptions, client_config, explain};
pub(crate) use reload::Reloading;
pub use reload::WatchedFiles;
pub use server::{ServerFiles, TlsFileError, server_config};
