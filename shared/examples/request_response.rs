//! Request and response: MQTT 5 Response Topic and Correlation Data.

mod support;

use std::time::Duration;

use fleet_shared::session::{Channel, Properties, Publish, QoS, Stop, Subscription};
use fleet_shared::topic;
use support::{next, options, say, text};

const REQUESTER: &str = "patterns-requester";
const END: Duration = Duration::from_secs(2);

async fn client(id: &str, filter: String) -> anyhow::Result<Channel> {
    let mut options = options(id)?;
    options.subscriptions = vec![Subscription::new(filter, QoS::AtLeastOnce)];
    Ok(Channel::connect(options).await?)
}

/// Answers one request where it asks for the answer, with what ties the two together.
async fn answer(device: &mut Channel) -> anyhow::Result<()> {
    let request = next(device).await?;
    let asked = request.properties.clone().unwrap_or_default();
    let to = asked
        .response_topic
        .ok_or_else(|| anyhow::anyhow!("nobody waits"))?;
    let payload = format!("pong to {}", text(&request));
    let answer = Publish::new(to, "patterns", payload.into_bytes()).properties(Properties {
        correlation_data: asked.correlation_data,
        ..Properties::default()
    });
    device.session.publish(answer).await?;
    Ok(())
}

#[actix::main]
async fn main() -> anyhow::Result<()> {
    let commands = topic::device_command("patterns-d-1", "ping")?;
    let mut device = client("patterns-device", commands.clone()).await?;
    let mut requester = client(REQUESTER, format!("responses/{REQUESTER}/+")).await?;

    let request = Publish::new(commands, "patterns", &b"ping 1"[..]).properties(Properties {
        response_topic: Some(topic::response(REQUESTER, "request-1")?.into()),
        correlation_data: Some((&b"request-1"[..]).into()),
        ..Properties::default()
    });
    requester.session.publish(request).await?;
    answer(&mut device).await?;
    let response = next(&mut requester).await?;
    let data = response
        .properties
        .as_ref()
        .and_then(|p| p.correlation_data.clone());
    let id = String::from_utf8_lossy(&data.unwrap_or_default()).into_owned();
    say(format_args!(
        "{id} was answered on {}: {}",
        response.topic,
        text(&response)
    ));

    device.session.stop(Stop::EndSession, END).await;
    requester.session.stop(Stop::EndSession, END).await;
    Ok(())
}
