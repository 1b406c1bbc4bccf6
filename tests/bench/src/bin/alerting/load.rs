//! Clients that are cheap and exact: MQTT 3.1.1 over a blocking socket, one thread each way.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fleet_bench::{beat, wire};
use jiff::Timestamp;

/// Sensors that cross a threshold, in turn to and fro.
pub(crate) const HOT: usize = 100;

/// Crossings a second.
const CROSSINGS: u64 = 50;

/// Sensors that do not.
const CALM: u64 = 10_000;

/// When each crossing was published, in nanoseconds from `origin`; 0 once it was told.
pub(crate) struct Clock {
    origin: Instant,
    published: Vec<AtomicU64>,
}

impl Clock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            origin: Instant::now(),
            published: (0..HOT).map(|_| AtomicU64::new(0)).collect(),
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Listens to alerts on a thread of its own until `done`; gives the nanoseconds from publish to
/// receipt of each.
pub(crate) fn listen(
    addr: &str,
    clock: Arc<Clock>,
    done: Arc<AtomicBool>,
) -> io::Result<thread::JoinHandle<io::Result<Vec<u64>>>> {
    let mut stream = wire::connect(addr, "bench-listener")?;
    let mut body = vec![0, 1];
    wire::text(&mut body, "alerts/#");
    body.push(0);
    let mut subscribe = Vec::new();
    wire::push(&mut subscribe, 0x82, &body);
    stream.write_all(&subscribe)?;
    let mut suback = [0; 5];
    stream.read_exact(&mut suback)?;
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    Ok(thread::spawn(move || {
        let (mut buffer, mut told) = (Vec::new(), Vec::new());
        let mut chunk = [0; 16 * 1_024];
        loop {
            match stream.read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    let now = clock.now();
                    buffer.extend_from_slice(&chunk[..read]);
                    alerts(&mut buffer, |sensor| {
                        let published = clock.published[sensor].swap(0, Ordering::AcqRel);
                        if published > 0 {
                            told.push(now.saturating_sub(published));
                        }
                    });
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) => {}
                Err(error) => return Err(error),
            }
            if done.load(Ordering::Acquire) {
                return Ok(told);
            }
        }
    }))
}

/// Takes whole PUBLISH packets out of `buffer` and tells the number of the sensor of each.
fn alerts(buffer: &mut Vec<u8>, mut tell: impl FnMut(usize)) {
    let mut at = 0;
    while let Some((start, end)) = wire::whole(&buffer[at..]) {
        let body = &buffer[at + start..at + end];
        if buffer[at] & 0xf0 == 0x30 && body.len() > 2 {
            let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
            let topic = body.get(2..2 + length).unwrap_or_default();
            let number = topic
                .rsplit(|byte| *byte == b'-')
                .next()
                .unwrap_or_default();
            let number = std::str::from_utf8(number)
                .ok()
                .and_then(|text| text.parse().ok());
            if let Some(number) = number.filter(|number| *number < HOT) {
                tell(number);
            }
        }
        at += end;
    }
    buffer.drain(..at);
}

/// Publishes `rate` readings a second at QoS 1 for `time`, of which 50 a second cross. Gives how
/// many were published.
pub(crate) fn publish(addr: &str, rate: u64, time: Duration, clock: &Clock) -> io::Result<u64> {
    let mut stream = wire::connect(addr, "bench-publisher")?;
    let mut answers = stream.try_clone()?;
    // Acknowledgements are only taken out of the way; the end of the connection ends it.
    thread::spawn(move || io::copy(&mut answers, &mut io::sink()));
    let started = Instant::now();
    let (mut sent, mut crossings) = (0_u64, 0_u64);
    let mut chunk = Vec::with_capacity(64 * 1_024);
    while started.elapsed() < time {
        let elapsed = started.elapsed().as_secs_f64();
        let due = (elapsed * rate as f64) as u64;
        let crossings_due = (elapsed * CROSSINGS as f64) as u64;
        chunk.clear();
        let now = Timestamp::now();
        let mut marked = None;
        if crossings < crossings_due {
            let sensor = crossings as usize % HOT;
            // Every round the other way.
            let value = if (crossings as usize / HOT).is_multiple_of(2) {
                45.0
            } else {
                20.0
            };
            reading(&mut chunk, sent, &format!("hot-{sensor:03}"), value, now);
            crossings += 1;
            sent += 1;
            marked = Some(sensor);
        }
        while sent < due {
            let sensor = sent % CALM;
            reading(
                &mut chunk,
                sent,
                &format!("calm-{sensor:05}"),
                20.0 + (sent % 50) as f64 / 10.0,
                now,
            );
            sent += 1;
        }
        if let Some(sensor) = marked {
            clock.published[sensor].store(clock.now(), Ordering::Release);
        }
        stream.write_all(&chunk)?;
        beat();
    }
    Ok(sent)
}

fn reading(into: &mut Vec<u8>, n: u64, sensor: &str, value: f64, at: Timestamp) {
    let room = n % 300;
    let topic = format!("sensors/plant/line-{room:03}/temperature");
    let payload = format!(
        "{{\"sensor_id\":\"{sensor}\",\"type\":\"temperature\",\"value\":{value:.2},\"unit\":\"celsius\",\
         \"location\":\"plant/line-{room:03}\",\"timestamp\":\"{at:.6}\",\"battery_percent\":80,\"quality\":\"good\"}}"
    );
    wire::publish(into, n, &topic, None, payload.as_bytes());
}
