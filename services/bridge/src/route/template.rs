//! Texts with places for parts of a message: Kafka topics, keys and headers.

use fleet_shared::session::Message;

use super::pointer::Pointer;

/// A text such as `readings.{1}` or `{/sensor_id}`.
///
/// `{topic}` is the whole MQTT topic, `{1}` its first level and `{-1}` its last, `{/a/b}` what stands
/// at that JSON pointer in the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Topic,
    /// Counted from the left, from 0.
    Level(usize),
    /// Counted from the right, from 0.
    LevelFromEnd(usize),
    Payload(Pointer),
}

impl Template {
    /// Takes a text as a template.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(open);
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let inside = from
                .strip_prefix('{')
                .and_then(|from| from.split_once('}'))
                .ok_or_else(|| format!("`{text}` has a brace without its other"))?;
            parts.push(part(inside.0).ok_or_else(|| {
                format!(
                    "`{{{}}}` in `{text}` is nothing known: use {{topic}}, a level such as {{1}} or \
                     {{-1}} for the last, or a JSON pointer into the payload such as {{/sensor_id}}",
                    inside.0
                )
            })?);
            rest = inside.1;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        if parts.is_empty() {
            return Err("it is empty".to_owned());
        }
        Ok(Self(parts))
    }

    /// The text if no part of a message stands in it.
    pub(crate) fn fixed(&self) -> Option<&str> {
        match self.0.as_slice() {
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Whether the payload stands in it.
    pub(crate) fn reads_payload(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Payload(_)))
    }

    /// Appends the text for a message; false if the message lacks a part, and then `into` holds
    /// whatever came before it.
    pub(crate) fn append(&self, message: &Message, into: &mut String) -> bool {
        let topic = message.topic.as_str();
        self.0.iter().all(|part| match part {
            Part::Text(text) => {
                into.push_str(text);
                true
            }
            Part::Topic => {
                into.push_str(topic);
                true
            }
            Part::Level(at) => push(topic.split('/').nth(*at), into),
            Part::LevelFromEnd(at) => push(topic.rsplit('/').nth(*at), into),
            Part::Payload(pointer) => pointer.append(&message.payload, into),
        })
    }
}

fn push(level: Option<&str>, into: &mut String) -> bool {
    level.is_some_and(|level| {
        into.push_str(level);
        true
    })
}

fn part(text: &str) -> Option<Part> {
    if text == "topic" {
        return Some(Part::Topic);
    }
    if text.starts_with('/') {
        return Pointer::parse(text).map(Part::Payload);
    }
    match text.parse::<i32>().ok()? {
        0 => None,
        level if level > 0 => Some(Part::Level(level.unsigned_abs() as usize - 1)),
        level => Some(Part::LevelFromEnd(level.unsigned_abs() as usize - 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::message;

    #[test]
    fn parts_of_a_message_take_their_places() {
        let message = message("sensors/site-1/hall/door", r#"{"sensor_id":"d-1"}"#);
        for (template, expected) in [
            ("plain", Some("plain")),
            ("{topic}", Some("sensors/site-1/hall/door")),
            ("{1}.{-1}", Some("sensors.door")),
            ("a-{/sensor_id}-b", Some("a-d-1-b")),
            ("{5}", None),
            ("{/missing}", None),
        ] {
            let mut text = String::new();
            let whole = Template::parse(template)
                .unwrap()
                .append(&message, &mut text);
            assert_eq!(whole.then_some(text.as_str()), expected, "{template}");
        }
    }

    #[test]
    fn texts_that_are_no_templates_say_why() {
        for text in ["", "{", "a}b", "{0}", "{x}", "{/}", "{topic"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
        assert_eq!(Template::parse("a.b").unwrap().fixed(), Some("a.b"));
        assert_eq!(Template::parse("{1}").unwrap().fixed(), None);
    }
}
