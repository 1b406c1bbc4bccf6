//! What the examples have in common: the broker of MQTT_URL, and saying what happens.

use fleet_shared::config::MqttUrl;
use fleet_shared::session::{Channel, Message, Options};

/// The options of a client at the broker of `MQTT_URL`, `mqtt://localhost:1883` without.
#[expect(
    clippy::disallowed_methods,
    reason = "an example has no settings but this"
)]
pub(crate) fn options(client_id: &str) -> anyhow::Result<Options> {
    let url = std::env::var("MQTT_URL").unwrap_or_else(|_| "mqtt://localhost:1883".to_owned());
    let url: MqttUrl = url
        .parse()
        .map_err(|error| anyhow::anyhow!("MQTT_URL: {error}"))?;
    let mut options = Options::new(url.addr, client_id);
    // Each run begins anew.
    options.clean_start = true;
    Ok(options)
}

/// The next message, acknowledged; an error when none comes in ten seconds.
#[allow(dead_code, reason = "not every example waits for one")]
pub(crate) async fn next(channel: &mut Channel) -> anyhow::Result<Message> {
    let limit = std::time::Duration::from_secs(10);
    let message = tokio::time::timeout(limit, channel.next()).await?;
    let message = message.ok_or_else(|| anyhow::anyhow!("the session has stopped"))?;
    channel.acknowledge(&message);
    Ok(message)
}

/// The payload of a message as text.
#[allow(dead_code, reason = "not every example shows one")]
pub(crate) fn text(message: &Message) -> String {
    String::from_utf8_lossy(&message.payload).into_owned()
}

/// Says a line.
#[expect(clippy::print_stdout, reason = "an example talks to who runs it")]
pub(crate) fn say(line: impl std::fmt::Display) {
    println!("{line}");
}
