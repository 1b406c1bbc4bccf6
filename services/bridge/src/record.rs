//! From an MQTT message to the Kafka record that stands for it.

use fleet_shared::session::Message;
use rdkafka::message::{Header, OwnedHeaders};

use crate::answer::Answer;
use crate::message_id;
use crate::reason::{Reason, Refusal};
use crate::route::{Route, topic_name};

/// Header of the MQTT topic.
pub(crate) const TOPIC: &str = "mqtt.topic";

/// Whether a header of that name is the bridge's own. A user property of such a name is left out: a
/// device must not choose what a consumer takes for the bridge's word.
pub(crate) fn is_reserved(name: &str) -> bool {
    name.starts_with("mqtt.") || name == message_id::HEADER
}

/// A record, ready to be handed to the producer.
pub(crate) struct Record<'a> {
    pub(crate) topic: &'a str,
    pub(crate) key: &'a str,
    /// None deletes the key from a compacted topic.
    pub(crate) payload: Option<&'a [u8]>,
    pub(crate) headers: OwnedHeaders,
    /// Bytes of topic, key, payload and headers.
    pub(crate) size: usize,
}

/// Makes records; keeps its buffers from one to the next.
#[derive(Debug)]
pub(crate) struct Encoder {
    size_max: usize,
    topic: String,
    key: String,
    id: String,
    text: String,
}

impl Encoder {
    /// An encoder that refuses records of more than `size_max` bytes.
    pub(crate) fn new(size_max: usize) -> Self {
        Self {
            size_max,
            topic: String::new(),
            key: String::new(),
            id: String::new(),
            text: String::new(),
        }
    }

    /// The record of a message by a route.
    ///
    /// # Errors
    /// When Kafka could not take it.
    pub(crate) fn routed<'a>(
        &'a mut self,
        message: &'a Message,
        route: &'a Route,
    ) -> Result<Record<'a>, Refusal> {
        let topic = match route.fixed_topic() {
            Some(topic) => topic,
            None => {
                self.topic.clear();
                if !route.topic.append(message, &mut self.topic) {
                    let detail = format!("`{}` has too few levels for the route", message.topic);
                    return Err(Refusal::new(Reason::InvalidTopic, detail));
                }
                topic_name(&self.topic)
                    .map_err(|error| Refusal::new(Reason::InvalidTopic, error.to_string()))?;
                &self.topic
            }
        };
        self.key.clear();
        let keyed = route
            .key
            .as_ref()
            .is_some_and(|key| key.append(message, &mut self.key))
            // An empty key would put whatever has none on one partition, and in one order.
            && !self.key.is_empty();
        if !keyed {
            self.key.clear();
            self.key.push_str(&message.topic);
        }
        message_id::write(message, &mut self.id);
        let mut headers = Headers::of(message, &self.id);
        for (name, template) in &route.headers {
            self.text.clear();
            if template.append(message, &mut self.text) {
                headers.add(name, self.text.as_bytes());
            }
        }
        whole(topic, &self.key, message, headers, self.size_max)
    }

    /// The record of a device's answer, which goes to the Kafka topic `topic`.
    ///
    /// # Errors
    /// When Kafka could not take it.
    pub(crate) fn answer<'a>(
        &'a mut self,
        message: &'a Message,
        answer: &Answer,
        topic: &'a str,
    ) -> Result<Record<'a>, Refusal> {
        self.key.clear();
        self.key.push_str(&answer.device_id);
        message_id::write(message, &mut self.id);
        let mut headers = Headers::of(message, &self.id);
        headers.add("device-id", answer.device_id.as_bytes());
        headers.add("command", answer.command.as_bytes());
        headers.add("correlation-id", answer.correlation_id.as_bytes());
        whole(topic, &self.key, message, headers, self.size_max)
    }
}

fn whole<'a>(
    topic: &'a str,
    key: &'a str,
    message: &'a Message,
    headers: Headers,
    size_max: usize,
) -> Result<Record<'a>, Refusal> {
    let size = topic.len() + key.len() + message.payload.len() + headers.size;
    if size > size_max {
        let detail = format!("the record would have {size} bytes, the limit is {size_max}");
        return Err(Refusal::new(Reason::TooLarge, detail));
    }
    Ok(Record {
        topic,
        key,
        payload: Some(message.payload.as_ref()).filter(|payload| !payload.is_empty()),
        headers: headers.headers.unwrap_or_default(),
        size,
    })
}

/// Headers and their bytes.
struct Headers {
    headers: Option<OwnedHeaders>,
    size: usize,
}

impl Headers {
    /// The bridge's own, and the message's user properties.
    fn of(message: &Message, id: &str) -> Self {
        let user = message.properties.as_ref().map_or(0, |p| p.user.len());
        let mut headers = Self {
            headers: Some(OwnedHeaders::new_with_capacity(7 + user)),
            size: 0,
        };
        headers.add(TOPIC, message.topic.as_bytes());
        headers.add("mqtt.qos", message.qos.as_str().as_bytes());
        headers.add(
            "mqtt.retain",
            if message.retain { b"true" } else { b"false" },
        );
        headers.add(message_id::HEADER, id.as_bytes());
        if let Some(properties) = &message.properties {
            if let Some(topic) = &properties.response_topic {
                headers.add("mqtt.response_topic", topic.as_bytes());
            }
            if let Some(data) = &properties.correlation_data {
                headers.add("mqtt.correlation_data", data);
            }
            if let Some(kind) = &properties.content_type {
                headers.add("mqtt.content_type", kind.as_bytes());
            }
            for (name, value) in &properties.user {
                if !is_reserved(name) {
                    headers.add(name, value.as_bytes());
                }
            }
        }
        headers
    }

    fn add(&mut self, key: &str, value: &[u8]) {
        self.size += key.len() + value.len();
        // `insert` takes them by value and gives them back.
        let headers = self.headers.take().unwrap_or_default();
        self.headers = Some(headers.insert(Header {
            key,
            value: Some(value),
        }));
    }
}

#[cfg(test)]
mod tests {
    use fleet_shared::session::{Properties, QoS};
    use rdkafka::message::Headers as _;

    use super::*;
    use crate::route::Routes;
    use crate::testing::message;

    fn shown(record: &Record<'_>) -> Vec<String> {
        let mut lines = vec![
            format!("topic {}", record.topic),
            format!("key {}", record.key),
            format!("payload {:?}", record.payload.map(String::from_utf8_lossy)),
        ];
        for header in record.headers.iter() {
            let value = String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned();
            lines.push(format!("{}: {value}", header.key));
        }
        lines
    }

    fn routes() -> Routes {
        Routes::parse(
            "routes:\n\
             - {filter: sensors/#, topic: readings, key: '{/sensor_id}', headers: {site: '{2}', kind: '{/kind}'}}\n\
             - {filter: raw/#, topic: 'raw.{2}'}\n",
            "g",
        )
        .unwrap()
    }

    #[test]
    fn message_with_an_empty_key_is_keyed_by_its_topic() {
        let routes = routes();
        for payload in [r#"{"sensor_id":""}"#, r#"{"other":1}"#, "no JSON"] {
            let message = message("sensors/site-1/door", payload);
            let mut encoder = Encoder::new(1_000);
            let route = routes.find(&message.topic).unwrap();
            let record = encoder.routed(&message, route).unwrap();
            assert_eq!(record.key, "sensors/site-1/door", "{payload}");
        }
    }

    #[test]
    fn record_carries_what_the_message_was() {
        let routes = routes();
        let mut message = message("sensors/site-1/door", r#"{"sensor_id":"d-1"}"#);
        message.properties = Some(Box::new(Properties {
            user: vec![
                ("traceparent".into(), "00-1-2-01".into()),
                ("mqtt.topic".into(), "forged".into()),
                ("twice".into(), "a".into()),
                ("twice".into(), "b".into()),
            ],
            response_topic: Some("r".into()),
            correlation_data: Some(b"7".to_vec().into()),
            ..Properties::default()
        }));
        let mut encoder = Encoder::new(1_000);
        let route = routes.find(&message.topic).unwrap();
        let record = encoder.routed(&message, route).unwrap();
        insta::assert_snapshot!(shown(&record).join("\n"));
    }

    #[test]
    fn message_without_its_key_is_keyed_by_its_topic_and_an_empty_one_deletes() {
        let routes = routes();
        let mut encoder = Encoder::new(1_000);
        let message = message("sensors/hall/x", "");
        let record = encoder
            .routed(&message, routes.find("sensors/hall/x").unwrap())
            .unwrap();
        assert_eq!((record.key, record.payload), ("sensors/hall/x", None));
    }

    #[test]
    fn what_kafka_could_not_take_is_refused_with_its_reason() {
        let routes = routes();
        let mut encoder = Encoder::new(300);
        let mut reason = |topic: &str, payload: &str| {
            let message = message(topic, payload);
            let refused = encoder.routed(&message, routes.find(topic).unwrap());
            refused.err().map(|refusal| refusal.reason)
        };
        assert_eq!(reason("raw/a", "x"), None);
        assert_eq!(reason("raw/a b", "x"), Some(Reason::InvalidTopic));
        assert_eq!(reason("raw", "x"), Some(Reason::InvalidTopic));
        assert_eq!(reason("raw/a", &"x".repeat(300)), Some(Reason::TooLarge));
    }

    #[test]
    fn id_is_the_same_for_every_delivery_and_another_for_every_message() {
        let id = |change: &dyn Fn(&mut Message)| {
            let mut message = message("sensors/a/b", "payload");
            change(&mut message);
            let mut id = String::new();
            message_id::write(&message, &mut id);
            id
        };
        let first = id(&|_| {});
        assert_eq!(first.len(), 32);
        let again = id(&|m| {
            m.dup = true;
            m.retain = true;
            m.qos = QoS::AtMostOnce;
        });
        assert_eq!(again, first);
        assert_ne!(id(&|m| m.payload = b"payloae".to_vec().into()), first);
        assert_ne!(id(&|m| m.topic = "sensors/a/c".into()), first);
        // The border between topic and payload counts.
        assert_ne!(
            id(&|m| {
                m.topic = "sensors/a/bp".into();
                m.payload = b"ayload".to_vec().into();
            }),
            first
        );
        let own = id(&|m| {
            m.properties = Some(Box::new(Properties {
                user: vec![("message-id".into(), "mine".into())],
                ..Properties::default()
            }));
        });
        assert_eq!(own, "mine");
    }
}
