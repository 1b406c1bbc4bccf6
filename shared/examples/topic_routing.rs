//! Topic routing: one session, a handler a filter, the most exact first, and a fallback.

mod support;

use std::time::Duration;

use fleet_shared::session::{Channel, Message, Publish, QoS, Stop, Subscription};
use fleet_shared::topic::Router;
use support::{next, options, say, text};

const END: Duration = Duration::from_secs(2);

/// A message and what its handlers said about it.
struct Handled {
    message: Message,
    said: Vec<String>,
}

fn router() -> anyhow::Result<Router<Handled>> {
    let mut router = Router::<Handled>::new();
    router.on("patterns/routing/sensors/#", |handled| {
        handled
            .said
            .push(format!("store {}", text(&handled.message)));
    })?;
    router.on("patterns/routing/sensors/+/temperature", |handled| {
        handled
            .said
            .push(format!("average {}", text(&handled.message)));
    })?;
    router.on(
        "patterns/routing/sensors/server-room/temperature",
        |handled| {
            handled
                .said
                .push(format!("watch {}", text(&handled.message)));
        },
    )?;
    router.otherwise(|handled| handled.said.push("count as unknown".to_owned()));
    Ok(router)
}

#[actix::main]
async fn main() -> anyhow::Result<()> {
    let mut options = options("patterns-routing")?;
    options.subscriptions = vec![Subscription::new("patterns/routing/#", QoS::AtLeastOnce)];
    let mut client = Channel::connect(options).await?;
    let mut router = router()?;
    for (topic, payload) in [
        ("sensors/server-room/temperature", "31"),
        ("sensors/hall/temperature", "21"),
        ("sensors/hall/door", "open"),
        ("something/else", "?"),
    ] {
        let topic = format!("patterns/routing/{topic}");
        client
            .session
            .publish(Publish::new(topic, "patterns", payload.as_bytes().to_vec()))
            .await?;
        let message = next(&mut client).await?;
        let topic = message.topic.clone();
        let mut handled = Handled {
            message,
            said: Vec::new(),
        };
        router.dispatch(&topic, &mut handled);
        say(format_args!("{topic}: {}", handled.said.join(", ")));
    }
    client.session.stop(Stop::EndSession, END).await;
    Ok(())
}
