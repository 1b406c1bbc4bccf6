//! QoS 0, 1 and 2: what a subscriber gets that is cut off before it has acknowledged.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_shared::session::{Channel, Publish, QoS, Stop, Subscription};
use support::{next, options, say};

const END: Duration = Duration::from_secs(2);
const LEVELS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

async fn subscriber(clean_start: bool) -> anyhow::Result<Channel> {
    let mut options = options("patterns-qos-subscriber")?;
    options.clean_start = clean_start;
    options.subscriptions = vec![Subscription::new("patterns/qos/+", QoS::ExactlyOnce)];
    Ok(Channel::connect(options).await?)
}

#[actix::main]
async fn main() -> anyhow::Result<()> {
    let publisher = Channel::connect(options("patterns-qos-publisher")?).await?;
    let mut first = subscriber(true).await?;
    for qos in LEVELS {
        let topic = format!("patterns/qos/{}", qos.as_str());
        publisher
            .session
            .publish(Publish::new(topic, "patterns", &b"x"[..]).qos(qos))
            .await?;
    }
    let mut deliveries = BTreeMap::new();
    for _ in LEVELS {
        // Taken, and not acknowledged: the subscriber dies first.
        let message = first
            .next()
            .await
            .ok_or_else(|| anyhow::anyhow!("stopped"))?;
        deliveries.insert(message.qos.as_str(), 1);
    }
    first.session.stop(Stop::Abandon, END).await;

    // The broker kept the session, and delivers again what it has no acknowledgement of.
    let mut second = subscriber(false).await?;
    for _ in 1..LEVELS.len() {
        let message = next(&mut second).await?;
        *deliveries.entry(message.qos.as_str()).or_default() += 1;
    }
    // Ends when all is acknowledged in both steps, so nothing can come any more.
    let whole = second.session.stop(Stop::EndSession, END).await;
    say(format_args!(
        "deliveries by QoS when the first was not acknowledged: {deliveries:?}"
    ));
    say(format_args!(
        "QoS 0 may be lost, 1 and 2 come again; all settled: {whole}"
    ));
    publisher.session.stop(Stop::EndSession, END).await;
    Ok(())
}
