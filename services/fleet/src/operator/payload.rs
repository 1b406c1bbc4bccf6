//! How a message is shown and what a message is made of.

use fleet_shared::session::Message;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

/// A received message as a line of JSON.
#[derive(Debug, Serialize)]
pub(super) struct Line<'a> {
    at: Timestamp,
    topic: &'a str,
    qos: u8,
    retain: bool,
    dup: bool,
    /// The payload when it is UTF-8 text.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    /// The payload in hexadecimal otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    /// User properties; names may repeat.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    properties: Vec<(&'a str, &'a str)>,
}

impl<'a> Line<'a> {
    pub(super) fn of(message: &'a Message, at: Timestamp) -> Self {
        let text = std::str::from_utf8(&message.payload).ok();
        let properties = message.properties.as_deref();
        let user = properties.map_or(&[][..], |it| &it.user);
        Self {
            at,
            topic: &message.topic,
            qos: message.qos.into(),
            retain: message.retain,
            dup: message.dup,
            payload: text,
            payload_hex: text.is_none().then(|| hex(&message.payload)),
            response_topic: properties.and_then(|it| it.response_topic.as_deref()),
            content_type: properties.and_then(|it| it.content_type.as_deref()),
            properties: user
                .iter()
                .map(|(name, value)| (&**name, &**value))
                .collect(),
        }
    }
}

/// A received message as a line for people: control characters, which could take a terminal over,
/// are shown as escapes, and so are bytes that are no text.
pub(super) fn text(message: &Message, at: Timestamp, zone: &TimeZone) -> String {
    let time = at.to_zoned(zone.clone()).strftime("%H:%M:%S%.3f");
    let flags = match (message.retain, message.dup) {
        (false, false) => "",
        (true, false) => " retained",
        (false, true) => " again",
        (true, true) => " retained again",
    };
    let topic = printable(&message.topic);
    let payload = match std::str::from_utf8(&message.payload) {
        Ok("") => "(empty)".to_owned(),
        Ok(text) => printable(text),
        Err(_) => format!("0x{}", hex(&message.payload)),
    };
    let mut line = format!(
        "{time} {topic} QoS {}{flags}  {payload}",
        message.qos.as_str()
    );
    if let Some(properties) = &message.properties {
        for (name, value) in &properties.user {
            line += &format!("  {}={}", printable(name), printable(value));
        }
    }
    line + "\n"
}

fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|char| {
            let escape = char.is_control().then(|| char.escape_default());
            let plain = (!char.is_control()).then_some(char);
            escape.into_iter().flatten().chain(plain)
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use fleet_shared::session::Properties;

    use super::*;

    fn message(payload: &'static [u8]) -> Message {
        Message {
            retain: true,
            properties: Some(Box::new(Properties {
                user: vec![("reason".into(), "mal\nformed".into())],
                ..Properties::default()
            })),
            ..Message::new("sensors/kitchen/door", payload)
        }
    }

    #[test]
    fn people_see_one_line_that_cannot_take_their_terminal_over() {
        let at = Timestamp::UNIX_EPOCH;
        let shown = |payload| text(&message(payload), at, &TimeZone::UTC);
        assert_eq!(
            shown(b"a\x1b[2Jb"),
            "00:00:00.000 sensors/kitchen/door QoS 1 retained  a\\u{1b}[2Jb  reason=mal\\nformed\n"
        );
        assert!(shown(b"").contains("(empty)"));
        assert!(shown(b"\xff\x00").contains("0xff00"));
    }

    #[test]
    fn programs_get_every_byte() {
        let shown = |payload| {
            serde_json::to_string(&Line::of(&message(payload), Timestamp::UNIX_EPOCH)).unwrap()
        };
        assert_eq!(
            shown(b"21.5"),
            r#"{"at":"1970-01-01T00:00:00Z","topic":"sensors/kitchen/door","qos":1,"retain":true,"dup":false,"payload":"21.5","properties":[["reason","mal\nformed"]]}"#
        );
        assert!(shown(b"\xff").contains(r#""payload_hex":"ff""#));
    }
}
