//! Who gets in and who may do what: on a real Mosquitto, on the embedded broker, in EMQX's rules.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod cells;
mod certificates;
mod connect;
mod doctor;
mod emqx;
mod kept;
mod matrix;
mod operator;
mod scene;
mod secrets;
mod whole;
