//! What goes through a session: publishes out, messages in, tickets back.

use std::num::NonZeroU16;
use std::time::Duration;

use actix::Message as ActixMessage;
pub use ntex_bytes::{ByteString, Bytes};

use crate::telemetry::{TRACEPARENT, TRACESTATE, TraceContext};
use crate::topic::printable;

/// Delivery guarantee of a publish (MQTT 5, section 4.3).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(into = "u8", try_from = "u8")]
#[repr(u8)]
pub enum QoS {
    /// Sent once, never acknowledged.
    AtMostOnce = 0,
    /// Acknowledged, may arrive again after a reconnect.
    AtLeastOnce = 1,
    /// Acknowledged in two steps, arrives once as long as the session lives.
    ExactlyOnce = 2,
}

impl QoS {
    /// The level as metric label and in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AtMostOnce => "0",
            Self::AtLeastOnce => "1",
            Self::ExactlyOnce => "2",
        }
    }
}

impl From<QoS> for u8 {
    fn from(qos: QoS) -> Self {
        qos as Self
    }
}

impl TryFrom<u8> for QoS {
    type Error = String;

    fn try_from(level: u8) -> Result<Self, Self::Error> {
        match level {
            0 => Ok(Self::AtMostOnce),
            1 => Ok(Self::AtLeastOnce),
            2 => Ok(Self::ExactlyOnce),
            other => Err(format!("QoS is 0, 1 or 2, not {other}")),
        }
    }
}

/// The optional parts of a PUBLISH (MQTT 5, section 3.3.2.3); all absent by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// Name and value pairs, in order, names may repeat.
    pub user: Vec<(ByteString, ByteString)>,
    /// Where an answer is to be published.
    pub response_topic: Option<ByteString>,
    /// Ties an answer to its request.
    pub correlation_data: Option<Bytes>,
    /// MIME type of the payload.
    pub content_type: Option<ByteString>,
    /// The broker drops the message when it could not be delivered for so long; whole seconds.
    pub message_expiry: Option<Duration>,
}

impl Properties {
    /// Says which trace what follows belongs to; instead of what was said before.
    pub fn set_trace(&mut self, context: &TraceContext) {
        self.user
            .retain(|(name, _)| !matches!(name.as_str(), TRACEPARENT | TRACESTATE));
        self.user.push((
            ByteString::from_static(TRACEPARENT),
            context.traceparent().into(),
        ));
        if let Some(state) = context.tracestate() {
            self.user
                .push((ByteString::from_static(TRACESTATE), state.into()));
        }
    }

    /// Those of a dead letter: why it is one, where the message was to go, what was wrong with it, and the
    /// letter's id. Texts that came from outside are made fit for every broker.
    #[must_use]
    pub fn dead_letter(reason: &str, topic: &str, detail: &str, id: &str) -> Self {
        let texts = [
            ("reason", reason),
            ("topic", topic),
            ("detail", detail),
            ("id", id),
        ];
        let fit = |(name, text)| {
            (
                ByteString::from_static(name),
                printable(text).as_ref().into(),
            )
        };
        Self {
            user: texts.map(fit).into(),
            ..Self::default()
        }
    }

    /// The first user property of that name.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<&str> {
        self.user
            .iter()
            .find(|(key, _)| key.as_str() == name)
            .map(|(_, value)| value.as_str())
    }
}

/// A message to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Where to: a topic name, no wildcards, at most 65,535 bytes.
    pub topic: ByteString,
    /// The payload as it goes on the wire.
    pub payload: Bytes,
    /// Delivery guarantee between this session and the broker.
    pub qos: QoS,
    /// Whether the broker keeps it as the topic's last value.
    pub retain: bool,
    /// Value of the metric label `topic`: a template such as `sensors/{location}/door`, never the
    /// raw topic, so that the number of series is bounded whatever is published.
    pub label: &'static str,
    /// Somebody is known to want it: see [`Publish::expect_subscriber`].
    pub expects_subscriber: bool,
    /// Response topic, user properties and the like; boxed because most publishes have none.
    pub properties: Option<Box<Properties>>,
}

impl Publish {
    /// A publish at QoS 1, not retained, without properties.
    pub fn new(
        topic: impl Into<ByteString>,
        label: &'static str,
        payload: impl Into<Bytes>,
    ) -> Self {
        Self {
            topic: topic.into(),
            payload: payload.into(),
            qos: QoS::AtLeastOnce,
            retain: false,
            label,
            expects_subscriber: false,
            properties: None,
        }
    }

    /// The same, and when the broker acknowledges it as "no matching subscribers" within
    /// `subscriber_grace` of a reconnect, it is published again instead of being done: a broker that
    /// was restarted may not have its subscribers back yet, and would have told nobody. At QoS 2 brokers
    /// do not say it, so such a publish waits up to three seconds after a reconnect.
    #[must_use]
    pub fn expect_subscriber(mut self) -> Self {
        self.expects_subscriber = true;
        self
    }

    /// The same as part of a trace; without a context, as it was.
    #[must_use]
    pub fn trace(mut self, context: Option<&TraceContext>) -> Self {
        if let Some(context) = context {
            self.properties.get_or_insert_default().set_trace(context);
        }
        self
    }

    /// The same at another QoS.
    #[must_use]
    pub fn qos(mut self, qos: QoS) -> Self {
        self.qos = qos;
        self
    }

    /// The same, retained or not.
    #[must_use]
    pub fn retain(mut self, retain: bool) -> Self {
        self.retain = retain;
        self
    }

    /// The same with these properties.
    #[must_use]
    pub fn properties(mut self, properties: Properties) -> Self {
        self.properties = Some(Box::new(properties));
        self
    }
}

/// Published by the broker for us when the connection ends without a DISCONNECT (section 3.1.2.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// Where to.
    pub topic: ByteString,
    /// What.
    pub payload: Bytes,
    /// Delivery guarantee from the broker on.
    pub qos: QoS,
    /// Whether the broker keeps it.
    pub retain: bool,
    /// How long the broker waits for the client to come back first; whole seconds.
    pub delay: Duration,
    /// User properties of the will.
    pub user: Vec<(ByteString, ByteString)>,
}

/// What a subscription asks for (section 3.8.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// A topic filter, possibly `$share/{group}/{filter}`.
    pub filter: ByteString,
    /// The highest QoS at which the broker delivers.
    pub qos: QoS,
    /// Do not deliver what this session published itself. Must be false on shared subscriptions.
    pub no_local: bool,
    /// When the broker sends the retained messages that match.
    pub retained: Retained,
    /// Value of the metric label `topic` for what it brings; the filter when absent. A filter with
    /// a name in it, such as that of one device of thousands, needs one: its template.
    pub label: Option<&'static str>,
}

impl Subscription {
    /// A subscription to `filter` at `qos`; retained messages come with every SUBSCRIBE.
    pub fn new(filter: impl Into<ByteString>, qos: QoS) -> Self {
        Self {
            filter: filter.into(),
            qos,
            no_local: false,
            retained: Retained::Always,
            label: None,
        }
    }

    /// The same, counted under a label instead of its filter.
    #[must_use]
    pub fn label(mut self, label: &'static str) -> Self {
        self.label = Some(label);
        self
    }
}

/// Retain handling of a subscription (section 3.8.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retained {
    /// With every SUBSCRIBE.
    Always,
    /// Only when the subscription did not exist.
    IfNew,
    /// Never.
    Never,
}

/// A received message.
#[derive(Clone, Debug)]
pub struct Message {
    /// The topic it was published to.
    pub topic: ByteString,
    /// The payload; it shares the memory of the socket read it came in, so do not keep it for long.
    pub payload: Bytes,
    /// The QoS of this delivery: the lower of the publisher's and the subscription's.
    pub qos: QoS,
    /// A retained message that was there before the subscription.
    pub retain: bool,
    /// The broker may have delivered it before.
    pub dup: bool,
    /// Response topic, user properties and the like.
    pub properties: Option<Box<Properties>>,
    /// To be handed back once the message is safe; absent at QoS 0.
    pub ticket: Option<Ticket>,
}

impl Message {
    /// A message of QoS 1 with nothing but topic and payload, that no session brought: there is no
    /// ticket to hand back.
    pub fn new(topic: impl Into<ByteString>, payload: impl Into<Bytes>) -> Self {
        Self {
            topic: topic.into(),
            payload: payload.into(),
            qos: QoS::AtLeastOnce,
            retain: false,
            dup: false,
            properties: None,
            ticket: None,
        }
    }

    /// The trace that its sender says it belongs to; none if it says nothing that can be read.
    #[must_use]
    pub fn trace_context(&self) -> Option<TraceContext> {
        let properties = self.properties.as_ref()?;
        let parent = properties.user(TRACEPARENT)?;
        TraceContext::parse(parent, properties.user(TRACESTATE)).ok()
    }
}

/// One socket read's worth of messages, in order of arrival.
///
/// The session reads on only when the handler's answer has come, so a consumer that waits in its
/// handler holds the broker back through TCP. It also stops reading when a broker does not keep to
/// the receive maximum, as Mosquitto 2.0 does not. So a consumer whose acknowledgements, or whose
/// handler, wait for publishes of its own makes those on a second session: on the same one their
/// acknowledgements might not be read.
#[derive(Debug, ActixMessage)]
#[rtype(result = "()")]
pub struct Inbound {
    /// At least one message.
    pub messages: Vec<Message>,
}

/// The right to acknowledge one delivery; a ticket of an ended connection is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub(super) connection: u32,
    pub(super) sequence: u32,
    pub(super) id: NonZeroU16,
    pub(super) qos: QoS,
}
