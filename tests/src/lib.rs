//! What the tests of the fleet stand on: real brokers and databases on free ports, a network that
//! can be broken on purpose, our own programs as processes, and waiting without sleeping.
//!
//! Nothing here decides whether the fleet is right: that is said by the tests under `fleet/`.
//! Whatever is started ends with the value that stands for it; its log is printed when the test
//! that owns it fails.

mod browser;
mod certificate;
mod client;
mod collector;
mod kafka;
mod log;
mod mosquitto;
mod port;
mod postgres;
mod process;
mod proxy;
mod receiver;
mod scrape;
mod stub;
mod wait;

pub use browser::{Browser, Screen};
pub use certificate::{Authority, Issued};
pub use client::{Acknowledge, Client, Received, options};
pub use collector::{CollectedSpan, Collector};
pub use kafka::{ACCOUNT, Kafka, Record};
pub use mosquitto::{Mosquitto, Setup};
pub use port::free_port;
pub use postgres::Postgres;
pub use process::{Process, Program, binary, cpu_time, resident_bytes};
pub use proxy::Proxy;
pub use receiver::{Posted, Receiver, Reply};
pub use scrape::{Scrape, get};
pub use stub::{Packet, Peer, Stub};
pub use tempfile::TempDir;
pub use wait::eventually;
