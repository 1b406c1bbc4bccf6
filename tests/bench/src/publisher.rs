//! Readings at a fixed rate through a real broker.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::reading::payload;
use crate::wire;

/// Time between two writes.
const BEAT: Duration = Duration::from_millis(1);

/// Publishes `rate` readings a second at QoS 1 for `time`, from number `first` on. Gives how many
/// were published.
///
/// # Errors
/// When the broker is not there, refuses, or ends the connection.
pub fn publish(
    addr: &str,
    first: u64,
    rate: u64,
    time: Duration,
    start: Timestamp,
) -> io::Result<u64> {
    use std::io::Write as _;

    let mut stream = wire::connect(addr, "bench-publisher")?;
    let mut answers = stream.try_clone()?;
    // Acknowledgements are only taken out of the way; the end of the connection ends it.
    thread::spawn(move || io::copy(&mut answers, &mut io::sink()));
    let started = Instant::now();
    let mut sent = 0;
    let mut chunk = Vec::new();
    while started.elapsed() < time {
        let due = (started.elapsed().as_secs_f64() * rate as f64) as u64;
        chunk.clear();
        while sent < due {
            let (topic, payload) = payload(first + sent, start);
            wire::publish(&mut chunk, sent, &topic, None, &payload);
            sent += 1;
        }
        stream.write_all(&chunk)?;
        beat();
    }
    Ok(sent)
}

/// Waits for the moment of the next write.
#[expect(
    clippy::disallowed_methods,
    reason = "a publisher of a fixed rate has nothing else to wait for on its own thread"
)]
pub fn beat() {
    thread::sleep(BEAT);
}
