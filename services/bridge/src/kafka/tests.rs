//! The producer against librdkafka's own mock cluster: faults that a real Kafka shows only by chance.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fleet_shared::health::Health;
use fleet_shared::tls::TlsOptions;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseRecord, DefaultProducerContext};
use rdkafka::types::{RDKafkaApiKey, RDKafkaErrorCode, RDKafkaRespErr};
use tokio::time::timeout;

use super::{
    Clients, Context, OF_COMMANDS, Outcome, Producer, Producers, Reachable, Report, Reports,
    producer, topics,
};
use crate::route::Routes;

type Cluster = MockCluster<'static, DefaultProducerContext>;

/// Longest wait for something that has to come.
const LONG: Duration = Duration::from_secs(60);

struct Bench {
    cluster: Cluster,
    producer: Producer,
    context: Context,
    health: Health,
    config: ClientConfig,
}

fn bench() -> Bench {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 2, 1).unwrap();
    let health = Health::new();
    let context = Context {
        intake: Arc::<Reports>::default(),
        commands: Arc::<Reports>::default(),
        reachable: Arc::new(Reachable::new(Some(Arc::new(health.check("kafka"))))),
    };
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", "0")
        .set("retry.backoff.ms", "10")
        .set("reconnect.backoff.max.ms", "100")
        .set("linger.ms", "1");
    Bench {
        producer: producer(&config, context.clone()).unwrap(),
        cluster,
        context,
        health,
        config,
    }
}

fn send(producer: &Producer, slot: usize) {
    let headers = OwnedHeaders::new().insert(Header {
        key: "mqtt.topic",
        value: Some("sensors/a/b"),
    });
    let key = slot.to_string();
    let record = BaseRecord::with_opaque_to("t", slot)
        .key(&key)
        .payload("payload")
        .headers(headers);
    producer.send(record).map_err(|(error, _)| error).unwrap();
}

async fn reports(reports: &Reports, count: usize) -> Vec<Report> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(timeout(LONG, reports.next()).await.unwrap());
    }
    all
}

#[actix::test]
async fn every_record_is_reported_once_and_what_may_pass_is_tried_again() {
    let bench = bench();
    let errors = [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
    ];
    bench
        .cluster
        .request_errors(RDKafkaApiKey::Produce, &errors);
    for slot in 0..200 {
        send(&bench.producer, slot);
    }
    let all = reports(&bench.context.intake, 200).await;
    assert!(
        all.iter()
            .all(|report| matches!(report.outcome, Outcome::Delivered))
    );
    let slots: BTreeSet<_> = all.iter().map(|report| report.slot).collect();
    assert_eq!((all.len(), slots.len()), (200, 200));
    assert!(bench.health.ready());
}

#[actix::test]
async fn refused_record_comes_back_whole_and_those_of_commands_go_their_own_way() {
    let bench = bench();
    let errors = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE];
    bench
        .cluster
        .request_errors(RDKafkaApiKey::Produce, &errors);
    send(&bench.producer, 7);
    let refused = reports(&bench.context.intake, 1).await.remove(0);
    let Outcome::Failed(failed) = refused.outcome else {
        panic!("{refused:?}");
    };
    assert_eq!(refused.slot, 7);
    assert_eq!(failed.code, RDKafkaErrorCode::MessageSizeTooLarge);
    assert_eq!(failed.record.payload(), Some(&b"payload"[..]));
    let headers = failed.record.headers().unwrap();
    assert_eq!(headers.get(0).value, Some(&b"sensors/a/b"[..]));
    send(&bench.producer, OF_COMMANDS | 3);
    let of_commands = reports(&bench.context.commands, 1).await.remove(0);
    assert_eq!(of_commands.slot, 3);
    assert!(bench.context.intake.take().is_empty());
}

#[actix::test]
async fn kafka_that_is_away_at_the_start_is_waited_for() {
    let bench = bench();
    let routes = Routes::parse("routes: [{filter: a, topic: t}]", "g").unwrap();
    bench.cluster.broker_down(1).unwrap();
    let clients = Clients {
        producers: Producers {
            batched: bench.producer.clone(),
            alone: bench.producer.clone(),
        },
        config: bench.config.clone(),
        consumer: bench.config.clone(),
        command_reports: Arc::default(),
        reachable: bench.context.reachable.clone(),
        files: TlsOptions::default(),
    };
    let prepared = topics::prepare(&routes, &clients);
    let mut prepared = std::pin::pin!(prepared);
    let early = timeout(Duration::from_secs(1), &mut prepared).await;
    assert!(early.is_err() && !bench.health.ready());
    bench.cluster.broker_up(1).unwrap();
    timeout(LONG, prepared).await.unwrap().unwrap();
    assert!(bench.health.ready());
}
