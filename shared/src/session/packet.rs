//! Our types and the codec's, one into the other.

use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use ntex_bytes::BytePages;
use ntex_codec::Encoder as _;
use ntex_mqtt::v5::codec::{self, Codec, ConnectAck, Encoded, PublishProperties};
use secrecy::ExposeSecret as _;
use uuid::Uuid;

use super::error::{ConnectionError, PublishError, SubscribeError};
use super::message::{ByteString, Bytes, Properties, Publish, QoS, Retained, Subscription};
use super::options::Options;
use super::reason;
use crate::topic::{Excerpt, TopicFilter, forbidden};

/// The CONNECT of one connection, its will included.
pub(super) fn connect(options: &Options, clean_start: bool, connection_id: Uuid) -> codec::Connect {
    let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
    let last_will = options.will.as_ref().map(|source| {
        let will = source.make(connection_id);
        codec::LastWill {
            qos: to_codec(will.qos),
            retain: will.retain,
            topic: will.topic,
            message: will.payload,
            will_delay_interval_sec: Some(seconds(will.delay)).filter(|delay| *delay > 0),
            correlation_data: None,
            message_expiry_interval: None,
            content_type: None,
            user_properties: will.user,
            is_utf8_payload: None,
            response_topic: None,
        }
    });
    codec::Connect {
        clean_start,
        keep_alive: u16::try_from(options.keep_alive.as_secs()).unwrap_or(u16::MAX),
        session_expiry_interval_secs: seconds(options.session_expiry),
        auth_method: None,
        auth_data: None,
        request_problem_info: true,
        request_response_info: false,
        receive_max: NonZeroU16::new(options.receive_maximum),
        topic_alias_max: 0,
        user_properties: options.user.clone(),
        max_packet_size: NonZeroU32::new(options.packet_max),
        last_will,
        client_id: options.client_id.clone(),
        username: options.username.clone().map(ByteString::from),
        password: options
            .password
            .as_ref()
            .map(|secret| Bytes::from(secret.expose_secret().as_bytes().to_vec())),
    }
}

pub(super) fn detail(reason: Option<&str>) -> String {
    match reason {
        Some(text) if !text.is_empty() => format!(": {text}"),
        _ => String::new(),
    }
}

/// The error for a CONNACK that refuses.
pub(super) fn refusal(options: &Options, ack: &ConnectAck) -> ConnectionError {
    let code = u8::from(ack.reason_code);
    ConnectionError::Refused {
        broker: options.broker.clone(),
        code,
        reason: reason::name(code).to_owned(),
        detail: detail(ack.reason_string.as_deref()),
    }
}

pub(super) fn unsendable(publish: &Publish, reason: impl Into<String>) -> PublishError {
    PublishError::Invalid {
        topic: Excerpt::new(&publish.topic).to_string(),
        reason: reason.into(),
    }
}

pub(super) fn to_codec(qos: QoS) -> ntex_mqtt::QoS {
    match qos {
        QoS::AtMostOnce => ntex_mqtt::QoS::AtMostOnce,
        QoS::AtLeastOnce => ntex_mqtt::QoS::AtLeastOnce,
        QoS::ExactlyOnce => ntex_mqtt::QoS::ExactlyOnce,
    }
}

pub(super) fn from_codec(qos: ntex_mqtt::QoS) -> QoS {
    match qos {
        ntex_mqtt::QoS::AtMostOnce => QoS::AtMostOnce,
        ntex_mqtt::QoS::AtLeastOnce => QoS::AtLeastOnce,
        ntex_mqtt::QoS::ExactlyOnce => QoS::ExactlyOnce,
    }
}

pub(super) fn subscription(
    subscription: &Subscription,
) -> (ByteString, codec::SubscriptionOptions) {
    let options = codec::SubscriptionOptions {
        qos: to_codec(subscription.qos),
        no_local: subscription.no_local,
        retain_as_published: true,
        retain_handling: match subscription.retained {
            Retained::Always => codec::RetainHandling::AtSubscribe,
            Retained::IfNew => codec::RetainHandling::AtSubscribeNew,
            Retained::Never => codec::RetainHandling::NoAtSubscribe,
        },
    };
    (subscription.filter.clone(), options)
}

pub(super) fn publish(
    publish: &Publish,
    packet_id: Option<NonZeroU16>,
    dup: bool,
) -> codec::Publish {
    let properties = match &publish.properties {
        None => PublishProperties::default(),
        Some(properties) => PublishProperties {
            correlation_data: properties.correlation_data.clone(),
            message_expiry_interval: properties.message_expiry.and_then(|expiry| {
                NonZeroU32::new(u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX))
            }),
            content_type: properties.content_type.clone(),
            user_properties: properties.user.clone(),
            response_topic: properties.response_topic.clone(),
            ..PublishProperties::default()
        },
    };
    codec::Publish {
        dup,
        retain: publish.retain,
        qos: to_codec(publish.qos),
        packet_id,
        topic: publish.topic.clone(),
        payload_size: u32::try_from(publish.payload.len()).unwrap_or(u32::MAX),
        properties,
    }
}

/// Appends the packet to `out`, or nothing: the lengths of all parts were checked on submission, so
/// the whole size is the only thing that can still be refused, and that before the first byte.
pub(super) fn encode_publish(
    codec: &Codec,
    packet: codec::Publish,
    payload: Bytes,
    out: &mut BytePages,
) -> Result<(), String> {
    codec
        .encodev(Encoded::Publish(packet, Some(payload)), out)
        .map_err(|error| match error {
            ntex_mqtt::error::EncodeError::OverMaxPacketSize => {
                "it is larger than the broker's maximum packet size".to_owned()
            }
            other => format!("{other:?}"),
        })
}

/// What no broker could take: strings over 65,535 bytes or with characters that end the connection
/// (section 1.5.4), names with wildcards.
pub(super) fn check(publish: &Publish) -> Result<(), &'static str> {
    const STRING_MAX: usize = u16::MAX as usize;
    const PAYLOAD_MAX: usize = 256 * 1024 * 1024;
    if publish.topic.is_empty() || publish.topic.contains(['+', '#', '\0']) {
        return Err("a topic name is not empty and holds no +, # or NUL");
    }
    if publish.topic.len() > STRING_MAX {
        return Err("a topic name has at most 65,535 bytes");
    }
    if forbidden(&publish.topic).is_some() {
        return Err("its topic holds a character over which brokers end the connection");
    }
    if publish.payload.len() >= PAYLOAD_MAX {
        return Err("a packet has at most 256 MiB");
    }
    let Some(properties) = &publish.properties else {
        return Ok(());
    };
    let texts = [&properties.response_topic, &properties.content_type];
    let texts = texts.into_iter().flatten();
    let pairs = properties.user.iter();
    let texts = texts.chain(pairs.flat_map(|(name, value)| [name, value]));
    let data = properties.correlation_data.as_ref();
    let mut total = 0_usize;
    let mut fits = |length: usize| {
        total += length;
        length <= STRING_MAX && total <= PAYLOAD_MAX
    };
    if !fits(data.map_or(0, |data| data.len())) {
        return Err("a property has at most 65,535 bytes");
    }
    for text in texts {
        if !fits(text.len()) {
            return Err("a property has at most 65,535 bytes");
        }
        if forbidden(text).is_some() {
            return Err("a property holds a character over which brokers end the connection");
        }
    }
    Ok(())
}

/// What is no filter, or one that a broker may end the connection over.
pub(super) fn check_filter(filter: &str) -> Result<(), SubscribeError> {
    let reason = match TopicFilter::parse(filter) {
        Err(error) => error.to_string(),
        Ok(_) if forbidden(filter).is_some() => {
            "it holds a character over which brokers end the connection".to_owned()
        }
        Ok(_) => return Ok(()),
    };
    Err(SubscribeError::Invalid {
        filter: Excerpt::new(filter).to_string(),
        reason,
    })
}

pub(super) fn received_properties(properties: PublishProperties) -> Option<Box<Properties>> {
    if properties.user_properties.is_empty()
        && properties.response_topic.is_none()
        && properties.correlation_data.is_none()
        && properties.content_type.is_none()
        && properties.message_expiry_interval.is_none()
    {
        return None;
    }
    Some(Box::new(Properties {
        user: properties.user_properties,
        response_topic: properties.response_topic,
        correlation_data: properties.correlation_data,
        content_type: properties.content_type,
        message_expiry: properties
            .message_expiry_interval
            .map(|secs| Duration::from_secs(u64::from(secs.get()))),
    }))
}
