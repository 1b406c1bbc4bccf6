//! A service as its operator sees it: settings, probes, signals, exit codes. Each case runs in a
//! child process with an environment of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod child;
mod commands;
mod probes;
mod refusals;
mod settings;
mod signals;
