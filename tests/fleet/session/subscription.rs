//! Subscriptions: at the start, at run time, refused, and made again.

use std::path::Path;

use fleet_shared::session::{
    ConnectionError, ConnectionEvent, QoS, Retained, SubscribeError, Subscription,
};
use fleet_tests::{Acknowledge, Client, Mosquitto, TempDir, eventually, options};

use super::{SOON, consumer, number, publisher};

/// A Mosquitto that refuses subscriptions to `secret/#`.
async fn secretive(dir: &Path) -> Mosquitto {
    Mosquitto::refusing(dir, "subscribePattern", "secret/#").await
}

fn refused(filter: &str) -> SubscribeError {
    SubscribeError::Refused {
        filter: filter.to_owned(),
        code: 0x87,
        reason: "not authorized",
    }
}

#[actix::test]
async fn refused_filter_of_the_options_is_named_and_ends_the_session() {
    let dir = TempDir::new().unwrap();
    let broker = secretive(dir.path()).await;
    let mut options = consumer(&broker, "open/#");
    options
        .subscriptions
        .push(Subscription::new("secret/door", QoS::AtLeastOnce));
    let consumer = Client::start(options, Acknowledge::AtOnce);
    let events = eventually(SOON, "the session gives up", async || {
        let events = consumer.events();
        match events.last() {
            Some(ConnectionEvent::Failed { .. }) => Ok(events),
            _ => Err(events),
        }
    })
    .await;
    assert_eq!(events.len(), 1, "it tried once: {events:?}");
    let Some(ConnectionEvent::Failed { error }) = events.last() else {
        unreachable!()
    };
    assert!(
        matches!(&**error, ConnectionError::Subscribe(error) if *error == refused("secret/door")),
        "{error:?}"
    );
    assert!(!consumer.session.observe().await.connected);
}

#[actix::test]
async fn refused_filter_at_run_time_is_named_and_the_others_stand() {
    let dir = TempDir::new().unwrap();
    let broker = secretive(dir.path()).await;
    let consumer = Client::connected(options(broker.addr(), "consumer"), Acknowledge::AtOnce).await;
    let filters = ["a/#", "secret/a", "secret/b", "b/+"];
    let wanted = filters.map(|filter| Subscription::new(filter, QoS::AtLeastOnce));
    let outcome = consumer.session.subscribe(wanted.into()).await;
    assert_eq!(outcome, Err(refused("secret/a")));
    let publisher = publisher(&broker).await;
    for (index, topic) in (0..).zip(["a/x", "secret/a", "b/x"]) {
        publisher
            .session
            .publish(number(topic, index))
            .await
            .unwrap();
    }
    consumer.received_at_least(2, SOON).await;
    assert_eq!(consumer.numbers(), [0, 2]);
}

#[actix::test]
async fn filter_that_is_none_is_refused_before_it_is_sent() {
    let broker = Mosquitto::start().await;
    let consumer = Client::connected(options(broker.addr(), "consumer"), Acknowledge::AtOnce).await;
    for filter in ["a/#/b", "a+", "", "$share/g", "$share/+/a"] {
        let outcome = consumer
            .session
            .subscribe(vec![Subscription::new(filter, QoS::AtMostOnce)])
            .await;
        assert!(
            matches!(&outcome, Err(SubscribeError::Invalid { filter: named, .. }) if named == filter),
            "{filter}: {outcome:?}"
        );
    }
    assert_eq!(consumer.session.observe().await.connections, 1);
}

#[actix::test]
async fn subscriptions_come_and_go_at_run_time() {
    let broker = Mosquitto::start().await;
    let consumer = Client::connected(options(broker.addr(), "consumer"), Acknowledge::AtOnce).await;
    let publisher = publisher(&broker).await;
    let both = ["a", "b"].map(|filter| Subscription::new(filter, QoS::AtLeastOnce));
    consumer.session.subscribe(both.into()).await.unwrap();
    publisher.session.publish(number("a", 1)).await.unwrap();
    publisher.session.publish(number("b", 2)).await.unwrap();
    consumer.received_at_least(2, SOON).await;
    consumer
        .session
        .unsubscribe(vec!["a".into()])
        .await
        .unwrap();
    publisher.session.publish(number("a", 3)).await.unwrap();
    publisher.session.publish(number("b", 4)).await.unwrap();
    consumer.received_at_least(3, SOON).await;
    assert_eq!(consumer.numbers(), [1, 2, 4]);
}

#[actix::test]
async fn subscription_options_reach_the_broker() {
    let broker = Mosquitto::start().await;
    publisher(&broker)
        .await
        .session
        .publish(number("t", 1).retain(true))
        .await
        .unwrap();
    let client = Client::connected(options(broker.addr(), "both"), Acknowledge::AtOnce).await;
    let subscription = Subscription {
        no_local: true,
        retained: Retained::Never,
        ..Subscription::new("t", QoS::AtLeastOnce)
    };
    client.session.subscribe(vec![subscription]).await.unwrap();
    client.session.publish(number("t", 2)).await.unwrap();
    publisher(&broker)
        .await
        .session
        .publish(number("t", 3))
        .await
        .unwrap();
    client.received_at_least(1, SOON).await;
    assert_eq!(client.numbers(), [3]);
}

#[actix::test]
async fn subscriptions_are_made_again_when_the_broker_lost_the_session() {
    let mut broker = Mosquitto::start().await;
    let consumer = Client::connected(consumer(&broker, "start"), Acknowledge::AtOnce).await;
    let later = Subscription::new("later", QoS::AtLeastOnce);
    let ended = Subscription::new("ended", QoS::AtLeastOnce);
    consumer
        .session
        .subscribe(vec![later, ended])
        .await
        .unwrap();
    consumer
        .session
        .unsubscribe(vec!["ended".into()])
        .await
        .unwrap();
    broker.kill();
    broker.start_again().await;
    consumer.up(2).await;
    assert_eq!(consumer.ups(), [false, false]);
    let publisher = publisher(&broker).await;
    for (index, topic) in (0..).zip(["start", "ended", "later"]) {
        publisher
            .session
            .publish(number(topic, index))
            .await
            .unwrap();
    }
    consumer.received_at_least(2, SOON).await;
    assert_eq!(consumer.numbers(), [0, 2]);
}

/// Mosquitto 2.0 keeps the session over a restart and says so, but forgets its shared
/// subscriptions.
#[actix::test]
async fn shared_subscription_is_made_again_after_a_broker_restart() {
    let mut broker = Mosquitto::start().await;
    let consumer = Client::connected(consumer(&broker, "$share/g/t"), Acknowledge::AtOnce).await;
    let later = Subscription::new("$share/g/later", QoS::AtLeastOnce);
    consumer.session.subscribe(vec![later]).await.unwrap();
    broker.terminate().await;
    broker.start_again().await;
    consumer.up(2).await;
    assert_eq!(consumer.ups(), [false, true]);
    let publisher = publisher(&broker).await;
    publisher.session.publish(number("t", 1)).await.unwrap();
    publisher.session.publish(number("later", 2)).await.unwrap();
    consumer.received_at_least(2, SOON).await;
    assert_eq!(consumer.numbers(), [1, 2]);
}
