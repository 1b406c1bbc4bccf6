//! Both stores keep the same promises: each case runs on SQLite and on a real PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod alert;
mod crash;
mod database;
mod history;
mod model;
mod notice;
mod postgres;
mod sample;
mod server;
mod sqlite;
mod suite;
