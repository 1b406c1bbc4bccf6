//! Links that break: reset, held in one direction or both, slow, and a broker that stands still.

use std::time::{Duration, Instant};

use fleet_shared::session::{ConnectionError, ConnectionEvent, Options};
use fleet_tests::{Acknowledge, Client, Mosquitto, Proxy, eventually, free_port, options};

use super::{SOON, consumer, number, publisher, without_repeats};

/// A consumer's options through `proxy`, that notice silence within three seconds.
fn watchful(broker: &Mosquitto, proxy: &Proxy) -> Options {
    let mut options = consumer(broker, "t");
    options.broker.port = proxy.port();
    options.keep_alive = Duration::from_secs(2);
    options.connect_timeout = Duration::from_secs(1);
    options
}

/// Publishes in the background and breaks the consumer's link meanwhile with `fault`; everything
/// has to arrive, first sightings in order.
async fn nothing_is_lost(fault: impl AsyncFnOnce(&Proxy, &Client)) {
    const TOTAL: u64 = 20_000;
    let broker = Mosquitto::start().await;
    let proxy = Proxy::start(broker.port()).await;
    let consumer = Client::connected(watchful(&broker, &proxy), Acknowledge::AtOnce).await;
    let publisher = publisher(&broker).await;
    let publishing = publisher.publish_numbers(0..TOTAL, |n| number("t", n));
    let breaking = async {
        consumer.received_at_least(1_000, SOON).await;
        fault(&proxy, &consumer).await;
        proxy.heal();
    };
    tokio::join!(publishing, breaking);
    eventually(SOON, "everything has arrived", async || {
        let numbers = without_repeats(&consumer.numbers());
        if numbers.len() as u64 == TOTAL {
            Ok(())
        } else {
            Err(numbers.len())
        }
    })
    .await;
    assert_eq!(
        without_repeats(&consumer.numbers()),
        (0..TOTAL).collect::<Vec<_>>()
    );
}

#[actix::test]
async fn reset_links_lose_nothing() {
    nothing_is_lost(async |proxy, consumer| {
        for cut in 0..5 {
            consumer.up(cut + 1).await;
            proxy.cut();
        }
        consumer.up(6).await;
        let reset = consumer.downs()[0].to_string();
        assert_eq!(reset, "the connection broke");
    })
    .await;
}

#[actix::test]
async fn half_open_link_is_noticed_and_loses_nothing() {
    nothing_is_lost(async |proxy, consumer| {
        proxy.half_open();
        let error = consumer.first_down(SOON).await;
        assert!(
            matches!(*error, ConnectionError::PingTimeout { .. }),
            "{error:?}"
        );
    })
    .await;
}

#[actix::test]
async fn black_holed_link_is_noticed_and_loses_nothing() {
    nothing_is_lost(async |proxy, consumer| {
        proxy.black_hole();
        // New connections open and stay silent as well.
        let errors = eventually(SOON, "connecting is tried in vain", async || {
            let downs = consumer.downs();
            if downs.len() >= 2 {
                Ok(downs)
            } else {
                Err(downs)
            }
        })
        .await;
        assert!(
            matches!(*errors[0], ConnectionError::PingTimeout { .. }),
            "{errors:?}"
        );
        assert!(
            matches!(*errors[1], ConnectionError::ConnectTimeout { .. }),
            "{errors:?}"
        );
    })
    .await;
}

#[actix::test]
async fn publishes_over_a_black_holed_link_are_sent_again() {
    let broker = Mosquitto::start().await;
    let proxy = Proxy::start(broker.port()).await;
    let consumer = Client::connected(consumer(&broker, "t"), Acknowledge::AtOnce).await;
    let publisher = Client::connected(watchful(&broker, &proxy), Acknowledge::AtOnce).await;
    let publishing = publisher.publish_numbers(0..5_000, |n| number("t", n));
    let breaking = async {
        consumer.received_at_least(100, SOON).await;
        proxy.half_open();
        publisher.first_down(SOON).await;
        proxy.heal();
    };
    tokio::join!(publishing, breaking);
    eventually(SOON, "everything has arrived", async || {
        let numbers = without_repeats(&consumer.numbers());
        if numbers.len() == 5_000 {
            Ok(())
        } else {
            Err(numbers.len())
        }
    })
    .await;
    assert_eq!(
        without_repeats(&consumer.numbers()),
        (0..5_000).collect::<Vec<_>>()
    );
}

#[actix::test]
async fn slow_link_is_no_broken_one() {
    let broker = Mosquitto::start().await;
    let proxy = Proxy::start(broker.port()).await;
    proxy.delay(Duration::from_millis(200));
    let consumer = Client::connected(watchful(&broker, &proxy), Acknowledge::AtOnce).await;
    publisher(&broker)
        .await
        .publish_numbers(0..1_000, |n| number("t", n))
        .await;
    consumer.received_at_least(1_000, SOON).await;
    assert_eq!(consumer.numbers(), (0..1_000).collect::<Vec<_>>());
    assert!(consumer.downs().is_empty(), "{:?}", consumer.events());
}

#[actix::test]
async fn broker_that_stands_still_is_noticed_within_one_and_a_half_keep_alives() {
    let broker = Mosquitto::start().await;
    let mut options = options(broker.addr(), "watchful");
    options.keep_alive = Duration::from_secs(2);
    let client = Client::connected(options, Acknowledge::AtOnce).await;
    broker.pause();
    let paused = Instant::now();
    let error = client.first_down(SOON).await;
    let noticed = paused.elapsed();
    // A little more than the three seconds, for a machine that is busy.
    assert!(noticed < Duration::from_millis(3_500), "after {noticed:?}");
    assert!(
        matches!(*error, ConnectionError::PingTimeout { .. }),
        "{error:?}"
    );
    broker.resume();
    client.up(2).await;
}

#[actix::test]
async fn idle_session_is_kept_up_by_pings() {
    let broker = Mosquitto::start().await;
    let mut options = options(broker.addr(), "idle");
    options.keep_alive = Duration::from_secs(1);
    let idle = Client::connected(options, Acknowledge::AtOnce).await;
    // Mosquitto closes after one and a half keep-alives; the clock to wait by is another client's
    // message that expires nowhere: four of its own keep-alives.
    let since = Instant::now();
    eventually(SOON, "four keep-alives pass", async || {
        assert!(idle.downs().is_empty(), "{:?}", idle.events());
        if since.elapsed() > Duration::from_secs(4) {
            Ok(())
        } else {
            Err(since.elapsed())
        }
    })
    .await;
    assert_eq!(idle.session.observe().await.connections, 1);
}

#[actix::test]
async fn consumer_slower_than_the_keep_alive_keeps_its_connection() {
    let broker = Mosquitto::start().await;
    let mut options = consumer(&broker, "t");
    options.keep_alive = Duration::from_secs(1);
    let slow = Acknowledge::After(Duration::from_secs(3));
    let consumer = Client::connected(options, slow).await;
    let publisher = publisher(&broker).await;
    for n in 0..2 {
        publisher.session.publish(number("t", n)).await.unwrap();
        consumer.received_at_least(n as usize + 1, SOON).await;
    }
    eventually(SOON, "everything is acknowledged", async || {
        let state = consumer.session.observe().await;
        if state.unacknowledged == 0 {
            Ok(())
        } else {
            Err(state)
        }
    })
    .await;
    assert!(consumer.downs().is_empty(), "{:?}", consumer.downs());
    assert_eq!(consumer.numbers(), [0, 1]);
}

#[actix::test]
async fn broker_that_is_not_there_is_tried_again_until_it_is() {
    let mut broker = Mosquitto::start().await;
    broker.terminate().await;
    let client = Client::start(options(broker.addr(), "early"), Acknowledge::AtOnce);
    let error = client.first_down(SOON).await;
    assert!(
        matches!(*error, ConnectionError::Unreachable { .. }),
        "{error:?}"
    );
    assert_eq!(error.to_string(), format!("cannot reach {}", broker.url()));
    broker.start_again().await;
    client.up(1).await;
}

#[actix::test]
async fn pauses_between_attempts_grow_up_to_the_maximum() {
    let nobody = fleet_shared::session::BrokerAddr {
        host: "127.0.0.1".to_owned(),
        port: free_port(),
        tls: false,
    };
    let mut options = options(nobody, "patient");
    options.reconnect.first = Duration::from_millis(5);
    options.reconnect.max = Duration::from_millis(80);
    let client = Client::start(options, Acknowledge::AtOnce);
    let pauses = eventually(SOON, "thirty attempts were made", async || {
        let events = client.events();
        let pauses: Vec<Duration> = events
            .iter()
            .filter_map(|event| match event {
                ConnectionEvent::Down { retry_in, .. } => Some(*retry_in),
                _ => None,
            })
            .collect();
        if pauses.len() >= 30 {
            Ok(pauses)
        } else {
            Err(pauses.len())
        }
    })
    .await;
    for (attempt, pause) in (0..).zip(&pauses) {
        let ceiling = Duration::from_millis((5 << attempt.min(4)).min(80));
        assert!(
            *pause <= ceiling,
            "attempt {attempt}: {pause:?} is above {ceiling:?}"
        );
    }
    // Random below the ceiling: one in a million runs keeps 20 of them in the lower half.
    assert!(
        pauses
            .iter()
            .any(|pause| *pause > Duration::from_millis(40)),
        "{pauses:?}"
    );
}
