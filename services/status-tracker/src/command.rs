//! Requests over MQTT and their answers: response topic and correlation data.

use std::collections::HashMap;
use std::time::Duration;

use fleet_shared::session::{Message, Properties, Publish};
use fleet_shared::topic::{self, TopicError};
use serde_json::Value;
use tokio::sync::oneshot;
use uuid::Uuid;

/// Requests that wait for their answer at once.
const WAITING_MAX: usize = 1_000;

/// Of them, to alerting: a backtest takes up to a minute, and commands need room meanwhile.
const ALERTING_MAX: usize = 100;

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Device,
    Alerting,
}

/// Requests under way.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    waiting: HashMap<Uuid, (Asked, oneshot::Sender<Value>)>,
}

/// Too many requests wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy;

impl Requests {
    /// Notes a request; the answer comes on the receiver.
    pub(crate) fn open(
        &mut self,
        asked: Asked,
        id: Uuid,
    ) -> Result<oneshot::Receiver<Value>, Busy> {
        self.waiting.retain(|_, (_, waiting)| !waiting.is_closed());
        let alike = self.waiting.values().filter(|(it, _)| *it == asked);
        let is_full = self.waiting.len() >= WAITING_MAX;
        if is_full || (asked == Asked::Alerting && alike.count() >= ALERTING_MAX) {
            return Err(Busy);
        }
        let (answer, answered) = oneshot::channel();
        self.waiting.insert(id, (asked, answer));
        Ok(answered)
    }

    /// A message on a response topic: ends the request it belongs to. An answer that nobody waits
    /// for came too late, or twice.
    pub(crate) fn answered(&mut self, correlation_id: &str, message: &Message) {
        let payload = serde_json::from_slice(&message.payload).unwrap_or_else(|_| {
            Value::String(String::from_utf8_lossy(&message.payload).into_owned())
        });
        let property = message
            .properties
            .as_ref()
            .and_then(|properties| properties.correlation_data.as_ref())
            .and_then(|data| std::str::from_utf8(data).ok());
        let enveloped = payload.get("correlation_id").and_then(Value::as_str);
        let known = [property, enveloped, Some(correlation_id)]
            .into_iter()
            .flatten()
            .filter_map(|id| Uuid::try_parse(id).ok())
            .find_map(|id| self.waiting.remove(&id));
        let Some((_, waiting)) = known else { return };
        // An envelope holds nothing but the two.
        let payload = match payload {
            Value::Object(mut envelope)
                if envelope.contains_key("correlation_id") && envelope.contains_key("payload") =>
            {
                envelope.remove("payload").unwrap_or_default()
            }
            payload => payload,
        };
        // Whoever asked may have gone.
        waiting.send(payload).ok();
    }
}

/// A request: `publish` with the topic that the answer is expected on, below the id of a client that
/// may publish there.
///
/// # Errors
/// If the client id cannot be a topic level.
pub(crate) fn request(
    client_id: &str,
    publish: Publish,
    id: Uuid,
    limit: Duration,
) -> Result<Publish, TopicError> {
    let id = id.to_string();
    let properties = Properties {
        response_topic: Some(topic::response(client_id, &id)?.into()),
        correlation_data: Some(id.into_bytes().into()),
        content_type: Some("application/json".into()),
        message_expiry: Some(limit),
        ..Properties::default()
    };
    Ok(publish.properties(properties))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_to_alerting_leave_room_for_commands() {
        let mut requests = Requests::default();
        let mut open = |asked, count: usize| -> Vec<_> {
            let ids = (0..count).map(|_| Uuid::now_v7());
            ids.filter_map(|id| requests.open(asked, id).ok()).collect()
        };
        let backtests = open(Asked::Alerting, 2_000);
        assert_eq!(backtests.len(), ALERTING_MAX);
        let commands = open(Asked::Device, 2_000);
        assert_eq!(commands.len(), WAITING_MAX - ALERTING_MAX);
        drop(backtests);
        assert_eq!(open(Asked::Alerting, 2_000).len(), ALERTING_MAX);
    }
}
