//! Last will: the broker says offline for a device that vanishes, and not for one that leaves.

mod support;

use std::time::Duration;

use fleet_shared::session::{Channel, Publish, QoS, Stop, Subscription, Will};
use support::{next, options, say, text};

const STATUS: &str = "patterns/will/d-1/status";
const END: Duration = Duration::from_secs(2);

async fn device() -> anyhow::Result<Channel> {
    let mut options = options("patterns-will-device")?;
    options.will = Some(
        Will {
            topic: STATUS.into(),
            payload: (&b"offline"[..]).into(),
            qos: QoS::AtLeastOnce,
            retain: true,
            delay: Duration::ZERO,
            user: Vec::new(),
        }
        .into(),
    );
    let device = Channel::connect(options).await?;
    let birth = Publish::new(STATUS, "patterns", &b"online"[..]).retain(true);
    device.session.publish(birth).await?;
    Ok(device)
}

#[actix::main]
async fn main() -> anyhow::Result<()> {
    let mut options = options("patterns-will-watcher")?;
    let status = Subscription::new(STATUS, QoS::AtLeastOnce);
    options.subscriptions = vec![status];
    let mut watcher = Channel::connect(options).await?;

    let vanishing = device().await?;
    say(format_args!(
        "the device is {}",
        text(&next(&mut watcher).await?)
    ));
    vanishing.session.stop(Stop::Abandon, END).await;
    say(format_args!(
        "it vanished: {}",
        text(&next(&mut watcher).await?)
    ));

    let leaving = device().await?;
    say(format_args!(
        "the device is {}",
        text(&next(&mut watcher).await?)
    ));
    // DISCONNECT takes the will back, so a device that leaves says so itself.
    let leave = Publish::new(STATUS, "patterns", &b"asleep"[..]).retain(true);
    leaving.session.publish(leave).await?;
    leaving.session.stop(Stop::EndSession, END).await;
    say(format_args!(
        "it left: {}",
        text(&next(&mut watcher).await?)
    ));

    let clear = Publish::new(STATUS, "patterns", Vec::<u8>::new()).retain(true);
    watcher.session.publish(clear).await?;
    watcher.session.stop(Stop::EndSession, END).await;
    Ok(())
}
