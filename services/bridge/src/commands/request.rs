//! From a Kafka record to the command it stands for.

use fleet_shared::session::{Properties, Publish};
use fleet_shared::topic::{self, templates};
use rdkafka::message::{Headers as _, Message};
use serde::Deserialize;

use crate::answer::Answer;
use crate::reason::{Reason, Refusal};

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
pub(crate) fn publish(record: &impl Message, client_id: &str) -> Result<Publish, Refusal> {
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

fn read(record: &impl Message) -> Result<Command, Refusal> {
    let key = record.key().and_then(|key| std::str::from_utf8(key).ok());
    let value = record.payload().unwrap_or_default();
    // Stays the same when the record comes again.
    let place = || format!("{}-{}", record.partition(), record.offset());
    let user = header(record, "traceparent")
        .map(|trace| vec![("traceparent".into(), trace.into())])
        .unwrap_or_default();
    let (device_id, command, correlation_id, payload) = match header(record, "command") {
        // The value as it is, for payloads that are not JSON.
        Some(command) => (
            None,
            command.to_owned(),
            header(record, "correlation-id").map(str::to_owned),
            value.to_vec(),
        ),
        None => {
            let envelope: Envelope = serde_json::from_slice(value).map_err(|error| {
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
    let device_id = device_id
        .or_else(|| key.map(str::to_owned))
        .ok_or_else(|| {
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

fn header<'a>(record: &'a impl Message, name: &str) -> Option<&'a str> {
    let headers = record.headers()?;
    let at = (0..headers.count()).find(|&at| headers.get(at).key == name)?;
    std::str::from_utf8(headers.get(at).value?).ok()
}

#[cfg(test)]
mod tests {
    use rdkafka::Timestamp;
    use rdkafka::message::{Header, OwnedHeaders, OwnedMessage};

    use super::*;

    fn record(key: Option<&str>, value: &str, headers: &[(&str, &str)]) -> OwnedMessage {
        let headers = headers
            .iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| {
                all.insert(Header {
                    key,
                    value: Some(*value),
                })
            });
        OwnedMessage::new(
            Some(value.as_bytes().to_vec()),
            key.map(|key| key.as_bytes().to_vec()),
            "devices.commands".to_owned(),
            Timestamp::NotAvailable,
            2,
            17,
            Some(headers),
        )
    }

    fn shown(record: &OwnedMessage) -> String {
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
            record(Some("d-1"), r#"{"command":"ping"}"#, &[]),
            record(
                Some("k"),
                r#"{"device_id":"d-2","command":"reboot","correlation_id":"c/1","payload":{"in":5}}"#,
                &[],
            ),
            record(
                Some("d-3"),
                "not json",
                &[("command", "identify"), ("correlation-id", "c2")],
            ),
            record(None, r#"{"command":"ping"}"#, &[]),
            record(Some("d-1"), r#"{"device_id":"a/b","command":"ping"}"#, &[]),
            record(Some("d-1"), r#"{"command":"+"}"#, &[]),
            record(Some("d-1"), "[]", &[]),
            record(Some("d-1"), "", &[]),
        ];
        let shown: Vec<_> = records.iter().map(shown).collect();
        insta::assert_snapshot!(shown.join("\n"));
    }
}
