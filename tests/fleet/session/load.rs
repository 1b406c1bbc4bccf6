//! Volume: order, exactly once, and a broker that is restarted under load.

use std::time::{Duration, Instant};

use fleet_shared::session::{QoS, Subscription};
use fleet_tests::{Acknowledge, Client, Mosquitto, Proxy, eventually, options};

use super::{consumer, number, publisher, without_repeats};

/// A slow machine under load, all its cores taken.
const LONG: Duration = Duration::from_secs(100);

#[actix::test]
async fn hundred_thousand_arrive_in_order_over_split_reads() {
    const TOTAL: u64 = 100_000;
    let broker = Mosquitto::start().await;
    let proxy = Proxy::start(broker.port()).await;
    // Messages of 30 to 40 bytes: nearly every piece ends inside one, many inside its header.
    proxy.split(300);
    let mut options = consumer(&broker, "t");
    options.broker.port = proxy.port();
    let consumer = Client::connected(options, Acknowledge::AtOnce).await;
    let publisher = publisher(&broker).await;
    publisher
        .publish_numbers(0..TOTAL, |n| number("t", n))
        .await;
    consumer.received_at_least(TOTAL as usize, LONG).await;
    assert!(consumer.numbers().into_iter().eq(0..TOTAL), "out of order");
    assert!(
        consumer.batches() > 1_000,
        "{} batches: nothing was split",
        consumer.batches()
    );
}

#[actix::test]
async fn session_that_gathers_is_handed_what_came_in_the_pause_at_once() {
    const TOTAL: u64 = 300;
    const GATHER: Duration = Duration::from_millis(50);
    let broker = Mosquitto::start().await;
    let mut options = consumer(&broker, "t");
    options.gather = GATHER;
    let began = Instant::now();
    let consumer = Client::connected(options, Acknowledge::AtOnce).await;
    let publisher = publisher(&broker).await;
    // One after the other, so that without a pause nearly every one would come alone.
    for n in 0..TOTAL {
        let sent = publisher.session.publish(number("t", n)).await;
        sent.expect("the broker takes it");
    }
    consumer.received_at_least(TOTAL as usize, LONG).await;
    assert!(consumer.numbers().into_iter().eq(0..TOTAL), "out of order");
    let pauses = began.elapsed().as_millis() / GATHER.as_millis();
    assert!(
        consumer.batches() as u128 <= pauses + 2,
        "{} batches in {pauses} pauses",
        consumer.batches()
    );
}

#[actix::test]
async fn ten_thousand_qos_2_go_both_ways_once_each() {
    const TOTAL: u64 = 10_000;
    let broker = Mosquitto::start().await;
    let mut ends = Vec::new();
    for filter in ["there", "back"] {
        let mut options = options(broker.addr(), filter);
        options.subscriptions = vec![Subscription::new(filter, QoS::ExactlyOnce)];
        ends.push(Client::connected(options, Acknowledge::AtOnce).await);
    }
    let exactly_once = |topic, n| number(topic, n).qos(QoS::ExactlyOnce);
    tokio::join!(
        ends[0].publish_numbers(0..TOTAL, |n| exactly_once("back", n)),
        ends[1].publish_numbers(0..TOTAL, |n| exactly_once("there", n)),
    );
    for end in &ends {
        end.received_at_least(TOTAL as usize, LONG).await;
        assert!(
            end.numbers().into_iter().eq(0..TOTAL),
            "not once each, in order"
        );
    }
}

#[actix::test]
async fn qos_2_over_cut_links_arrives_once_each() {
    const TOTAL: u64 = 5_000;
    let broker = Mosquitto::start().await;
    let proxy = Proxy::start(broker.port()).await;
    let mut from = options(broker.addr(), "from");
    from.broker.port = proxy.port();
    let mut to = consumer(&broker, "t");
    to.broker.port = proxy.port();
    let publisher = Client::connected(from, Acknowledge::AtOnce).await;
    let consumer = Client::connected(to, Acknowledge::AtOnce).await;
    let publishing = publisher.publish_numbers(0..TOTAL, |n| number("t", n).qos(QoS::ExactlyOnce));
    let breaking = async {
        for cut in 1..=5 {
            consumer.received_at_least(cut * 500, LONG).await;
            proxy.cut();
            consumer.up(cut + 1).await;
        }
    };
    tokio::join!(publishing, breaking);
    consumer.received_at_least(TOTAL as usize, LONG).await;
    assert!(
        consumer.numbers().into_iter().eq(0..TOTAL),
        "not once each, in order"
    );
}

#[actix::test]
async fn broker_stopped_and_started_under_load_loses_nothing() {
    const TOTAL: u64 = 30_000;
    let mut broker = Mosquitto::start().await;
    let consumer = Client::connected(consumer(&broker, "t/#"), Acknowledge::AtOnce).await;
    let publisher = publisher(&broker).await;
    let publishing = publisher.publish_numbers(0..TOTAL, |n| {
        let qos = if n % 2 == 0 {
            QoS::AtLeastOnce
        } else {
            QoS::ExactlyOnce
        };
        number("t/x", n).qos(qos)
    });
    let restarting = async {
        for restart in 1..=2 {
            consumer.received_at_least(restart * 5_000, LONG).await;
            broker.terminate().await;
            broker.start_again().await;
            consumer.up(restart + 1).await;
        }
    };
    tokio::join!(publishing, restarting);
    assert_eq!(
        consumer.ups(),
        [false, true, true],
        "the broker kept the session"
    );
    eventually(LONG, "everything has arrived", async || {
        let mut numbers = without_repeats(&consumer.numbers());
        numbers.sort_unstable();
        if numbers.iter().copied().eq(0..TOTAL) {
            Ok(())
        } else {
            Err(numbers.len())
        }
    })
    .await;
}
