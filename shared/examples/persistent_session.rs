//! Persistent session: the broker queues for a client that is away, and forgets nothing meanwhile.

mod support;

use std::time::Duration;

use fleet_shared::session::{Channel, Publish, QoS, Stop, Subscription};
use support::{next, options, say, text};

const TOPIC: &str = "patterns/persistent/alerts";
const END: Duration = Duration::from_secs(2);

async fn subscriber(clean_start: bool) -> anyhow::Result<Channel> {
    // The same client id every time: it is what the broker ties the queue to.
    let mut options = options("patterns-persistent-subscriber")?;
    options.clean_start = clean_start;
    options.session_expiry = Duration::from_secs(60);
    options.subscriptions = vec![Subscription::new(TOPIC, QoS::AtLeastOnce)];
    Ok(Channel::connect(options).await?)
}

#[actix::main]
async fn main() -> anyhow::Result<()> {
    let publisher = Channel::connect(options("patterns-persistent-publisher")?).await?;
    let first = subscriber(true).await?;
    say(format_args!(
        "first connection, session present: {}",
        first.session_present
    ));
    first.session.stop(Stop::KeepSession, END).await;

    for n in 1..=3 {
        let alert = Publish::new(TOPIC, "patterns", format!("alert {n}").into_bytes());
        publisher.session.publish(alert).await?;
    }
    say("three alerts were published meanwhile");

    let mut second = subscriber(false).await?;
    say(format_args!(
        "second connection, session present: {}",
        second.session_present
    ));
    for _ in 0..3 {
        say(format_args!("queued: {}", text(&next(&mut second).await?)));
    }
    second.session.stop(Stop::EndSession, END).await;
    publisher.session.stop(Stop::EndSession, END).await;
    Ok(())
}
