//! The thread that takes commands from Kafka.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fleet_shared::session::{Publish, PublishError, Session};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::mpsc::UnboundedSender;

use super::letter::{self, Original};
use super::offsets::{Offsets, Place};
use super::request::{self, CommandRecord};
use crate::error::BridgeError;
use crate::kafka::{self, Outcome, Producer, Reachable, Reports};
use crate::metrics::BridgeMetrics;
use crate::reason::{Reason, Refusal};
use crate::route::CommandRoutes;

/// Commands under way at once; well below what the session's outbox takes.
const UNDER_WAY_MAX: usize = 500;

/// Bytes of their records at once: a record may have a megabyte.
const UNDER_WAY_BYTES_MAX: usize = 64 * 1_024 * 1_024;

/// Longest look for a record, so that the broker's answers are seen soon. Records and rebalances
/// end it early.
const LOOK: Duration = Duration::from_millis(20);

/// Pause before a command is tried again that found no room in the session, or its dead letter none in
/// the producer.
const RETRY: Duration = Duration::from_millis(50);

/// What the consumer is made of.
pub(crate) struct Setup {
    pub(crate) config: ClientConfig,
    pub(crate) routes: CommandRoutes,
    /// Where answers come back to.
    pub(crate) client_id: String,
    pub(crate) session: Session,
    /// Of dead letters, each in a batch of its own: a topic's limit is one of batches.
    pub(crate) producer: Producer,
    pub(crate) reports: Arc<Reports>,
    pub(crate) reachable: Arc<Reachable>,
    pub(crate) metrics: BridgeMetrics,
    pub(crate) failures: UnboundedSender<BridgeError>,
}

/// Handle to the thread; it ends when told or dropped.
pub(crate) struct Consumer {
    stop: Arc<Stop>,
    ended: tokio::sync::oneshot::Receiver<()>,
}

#[derive(Default)]
struct Stop {
    asked: AtomicBool,
    until: Mutex<Option<Instant>>,
}

impl Consumer {
    /// Joins the group and begins.
    ///
    /// # Errors
    /// When the consumer cannot be made of its settings.
    pub(crate) fn start(setup: Setup) -> Result<Self, BridgeError> {
        let offsets = Arc::<Mutex<Offsets>>::default();
        let context = Context {
            offsets: offsets.clone(),
            reachable: setup.reachable.clone(),
        };
        let consumer = BaseConsumer::from_config_and_context(&setup.config, context)
            .map_err(BridgeError::Consumer)?;
        consumer
            .subscribe(&[&setup.routes.topic])
            .map_err(BridgeError::Consumer)?;
        let stop = Arc::<Stop>::default();
        let (end, ended) = tokio::sync::oneshot::channel();
        let work = Work {
            consumer,
            offsets,
            stop: stop.clone(),
            done: Arc::default(),
            under_way: Vec::new(),
            bytes: 0,
            free: Vec::new(),
            again: VecDeque::new(),
            paused: false,
            setup,
        };
        let failures = work.setup.failures.clone();
        spawn(failures, move || {
            work.run();
            // Nobody may be waiting any more.
            end.send(()).ok();
        })?;
        Ok(Self { stop, ended })
    }

    /// Takes no more, waits until `limit` for what is under way, commits and leaves the group.
    pub(crate) async fn stop(self, limit: Duration) {
        *lock(&self.stop.until) = Some(Instant::now() + limit);
        self.stop.asked.store(true, Ordering::Release);
        // Leaving the group takes a moment more; a thread that hangs ends with the process.
        let end = tokio::time::timeout(limit + Duration::from_secs(2), self.ended);
        if end.await.is_err() {
            tracing::warn!("the consumer of commands did not end in time");
        }
    }
}

/// Runs `work` on the thread of commands. Should it panic, the service fails, instead of going on
/// without commands; where panics abort the process, it ends anyway.
fn spawn(
    failures: UnboundedSender<BridgeError>,
    work: impl FnOnce() + Send + 'static,
) -> Result<(), BridgeError> {
    let run = move || {
        // What a panic leaves behind is only dropped.
        if std::panic::catch_unwind(AssertUnwindSafe(work)).is_err() {
            // The receiver is gone only when the service is ending anyway.
            drop(failures.send(BridgeError::Panicked));
        }
    };
    let thread = std::thread::Builder::new().name("commands".to_owned());
    let started = thread.spawn(run).map(drop);
    started.map_err(|error| BridgeError::Consumer(KafkaError::ClientCreation(error.to_string())))
}

/// What the consumer calls back into, on its own thread.
struct Context {
    offsets: Arc<Mutex<Offsets>>,
    reachable: Arc<Reachable>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        kafka::note(&self.reachable, &error, reason);
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let mut offsets = lock(&self.offsets);
        match rebalance {
            Rebalance::Assign(partitions) => {
                tracing::info!(
                    partitions = partitions.count(),
                    "partitions of commands assigned"
                );
            }
            Rebalance::Revoke(partitions) => {
                for partition in partitions.elements() {
                    offsets.revoked(partition.partition());
                }
                tracing::info!(
                    partitions = partitions.count(),
                    "partitions of commands revoked"
                );
            }
            Rebalance::Error(error) => tracing::warn!(%error, "the group could not be rebalanced"),
        }
    }
}

/// A record under way.
struct UnderWay {
    place: Place,
    publish: Publish,
    /// What its dead letter would be made of.
    original: Original,
    /// Bytes of the record.
    size: usize,
}

/// What became of publishes, by slot.
type Answers = Vec<(usize, Result<(), PublishError>)>;

struct Work {
    setup: Setup,
    consumer: BaseConsumer<Context>,
    offsets: Arc<Mutex<Offsets>>,
    stop: Arc<Stop>,
    /// The broker's answers, by slot.
    done: Arc<Mutex<Answers>>,
    under_way: Vec<Option<UnderWay>>,
    /// Of the records under way.
    bytes: usize,
    free: Vec<usize>,
    /// Slots that found no room in the session or the producer, and when they are tried again.
    again: VecDeque<(Instant, usize)>,
    paused: bool,
}

impl Work {
    fn run(mut self) {
        while !self.stop.asked.load(Ordering::Acquire) {
            self.settle();
            self.pause_or_resume();
            match self.poll() {
                Ok(()) => {}
                Err(error) => {
                    // The receiver is gone only when the service is ending anyway.
                    drop(self.setup.failures.send(error));
                    return;
                }
            }
        }
        let until = lock(&self.stop.until).unwrap_or_else(Instant::now);
        while self.count() > 0 && Instant::now() < until {
            self.settle();
            #[expect(
                clippy::disallowed_methods,
                reason = "a thread of its own without any actor, on its way out"
            )]
            std::thread::sleep(Duration::from_millis(5));
        }
        // Committed here, as what is stored; an error means that the records come again.
        if let Err(error) = self.consumer.commit_consumer_state(CommitMode::Sync)
            && error.rdkafka_error_code() != Some(RDKafkaErrorCode::NoOffset)
        {
            tracing::warn!(%error, "offsets are not committed; commands may come again");
        }
    }

    fn count(&self) -> usize {
        self.under_way.len() - self.free.len()
    }

    /// Takes a record, if one comes.
    fn poll(&mut self) -> Result<(), BridgeError> {
        let taken = match self.consumer.poll(LOOK) {
            None => return Ok(()),
            Some(Ok(record)) => self.taken(&record),
            Some(Err(error)) => {
                return match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::Fatal | RDKafkaErrorCode::GroupAuthorizationFailed) => {
                        Err(BridgeError::Consumer(error))
                    }
                    // It goes on by itself: a topic that is still to be created, a broker away.
                    _ => {
                        tracing::debug!(%error, "commands cannot be read now");
                        Ok(())
                    }
                };
            }
        };
        match taken {
            Ok(under_way) => {
                let slot = self.add(under_way);
                self.fire(slot);
            }
            Err(refused) => {
                let (under_way, refusal) = *refused;
                let slot = self.add(under_way);
                self.letter(slot, refusal);
            }
        }
        Ok(())
    }

    /// What a record asks for, or why it is no command.
    fn taken(&self, record: &BorrowedMessage<'_>) -> Result<UnderWay, Box<(UnderWay, Refusal)>> {
        let record = CommandRecord::of(record);
        let place = lock(&self.offsets).taken(record.partition, record.offset);
        let under_way = |publish| UnderWay {
            place,
            publish,
            size: record.value.len() + record.key.map_or(0, <[u8]>::len),
            original: Original::new(record.key, record.value),
        };
        match request::publish(&record, &self.setup.client_id) {
            Ok(publish) => Ok(under_way(publish)),
            Err(refusal) => Err(Box::new((
                under_way(Publish::new("", "", Vec::new())),
                refusal,
            ))),
        }
    }

    fn add(&mut self, under_way: UnderWay) -> usize {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.under_way.push(None);
                self.under_way.len() - 1
            }
        };
        self.bytes += under_way.size;
        self.under_way[slot] = Some(under_way);
        self.setup.metrics.commands_under_way(self.count());
        slot
    }

    fn fire(&self, slot: usize) {
        let Some(under_way) = &self.under_way[slot] else {
            return;
        };
        let done = self.done.clone();
        self.setup
            .session
            .fire(under_way.publish.clone(), move |outcome| {
                lock(&done).push((slot, outcome));
            });
    }

    /// Makes a record a dead letter.
    fn letter(&mut self, slot: usize, refusal: Refusal) {
        if let Some(under_way) = &mut self.under_way[slot] {
            under_way.original.refuse(refusal);
            self.send_letter(slot);
        }
    }

    /// Sends a record to the topic of what is no command, as much of it as the producer takes.
    fn send_letter(&mut self, slot: usize) {
        while let Some(under_way) = &self.under_way[slot] {
            let routes = &self.setup.routes;
            let Some(letter) = under_way.original.letter(under_way.place, slot, routes) else {
                return;
            };
            let Err((error, _)) = self.setup.producer.send(letter) else {
                return;
            };
            match error.rdkafka_error_code() {
                Some(code) if letter::is_too_large(code) => {
                    if !self.shorten(slot) {
                        return;
                    }
                }
                // It has room for all of ours, unless many are large.
                Some(RDKafkaErrorCode::QueueFull) => {
                    self.again.push_back((Instant::now() + RETRY, slot));
                    return;
                }
                _ => {
                    drop(self.setup.failures.send(BridgeError::Producer(error)));
                    return;
                }
            }
        }
    }

    /// Cuts a letter that is too large. One that still is with nothing left to cut is given up: false.
    fn shorten(&mut self, slot: usize) -> bool {
        let Some(under_way) = &mut self.under_way[slot] else {
            return false;
        };
        if under_way.original.shorten() {
            return true;
        }
        // The record itself stays where it is for as long as its topic keeps it.
        tracing::error!(
            topic = self.setup.routes.dead_letters,
            partition = under_way.place.partition,
            offset = under_way.place.offset,
            "Kafka finds even an empty dead letter too large; raise the limit of the topic"
        );
        self.finish(slot);
        false
    }

    /// Takes the answers that came, of the broker and of Kafka, and stores what may be committed.
    fn settle(&mut self) {
        let done = std::mem::take(&mut *lock(&self.done));
        for (slot, outcome) in done {
            match outcome {
                Ok(()) => self.finish(slot),
                Err(PublishError::OutboxFull { .. }) => {
                    self.again.push_back((Instant::now() + RETRY, slot));
                }
                // It comes again, to whoever is next.
                Err(PublishError::Stopped) => {}
                Err(error) => {
                    let refusal = Refusal::new(Reason::BrokerRefused, error.to_string());
                    self.letter(slot, refusal);
                }
            }
        }
        for report in self.setup.reports.take() {
            match report.outcome {
                Outcome::Delivered => {
                    if let Some(under_way) = &self.under_way[report.slot] {
                        tracing::warn!(
                            partition = under_way.place.partition,
                            offset = under_way.place.offset,
                            reason = under_way.original.refused().map(Reason::as_str),
                            "a record became a dead letter"
                        );
                    }
                    self.finish(report.slot);
                }
                Outcome::Failed(failed) if letter::is_too_large(failed.code) => {
                    if self.shorten(report.slot) {
                        self.send_letter(report.slot);
                    }
                }
                Outcome::Failed(failed) => {
                    let purged = [
                        RDKafkaErrorCode::PurgeQueue,
                        RDKafkaErrorCode::PurgeInflight,
                    ];
                    if !purged.contains(&failed.code) {
                        drop(self.setup.failures.send(BridgeError::Refused {
                            topic: failed.record.topic().to_owned(),
                            code: failed.code,
                        }));
                    }
                }
                Outcome::Lettered(_) => {}
            }
        }
        let now = Instant::now();
        while self.again.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, slot)) = self.again.pop_front() else {
                break;
            };
            let under_way = self.under_way[slot].as_ref();
            match under_way.and_then(|under_way| under_way.original.refused()) {
                None => self.fire(slot),
                Some(_) => self.send_letter(slot),
            }
        }
    }

    /// A record is done: its command is the broker's, or its dead letter Kafka's.
    fn finish(&mut self, slot: usize) {
        let Some(under_way) = self.under_way.get_mut(slot).and_then(Option::take) else {
            return;
        };
        self.free.push(slot);
        self.bytes -= under_way.size;
        match under_way.original.refused() {
            None => self.setup.metrics.command_delivered(),
            Some(reason) => self.setup.metrics.command_lettered(reason),
        }
        self.setup.metrics.commands_under_way(self.count());
        let partition = under_way.place.partition;
        let last = lock(&self.offsets).done(under_way.place);
        if let Some(last) = last
            && let Err(error) =
                self.consumer
                    .store_offset(&self.setup.routes.topic, partition, last)
        {
            // The partition has gone to another member, which gets these records again.
            tracing::debug!(%error, partition, "an offset is not stored");
        }
    }

    /// Takes no more records while enough are under way; the group still sees us.
    fn pause_or_resume(&mut self) {
        let full = self.count() >= UNDER_WAY_MAX || self.bytes >= UNDER_WAY_BYTES_MAX;
        if full == self.paused {
            return;
        }
        let Ok(assigned) = self.consumer.assignment() else {
            return;
        };
        let turned = if full {
            self.consumer.pause(&assigned)
        } else {
            self.consumer.resume(&assigned)
        };
        // Partitions that come meanwhile are not paused; they bring what is prefetched at most.
        match turned {
            Ok(()) => self.paused = full && assigned_any(&assigned),
            Err(error) => tracing::debug!(%error, "partitions cannot be paused or resumed now"),
        }
    }
}

fn assigned_any(assigned: &TopicPartitionList) -> bool {
    assigned.count() > 0
}

/// No code panics while it holds one of these locks, so what is behind them is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_of_the_thread_is_a_failure_of_the_service() {
        let (failures, mut failed) = tokio::sync::mpsc::unbounded_channel();
        spawn(failures, || panic!("as a bug does")).unwrap();
        assert!(matches!(failed.recv().await, Some(BridgeError::Panicked)));
    }
}
