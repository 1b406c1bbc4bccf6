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

/// Requests under way.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    waiting: HashMap<Uuid, oneshot::Sender<Value>>,
}

/// Too many requests wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy;

impl Requests {
    /// Notes a request; the answer comes on the receiver.
    pub(crate) fn open(&mut self, id: Uuid) -> Result<oneshot::Receiver<Value>, Busy> {
        self.waiting.retain(|_, waiting| !waiting.is_closed());
        if self.waiting.len() >= WAITING_MAX {
            return Err(Busy);
        }
        let (answer, answered) = oneshot::channel();
        self.waiting.insert(id, answer);
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
        let Some(waiting) = known else { return };
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
