//! A session and a consumer that remembers everything it was handed.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::prelude::*;
use fleet_shared::session::{
    BrokerAddr, ConnectionError, ConnectionEvent, Inbound, Message, Options, Properties, Publish,
    PublishError, QoS, Session, Ticket,
};
use fleet_shared::telemetry::Metrics;
use rand::RngExt;
use tokio::sync::Semaphore;

use crate::eventually;

/// Publishes that [`Client::publish_numbers`] has under way, well below the default outbox.
const UNDER_WAY: usize = 4_000;

/// When the consumer acknowledges what it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledge {
    /// In its handler.
    AtOnce,
    /// When the test says so, with [`Client::acknowledge`].
    Later,
    /// In its handler, after this pause for every batch: a consumer that is slow.
    After(Duration),
}

/// One message as the consumer got it, copied out of the session's memory.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields are those of `Message`")]
pub struct Received {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: QoS,
    pub retain: bool,
    pub dup: bool,
    pub properties: Option<Box<Properties>>,
}

impl Received {
    /// The payload as the decimal number a test put there.
    #[must_use]
    pub fn number(&self) -> u64 {
        let text = std::str::from_utf8(&self.payload).expect("a number is ASCII");
        text.parse()
            .unwrap_or_else(|_| panic!("`{text}` is not a number"))
    }
}

#[derive(Default)]
struct Seen {
    session: Option<Session>,
    received: Vec<Received>,
    held: Vec<Ticket>,
    events: Vec<ConnectionEvent>,
    batches: usize,
}

/// A session with its consumer, on the thread of the test.
pub struct Client {
    /// The session under test.
    pub session: Session,
    /// Its metrics, in a registry of its own.
    pub metrics: Metrics,
    seen: Rc<RefCell<Seen>>,
}

/// Options for a test: a client id nobody else has, and short pauses between attempts.
#[must_use]
pub fn options(broker: BrokerAddr, name: &str) -> Options {
    let id: u32 = rand::rng().random();
    let mut options = Options::new(broker, format!("{name}-{id:08x}"));
    options.reconnect.first = Duration::from_millis(50);
    options.reconnect.max = Duration::from_secs(1);
    options
}

impl Client {
    /// Starts a session and does not wait for the connection.
    #[must_use]
    pub fn start(options: Options, acknowledge: Acknowledge) -> Self {
        let seen = Rc::<RefCell<Seen>>::default();
        let consumer = Consumer {
            acknowledge,
            seen: seen.clone(),
        }
        .start();
        let metrics = Metrics::new();
        let events = consumer.clone().recipient();
        let session = Session::start(options, &metrics, consumer.recipient(), events);
        seen.borrow_mut().session = Some(session.clone());
        Self {
            session,
            metrics,
            seen,
        }
    }

    /// Starts a session and waits until it is connected.
    pub async fn connected(options: Options, acknowledge: Acknowledge) -> Self {
        let client = Self::start(options, acknowledge);
        client.up(1).await;
        client
    }

    /// Publishes one message for each number, in order and as fast as the broker takes them, and
    /// waits until all are acknowledged.
    pub async fn publish_numbers(&self, numbers: Range<u64>, publish: impl Fn(u64) -> Publish) {
        let room = Arc::new(Semaphore::new(UNDER_WAY));
        let failures = Arc::<Mutex<Vec<(u64, PublishError)>>>::default();
        let numbers: Vec<u64> = numbers.collect();
        for chunk in numbers.chunks(200) {
            take(&room, chunk.len()).await;
            let publishes = chunk.iter().map(|&number| {
                let (room, failures) = (room.clone(), failures.clone());
                let done = move |outcome: Result<(), PublishError>| {
                    if let Err(error) = outcome {
                        failures
                            .lock()
                            .expect("no panic in here")
                            .push((number, error));
                    }
                    room.add_permits(1);
                };
                (publish(number), Box::new(done) as _)
            });
            self.session.fire_all(publishes.collect());
        }
        take(&room, UNDER_WAY).await;
        let failures = failures.lock().expect("no panic in here");
        assert!(failures.is_empty(), "not published: {failures:?}");
    }

    /// Waits until connections came up `times` times since the start.
    pub async fn up(&self, times: usize) {
        eventually(Duration::from_secs(30), "the session is up", async || {
            if self.ups().len() >= times {
                Ok(())
            } else {
                Err(self.events())
            }
        })
        .await;
    }

    /// Whether the broker had the session, for every time the connection came up.
    #[must_use]
    pub fn ups(&self) -> Vec<bool> {
        let up = |event: &ConnectionEvent| match event {
            ConnectionEvent::Up {
                session_present, ..
            } => Some(*session_present),
            _ => None,
        };
        self.seen.borrow().events.iter().filter_map(up).collect()
    }

    /// Why connections ended or could not be opened, in order.
    #[must_use]
    pub fn downs(&self) -> Vec<Arc<ConnectionError>> {
        let down = |event: &ConnectionEvent| match event {
            ConnectionEvent::Down { error, .. } => Some(error.clone()),
            _ => None,
        };
        self.seen.borrow().events.iter().filter_map(down).collect()
    }

    /// The first reason for which a connection ended or could not be opened.
    pub async fn first_down(&self, limit: Duration) -> Arc<ConnectionError> {
        eventually(limit, "the connection is reported down", async || {
            self.downs().first().cloned().ok_or_else(|| self.events())
        })
        .await
    }

    /// Every connection event so far.
    #[must_use]
    pub fn events(&self) -> Vec<ConnectionEvent> {
        self.seen.borrow().events.clone()
    }

    /// Everything received so far, in order.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.seen.borrow().received.clone()
    }

    /// Number of messages received so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.seen.borrow().received.len()
    }

    /// Number of batches they came in.
    #[must_use]
    pub fn batches(&self) -> usize {
        self.seen.borrow().batches
    }

    /// The payloads received so far as numbers, in order.
    #[must_use]
    pub fn numbers(&self) -> Vec<u64> {
        self.seen
            .borrow()
            .received
            .iter()
            .map(Received::number)
            .collect()
    }

    /// Waits until at least that many messages were received.
    pub async fn received_at_least(&self, count: usize, limit: Duration) {
        eventually(limit, &format!("{count} messages arrive"), async || {
            if self.count() >= count {
                Ok(())
            } else {
                Err((self.count(), self.session.observe().await))
            }
        })
        .await;
    }

    /// Number of deliveries not yet acknowledged under [`Acknowledge::Later`].
    #[must_use]
    pub fn held(&self) -> usize {
        self.seen.borrow().held.len()
    }

    /// Takes up to `count` of the deliveries not yet acknowledged, oldest first.
    #[must_use]
    pub fn take_held(&self, count: usize) -> Vec<Ticket> {
        let held = &mut self.seen.borrow_mut().held;
        let count = count.min(held.len());
        held.drain(..count).collect()
    }

    /// Acknowledges up to `count` of the deliveries not yet acknowledged, oldest first.
    pub fn acknowledge(&self, count: usize) {
        self.session.acknowledge(self.take_held(count));
    }
}

impl Drop for Client {
    /// The session ends with its last handle, and the consumer holds one.
    fn drop(&mut self) {
        self.seen.borrow_mut().session = None;
    }
}

async fn take(room: &Semaphore, count: usize) {
    let count = u32::try_from(count).expect("few");
    room.acquire_many(count)
        .await
        .expect("never closed")
        .forget();
}

struct Consumer {
    acknowledge: Acknowledge,
    seen: Rc<RefCell<Seen>>,
}

impl Actor for Consumer {
    type Context = Context<Self>;
}

impl Handler<Inbound> for Consumer {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, inbound: Inbound, _: &mut Self::Context) -> Self::Result {
        let mut seen = self.seen.borrow_mut();
        seen.batches += 1;
        let tickets: Vec<Ticket> = inbound.messages.iter().filter_map(|m| m.ticket).collect();
        seen.received.extend(inbound.messages.into_iter().map(copy));
        let Some(session) = seen.session.clone() else {
            return Box::pin(std::future::ready(()));
        };
        match self.acknowledge {
            Acknowledge::AtOnce => session.acknowledge(tickets),
            Acknowledge::Later => seen.held.extend(tickets),
            Acknowledge::After(pause) => {
                return Box::pin(async move {
                    tokio::time::sleep(pause).await;
                    session.acknowledge(tickets);
                });
            }
        }
        Box::pin(std::future::ready(()))
    }
}

fn copy(message: Message) -> Received {
    Received {
        topic: message.topic.to_string(),
        payload: message.payload.to_vec(),
        qos: message.qos,
        retain: message.retain,
        dup: message.dup,
        properties: message.properties,
    }
}

impl Handler<ConnectionEvent> for Consumer {
    type Result = ();

    fn handle(&mut self, event: ConnectionEvent, _: &mut Self::Context) {
        self.seen.borrow_mut().events.push(event);
    }
}
