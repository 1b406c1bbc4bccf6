//! MQTT to Kafka: receives, routes, produces, and acknowledges when Kafka has it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use fleet_shared::health::Observe;
use fleet_shared::member::{Flush, GetSession, Leave, Link, Membership};
use fleet_shared::session::{
    ConnectionEvent, Done, Gate, Inbound, Message, Options, Publish, PublishError, Session, Ticket,
};
use fleet_shared::telemetry::Metrics;
use rdkafka::error::KafkaError;
use rdkafka::message::{Message as _, OwnedMessage};
use rdkafka::producer::BaseRecord;
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::answer::Answer;
use crate::error::BridgeError;
use crate::flight::{Entry, Flight};
use crate::kafka::{Failed, Outcome, Producer, Producers, Report, Reports};
use crate::letter;
use crate::metrics::BridgeMetrics;
use crate::reason::{Reason, Refusal};
use crate::record::{Encoder, Record};
use crate::renewal::{Renewal, Renewed, Returned};
use crate::route::Routes;
use crate::verdict::{Verdict, verdict};

/// Messages beyond the receive maximum before reading stops. Only QoS 0 can get there, as nothing
/// but the socket holds it back.
const QUEUE_SLACK: usize = 2_000;

/// Bytes of records under way before reading stops: with the producer's copy and the compressed
/// requests this is the bulk of the bridge's memory.
const BYTES_MAX: usize = 48 * 1024 * 1024;

/// Pause before a dead letter is tried again that found no room in the session.
const LETTER_RETRY: Duration = Duration::from_millis(100);

/// How often the producer is asked for room without a report that says so.
const BACKLOG_RETRY: Duration = Duration::from_secs(1);

/// How long producers that are to be replaced may take to deliver what they have.
const SETTLE_MAX: Duration = Duration::from_secs(5);

/// What the intake is made of.
pub(crate) struct Setup {
    pub(crate) options: Options,
    pub(crate) group: String,
    pub(crate) routes: Arc<Routes>,
    pub(crate) size_max: usize,
    pub(crate) producers: Producers,
    pub(crate) reports: Arc<Reports>,
    /// The session on which dead letters go out.
    pub(crate) outlet: Session,
    pub(crate) link: Link,
    pub(crate) registry: Metrics,
    pub(crate) metrics: BridgeMetrics,
    pub(crate) failures: mpsc::UnboundedSender<BridgeError>,
}

/// Kafka answers and has the topics: what was received may go there.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Open;

/// Goes on with other producers; answered when they are in use.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Renew(pub(crate) Producers);

/// The actor of the MQTT session.
pub(crate) struct Intake {
    setup: Setup,
    session: Option<Session>,
    membership: Membership,
    gate: Gate,
    encoder: Encoder,
    flight: Flight,
    /// What found no room in the producer, oldest first; nothing overtakes it.
    backlog: VecDeque<Message>,
    backlog_bytes: usize,
    /// Dead letters under way, by slot.
    letters: HashMap<usize, (Publish, Reason)>,
    /// Slots whose letter is to be sent.
    unsent: Vec<usize>,
    bytes_per_message: usize,
    flushed: Vec<oneshot::Sender<()>>,
    /// Whether messages may go to Kafka. Before, they wait unacknowledged: the subscriptions stand from
    /// the first start on, also while Kafka is away.
    open: bool,
    /// Other producers are about to take over; nothing is sent before they do.
    renewal: Option<Renewal>,
    renewals: u64,
}

impl Intake {
    pub(crate) fn new(setup: Setup) -> Self {
        let client_id = setup.options.client_id.to_string();
        let messages_max = usize::from(setup.options.receive_maximum) + QUEUE_SLACK;
        Self {
            session: None,
            membership: Membership::new("bridge", &client_id, &setup.group),
            gate: Gate::new(messages_max),
            encoder: Encoder::new(setup.size_max),
            flight: Flight::default(),
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            letters: HashMap::new(),
            unsent: Vec::new(),
            bytes_per_message: BYTES_MAX / messages_max,
            flushed: Vec::new(),
            open: false,
            renewal: None,
            renewals: 0,
            setup,
        }
    }

    /// What is under way, in messages; large ones count for several.
    fn load(&self) -> usize {
        let messages = self.flight.len() + self.backlog.len();
        let bytes = self.flight.bytes() + self.backlog_bytes;
        messages.max(bytes / self.bytes_per_message)
    }

    fn take(&mut self, message: Message, now: Instant) {
        if self.membership.heard(&message.topic, &message.payload) {
            self.acknowledge(message.ticket.into_iter().collect());
        } else if let Some(message) = self.send(message, now) {
            self.backlog_bytes += message.payload.len();
            self.backlog.push_back(message);
        }
    }

    /// Hands a message to the producer; gives it back when that has no room.
    fn send(&mut self, message: Message, now: Instant) -> Option<Message> {
        if !self.open || !self.backlog.is_empty() || self.renewal.is_some() {
            // Nothing overtakes what waits.
            return Some(message);
        }
        let encoded = encode(
            &mut self.encoder,
            &self.setup.routes,
            &self.setup.options.client_id,
            &message,
        );
        let record = match encoded {
            Ok(Some(record)) => record,
            Ok(None) => {
                self.acknowledge(message.ticket.into_iter().collect());
                return None;
            }
            Err(refusal) => {
                self.refuse(&message, refusal, now);
                return None;
            }
        };
        let slot = self.flight.add(Entry {
            ticket: message.ticket,
            size: record.size,
            since: now,
            alone: false,
        });
        match produce(&self.setup.producers.batched, record, slot) {
            Ok(()) => None,
            Err(error) => {
                self.flight.remove(slot);
                match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::QueueFull) => return Some(message),
                    Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                        let refusal = Refusal::new(Reason::TooLarge, error.to_string());
                        self.refuse(&message, refusal, now);
                    }
                    _ => self.fail(BridgeError::Producer(error)),
                }
                None
            }
        }
    }

    fn refuse(&mut self, message: &Message, refusal: Refusal, now: Instant) {
        let slot = self.flight.add(Entry {
            ticket: message.ticket,
            size: message.payload.len(),
            since: now,
            alone: false,
        });
        let letter = letter::of_message(message, &refusal);
        self.letters.insert(slot, (letter, refusal.reason));
        self.unsent.push(slot);
    }

    /// Sends the dead letters that are due, in one hop to their session.
    fn send_letters(&mut self) {
        let unsent = std::mem::take(&mut self.unsent);
        let publishes = unsent.into_iter().filter_map(|slot| {
            let (letter, _) = self.letters.get(&slot)?;
            let reports = self.setup.reports.clone();
            let done: Done = Box::new(move |outcome| {
                reports.push(Report {
                    slot,
                    outcome: Outcome::Lettered(outcome),
                });
            });
            Some((letter.clone(), done))
        });
        let publishes: Vec<_> = publishes.collect();
        if !publishes.is_empty() {
            self.setup.outlet.fire_all(publishes);
        }
    }

    fn reported(&mut self, reports: Vec<Report>, ctx: &mut Context<Self>) {
        let now = Instant::now();
        let (mut tickets, mut took) = (Vec::with_capacity(reports.len()), Vec::new());
        for report in reports {
            match report.outcome {
                Outcome::Delivered => {
                    if let Some(entry) = self.flight.remove(report.slot) {
                        tickets.extend(entry.ticket);
                        took.push(now.saturating_duration_since(entry.since));
                    }
                }
                Outcome::Failed(failed) => self.failed(report.slot, *failed),
                Outcome::Lettered(outcome) => {
                    tickets.extend(self.lettered(report.slot, outcome, ctx));
                }
            }
        }
        self.setup.metrics.delivered(&took);
        self.acknowledge(tickets);
        self.renew();
        self.send_backlog(now);
        self.send_letters();
        self.settle();
    }

    /// Hands over what found no room before, as far as there is room now.
    fn send_backlog(&mut self, now: Instant) {
        let mut backlog = std::mem::take(&mut self.backlog);
        while let Some(message) = backlog.pop_front() {
            let size = message.payload.len();
            if let Some(message) = self.send(message, now) {
                backlog.push_front(message);
                break;
            }
            self.backlog_bytes -= size;
        }
        self.backlog = backlog;
    }

    /// Kafka does not take a record.
    fn failed(&mut self, slot: usize, failed: Failed) {
        let Failed { code, record } = failed;
        let topic = record.topic().to_owned();
        let Some(entry) = self.flight.get_mut(slot) else {
            return;
        };
        let verdict = verdict(code, entry.alone, is_fixed(&self.setup.routes, &topic));
        entry.alone |= verdict == Verdict::Alone;
        match verdict {
            Verdict::Alone | Verdict::Forget if self.renewal.is_some() => {
                self.give_back(slot, record);
            }
            Verdict::Alone => {
                if let Err(error) = again(&self.setup.producers.alone, &record, slot) {
                    self.fail(BridgeError::Producer(error));
                }
            }
            Verdict::DeadLetter(reason) => {
                let refusal = Refusal::new(reason, format!("Kafka topic `{topic}`: {code}"));
                let letter = letter::of_record(&record, &refusal);
                self.letters.insert(slot, (letter, reason));
                self.unsent.push(slot);
            }
            Verdict::Forget => {}
            Verdict::Stop => self.fail(BridgeError::Refused { topic, code }),
        }
    }

    /// Keeps a record for the producers that are to take over.
    fn give_back(&mut self, slot: usize, record: OwnedMessage) {
        if let (Some(renewal), Some(number)) = (&mut self.renewal, self.flight.number(slot)) {
            renewal.give_back(Returned {
                number,
                slot,
                record,
            });
        }
    }

    /// Makes the old producers give back what they cannot deliver, again and again until the renewal
    /// is through: a partition that moves between brokers may be missed once.
    fn purge_later(&self, renewal: u64, ctx: &mut Context<Self>) {
        ctx.run_later(SETTLE_MAX, move |intake, ctx| {
            if intake.renewal.is_none() || intake.renewals != renewal {
                return;
            }
            tracing::warn!(
                records = intake.flight.len(),
                "the former clients cannot deliver what they have; it goes to the new ones"
            );
            let old = intake.setup.producers.clone();
            // It waits for each of their threads.
            drop(tokio::task::spawn_blocking(move || old.purge()));
            intake.purge_later(renewal, ctx);
        });
    }

    /// Lets other producers take over, once these have told of all they had.
    fn renew(&mut self) {
        // Dead letters are under way on another path.
        let at_kafka = self.flight.len() - self.letters.len();
        let Some(renewal) = self
            .renewal
            .take_if(|renewal| renewal.is_complete(at_kafka))
        else {
            return;
        };
        let Renewed {
            producers,
            returned,
            done,
        } = renewal.finish();
        if !returned.is_empty() {
            tracing::info!(
                records = returned.len(),
                "records that Kafka had not confirmed are sent again by new clients"
            );
        }
        let old = std::mem::replace(&mut self.setup.producers, producers);
        // Connections take a moment to close.
        drop(tokio::task::spawn_blocking(move || drop(old)));
        self.renewals += 1;
        for Returned { slot, record, .. } in returned {
            let alone = self.flight.get_mut(slot).is_some_and(|entry| entry.alone);
            let producers = &self.setup.producers;
            let producer = if alone {
                &producers.alone
            } else {
                &producers.batched
            };
            if let Err(error) = again(producer, &record, slot) {
                self.fail(BridgeError::Producer(error));
            }
        }
        // Who waited may have run out of time.
        done.send(()).ok();
    }

    /// The broker answered to a dead letter: gives the ticket of the message that it stands for.
    fn lettered(
        &mut self,
        slot: usize,
        outcome: Result<(), PublishError>,
        ctx: &mut Context<Self>,
    ) -> Option<Ticket> {
        match outcome {
            Ok(()) => {
                let (_, reason) = self.letters.remove(&slot)?;
                self.setup.metrics.message_lettered(reason);
                self.flight.remove(slot)?.ticket
            }
            Err(error) if error.is_transient() => {
                ctx.run_later(LETTER_RETRY, move |intake, _| {
                    intake.unsent.push(slot);
                    intake.send_letters();
                });
                None
            }
            Err(PublishError::Invalid { .. })
                if self
                    .letters
                    .get_mut(&slot)
                    .is_some_and(|(publish, _)| letter::shorten(publish)) =>
            {
                self.unsent.push(slot);
                None
            }
            // The process ends; whoever comes next gets the message again.
            Err(PublishError::Stopped) => None,
            Err(error) => {
                self.fail(BridgeError::DeadLetters(error));
                None
            }
        }
    }

    fn acknowledge(&self, tickets: Vec<Ticket>) {
        if let Some(session) = &self.session
            && !tickets.is_empty()
        {
            session.acknowledge(tickets);
        }
    }

    fn fail(&self, error: BridgeError) {
        // The receiver is gone only when the service is ending anyway.
        drop(self.setup.failures.send(error));
    }

    /// Lets the session read on and tells who waits until nothing is under way.
    fn settle(&mut self) {
        let (messages, bytes) = (self.flight.len(), self.flight.bytes());
        self.setup.metrics.under_way(messages, bytes);
        let load = self.load();
        self.gate.release(load);
        // What waits for Kafka's first answer is nobody's but the broker's.
        if load == 0 || !self.open {
            for flushed in self.flushed.drain(..) {
                // Who waited may have run out of time.
                flushed.send(()).ok();
            }
        }
    }
}

/// What answers to commands begin with.
const ANSWERS: &str = "responses/";

/// The record of a message: an answer to a command, or by its route. None for an answer to somebody
/// else's command: they come too.
fn encode<'a>(
    encoder: &'a mut Encoder,
    routes: &'a Routes,
    client_id: &str,
    message: &'a Message,
) -> Result<Option<Record<'a>>, Refusal> {
    let topic = message.topic.as_str();
    let commands = routes.commands();
    let commands = commands.filter(|_| topic.starts_with(ANSWERS));
    if let Some(commands) = commands
        && let Some(answer) = Answer::from_topic(topic, client_id)
    {
        let record = encoder.answer(message, &answer, &commands.responses)?;
        return Ok(Some(record));
    }
    match routes.find(topic) {
        Some(route) => encoder.routed(message, route).map(Some),
        None if commands.is_some() => Ok(None),
        None => Err(Refusal::new(
            Reason::NoRoute,
            "no route matches the topic; the broker's session has a subscription of an older file",
        )),
    }
}

/// Whether a Kafka topic stands in the file of routes.
fn is_fixed(routes: &Routes, topic: &str) -> bool {
    let answers = routes
        .commands()
        .map(|commands| commands.responses.as_str());
    let mut fixed = routes.all().iter().filter_map(|route| route.fixed_topic());
    answers == Some(topic) || fixed.any(|fixed| fixed == topic)
}

fn produce(producer: &Producer, record: Record<'_>, slot: usize) -> Result<(), KafkaError> {
    let mut base = BaseRecord::with_opaque_to(record.topic, slot)
        .key(record.key)
        .headers(record.headers);
    base.payload = record.payload;
    producer.send(base).map_err(|(error, _)| error)
}

/// Sends a record again that came back from a batch.
fn again(producer: &Producer, record: &OwnedMessage, slot: usize) -> Result<(), KafkaError> {
    let mut base = BaseRecord::<[u8], [u8], usize>::with_opaque_to(record.topic(), slot);
    base.key = record.key();
    base.payload = record.payload();
    base.headers = record.headers().cloned();
    producer.send(base).map_err(|(error, _)| error)
}

impl Actor for Intake {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let reports = self.setup.reports.clone();
        let stream = futures_util::stream::unfold(reports, |reports| async move {
            let next = reports.next().await;
            Some((next, reports))
        });
        ctx.add_stream(stream);
        // The dead letters of commands may have had the room; their reports do not come here.
        ctx.run_interval(BACKLOG_RETRY, |intake, _| {
            intake.send_backlog(Instant::now());
            intake.send_letters();
        });
        self.session = Some(Session::start(
            self.setup.options.clone(),
            &self.setup.registry,
            ctx.address().recipient(),
            ctx.address().recipient(),
        ));
    }
}

impl StreamHandler<Vec<Report>> for Intake {
    fn handle(&mut self, reports: Vec<Report>, ctx: &mut Self::Context) {
        self.reported(reports, ctx);
    }
}

impl Handler<Inbound> for Intake {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Inbound { messages }: Inbound, _: &mut Self::Context) -> Self::Result {
        let now = Instant::now();
        for message in messages {
            self.take(message, now);
        }
        self.send_letters();
        let (messages, bytes) = (self.flight.len(), self.flight.bytes());
        self.setup.metrics.under_way(messages, bytes);
        self.gate.pass(self.load())
    }
}

impl Handler<ConnectionEvent> for Intake {
    type Result = ();

    fn handle(&mut self, event: ConnectionEvent, _: &mut Self::Context) {
        let failed = self.setup.link.changed(&event);
        if let (ConnectionEvent::Up { .. }, Some(session)) = (&event, &self.session) {
            self.membership.announce(session);
        }
        if let Some(source) = failed {
            self.fail(BridgeError::Session {
                client_id: self.setup.options.client_id.to_string(),
                source,
            });
        }
    }
}

impl Handler<Leave> for Intake {
    type Result = ResponseFuture<bool>;

    fn handle(&mut self, _: Leave, _: &mut Self::Context) -> Self::Result {
        self.membership.leave(self.session.clone())
    }
}

impl Handler<Flush> for Intake {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Flush, _: &mut Self::Context) -> Self::Result {
        let (flushed, done) = oneshot::channel();
        self.flushed.push(flushed);
        self.settle();
        Box::pin(async move {
            // An error means that the intake is gone, and what was under way with it.
            drop(done.await);
        })
    }
}

impl Handler<Open> for Intake {
    type Result = ();

    fn handle(&mut self, _: Open, _: &mut Self::Context) {
        self.open = true;
        self.send_backlog(Instant::now());
        self.send_letters();
        self.settle();
    }
}

impl Handler<Renew> for Intake {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Renew(producers): Renew, ctx: &mut Self::Context) -> Self::Result {
        let (done, renewed) = oneshot::channel();
        let renewal = self.renewals;
        self.renewal = Some(Renewal::new(producers, done, self.renewal.take()));
        self.renew();
        self.purge_later(renewal, ctx);
        self.send_backlog(Instant::now());
        Box::pin(async move {
            // An error means that the intake is gone, and what was under way with it.
            drop(renewed.await);
        })
    }
}

impl Handler<Observe> for Intake {
    type Result = ResponseFuture<serde_json::Value>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        let state = serde_json::json!({
            "client_id": self.setup.options.client_id.to_string(),
            "messages_at_kafka": self.flight.len(),
            "bytes_at_kafka": self.flight.bytes(),
            "messages_without_room": self.backlog.len(),
            "dead_letters_under_way": self.letters.len(),
            "open": self.open,
            "kafka_clients_renewed": self.renewals,
            "flushing": !self.flushed.is_empty(),
        });
        Observe::answer(state, self.session.clone())
    }
}

impl Handler<GetSession> for Intake {
    type Result = MessageResult<GetSession>;

    fn handle(&mut self, _: GetSession, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.session.clone())
    }
}
