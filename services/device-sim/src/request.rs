//! Requests to a device: what is asked, and what is answered.
//!
//! A request comes on `devices/{device_id}/commands/{command}`, with the response topic and the
//! correlation data of MQTT 5, or, from a peer without MQTT 5, in the envelope of the contract. All
//! of this is decided without a socket: [`Call::read`] takes a message apart, [`Request::parse`] says
//! what is to be done, and [`Call::answer`] makes the response.

use std::collections::VecDeque;
use std::time::Duration;

use fleet_shared::session::{ByteString, Bytes, Message, Properties, Publish};
use fleet_shared::topic::{TopicName, templates};
use serde_json::{Value, json};

use crate::configuration::{INTERVAL_MAX, INTERVAL_MIN, interval};

/// The filter of all requests to a device.
pub(crate) fn filter(device_id: &str) -> String {
    format!("devices/{device_id}/commands/+")
}

/// How long a device is away for a reboot that says nothing else.
const REBOOT_AWAY: Duration = Duration::from_secs(1);
/// Longest absence that a reboot may ask for.
const REBOOT_AWAY_MAX: Duration = Duration::from_secs(600);
/// Requests that a device remembers, to recognise one that is delivered again. More than the broker
/// has in flight to it: see `RECEIVE_MAXIMUM` of the device.
pub(crate) const REMEMBERED: usize = 32;

/// What a device can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Whether it is there.
    Ping,
    /// Who it is.
    Identify,
    /// To disconnect, start over and connect again after a while.
    Reboot {
        /// The while.
        away: Duration,
    },
    /// To take readings with this pause from now on.
    SetInterval(Duration),
}

/// Why a request is not carried out. `Display` is the detail that the peer is told.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("a device answers ping, reboot, set-interval and identify")]
    UnknownCommand,
    #[error("the arguments are no JSON: {0}")]
    NotJson(String),
    #[error("the arguments must be a JSON object, such as {{}}")]
    NotAnObject,
    #[error("`{field}` must be {rule}")]
    BadArgument { field: &'static str, rule: String },
    #[error("a replay keeps the times of its file")]
    FixedSchedule,
}

impl Refusal {
    /// The code of the error object; of a closed set.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::UnknownCommand => "unknown_command",
            Self::NotJson(_) | Self::NotAnObject | Self::BadArgument { .. } => "bad_argument",
            Self::FixedSchedule => "not_supported",
        }
    }

    /// The error object of a response.
    pub(crate) fn to_json(&self) -> Value {
        json!({"error": {"code": self.code(), "detail": self.to_string()}})
    }
}

impl Request {
    /// Its name, as a label.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Identify => "identify",
            Self::Reboot { .. } => "reboot",
            Self::SetInterval(_) => "set-interval",
        }
    }

    /// What a command with these arguments asks for. Arguments it does not know are ignored.
    pub(crate) fn parse(command: &str, arguments: &Arguments) -> Result<Self, Refusal> {
        let known = ["ping", "identify", "reboot", "set-interval"];
        if !known.contains(&command) {
            return Err(Refusal::UnknownCommand);
        }
        let arguments = match arguments {
            Ok(Value::Object(arguments)) => arguments,
            Ok(_) => return Err(Refusal::NotAnObject),
            Err(error) => return Err(Refusal::NotJson(error.clone())),
        };
        match command {
            "ping" => Ok(Self::Ping),
            "identify" => Ok(Self::Identify),
            "reboot" => {
                let away = match arguments.get("delay_ms") {
                    None => Some(REBOOT_AWAY),
                    Some(value) => value.as_u64().map(Duration::from_millis),
                };
                away.filter(|away| *away <= REBOOT_AWAY_MAX)
                    .map(|away| Self::Reboot { away })
                    .ok_or_else(|| Refusal::BadArgument {
                        field: "delay_ms",
                        rule: format!("a whole number up to {}", REBOOT_AWAY_MAX.as_millis()),
                    })
            }
            _ => arguments
                .get("interval_ms")
                .and_then(interval)
                .map(Self::SetInterval)
                .ok_or_else(|| Refusal::BadArgument {
                    field: "interval_ms",
                    rule: format!(
                        "a whole number from {} to {}",
                        INTERVAL_MIN.as_millis(),
                        INTERVAL_MAX.as_millis()
                    ),
                }),
        }
    }
}

/// The arguments of a call, or why they are no JSON.
pub(crate) type Arguments = Result<Value, String>;

/// A request as it came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    /// What is asked for.
    pub(crate) arguments: Arguments,
    /// Where the answer goes; whoever gives no topic wants none.
    reply: Option<Reply>,
    /// Tells this request from others like it.
    fingerprint: u64,
    /// The peer named the request.
    is_named: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Reply {
    /// As the properties of the request said.
    Plain {
        topic: ByteString,
        correlation_data: Option<Bytes>,
    },
    /// In an envelope.
    Envelope {
        topic: ByteString,
        correlation_id: Value,
    },
}

impl Call {
    /// Takes a message apart that came for `command`.
    pub(crate) fn read(command: &str, message: &Message) -> Self {
        let properties = message.properties.as_deref();
        let correlation_data = properties.and_then(|it| it.correlation_data.clone());
        let mut arguments = if message.payload.is_empty() {
            Ok(json!({}))
        } else {
            serde_json::from_slice(&message.payload).map_err(|error| error.to_string())
        };
        let mut is_named = correlation_data.is_some();
        let reply = match properties.and_then(|it| it.response_topic.clone()) {
            Some(topic) => is_topic(&topic).then_some(Reply::Plain {
                topic,
                correlation_data,
            }),
            None => {
                let envelope = arguments.as_mut().ok().and_then(unwrapped);
                envelope.and_then(|(topic, correlation_id, payload)| {
                    arguments = Ok(payload);
                    is_named |= !correlation_id.is_null();
                    is_topic(&topic).then_some(Reply::Envelope {
                        topic: topic.into(),
                        correlation_id,
                    })
                })
            }
        };
        let name = match &reply {
            Some(Reply::Plain {
                correlation_data: Some(id),
                ..
            }) => id.to_vec(),
            Some(Reply::Envelope { correlation_id, .. }) => correlation_id.to_string().into_bytes(),
            _ => Vec::new(),
        };
        let of = if is_named && !name.is_empty() {
            name.as_slice()
        } else {
            &message.payload[..]
        };
        Self {
            arguments,
            reply,
            fingerprint: fingerprint(&[command.as_bytes(), of]),
            is_named,
        }
    }

    /// The response; none when nobody waits for it.
    pub(crate) fn answer(self, body: &Value) -> Option<Publish> {
        let response = |topic: ByteString, body: &Value| {
            Publish::new(topic, templates::RESPONSE, body.to_string().into_bytes())
        };
        Some(match self.reply? {
            Reply::Plain {
                topic,
                correlation_data,
            } => response(topic, body).properties(Properties {
                correlation_data,
                content_type: Some("application/json".into()),
                ..Properties::default()
            }),
            Reply::Envelope {
                topic,
                correlation_id,
            } => response(
                topic,
                &json!({"correlation_id": correlation_id, "payload": body}),
            ),
        })
    }
}

/// The requests that a device was sent last.
///
/// A broker delivers a message again, with DUP, when the connection broke before our acknowledgement
/// reached it. To answer twice does no harm; to reboot twice does.
#[derive(Debug, Default)]
pub(crate) struct Recent(VecDeque<u64>);

impl Recent {
    /// Remembers a call; whether it is one that was carried out before. Two without a name are the
    /// same only if the broker says that the second is delivered again.
    pub(crate) fn is_repeated(&mut self, call: &Call, dup: bool) -> bool {
        let known = self.0.contains(&call.fingerprint);
        if !known {
            if self.0.len() == REMEMBERED {
                self.0.pop_front();
            }
            self.0.push_back(call.fingerprint);
        }
        known && (dup || call.is_named)
    }
}

/// Topic, correlation id and payload of an envelope, if it is one.
fn unwrapped(value: &mut Value) -> Option<(String, Value, Value)> {
    let envelope = value.as_object_mut()?;
    let topic = envelope.get("response_topic")?.as_str()?.to_owned();
    let correlation_id = envelope.remove("correlation_id")?;
    let payload = envelope.remove("payload").filter(|it| !it.is_null());
    Some((topic, correlation_id, payload.unwrap_or_else(|| json!({}))))
}

/// Whether something can be published there by a device: a name without wildcards, and not one of
/// the broker's own.
fn is_topic(topic: &str) -> bool {
    !topic.starts_with('$') && TopicName::parse(topic).is_ok()
}

/// 64 bits of FNV-1a over parts, told apart by their lengths.
fn fingerprint(parts: &[&[u8]]) -> u64 {
    let lengths = parts.iter().map(|part| (part.len() as u64).to_le_bytes());
    let bytes = lengths.flatten();
    let bytes = bytes.chain(parts.iter().flat_map(|part| part.iter().copied()));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(payload: &[u8], properties: Option<Properties>) -> Message {
        Message {
            properties: properties.map(Box::new),
            ..Message::new("devices/d/commands/c", payload.to_vec())
        }
    }

    fn to(topic: &str, id: &[u8]) -> Option<Properties> {
        Some(Properties {
            response_topic: Some(topic.into()),
            correlation_data: Some(id.to_vec().into()),
            ..Properties::default()
        })
    }

    fn parse(command: &str, payload: &str) -> Result<Request, String> {
        let call = Call::read(command, &message(payload.as_bytes(), None));
        Request::parse(command, &call.arguments).map_err(|refusal| refusal.to_json().to_string())
    }

    #[test]
    fn commands_are_told_apart_and_bad_arguments_refused() {
        let seconds = Duration::from_secs;
        assert_eq!(parse("ping", ""), Ok(Request::Ping));
        assert_eq!(parse("identify", r#"{"other":1}"#), Ok(Request::Identify));
        assert_eq!(
            parse("reboot", "{}"),
            Ok(Request::Reboot { away: seconds(1) })
        );
        assert_eq!(
            parse("reboot", r#"{"delay_ms":0}"#),
            Ok(Request::Reboot { away: seconds(0) })
        );
        assert_eq!(
            parse("set-interval", r#"{"interval_ms":2000}"#),
            Ok(Request::SetInterval(seconds(2)))
        );
        insta::assert_snapshot!(parse("dance", "{}").unwrap_err(), @r#"{"error":{"code":"unknown_command","detail":"a device answers ping, reboot, set-interval and identify"}}"#);
        insta::assert_snapshot!(parse("set-interval", "{}").unwrap_err(), @r#"{"error":{"code":"bad_argument","detail":"`interval_ms` must be a whole number from 100 to 86400000"}}"#);
        insta::assert_snapshot!(parse("ping", "[1]").unwrap_err(), @r#"{"error":{"code":"bad_argument","detail":"the arguments must be a JSON object, such as {}"}}"#);
        insta::assert_snapshot!(parse("ping", "{").unwrap_err(), @r#"{"error":{"code":"bad_argument","detail":"the arguments are no JSON: EOF while parsing an object at line 1 column 1"}}"#);
        for wrong in ["99", "86400001", "-5", "1.5", "\"fast\"", "null"] {
            let arguments = format!(r#"{{"interval_ms":{wrong}}}"#);
            assert!(parse("set-interval", &arguments).is_err(), "{wrong}");
        }
        assert!(parse("reboot", r#"{"delay_ms":600001}"#).is_err());
    }

    #[test]
    fn an_answer_goes_where_the_request_says_and_carries_its_name() {
        let call = Call::read("ping", &message(b"{}", to("responses/me/1", b"\x00\xff")));
        let answer = call.answer(&json!({"pong": true})).unwrap();
        assert_eq!(answer.topic.as_str(), "responses/me/1");
        assert_eq!(&answer.payload[..], br#"{"pong":true}"#);
        let properties = answer.properties.unwrap();
        assert_eq!(&properties.correlation_data.unwrap()[..], b"\x00\xff");

        let envelope = br#"{"correlation_id":7,"response_topic":"responses/old/7","payload":{"interval_ms":500}}"#;
        let call = Call::read("set-interval", &message(envelope, None));
        assert_eq!(
            Request::parse("set-interval", &call.arguments),
            Ok(Request::SetInterval(Duration::from_millis(500)))
        );
        let answer = call.answer(&json!({"interval_ms": 500})).unwrap();
        assert_eq!(answer.topic.as_str(), "responses/old/7");
        assert_eq!(
            &answer.payload[..],
            br#"{"correlation_id":7,"payload":{"interval_ms":500}}"#
        );
        assert_eq!(answer.properties, None);
    }

    #[test]
    fn nobody_is_answered_who_gives_no_topic_that_can_be_published_to() {
        for topic in ["", "a/#", "a/+/b", "$SYS/x"] {
            let call = Call::read("ping", &message(b"{}", to(topic, b"1")));
            assert_eq!(call.answer(&json!({})), None, "{topic}");
        }
        let call = Call::read("ping", &message(b"{}", None));
        assert_eq!(call.answer(&json!({})), None);
    }

    #[test]
    fn a_request_delivered_again_is_recognised() {
        let mut recent = Recent::default();
        let named = |id: &[u8]| Call::read("reboot", &message(b"{}", to("r/1", id)));
        assert!(!recent.is_repeated(&named(b"1"), false));
        assert!(!recent.is_repeated(&named(b"2"), false));
        assert!(recent.is_repeated(&named(b"1"), true));
        // Also by a bridge that publishes it again as new.
        assert!(recent.is_repeated(&named(b"1"), false));

        let nameless = Call::read("reboot", &message(b"{}", None));
        assert!(!recent.is_repeated(&nameless, false));
        assert!(!recent.is_repeated(&nameless, false));
        assert!(recent.is_repeated(&nameless, true));

        for id in 0..u8::try_from(REMEMBERED).unwrap() {
            recent.is_repeated(&named(&[id, id]), false);
        }
        assert_eq!(recent.0.len(), REMEMBERED);
        assert!(!recent.is_repeated(&named(b"1"), true));
    }

    proptest! {
        #[test]
        fn no_request_is_a_panic(
            command in ".*", payload in any::<Vec<u8>>(), topic in ".*", properties in any::<bool>(),
        ) {
            let properties = properties.then(|| to(&topic, &payload)).flatten();
            let call = Call::read(&command, &message(&payload, properties));
            let body = match Request::parse(&command, &call.arguments) {
                Ok(request) => json!({"asked": format!("{request:?}")}),
                Err(refusal) => refusal.to_json(),
            };
            prop_assert!(call.answer(&body).is_none_or(|answer| is_topic(&answer.topic)));
        }
    }
}
