//! Retained message: who subscribes later gets the last value at once, until it is cleared.

mod support;

use std::time::Duration;

use fleet_shared::session::{Channel, Publish, QoS, Stop, Subscription};
use support::{next, options, say, text};

const TOPIC: &str = "patterns/retained/thermostat/config";
const FENCE: &str = "patterns/retained/fence";
const END: Duration = Duration::from_secs(2);

fn set(value: &'static [u8]) -> Publish {
    Publish::new(TOPIC, "patterns", value).retain(true)
}

/// What a new subscriber gets before anything is published: the fence is published by itself, so
/// what the broker had retained comes before it.
async fn subscriber_sees(name: &str) -> anyhow::Result<Vec<String>> {
    let mut options = options(name)?;
    let filters = [TOPIC, FENCE];
    options.subscriptions = filters
        .map(|f| Subscription::new(f, QoS::AtLeastOnce))
        .into();
    let mut subscriber = Channel::connect(options).await?;
    let fence = Publish::new(FENCE, "patterns", Vec::<u8>::new());
    subscriber.session.publish(fence).await?;
    let mut seen = Vec::new();
    loop {
        let message = next(&mut subscriber).await?;
        if message.topic.as_str() == FENCE {
            break;
        }
        seen.push(format!("{} (retained: {})", text(&message), message.retain));
    }
    subscriber.session.stop(Stop::EndSession, END).await;
    Ok(seen)
}

#[actix::main]
async fn main() -> anyhow::Result<()> {
    let publisher = Channel::connect(options("patterns-retained-publisher")?).await?;
    publisher.session.publish(set(b"19 degrees")).await?;
    publisher.session.publish(set(b"21 degrees")).await?;
    let seen = subscriber_sees("patterns-retained-one").await?;
    say(format_args!("a later subscriber gets {seen:?}"));

    // An empty payload clears it.
    publisher.session.publish(set(b"")).await?;
    let seen = subscriber_sees("patterns-retained-two").await?;
    say(format_args!("after it was cleared, {seen:?}"));
    publisher.session.stop(Stop::EndSession, END).await;
    Ok(())
}
