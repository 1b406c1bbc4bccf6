//! A broker of one consumer that does nothing but feed it.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::reading::payload;

/// Listens for one consumer.
pub struct Feed {
    listener: TcpListener,
    packets: Vec<Vec<u8>>,
    total: u64,
}

/// How a run went.
#[derive(Clone, Copy, Debug)]
pub struct Fed {
    /// Readings sent and acknowledged.
    pub readings: u64,
    /// From the first byte sent to the last acknowledgement.
    pub took: Duration,
}

/// Readings that are encoded into one write.
const CHUNK: u64 = 64;

#[derive(Default)]
struct Counter {
    acknowledged: Mutex<u64>,
    changed: Condvar,
}

impl Feed {
    /// Encodes `total` readings, `start` being the time of the first, and listens.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn new(total: u64, start: Timestamp) -> io::Result<Self> {
        Self::with_context(total, start, |_| None)
    }

    /// The same, and a reading for which `traced` has a `traceparent` carries it.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn with_context(
        total: u64,
        start: Timestamp,
        traced: impl Fn(u64) -> Option<String>,
    ) -> io::Result<Self> {
        let mut packets = Vec::new();
        let mut chunk = Vec::new();
        for n in 0..total {
            let (topic, payload) = payload(n, start);
            let id = (n % 65_535) as u16 + 1;
            publish(&mut chunk, id, &topic, &payload, traced(n).as_deref());
            if (n + 1) % CHUNK == 0 || n + 1 == total {
                packets.push(std::mem::take(&mut chunk));
            }
        }
        Ok(Self {
            listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
            packets,
            total,
        })
    }

    /// Where the consumer is to connect.
    ///
    /// # Errors
    /// When the socket has no address.
    pub fn addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Waits for the consumer, feeds it all readings with at most `window` of them unacknowledged,
    /// `rate` a second at most if given, and calls `begun` right before the first.
    ///
    /// # Errors
    /// When the consumer does not connect or disconnects early.
    pub fn run(self, window: u64, rate: Option<u64>, begun: impl FnOnce()) -> io::Result<Fed> {
        let listener = self.listener.try_clone()?;
        let (subscribed, subscriber) = mpsc::channel();
        // A consumer may have a second session, on which it publishes.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let subscribed = subscribed.clone();
                thread::spawn(move || welcome(stream, &subscribed));
            }
        });
        let stream: TcpStream = subscriber
            .recv()
            .map_err(|_| io::Error::other("the listener is gone"))??;
        let reader = stream.try_clone()?;
        let counter = Arc::new(Counter::default());
        let counting = counter.clone();
        let total = self.total;
        let counter_thread = thread::spawn(move || count(reader, &counting, total));
        begun();
        let started = Instant::now();
        self.send(stream, &counter, window, rate, started)?;
        let result = counter_thread
            .join()
            .map_err(|_| io::Error::other("the counting thread panicked"))?;
        result?;
        Ok(Fed {
            readings: total,
            took: started.elapsed(),
        })
    }

    fn send(
        &self,
        mut stream: TcpStream,
        counter: &Counter,
        window: u64,
        rate: Option<u64>,
        started: Instant,
    ) -> io::Result<()> {
        let mut sent = 0;
        for packets in &self.packets {
            let next = CHUNK.min(self.total - sent);
            let mut acknowledged = lock(counter);
            while sent + next > *acknowledged + window {
                let (guard, timeout) = counter
                    .changed
                    .wait_timeout(acknowledged, Duration::from_secs(60))
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                if timeout.timed_out() {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        format!(
                            "nothing was acknowledged for 60 s after {} readings",
                            *guard
                        ),
                    ));
                }
                acknowledged = guard;
            }
            drop(acknowledged);
            if let Some(rate) = rate {
                let due = started + Duration::from_secs_f64(sent as f64 / rate as f64);
                pace(due);
            }
            stream.write_all(packets)?;
            sent += next;
        }
        Ok(())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a feeder of a fixed rate has nothing else to wait for on its own thread"
)]
fn pace(due: Instant) {
    thread::sleep(due.saturating_duration_since(Instant::now()));
}

fn lock(counter: &Counter) -> std::sync::MutexGuard<'_, u64> {
    counter
        .acknowledged
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A QoS 1 PUBLISH without properties but `traceparent`, if there is one.
fn publish(into: &mut Vec<u8>, id: u16, topic: &str, payload: &[u8], traceparent: Option<&str>) {
    let mut properties = Vec::new();
    if let Some(value) = traceparent {
        properties.push(0x26);
        for text in ["traceparent", value] {
            properties.extend_from_slice(&(text.len() as u16).to_be_bytes());
            properties.extend_from_slice(text.as_bytes());
        }
    }
    into.push(0x32);
    let mut length = 2 + topic.len() + 2 + 1 + properties.len() + payload.len();
    loop {
        let low = (length % 128) as u8;
        length /= 128;
        into.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    into.extend_from_slice(&(topic.len() as u16).to_be_bytes());
    into.extend_from_slice(topic.as_bytes());
    into.extend_from_slice(&id.to_be_bytes());
    // Short enough for a length of one byte.
    into.push(properties.len() as u8);
    into.extend_from_slice(&properties);
    into.extend_from_slice(payload);
}

/// Hands a connection on once it has subscribed.
fn welcome(mut stream: TcpStream, subscribed: &mpsc::Sender<io::Result<TcpStream>>) {
    let greeted = stream
        .set_nodelay(true)
        .and_then(|()| handshake(&mut stream));
    match greeted {
        Ok(()) => drop(subscribed.send(Ok(stream))),
        // One that only publishes leaves without a subscription.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
        Err(error) => drop(subscribed.send(Err(error))),
    }
}

/// CONNECT and SUBSCRIBE, answered with what any broker would grant.
fn handshake(stream: &mut TcpStream) -> io::Result<()> {
    loop {
        let (first, body) = packet(stream)?;
        match first & 0xf0 {
            // Receive maximum 65,535, so that the consumer's own publishes are not held up.
            0x10 => stream.write_all(&[0x20, 6, 0, 0, 3, 0x21, 0xff, 0xff])?,
            0x80 => {
                let filters = filters(&body);
                let mut answer = vec![0x90, 3 + filters, body[0], body[1], 0];
                answer.extend(std::iter::repeat_n(2, usize::from(filters)));
                return stream.write_all(&answer);
            }
            0xc0 => stream.write_all(&[0xd0, 0])?,
            _ => {}
        }
    }
}

/// The number of filters in a SUBSCRIBE without properties.
fn filters(body: &[u8]) -> u8 {
    let (mut at, mut count) = (3, 0);
    while at + 2 <= body.len() {
        at += 2 + usize::from(u16::from_be_bytes([body[at], body[at + 1]])) + 1;
        count += 1;
    }
    count
}

fn packet(stream: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let mut first = [0];
    stream.read_exact(&mut first)?;
    let (mut length, mut shift) = (0_usize, 0);
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        shift += 7;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((first[0], body))
}

/// Counts PUBACKs until all have come, and answers pings and the consumer's own publishes.
fn count(mut stream: TcpStream, counter: &Counter, total: u64) -> io::Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    let mut filled = 0;
    let mut seen = 0;
    while seen < total {
        let read = stream.read(&mut buffer[filled..])?;
        if read == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the consumer left after {seen} of {total} readings"),
            ));
        }
        filled += read;
        let mut at = 0;
        while let Some((length, first)) = whole(&buffer[at..filled]) {
            match first & 0xf0 {
                0x40 => seen += 1,
                0xc0 => stream.write_all(&[0xd0, 0])?,
                _ => {}
            }
            at += length;
        }
        buffer.copy_within(at..filled, 0);
        filled -= at;
        *lock(counter) = seen;
        counter.changed.notify_one();
    }
    Ok(())
}

/// The length of the packet that `bytes` begins with, if all of it is there.
fn whole(bytes: &[u8]) -> Option<(usize, u8)> {
    let (mut length, mut shift) = (0_usize, 0);
    for (at, byte) in bytes.get(1..)?.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            let size = 2 + at + length;
            return (bytes.len() >= size).then_some((size, bytes[0]));
        }
    }
    None
}
