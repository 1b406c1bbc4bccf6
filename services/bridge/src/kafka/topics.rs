//! The Kafka topics of the routes: waited for, created, or found missing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfig as _;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::Producer as _;
use rdkafka::types::RDKafkaErrorCode;

use super::clients::Clients;
use super::{Producer, Reachable};
use crate::error::BridgeError;
use crate::route::{Create, Routes};

/// Limit of one question to Kafka.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Pause before Kafka is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// How often a topic that nobody creates is looked for: brokers that create topics by themselves
/// take a moment.
const LOOKS: u32 = 10;

/// Waits until Kafka answers, creates what the routes want created, and sees that the rest is there.
pub(crate) async fn prepare(routes: &Routes, clients: &Clients) -> Result<(), BridgeError> {
    let (producer, config) = (&clients.producers.batched, &clients.config);
    let reachable = &clients.reachable;
    let wanted = wanted(routes);
    let known = loop {
        match names(producer).await {
            Ok(known) => break known,
            Err(error) => clients.unanswered(&error).await,
        }
        tokio::time::sleep(RETRY).await;
    };
    reachable.up();
    for (topic, create) in wanted {
        match create {
            _ if known.contains(&topic) => {}
            Some(create) => create_topic(config, &topic, create, reachable).await?,
            None => find_topic(producer, &topic).await?,
        }
    }
    Ok(())
}

/// Asks Kafka for a sign of life.
pub(crate) async fn ping(producer: &Producer) -> KafkaResult<()> {
    names(producer).await.map(drop)
}

/// Every topic that the routes name, and how to create it.
pub(crate) fn wanted(routes: &Routes) -> BTreeMap<String, Option<Create>> {
    let mut wanted = BTreeMap::new();
    for route in routes.all() {
        if let Some(topic) = route.fixed_topic() {
            let known = wanted.entry(topic.to_owned()).or_insert(route.create);
            *known = known.or(route.create);
        }
    }
    if let Some(commands) = routes.commands() {
        for topic in [&commands.topic, &commands.responses, &commands.dead_letters] {
            wanted.entry(topic.clone()).or_insert(commands.create);
        }
    }
    wanted
}

/// The names of Kafka's topics.
pub(super) async fn names(producer: &Producer) -> KafkaResult<BTreeSet<String>> {
    let producer = producer.clone();
    let asked = tokio::task::spawn_blocking(move || {
        producer
            .client()
            .fetch_metadata(None, ANSWER_MAX)
            .map(|metadata| {
                let topics = metadata.topics().iter();
                topics.map(|topic| topic.name().to_owned()).collect()
            })
    });
    asked.await.unwrap_or(Err(KafkaError::Canceled))
}

async fn create_topic(
    config: &ClientConfig,
    topic: &str,
    create: Create,
    reachable: &Reachable,
) -> Result<(), BridgeError> {
    let admin: AdminClient<DefaultClientContext> =
        AdminClient::from_config(config).map_err(BridgeError::Producer)?;
    let options = AdminOptions::new()
        .request_timeout(Some(ANSWER_MAX))
        .operation_timeout(Some(ANSWER_MAX));
    // Kafka takes -1 for the brokers' default.
    let replicas = create.replicas.map_or(-1, |replicas| replicas as i32);
    let retention = create.retention.map(|kept| kept.as_millis().to_string());
    let problem = loop {
        let mut new = NewTopic::new(
            topic,
            create.partitions as i32,
            TopicReplication::Fixed(replicas),
        );
        match (create.compact, &retention) {
            (true, None) => new = new.set("cleanup.policy", "compact"),
            (true, Some(_)) => new = new.set("cleanup.policy", "compact,delete"),
            (false, _) => {}
        }
        if let Some(retention) = &retention {
            new = new.set("retention.ms", retention);
        }
        let code = match admin.create_topics([&new], &options).await {
            Ok(results) => match results.into_iter().next() {
                None | Some(Ok(_)) => {
                    tracing::info!(
                        topic,
                        partitions = create.partitions,
                        compact = create.compact,
                        "Kafka topic created"
                    );
                    return Ok(());
                }
                // Another bridge was faster.
                Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => return Ok(()),
                Some(Err((_, code))) => code,
            },
            Err(error) => {
                reachable.down(&error.to_string());
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        if !may_pass(code) {
            break code;
        }
        tracing::debug!(topic, %code, "the topic is not created yet");
        tokio::time::sleep(RETRY).await;
    };
    Err(BridgeError::Topic {
        topic: topic.to_owned(),
        problem: format!("it cannot be created ({problem}): create it, or change its route"),
    })
}

/// Whether Kafka may answer otherwise later.
fn may_pass(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::RequestTimedOut
            | RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::NotController
            | RDKafkaErrorCode::NetworkException
            | RDKafkaErrorCode::BrokerNotAvailable
            | RDKafkaErrorCode::ThrottlingQuotaExceeded
            | RDKafkaErrorCode::BrokerTransportFailure
    )
}

/// Sees that a topic is there that somebody else creates, if need be Kafka itself.
async fn find_topic(producer: &Producer, topic: &str) -> Result<(), BridgeError> {
    for _ in 0..LOOKS {
        let (asking, name) = (producer.clone(), topic.to_owned());
        let asked = tokio::task::spawn_blocking(move || {
            asking
                .client()
                .fetch_metadata(Some(&name), ANSWER_MAX)
                .map(|metadata| {
                    let found = metadata.topics().first();
                    found.is_some_and(|topic| topic.error().is_none())
                })
        });
        if matches!(asked.await, Ok(Ok(true))) {
            return Ok(());
        }
        tokio::time::sleep(RETRY).await;
    }
    Err(BridgeError::Topic {
        topic: topic.to_owned(),
        problem: "it is not there, or hidden from us: create it, allow us to write to it, or say \
                  `create: true` in its route"
            .to_owned(),
    })
}
