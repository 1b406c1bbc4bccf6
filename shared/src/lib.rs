//! What every service of the fleet shares: the wire contract, topics, the MQTT session, and how a
//! process is configured, observed and stopped.

pub mod config;
pub mod health;
pub mod member;
pub mod model;
pub mod report;
pub mod service;
pub mod session;
pub mod telemetry;
pub mod tls;
pub mod topic;
