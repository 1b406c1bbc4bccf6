//! The whole fleet in one process, and the operator's tool: one module a command.

pub mod access;
pub mod alerts;
pub mod api;
pub mod broker;
pub mod certs;
pub mod dead_letters;
pub mod devices;
pub mod doctor;
pub mod matching;
pub mod operator;
pub mod place;
pub mod probe;
pub mod recording;
pub mod rules;
pub mod up;
pub mod verify;

mod cli;
mod secret_file;

pub use cli::{Cli, Command, main};
