//! The producer, and how its reports reach those who wait for them.

mod brokers;
mod clients;
#[cfg(test)]
mod tests;
mod tls;
mod topics;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fleet_shared::health::Check;
use fleet_shared::session::PublishError;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::OwnedMessage;
use rdkafka::producer::{
    DeliveryResult, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer,
};
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::Notify;

pub(crate) use clients::{Clients, Source};
pub(crate) use tls::secure;
pub(crate) use topics::{ping, prepare, wanted};

/// The producer of the process.
pub(crate) type Producer = ThreadedProducer<Context>;

/// What records go to Kafka by.
#[derive(Clone)]
pub(crate) struct Producers {
    pub(crate) batched: Producer,
    /// Sends each record in a batch of its own.
    pub(crate) alone: Producer,
}

impl Producers {
    /// Makes them report what is not delivered yet, as purged.
    pub(crate) fn purge(&self) {
        for producer in [&self.batched, &self.alone] {
            producer.purge(PurgeConfig::default().queue().inflight());
        }
    }
}

/// Slots with this bit belong to the dead letters of commands, the others to the intake.
pub(crate) const OF_COMMANDS: usize = 1 << (usize::BITS - 1);

/// What became of something under way.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) slot: usize,
    pub(crate) outcome: Outcome,
}

/// How it ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Kafka has it, on as many replicas as it wants.
    Delivered,
    /// Kafka does not take it.
    Failed(Box<Failed>),
    /// The broker answered to its dead letter.
    Lettered(Result<(), PublishError>),
}

/// A record that Kafka does not take.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) code: RDKafkaErrorCode,
    pub(crate) record: OwnedMessage,
}

/// Reports on their way from the producer's thread to one that waits for them: it is woken once for
/// all that came meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    waiting: Mutex<Vec<Report>>,
    ready: Notify,
}

impl Reports {
    /// Adds one. Bounded by what is under way.
    pub(crate) fn push(&self, report: Report) {
        let mut waiting = self.lock();
        waiting.push(report);
        if waiting.len() == 1 {
            self.ready.notify_one();
        }
    }

    /// Waits for reports and takes all.
    pub(crate) async fn next(&self) -> Vec<Report> {
        loop {
            let reports = self.take();
            if !reports.is_empty() {
                return reports;
            }
            self.ready.notified().await;
        }
    }

    /// Takes what is there.
    pub(crate) fn take(&self) -> Vec<Report> {
        std::mem::take(&mut *self.lock())
    }

    /// No code panics while it holds the lock, so what is behind it is whole.
    fn lock(&self) -> MutexGuard<'_, Vec<Report>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether Kafka can be reached by some clients, as readiness and log tell it.
#[derive(Debug)]
pub(crate) struct Reachable {
    up: AtomicBool,
    /// Held while anybody is told, so that what is told last is what is.
    told: Mutex<Told>,
}

#[derive(Debug)]
struct Told {
    /// None of clients that are only tried, or are none any more.
    check: Option<Arc<Check>>,
    /// What librdkafka said last of a connection that failed.
    said: Option<String>,
    /// What we found out ourselves, which says more.
    found: Option<String>,
    /// Whether the log says that it does not answer.
    logged: bool,
}

impl Reachable {
    /// One that tells, or with nothing to tell by one that does not.
    pub(crate) fn new(check: Option<Arc<Check>>) -> Self {
        Self {
            up: AtomicBool::new(false),
            told: Mutex::new(Told {
                check,
                said: None,
                found: None,
                logged: false,
            }),
        }
    }

    /// It has delivered something: asked for every record, and news hardly ever.
    pub(crate) fn delivers(&self) {
        if !self.up.load(Ordering::Relaxed) {
            self.up();
        }
    }

    /// It answered.
    pub(crate) fn up(&self) {
        let mut told = self.locked();
        (told.said, told.found, told.logged) = (None, None, false);
        let is_news = !self.up.swap(true, Ordering::Relaxed);
        if let Some(check) = &told.check {
            if is_news {
                tracing::info!("Kafka answers");
            }
            check.up();
        }
    }

    /// It did not. The reason is the best that is known, or this.
    pub(crate) fn down(&self, otherwise: &str) {
        let mut told = self.locked();
        self.up.store(false, Ordering::Relaxed);
        let reason = told.reason(otherwise);
        let Some(check) = &told.check else {
            return;
        };
        if !told.logged {
            tracing::warn!(reason, "Kafka does not answer; messages wait at the broker");
        }
        check.down(reason);
        told.logged = true;
    }

    /// Says nothing more.
    pub(crate) fn mute(&self) {
        self.locked().check = None;
    }

    /// Why it does not answer, in the best words there are for it.
    pub(crate) fn reason(&self, otherwise: &str) -> String {
        self.locked().reason(otherwise)
    }

    /// What was found to be the matter, or nothing.
    pub(crate) fn found(&self, problem: Option<String>) {
        self.locked().found = problem;
    }

    /// What librdkafka says of a connection that failed.
    fn said(&self, reason: String) {
        self.locked().said = Some(reason);
    }

    /// No code panics while it holds the lock, so what is behind it is whole.
    fn locked(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    fn reason(&self, otherwise: &str) -> String {
        let known = self.found.as_ref().or(self.said.as_ref());
        known.map_or_else(|| otherwise.to_owned(), Clone::clone)
    }
}

/// What librdkafka calls back into.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) intake: Arc<Reports>,
    pub(crate) commands: Arc<Reports>,
    pub(crate) reachable: Arc<Reachable>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        note(&self.reachable, &error, reason);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, slot: usize) {
        let outcome = match result {
            Ok(_) => {
                self.reachable.delivers();
                Outcome::Delivered
            }
            Err((error, record)) => Outcome::Failed(Box::new(Failed {
                code: error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail),
                record: record.detach(),
            })),
        };
        if slot & OF_COMMANDS == 0 {
            self.intake.push(Report { slot, outcome });
        } else {
            let slot = slot & !OF_COMMANDS;
            self.commands.push(Report { slot, outcome });
        }
    }
}

impl ConsumerContext for Context {}

/// Starts the producer.
///
/// # Errors
/// When a setting is none, or not in this build.
pub(crate) fn producer(config: &ClientConfig, context: Context) -> KafkaResult<Producer> {
    ThreadedProducer::from_config_and_context(config, context)
}

/// A line of librdkafka's log as one of ours. What it calls an error is a connection that broke,
/// which it mends by itself, so it is told at our level of details.
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => {
            tracing::debug!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::trace!(target: "librdkafka", facility, "{message}");
        }
    }
}

/// An error of the client as a whole.
pub(crate) fn note(reachable: &Reachable, error: &KafkaError, reason: &str) {
    let Some(code) = error.rdkafka_error_code() else {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
        return;
    };
    match code {
        // Why, it has said of each before.
        RDKafkaErrorCode::AllBrokersDown => reachable.down("no broker can be reached"),
        RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => {
            reachable.said(format!("Kafka refuses our credentials: {reason}"));
            reachable.down(reason);
        }
        RDKafkaErrorCode::SSL
        | RDKafkaErrorCode::Resolve
        | RDKafkaErrorCode::BrokerTransportFailure => {
            tracing::debug!(target: "librdkafka", %error, "{reason}");
            reachable.said(reason.to_owned());
        }
        _ => tracing::debug!(target: "librdkafka", %error, "{reason}"),
    }
}
