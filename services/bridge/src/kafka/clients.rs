//! Kafka's clients: made of settings and files, and made anew when the files change.
//!
//! librdkafka reads certificates and passwords when a client is made, and never again. So changed
//! files make new clients. They are tried first: what Kafka does not accept leaves the former ones
//! in force.

use std::sync::Arc;
use std::time::Duration;

use fleet_shared::config::ConfigError;
use fleet_shared::health::Check;
use fleet_shared::tls::{TlsOptions, WatchedFiles};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use tokio::task::JoinSet;

use super::{Context, Producers, Reachable, Reports, brokers, producer, tls, topics};
use crate::config::BridgeArgs;

/// How often the files are looked at, and new clients tried that Kafka does not accept yet.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What the process speaks to Kafka with.
pub(crate) struct Clients {
    pub(crate) producers: Producers,
    /// What both were made of, for others.
    pub(crate) config: ClientConfig,
    /// Settings of the consumer of commands.
    pub(crate) consumer: ClientConfig,
    /// Reports of dead letters of commands. They are these clients' own: a slot of a consumer that
    /// has ended means nothing to the next.
    pub(crate) command_reports: Arc<Reports>,
    /// Whether Kafka can be reached by them.
    pub(crate) reachable: Arc<Reachable>,
    /// Files of TLS.
    pub(super) files: TlsOptions,
}

impl Clients {
    /// Kafka did not answer: finds out why, and says so.
    pub(crate) async fn unanswered(&self, error: &KafkaError) {
        let problem = tls::diagnose(&self.config, &self.files).await;
        self.reachable.found(problem);
        self.reachable.down(&error.to_string());
    }
}

/// Where clients come from.
pub(crate) struct Source {
    args: BridgeArgs,
    client_id: String,
    intake: Arc<Reports>,
    check: Arc<Check>,
    watched: WatchedFiles,
    /// The files have changed since the clients in force were made.
    changed: bool,
    /// Topics that clients have to see to be taken.
    required: Vec<String>,
    /// Clients that are being ended.
    retired: JoinSet<()>,
}

impl Source {
    pub(crate) fn new(
        args: BridgeArgs,
        client_id: String,
        intake: Arc<Reports>,
        check: Arc<Check>,
    ) -> Self {
        Self {
            watched: WatchedFiles::new(args.kafka_files()),
            args,
            client_id,
            intake,
            check,
            changed: false,
            required: Vec::new(),
            retired: JoinSet::new(),
        }
    }

    /// Ends clients. Connections take a moment to close, so it is done aside.
    pub(crate) fn retire(&mut self, clients: Clients) {
        // Others speak for Kafka now.
        clients.reachable.mute();
        self.end(move || drop(clients));
    }

    /// Ends what has clients, aside.
    pub(crate) fn end(&mut self, end: impl FnOnce() + Send + 'static) {
        while self.retired.try_join_next().is_some() {}
        self.retired.spawn_blocking(end);
    }

    /// Waits until all that were retired have ended.
    pub(crate) async fn closed(&mut self) {
        while self.retired.join_next().await.is_some() {}
    }

    /// From now on clients are taken only if they see these topics.
    pub(crate) fn require(&mut self, topics: Vec<String>) {
        self.required = topics;
    }

    /// Clients by the files as they are now.
    ///
    /// # Errors
    /// A setting or a file that cannot be used.
    pub(crate) fn make(&self) -> Result<Clients, ConfigError> {
        self.with(Some(self.check.clone()))
    }

    fn with(&self, check: Option<Arc<Check>>) -> Result<Clients, ConfigError> {
        let command_reports = Arc::<Reports>::default();
        let reachable = Arc::new(Reachable::new(check));
        let context = Context {
            intake: self.intake.clone(),
            commands: command_reports.clone(),
            reachable: reachable.clone(),
        };
        brokers::check(&self.args.kafka_brokers)?;
        // Once for all: files that change meanwhile must not give each another identity.
        let config = self.args.client(&self.client_id)?;
        let settings = self.args.producer(&config);
        let mut one_by_one = settings.clone();
        one_by_one.set("batch.num.messages", "1");
        let made = |settings, context| {
            producer(settings, context).map_err(|error| {
                ConfigError::setting("--kafka-setting (KAFKA_SETTINGS)", error.to_string())
            })
        };
        Ok(Clients {
            producers: Producers {
                batched: made(&settings, context.clone())?,
                alone: made(&one_by_one, context)?,
            },
            consumer: self.args.consumer(&config),
            config,
            command_reports,
            reachable,
            files: self.args.kafka_tls(),
        })
    }

    /// Waits until the files have changed and Kafka accepts what they say now, then gives clients made
    /// of them. It may be dropped and asked again.
    pub(crate) async fn renewed(&mut self) -> Clients {
        let mut told = false;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if self.watched.changed() {
                self.changed = true;
                told = false;
            }
            if !self.changed {
                continue;
            }
            match self.tried().await {
                Ok(clients) => {
                    self.changed = false;
                    tracing::info!(files = ?self.watched.files(), "files for Kafka were read again");
                    return clients;
                }
                Err(problem) if told => tracing::debug!(problem, "they are not in use yet"),
                Err(problem) => {
                    told = true;
                    tracing::warn!(
                        problem,
                        "changed files for Kafka are not in use yet; the former stay in force"
                    );
                }
            }
        }
    }

    /// New clients, after Kafka has answered to some like them.
    async fn tried(&mut self) -> Result<Clients, String> {
        let trial = self.with(None).map_err(|error| error.to_string())?;
        let answer = match topics::names(&trial.producers.batched).await {
            Ok(names) => match self.required.iter().find(|name| !names.contains(*name)) {
                None => Ok(()),
                Some(topic) => Err(format!(
                    "Kafka answers, and hides the topic `{topic}` from who we are by them: allow \
                     that account to write to it"
                )),
            },
            Err(error) => {
                trial.unanswered(&error).await;
                Err(trial.reachable.reason(&error.to_string()))
            }
        };
        self.retire(trial);
        answer?;
        self.make().map_err(|error| error.to_string())
    }
}
