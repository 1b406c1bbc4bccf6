//! The MQTT session against real brokers, broken networks, and brokers that misbehave.

mod delivery;
mod lifecycle;
mod link;
mod load;
mod malformed;
mod subscription;
mod tls;

use std::time::Duration;

use fleet_shared::session::{Options, Publish, QoS, Subscription};
use fleet_tests::{Acknowledge, Client, Mosquitto, options};

/// Longest wait for anything that takes a moment on an idle machine.
const SOON: Duration = Duration::from_secs(30);

/// Options of a consumer that subscribes to `filter` and gets each message as it was published.
fn consumer(broker: &Mosquitto, filter: &str) -> Options {
    let mut options = options(broker.addr(), "consumer");
    options.subscriptions = vec![Subscription::new(filter, QoS::ExactlyOnce)];
    options
}

/// A connected session that only publishes.
async fn publisher(broker: &Mosquitto) -> Client {
    Client::connected(options(broker.addr(), "publisher"), Acknowledge::AtOnce).await
}

/// A publish of `number` as decimal text.
fn number(topic: &str, number: u64) -> Publish {
    Publish::new(topic, "test", number.to_string())
}

/// The numbers in the order in which each was seen first.
fn without_repeats(numbers: &[u64]) -> Vec<u64> {
    let mut seen = std::collections::HashSet::new();
    numbers
        .iter()
        .copied()
        .filter(|number| seen.insert(*number))
        .collect()
}
