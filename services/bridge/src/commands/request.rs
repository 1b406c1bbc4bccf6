//! From a Kafka record to the command it stands for.

use fleet_shared::session::{Properties, Publish};
use fleet_shared::topic::{self, templates};
use rdkafka::message::{BorrowedMessage, Message as _};
use serde::Deserialize;

use crate::answer::Answer;
use crate::reason::{Reason, Refusal};

/// A Kafka record, as far as a command is read from it.
#[derive(Clone, Copy, Debug, Default)]
pub struct CommandRecord<'a> {
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; empty without one.
    pub value: &'a [u8],
    /// Where it is.
    pub partition: i32,
    /// Where it is there.
    pub offset: i64,
    /// The header `command`.
    pub command: Option<&'a [u8]>,
    /// The header `correlation-id`.
    pub correlation_id: Option<&'a [u8]>,
    /// The header `traceparent`.
    pub traceparent: Option<&'a [u8]>,
}

impl<'a> CommandRecord<'a> {
    /// What Kafka has given us. Headers are asked for by name: rdkafka panics at a name that is no text.
    pub(crate) fn of(record: &'a BorrowedMessage<'_>) -> Self {
        let header = |name| kafka_headers::first(record, name);
        Self {
            key: record.key(),
            value: record.payload().unwrap_or_default(),
            partition: record.partition(),
            offset: record.offset(),
            command: header(c"command"),
            correlation_id: header(c"correlation-id"),
            traceparent: header(c"traceparent"),
        }
    }
}

/// A command as JSON in the record's value.
#[derive(Debug, Deserialize)]
struct Envelope {
    /// The record's key without.
    #[serde(default)]
    device_id: Option<String>,
    command: String,
    /// Comes back with the answer; made from partition and offset without.
    #[serde(default)]
    correlation_id: Option<String>,
    /// What the device gets; an empty object without.
    #[serde(default)]
    payload: Option<serde_json::Value>,
}

/// The publish of a record's command, for the client whose responses come back to this bridge.
///
/// # Errors
/// When the record is no command.
pub(crate) fn publish(record: &CommandRecord<'_>, client_id: &str) -> Result<Publish, Refusal> {
    let command = read(record)?;
    let invalid = |error: topic::TopicError| Refusal::new(Reason::InvalidField, error.to_string());
    let topic = topic::device_command(&command.answer.device_id, &command.answer.command)
        .map_err(invalid)?;
    let response_topic = command.answer.topic(client_id).map_err(invalid)?;
    let properties = Properties {
        user: command.user,
        response_topic: Some(response_topic.into()),
        correlation_data: Some(command.answer.correlation_id.into_bytes().into()),
        ..Properties::default()
    };
    // A device that is known to the broker has a session, and with it a subscription.
    Ok(
        Publish::new(topic, templates::DEVICE_COMMAND, command.payload)
            .expect_subscriber()
            .properties(properties),
    )
}

struct Command {
    answer: Answer,
    payload: Vec<u8>,
    user: Vec<(
        fleet_shared::session::ByteString,
        fleet_shared::session::ByteString,
    )>,
}

fn read(record: &CommandRecord<'_>) -> Result<Command, Refusal> {
    let text = |bytes: Option<&[u8]>| Some(std::str::from_utf8(bytes?).ok()?.to_owned());
    // Stays the same when the record comes again.
    let place = || format!("{}-{}", record.partition, record.offset);
    let user = text(record.traceparent)
        .map(|trace| vec![("traceparent".into(), trace.into())])
        .unwrap_or_default();
    let (device_id, command, correlation_id, payload) = match text(record.command) {
        // The value as it is, for payloads that are not JSON.
        Some(command) => (
            None,
            command,
            text(record.correlation_id),
            record.value.to_vec(),
        ),
        None => {
            let envelope: Envelope = serde_json::from_slice(record.value).map_err(|error| {
                let detail = format!(
                    "neither a header `command` nor JSON with `device_id` and `command`: {error}"
                );
                Refusal::new(Reason::Malformed, detail)
            })?;
            let payload = envelope.payload.unwrap_or_else(|| serde_json::json!({}));
            (
                envelope.device_id,
                envelope.command,
                envelope.correlation_id,
                payload.to_string().into_bytes(),
            )
        }
    };
    let device_id = device_id.or_else(|| text(record.key)).ok_or_else(|| {
        let detail = "no device: neither `device_id` in the value nor a key that is text";
        Refusal::new(Reason::InvalidField, detail)
    })?;
    Ok(Command {
        answer: Answer {
            device_id,
            command,
            correlation_id: correlation_id.unwrap_or_else(place),
        },
        payload,
        user,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record<'a>(
        key: Option<&'a str>,
        value: &'a str,
        headers: Option<(&'a str, &'a str)>,
    ) -> CommandRecord<'a> {
        CommandRecord {
            key: key.map(str::as_bytes),
            value: value.as_bytes(),
            partition: 2,
            offset: 17,
            command: headers.map(|(command, _)| command.as_bytes()),
            correlation_id: headers.map(|(_, id)| id.as_bytes()),
            traceparent: None,
        }
    }

    fn shown(record: &CommandRecord<'_>) -> String {
        match publish(record, "bridge-1") {
            Ok(publish) => {
                let properties = publish.properties.unwrap_or_default();
                format!(
                    "{} {} -> {} ({})",
                    publish.topic,
                    String::from_utf8_lossy(&publish.payload),
                    properties.response_topic.unwrap_or_default(),
                    String::from_utf8_lossy(&properties.correlation_data.unwrap_or_default()),
                )
            }
            Err(refusal) => format!("{}: {}", refusal.reason.as_str(), refusal.detail),
        }
    }

    #[test]
    fn records_are_commands_or_say_why_not() {
        let records = [
            record(Some("d-1"), r#"{"command":"ping"}"#, None),
            record(
                Some("k"),
                r#"{"device_id":"d-2","command":"reboot","correlation_id":"c/1","payload":{"in":5}}"#,
                None,
            ),
            record(Some("d-3"), "not json", Some(("identify", "c2"))),
            record(None, r#"{"command":"ping"}"#, None),
            record(Some("d-1"), r#"{"device_id":"a/b","command":"ping"}"#, None),
            record(Some("d-1"), r#"{"command":"+"}"#, None),
            record(Some("d-1"), "[]", None),
            record(Some("d-1"), "", None),
        ];
        let shown: Vec<_> = records.iter().map(shown).collect();
        insta::assert_snapshot!(shown.join("\n"));
    }
}
