//! How a session ends, and what it leaves at the broker.

use std::time::{Duration, Instant};

use fleet_shared::session::{Options, Publish, PublishError, Stop, Will};
use fleet_tests::{Acknowledge, Client, Mosquitto, options};

use super::{SOON, consumer, number, publisher};

/// Options of a client that leaves `text` on `wills` a second after it is gone.
fn with_will(broker: &Mosquitto, text: &'static str) -> Options {
    let mut options = options(broker.addr(), "mortal");
    let will = Will {
        topic: "wills".into(),
        payload: text.into(),
        qos: fleet_shared::session::QoS::AtLeastOnce,
        retain: false,
        delay: Duration::from_secs(1),
        user: vec![("cause".into(), "lost".into())],
    };
    options.will = Some(will.into());
    options
}

#[actix::test]
async fn will_follows_an_abandoned_session_after_its_delay_and_no_clean_stop() {
    let broker = Mosquitto::start().await;
    let witness = Client::connected(consumer(&broker, "wills"), Acknowledge::AtOnce).await;
    let clean = Client::connected(with_will(&broker, "clean"), Acknowledge::AtOnce).await;
    let ended = Client::connected(with_will(&broker, "ended"), Acknowledge::AtOnce).await;
    let crashed = Client::connected(with_will(&broker, "crashed"), Acknowledge::AtOnce).await;
    assert!(clean.session.stop(Stop::KeepSession, SOON).await);
    assert!(ended.session.stop(Stop::EndSession, SOON).await);
    let before = Instant::now();
    assert!(crashed.session.stop(Stop::Abandon, SOON).await);
    // The will of a client that stopped earlier would be here earlier.
    witness.received_at_least(1, SOON).await;
    assert!(
        before.elapsed() >= Duration::from_millis(900),
        "after {:?}",
        before.elapsed()
    );
    let wills = witness.received();
    assert_eq!(wills.len(), 1, "{wills:?}");
    assert_eq!(wills[0].payload, b"crashed");
    let properties = wills[0].properties.as_ref().expect("the will had some");
    assert_eq!(properties.user("cause"), Some("lost"));
}

#[actix::test]
async fn dropping_the_last_handle_is_a_crash() {
    let broker = Mosquitto::start().await;
    let witness = Client::connected(consumer(&broker, "wills"), Acknowledge::AtOnce).await;
    drop(Client::connected(with_will(&broker, "dropped"), Acknowledge::AtOnce).await);
    witness.received_at_least(1, SOON).await;
    assert_eq!(witness.received()[0].payload, b"dropped");
}

#[actix::test]
async fn kept_session_has_its_queue_when_the_client_comes_back() {
    let broker = Mosquitto::start().await;
    let options = consumer(&broker, "t");
    let first = Client::connected(options.clone(), Acknowledge::AtOnce).await;
    assert!(first.session.stop(Stop::KeepSession, SOON).await);
    publisher(&broker)
        .await
        .publish_numbers(0..100, |n| number("t", n))
        .await;
    let second = Client::connected(options, Acknowledge::AtOnce).await;
    assert_eq!(second.ups(), [true]);
    second.received_at_least(100, SOON).await;
    assert_eq!(second.numbers(), (0..100).collect::<Vec<_>>());
}

#[actix::test]
async fn stop_sends_what_waits_first() {
    let broker = Mosquitto::start().await;
    let consumer = Client::connected(consumer(&broker, "t"), Acknowledge::AtOnce).await;
    let publisher = publisher(&broker).await;
    let fired: Vec<_> = (0..3_000)
        .map(|n| (number("t", n), Box::new(drop) as _))
        .collect();
    publisher.session.fire_all(fired);
    assert!(publisher.session.stop(Stop::KeepSession, SOON).await);
    consumer.received_at_least(3_000, SOON).await;
    assert_eq!(consumer.numbers(), (0..3_000).collect::<Vec<_>>());
    let after = publisher
        .session
        .publish(Publish::new("t", "test", "late"))
        .await;
    assert_eq!(after, Err(PublishError::Stopped));
}

#[actix::test]
async fn ended_session_has_taken_all_and_leaves_nothing_at_the_broker() {
    let broker = Mosquitto::start().await;
    let mut options = consumer(&broker, "$share/g/t");
    options.receive_maximum = 10;
    let slow = Acknowledge::After(Duration::from_millis(2));
    let first = Client::connected(options.clone(), slow).await;
    publisher(&broker)
        .await
        .publish_numbers(0..1_000, |n| number("t", n))
        .await;
    assert!(first.session.stop(Stop::EndSession, SOON).await);
    assert_eq!(first.numbers(), (0..1_000).collect::<Vec<_>>());
    options.subscriptions.clear();
    let again = Client::connected(options, Acknowledge::AtOnce).await;
    assert_eq!(again.ups(), [false]);
}

#[actix::test]
async fn session_that_cannot_end_in_time_is_kept() {
    let broker = Mosquitto::start().await;
    let mut options = consumer(&broker, "t");
    options.receive_maximum = 10;
    let first = Client::connected(options.clone(), Acknowledge::Later).await;
    publisher(&broker)
        .await
        .publish_numbers(0..100, |n| number("t", n))
        .await;
    first.received_at_least(10, SOON).await;
    first.acknowledge(5);
    first.received_at_least(15, SOON).await;
    assert!(
        !first
            .session
            .stop(Stop::EndSession, Duration::from_millis(300))
            .await
    );
    let second = Client::connected(options, Acknowledge::AtOnce).await;
    assert_eq!(second.ups(), [true]);
    second.received_at_least(95, SOON).await;
    assert_eq!(second.numbers(), (5..100).collect::<Vec<_>>());
}

#[actix::test]
async fn stop_does_not_wait_for_a_broker_that_is_away() {
    let mut broker = Mosquitto::start().await;
    let client = publisher(&broker).await;
    broker.terminate().await;
    client.first_down(SOON).await;
    let before = Instant::now();
    client.session.stop(Stop::KeepSession, SOON).await;
    assert!(
        before.elapsed() < Duration::from_secs(5),
        "took {:?}",
        before.elapsed()
    );
}
