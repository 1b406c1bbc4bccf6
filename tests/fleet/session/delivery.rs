//! What is published arrives as it was published, and is acknowledged when the consumer says so.

use std::time::Duration;

use fleet_shared::session::{
    BrokerAddr, Properties, Publish, PublishError, QoS, SubscribeError, Subscription,
};
use fleet_tests::{Acknowledge, Client, Mosquitto, Proxy, Stub, eventually, options};

use super::{SOON, consumer, number, publisher, without_repeats};

#[actix::test]
async fn each_qos_arrives_once_with_its_own_level() {
    let broker = Mosquitto::start().await;
    let consumer = Client::connected(consumer(&broker, "t/#"), Acknowledge::AtOnce).await;
    let publisher = publisher(&broker).await;
    let levels = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
    for (index, qos) in (0..).zip(levels) {
        publisher
            .session
            .publish(number("t/x", index).qos(qos))
            .await
            .unwrap();
    }
    consumer.received_at_least(3, SOON).await;
    assert_eq!(consumer.numbers(), [0, 1, 2]);
    assert_eq!(
        consumer
            .received()
            .iter()
            .map(|m| m.qos)
            .collect::<Vec<_>>(),
        levels
    );
    eventually(SOON, "everything is acknowledged", async || {
        let state = consumer.session.observe().await;
        if state.unacknowledged == 0 {
            Ok(())
        } else {
            Err(state)
        }
    })
    .await;
}

#[actix::test]
async fn properties_payload_and_topic_arrive_as_sent() {
    let broker = Mosquitto::start().await;
    let consumer = Client::connected(consumer(&broker, "t/+/ü"), Acknowledge::AtOnce).await;
    let publisher = publisher(&broker).await;
    let properties = Properties {
        user: vec![
            ("traceparent".into(), "00-1-2-01".into()),
            ("again".into(), "1".into()),
            ("again".into(), "2".into()),
        ],
        response_topic: Some("responses/me/1".into()),
        correlation_data: Some(vec![0, 255, 7].into()),
        content_type: Some("application/json".into()),
        message_expiry: Some(Duration::from_secs(600)),
    };
    let payload: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    let publish = Publish::new("t/b/ü", "test", payload.clone()).properties(properties.clone());
    publisher.session.publish(publish).await.unwrap();
    consumer.received_at_least(1, SOON).await;
    let received = consumer.received().remove(0);
    assert_eq!(received.topic, "t/b/ü");
    assert_eq!(received.payload, payload);
    let mut got = *received.properties.expect("properties were sent");
    // The broker subtracts the time for which it held the message.
    let expiry = got.message_expiry.take().expect("an expiry was sent");
    assert!(expiry <= Duration::from_secs(600) && expiry > Duration::from_secs(500));
    assert_eq!(
        got,
        Properties {
            message_expiry: None,
            ..properties
        }
    );
}

#[actix::test]
async fn retained_message_is_marked_and_an_empty_one_clears_it() {
    let broker = Mosquitto::start().await;
    let publisher = publisher(&broker).await;
    publisher
        .session
        .publish(number("door", 1).retain(true))
        .await
        .unwrap();
    let first = Client::connected(consumer(&broker, "door"), Acknowledge::AtOnce).await;
    first.received_at_least(1, SOON).await;
    assert!(first.received()[0].retain);
    publisher.session.publish(number("door", 2)).await.unwrap();
    first.received_at_least(2, SOON).await;
    assert!(!first.received()[1].retain);
    publisher
        .session
        .publish(Publish::new("door", "test", "").retain(true))
        .await
        .unwrap();
    let second = Client::connected(consumer(&broker, "door"), Acknowledge::AtOnce).await;
    publisher.session.publish(number("door", 3)).await.unwrap();
    second.received_at_least(1, SOON).await;
    assert_eq!(second.numbers(), [3]);
}

/// Mosquitto 2.0 forgets the receive maximum with the first acknowledgement and sends its whole
/// queue, so the bound has to hold by not reading, and without losing the connection.
#[actix::test]
async fn consumer_that_does_not_acknowledge_bounds_what_is_taken() {
    const TOTAL: usize = 5_000;
    const WINDOW: usize = 100;
    // What one more socket read brings comes on top.
    const TAKEN_MAX: usize = 3 * WINDOW;
    let broker = Mosquitto::start().await;
    let mut options = consumer(&broker, "t");
    options.receive_maximum = WINDOW as u16;
    let consumer = Client::connected(options, Acknowledge::Later).await;
    // 1 KiB each: numbers behind zeros.
    let padded = |n| Publish::new("t", "test", format!("{n:01024}"));
    publisher(&broker)
        .await
        .publish_numbers(0..TOTAL as u64, padded)
        .await;
    let mut acknowledged = 0;
    while acknowledged < TOTAL {
        consumer
            .received_at_least(TOTAL.min(acknowledged + WINDOW), SOON)
            .await;
        let taken = consumer.count() - acknowledged;
        assert!(
            taken <= TAKEN_MAX,
            "{taken} messages without an acknowledgement"
        );
        acknowledged += 30;
        consumer.acknowledge(30);
    }
    assert!(
        consumer.numbers().into_iter().eq(0..TOTAL as u64),
        "not once each, in order"
    );
    assert!(consumer.downs().is_empty(), "{:?}", consumer.downs());
}

#[actix::test]
async fn unacknowledged_are_delivered_again_with_dup_after_a_reconnect() {
    let broker = Mosquitto::start().await;
    let proxy = Proxy::start(broker.port()).await;
    let mut options = consumer(&broker, "t");
    options.broker.port = proxy.port();
    let consumer = Client::connected(options, Acknowledge::Later).await;
    publisher(&broker)
        .await
        .publish_numbers(0..1_000, |n| number("t", n))
        .await;
    consumer.received_at_least(1_000, SOON).await;
    // Out of order and in batches: the first 400, but for one that stays open.
    let mut first = consumer.take_held(400);
    first.reverse();
    let open = first.pop().expect("400 were taken");
    let last = first.split_off(200);
    consumer.session.acknowledge(first);
    consumer.session.acknowledge(last);
    assert_eq!(consumer.session.observe().await.unacknowledged, 1_000);
    // With it the 400 may go out: acknowledgements keep the order of arrival.
    consumer.session.acknowledge(vec![open]);
    eventually(SOON, "400 are acknowledged", async || {
        let state = consumer.session.observe().await;
        if state.unacknowledged == 600 {
            Ok(())
        } else {
            Err(state)
        }
    })
    .await;
    // What the broker has read by now it does not send again; a round trip makes it so.
    consumer
        .session
        .publish(number("elsewhere", 0))
        .await
        .unwrap();
    proxy.cut();
    consumer.up(2).await;
    consumer.received_at_least(1_600, SOON).await;
    let received = consumer.received();
    assert!(received[1_000..].iter().all(|message| message.dup));
    assert_eq!(
        consumer.numbers()[1_000..],
        (400..1_000).collect::<Vec<_>>()
    );
    consumer.acknowledge(usize::MAX);
    eventually(SOON, "the rest is acknowledged", async || {
        let state = consumer.session.observe().await;
        if state.unacknowledged == 0 {
            Ok(())
        } else {
            Err(state)
        }
    })
    .await;
    assert_eq!(consumer.count(), 1_600);
}

#[actix::test]
async fn qos_2_left_open_over_a_reconnect_is_handed_over_once() {
    let broker = Mosquitto::start().await;
    let proxy = Proxy::start(broker.port()).await;
    let mut options = consumer(&broker, "t");
    options.broker.port = proxy.port();
    let consumer = Client::connected(options, Acknowledge::Later).await;
    let publisher = publisher(&broker).await;
    publisher
        .publish_numbers(0..300, |n| number("t", n).qos(QoS::ExactlyOnce))
        .await;
    consumer.received_at_least(300, SOON).await;
    consumer.acknowledge(100);
    proxy.cut();
    consumer.up(2).await;
    consumer.acknowledge(100);
    proxy.cut();
    consumer.up(3).await;
    consumer.acknowledge(100);
    publisher
        .session
        .publish(number("t", 300).qos(QoS::ExactlyOnce))
        .await
        .unwrap();
    consumer.received_at_least(301, SOON).await;
    consumer.acknowledge(1);
    eventually(SOON, "everything is acknowledged", async || {
        let state = consumer.session.observe().await;
        if state.unacknowledged == 0 {
            Ok(())
        } else {
            Err(state)
        }
    })
    .await;
    assert_eq!(consumer.numbers(), (0..=300).collect::<Vec<_>>());
}

#[actix::test]
async fn full_outbox_refuses_and_what_it_holds_is_sent_later() {
    let mut broker = Mosquitto::start().await;
    let consumer = Client::connected(consumer(&broker, "t"), Acknowledge::AtOnce).await;
    broker.terminate().await;
    let mut options = options(broker.addr(), "publisher");
    options.outbox_max = 10;
    let publisher = Client::start(options, Acknowledge::AtOnce);
    let waiting: Vec<_> = (0..15)
        .map(|n| {
            let session = publisher.session.clone();
            actix::spawn(async move { session.publish(number("t", n)).await })
        })
        .collect();
    eventually(SOON, "ten publishes wait", async || {
        let state = publisher.session.observe().await;
        if state.outbox == 10 {
            Ok(())
        } else {
            Err(state)
        }
    })
    .await;
    broker.start_again().await;
    let mut outcomes = Vec::new();
    for publish in waiting {
        outcomes.push(publish.await.unwrap());
    }
    assert_eq!(outcomes[..10], vec![Ok(()); 10]);
    assert_eq!(
        outcomes[10..],
        vec![Err(PublishError::OutboxFull { max: 10 }); 5]
    );
    consumer.received_at_least(10, SOON).await;
    assert_eq!(
        without_repeats(&consumer.numbers()),
        (0..10).collect::<Vec<_>>()
    );
}

#[actix::test]
async fn slow_consumer_of_qos_0_holds_the_sender_back() {
    const PAYLOAD: usize = 16 * 1024;
    const TOTAL: usize = 48 * 1024 * 1024 / PAYLOAD;
    // The kernel's buffers of both ends, a read, and what the consumer is busy with.
    const AHEAD_MAX: usize = 16 * 1024 * 1024 / PAYLOAD;
    let stub = Stub::start().await;
    let broker = BrokerAddr {
        host: "127.0.0.1".to_owned(),
        port: stub.port(),
        tls: false,
    };
    let slow = Acknowledge::After(Duration::from_millis(2));
    let consumer = Client::start(options(broker, "consumer"), slow);
    let mut peer = stub.accept().await;
    peer.welcome(&[]).await;
    // PUBLISH at QoS 0 on `t`, no properties.
    let remaining = 2 + 1 + 1 + PAYLOAD;
    let mut publish = vec![0x30, 0x80 | (remaining & 0x7f) as u8];
    publish.extend([
        0x80 | (remaining >> 7 & 0x7f) as u8,
        (remaining >> 14) as u8,
    ]);
    publish.extend([0, 1, b't', 0]);
    publish.resize(publish.len() + PAYLOAD, b'x');
    for sent in 0..TOTAL {
        peer.send(&publish).await;
        let ahead = sent - consumer.count();
        assert!(
            ahead < AHEAD_MAX,
            "the session took {ahead} messages that nobody wanted yet"
        );
    }
    consumer.received_at_least(TOTAL, SOON).await;
    assert_eq!(consumer.count(), TOTAL);
}

#[actix::test]
async fn metrics_count_by_template_and_filter() {
    let broker = Mosquitto::start().await;
    let mut options = consumer(&broker, "$share/g/sensors/#");
    options
        .subscriptions
        .push(fleet_shared::session::Subscription::new(
            "other/+",
            QoS::AtLeastOnce,
        ));
    let consumer = Client::connected(options, Acknowledge::AtOnce).await;
    let publisher = publisher(&broker).await;
    for topic in ["sensors/a/temperature", "sensors/b/temperature", "other/x"] {
        let publish = Publish::new(topic, "sensors/{location}/temperature", "1");
        publisher.session.publish(publish).await.unwrap();
    }
    consumer.received_at_least(3, SOON).await;
    let published = fleet_tests::Scrape::new(publisher.metrics.encode());
    let labels = [("topic", "sensors/{location}/temperature"), ("qos", "1")];
    assert_eq!(published.sum("mqtt_messages_published_total", &labels), 3.0);
    assert_eq!(published.sum("mqtt_connection_status", &[]), 1.0);
    let received = fleet_tests::Scrape::new(consumer.metrics.encode());
    let of = |filter| received.sum("mqtt_messages_received_total", &[("topic", filter)]);
    assert_eq!((of("$share/g/sensors/#"), of("other/+")), (2.0, 1.0));
    drop(broker);
    eventually(SOON, "the lost connection shows", async || {
        let status = fleet_tests::Scrape::new(publisher.metrics.encode());
        match status.sum("mqtt_connection_status", &[]) {
            0.0 => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

#[actix::test]
async fn text_over_which_the_broker_would_end_the_connection_is_refused_and_the_rest_goes_on() {
    let broker = Mosquitto::start().await;
    let consumer = Client::connected(consumer(&broker, "t/#"), Acknowledge::AtOnce).await;
    let publisher = publisher(&broker).await;
    let with_user = |text: &str| {
        Publish::new("t/x", "test", "").properties(Properties {
            user: vec![("detail".into(), text.into())],
            ..Properties::default()
        })
    };
    for text in [
        "\u{1}",
        "\u{7f}",
        "\u{85}",
        "\u{fdd0}",
        "\u{ffff}",
        "\u{1fffe}",
    ] {
        let on_topic = Publish::new(format!("t/{text}"), "test", "");
        for publish in [on_topic, with_user(text)] {
            let error = publisher.session.publish(publish).await.unwrap_err();
            assert!(
                matches!(error, PublishError::Invalid { .. }),
                "{text:?}: {error}"
            );
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
        }
        let filter = Subscription::new(format!("t/{text}"), QoS::AtMostOnce);
        let error = publisher.session.subscribe(vec![filter]).await.unwrap_err();
        assert!(
            matches!(error, SubscribeError::Invalid { .. }),
            "{text:?}: {error}"
        );
    }
    let whole = with_user("gerät \u{1f6aa} \u{fffd}");
    publisher.session.publish(whole).await.unwrap();
    consumer.received_at_least(1, SOON).await;
    assert_eq!(consumer.received().len(), 1);
    assert_eq!(publisher.ups().len(), 1, "the connection was never lost");
}
