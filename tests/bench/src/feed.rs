//! A broker that does nothing but feed its consumers.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::reading::payload;
use crate::wire;

/// Listens for consumers.
pub struct Feed {
    addr: SocketAddr,
    subscribers: mpsc::Receiver<io::Result<TcpStream>>,
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
/// Longest time without an acknowledgement.
const PATIENCE: Duration = Duration::from_secs(60);

/// Readings as PUBLISH packets of QoS 1, encoded before a clock starts.
pub struct Packets(Vec<(u64, Vec<u8>)>);

impl Packets {
    /// Readings with these numbers, `start` being the time of number 0.
    pub fn new(numbers: Range<u64>, start: Timestamp) -> Self {
        Self::with_context(numbers, start, |_| None)
    }

    /// The same, and a reading for which `traced` has a `traceparent` carries it.
    pub fn with_context(
        numbers: Range<u64>,
        start: Timestamp,
        traced: impl Fn(u64) -> Option<String>,
    ) -> Self {
        let mut chunks = Vec::new();
        let mut at = numbers.start;
        while at < numbers.end {
            let end = numbers.end.min(at + CHUNK);
            let mut chunk = Vec::new();
            for n in at..end {
                let (topic, payload) = payload(n, start);
                let properties =
                    traced(n).map_or_else(Vec::new, |traceparent| context(&traceparent));
                wire::publish(&mut chunk, n, &topic, Some(&properties), &payload);
            }
            chunks.push((end - at, chunk));
            at = end;
        }
        Self(chunks)
    }

    /// Deals them out to so many consumers; each keeps the order.
    pub fn dealt(self, consumers: usize) -> Vec<Self> {
        let mut hands: Vec<Self> = (0..consumers).map(|_| Self(Vec::new())).collect();
        for (index, chunk) in self.0.into_iter().enumerate() {
            hands[index % consumers].0.push(chunk);
        }
        hands
    }
}

impl Feed {
    /// Listens on a free port.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn listen() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addr = listener.local_addr()?;
        let (subscribed, subscribers) = mpsc::channel();
        // A consumer may have a second session, on which it publishes.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let subscribed = subscribed.clone();
                thread::spawn(move || welcome(stream, &subscribed));
            }
        });
        Ok(Self { addr, subscribers })
    }

    /// Where consumers are to connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits for a consumer's subscription.
    ///
    /// # Errors
    /// When its handshake fails.
    pub fn consumer(&self) -> io::Result<Consumer> {
        let stream = self
            .subscribers
            .recv()
            .map_err(|_| io::Error::other("the listener is gone"))??;
        let counter = Arc::new(Counter::default());
        let (reader, counting) = (stream.try_clone()?, counter.clone());
        thread::spawn(move || {
            let ended = count(reader, &counting).err();
            lock(&counting).ended = ended.or_else(|| Some(io::ErrorKind::UnexpectedEof.into()));
            counting.changed.notify_one();
        });
        Ok(Consumer {
            stream,
            counter,
            sent: 0,
        })
    }
}

/// What a consumer has acknowledged.
#[derive(Default)]
struct Counter {
    state: Mutex<Counted>,
    changed: Condvar,
}

#[derive(Default)]
struct Counted {
    acknowledged: u64,
    /// Why nothing comes any more.
    ended: Option<io::Error>,
}

/// A consumer that has subscribed.
pub struct Consumer {
    stream: TcpStream,
    counter: Arc<Counter>,
    sent: u64,
}

impl Consumer {
    /// Feeds it all `packets` with at most `window` readings unacknowledged, `rate` a second at most
    /// if given, and waits until all are acknowledged.
    ///
    /// # Errors
    /// When the consumer disconnects, or acknowledges nothing for a minute.
    pub fn feed(&mut self, packets: &Packets, window: u64, rate: Option<u64>) -> io::Result<Fed> {
        let started = Instant::now();
        let mut readings = 0;
        for (count, bytes) in &packets.0 {
            self.acknowledged((self.sent + count).saturating_sub(window))?;
            if let Some(rate) = rate {
                pace(started + Duration::from_secs_f64(readings as f64 / rate as f64));
            }
            self.stream.write_all(bytes)?;
            self.sent += count;
            readings += count;
        }
        self.acknowledged(self.sent)?;
        Ok(Fed {
            readings,
            took: started.elapsed(),
        })
    }

    /// Waits for so many acknowledgements in all.
    fn acknowledged(&self, least: u64) -> io::Result<()> {
        let mut counted = lock(&self.counter);
        while counted.acknowledged < least {
            if let Some(error) = &counted.ended {
                return Err(io::Error::new(
                    error.kind(),
                    format!(
                        "the consumer left after {} of {least} readings: {error}",
                        counted.acknowledged
                    ),
                ));
            }
            let (guard, timeout) = self
                .counter
                .changed
                .wait_timeout(counted, PATIENCE)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            counted = guard;
            if timeout.timed_out() {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!(
                        "nothing was acknowledged for {PATIENCE:?} after {} readings",
                        counted.acknowledged
                    ),
                ));
            }
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

fn lock(counter: &Counter) -> std::sync::MutexGuard<'_, Counted> {
    counter
        .state
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The property of a reading that is traced.
fn context(traceparent: &str) -> Vec<u8> {
    let mut properties = vec![0x26];
    wire::text(&mut properties, "traceparent");
    wire::text(&mut properties, traceparent);
    properties
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
    let mut answers = Vec::new();
    loop {
        let (first, body) = packet(stream)?;
        wire::answer(first, &body, &mut answers);
        stream.write_all(&answers)?;
        answers.clear();
        if first & 0xf0 == 0x80 {
            return Ok(());
        }
    }
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

/// Counts PUBACKs, and answers everything else, until the consumer leaves.
fn count(mut stream: TcpStream, counter: &Counter) -> io::Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    let (mut filled, mut answers) = (0, Vec::new());
    loop {
        let read = stream.read(&mut buffer[filled..])?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let (mut at, mut seen) = (0, 0);
        while let Some((start, length)) = wire::whole(&buffer[at..filled]) {
            match buffer[at] & 0xf0 {
                0x40 => seen += 1,
                _ => {
                    let body = &buffer[at + start..at + length];
                    wire::answer(buffer[at], body, &mut answers);
                }
            }
            at += length;
        }
        buffer.copy_within(at..filled, 0);
        filled -= at;
        stream.write_all(&answers)?;
        answers.clear();
        lock(counter).acknowledged += seen;
        counter.changed.notify_one();
    }
}
