//! Consumers that are programs of their own, ours or others'.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use fleet_tests::{cpu_time, resident_bytes};

use crate::feed::{Feed, Packets};
use crate::report::Line;

/// Ends with its value.
struct Consuming(Child);

impl Drop for Consuming {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Starts a consumer, told where the broker is, and feeds it; its start does not count.
///
/// # Errors
/// When it does not start, or does not take everything.
pub fn measured(
    what: String,
    command: impl FnOnce(SocketAddr) -> Command,
    packets: &Packets,
    window: u16,
) -> anyhow::Result<Line> {
    let feed = Feed::listen()?;
    let child = command(feed.addr())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("starting {what}"))?;
    let child = Consuming(child);
    let mut consumer = feed.consumer()?;
    let cpu = || cpu_time(child.0.id()).context("reading /proc");
    let before = cpu()?;
    let fed = consumer
        .feed(packets, u64::from(window), None)
        .with_context(|| format!("feeding {what}"))?;
    let cpu = cpu()? - before;
    let resident = resident_bytes(child.0.id());
    Ok(Line::new(what, fed.readings, fed.took, cpu, resident))
}
