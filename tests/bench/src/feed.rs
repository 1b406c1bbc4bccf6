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
                let id = (n % 65_535) as u16 + 1;
                publish(&mut chunk, id, &topic, &payload, traced(n).as_deref());
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

/// A QoS 1 PUBLISH without properties but `traceparent`, if there is one.
fn publish(into: &mut Vec<u8>, id: u16, topic: &str, payload: &[u8], traceparent: Option<&str>) {
    let mut properties = Vec::new();
    if let Some(value) = traceparent {
        properties.push(0x26);
        wire::text(&mut properties, "traceparent");
        wire::text(&mut properties, value);
    }
    let mut body = Vec::with_capacity(2 + topic.len() + 3 + properties.len() + payload.len());
    wire::text(&mut body, topic);
    body.extend_from_slice(&id.to_be_bytes());
    // Short enough for a length of one byte.
    body.push(properties.len() as u8);
    body.extend_from_slice(&properties);
    body.extend_from_slice(payload);
    wire::push(into, 0x32, &body);
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
                let filters = filters(&body, 1);
                let mut answer = vec![0x90, 3 + filters, body[0], body[1], 0];
                answer.extend(std::iter::repeat_n(2, usize::from(filters)));
                return stream.write_all(&answer);
            }
            0xc0 => stream.write_all(&[0xd0, 0])?,
            _ => {}
        }
    }
}

/// The number of filters in a SUBSCRIBE or UNSUBSCRIBE without properties, with so many bytes of
/// options behind each.
fn filters(body: &[u8], options: usize) -> u8 {
    let (mut at, mut count) = (3, 0);
    while at + 2 <= body.len() {
        at += 2 + usize::from(u16::from_be_bytes([body[at], body[at + 1]])) + options;
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

/// Counts PUBACKs, and answers everything else, until the consumer leaves.
fn count(mut stream: TcpStream, counter: &Counter) -> io::Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..])?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let (mut at, mut seen) = (0, 0);
        while let Some((start, length)) = wire::whole(&buffer[at..filled]) {
            let body = &buffer[at + start..at + length];
            match buffer[at] & 0xf0 {
                0x40 => seen += 1,
                // Its own status, at QoS 1.
                0x30 if buffer[at] & 0x06 != 0 => {
                    let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                    stream.write_all(&[0x40, 2, body[2 + topic], body[3 + topic]])?;
                }
                0xa0 => {
                    let filters = filters(body, 0);
                    let mut answer = vec![0xb0, 3 + filters, body[0], body[1], 0];
                    answer.extend(std::iter::repeat_n(0, usize::from(filters)));
                    stream.write_all(&answer)?;
                }
                0xc0 => stream.write_all(&[0xd0, 0])?,
                _ => {}
            }
            at += length;
        }
        buffer.copy_within(at..filled, 0);
        filled -= at;
        lock(counter).acknowledged += seen;
        counter.changed.notify_one();
    }
}
