//! From bytes to packets: framing of our own around ntex-mqtt's codec.
//!
//! The codec trusts lengths inside a PUBLISH and knows only the reason codes of the specification,
//! while EMQX answers a PUBREC with one that is not in its table. So whole frames are cut here, their
//! inner lengths checked, and acknowledgements read by hand, any reason code included.

use std::num::NonZeroU16;

use ntex_bytes::BytesMut;
use ntex_codec::Decoder as _;
use ntex_mqtt::v5::codec::{Codec, ConnectAck, Decoded, Packet, Publish};

use super::message::Bytes;

/// What a broker may send, except AUTH, which is never asked for.
#[derive(Debug)]
pub(super) enum Frame {
    Publish(Publish, Bytes),
    Ack(Ack, NonZeroU16, u8),
    ConnectAck(Box<ConnectAck>),
    /// SUBACK and UNSUBACK: identifier and one reason code a filter.
    FilterAck(NonZeroU16, Vec<u8>),
    PingResponse,
    Disconnect {
        code: u8,
        reason: Option<String>,
    },
}

/// The four acknowledgements of a publish (MQTT 5, sections 3.4 to 3.7).
#[expect(
    clippy::enum_variant_names,
    reason = "these are the names of the packets in the specification"
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Ack {
    PubAck = 0x40,
    PubRec = 0x50,
    PubRel = 0x62,
    PubComp = 0x70,
}

impl Ack {
    /// The packet: four bytes for success, one more for any other reason code.
    pub(super) fn encode(self, id: NonZeroU16, code: u8, into: &mut impl FnMut(&[u8])) {
        let [high, low] = id.get().to_be_bytes();
        if code == 0 {
            into(&[self as u8, 2, high, low]);
        } else {
            into(&[self as u8, 3, high, low, code]);
        }
    }
}

/// Why bytes are not a packet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("a packet of {size} bytes is larger than the {max} that we accept")]
    TooLarge { size: usize, max: u32 },
    #[error("the remaining length takes more than four bytes")]
    RemainingLength,
    #[error("malformed {packet}: {reason}")]
    Malformed {
        packet: &'static str,
        reason: String,
    },
    #[error("the broker speaks MQTT 3.1.1 only; the fleet needs MQTT 5")]
    NotVersion5,
    #[error("unexpected packet type 0x{0:02x}")]
    Unexpected(u8),
}

fn malformed(packet: &'static str, reason: impl Into<String>) -> FrameError {
    FrameError::Malformed {
        packet,
        reason: reason.into(),
    }
}

/// What the head of a buffer holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// A whole frame of `header + body` bytes.
    Whole { header: usize, body: usize },
    /// The frame is not complete; it needs at least so many bytes altogether.
    Partial(usize),
}

/// Reads a variable byte integer (section 1.5.5): value and length, or `None` if cut short.
fn variable(bytes: &[u8]) -> Result<Option<(usize, usize)>, FrameError> {
    let mut value = 0_usize;
    for (at, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((value, at + 1)));
        }
    }
    if bytes.len() >= 4 {
        return Err(FrameError::RemainingLength);
    }
    Ok(None)
}

pub(super) fn head(bytes: &[u8], packet_max: u32) -> Result<Head, FrameError> {
    let Some(rest) = bytes.get(1..) else {
        return Ok(Head::Partial(2));
    };
    let Some((body, length)) = variable(rest)? else {
        return Ok(Head::Partial(bytes.len() + 1));
    };
    let size = 1 + length + body;
    if size > packet_max as usize {
        return Err(FrameError::TooLarge {
            size,
            max: packet_max,
        });
    }
    if bytes.len() < size {
        return Ok(Head::Partial(size));
    }
    Ok(Head::Whole {
        header: 1 + length,
        body,
    })
}

/// Outcome of [`next`].
#[derive(Debug)]
pub(super) enum Next {
    Frame(Frame),
    /// The buffer must hold so many bytes before a frame is whole.
    Need(usize),
}

/// Takes the next packet off the front of `buffer`.
pub(super) fn next(
    codec: &Codec,
    buffer: &mut BytesMut,
    packet_max: u32,
) -> Result<Next, FrameError> {
    let (header, body) = match head(buffer, packet_max)? {
        Head::Partial(size) => return Ok(Next::Need(size)),
        Head::Whole { header, body } => (header, body),
    };
    let first = buffer[0];
    let frame = match first {
        0x30..=0x3f => {
            check_publish(first, &buffer[header..header + body])?;
            match decode(codec, buffer, "PUBLISH")? {
                Decoded::Publish(publish, payload, _) => Frame::Publish(publish, payload),
                other => return Err(malformed("PUBLISH", format!("{other:?}"))),
            }
        }
        0x20 => {
            // CONNACK of MQTT 3.1.1 is two bytes, and 0x01 its code for "version not supported".
            if body == 2 {
                return Err(match buffer[header + 1] {
                    0x01 | 0x84 => FrameError::NotVersion5,
                    code => malformed("CONNACK", format!("no properties, code 0x{code:02x}")),
                });
            }
            match decode(codec, buffer, "CONNACK")? {
                Decoded::Packet(Packet::ConnectAck(ack), _) => Frame::ConnectAck(ack),
                other => return Err(malformed("CONNACK", format!("{other:?}"))),
            }
        }
        _ => {
            let bytes = buffer.split_to(header + body);
            let body = &bytes[header..];
            match first {
                0x40 => acknowledgement(Ack::PubAck, "PUBACK", body)?,
                0x50 => acknowledgement(Ack::PubRec, "PUBREC", body)?,
                0x62 => acknowledgement(Ack::PubRel, "PUBREL", body)?,
                0x70 => acknowledgement(Ack::PubComp, "PUBCOMP", body)?,
                0x90 => filter_ack("SUBACK", body)?,
                0xb0 => filter_ack("UNSUBACK", body)?,
                0xd0 => Frame::PingResponse,
                0xe0 => disconnect(body),
                other => return Err(FrameError::Unexpected(other)),
            }
        }
    };
    Ok(Next::Frame(frame))
}

/// Whole packets at the start of `bytes`.
pub(super) fn count(bytes: &[u8], packet_max: u32) -> Result<usize, FrameError> {
    let (codec, mut buffer) = (Codec::new(), BytesMut::copy_from_slice(bytes));
    let mut packets = 0;
    while let Next::Frame(_) = next(&codec, &mut buffer, packet_max)? {
        packets += 1;
    }
    Ok(packets)
}

fn decode(
    codec: &Codec,
    buffer: &mut BytesMut,
    packet: &'static str,
) -> Result<Decoded, FrameError> {
    match codec.decode(buffer) {
        Ok(Some(decoded)) => Ok(decoded),
        Ok(None) => Err(malformed(packet, "its lengths do not agree")),
        Err(error) => Err(malformed(packet, format!("{error:?}"))),
    }
}

/// The lengths inside a PUBLISH must fit its body: the codec subtracts them without a look.
fn check_publish(first: u8, body: &[u8]) -> Result<(), FrameError> {
    let qos = (first >> 1) & 0b11;
    if qos == 3 {
        return Err(malformed("PUBLISH", "QoS 3"));
    }
    let Some(&[high, low]) = body.first_chunk::<2>() else {
        return Err(malformed("PUBLISH", "no topic"));
    };
    let properties = 2 + usize::from(u16::from_be_bytes([high, low])) + if qos > 0 { 2 } else { 0 };
    let Some(rest) = body.get(properties..) else {
        return Err(malformed("PUBLISH", "the topic ends behind the packet"));
    };
    match variable(rest)? {
        Some((length, size)) if size + length <= rest.len() => Ok(()),
        _ => Err(malformed("PUBLISH", "the properties end behind the packet")),
    }
}

fn packet_id(body: &[u8], packet: &'static str) -> Result<NonZeroU16, FrameError> {
    body.first_chunk::<2>()
        .and_then(|id| NonZeroU16::new(u16::from_be_bytes(*id)))
        .ok_or_else(|| malformed(packet, "no packet identifier"))
}

fn acknowledgement(ack: Ack, packet: &'static str, body: &[u8]) -> Result<Frame, FrameError> {
    let id = packet_id(body, packet)?;
    Ok(Frame::Ack(ack, id, body.get(2).copied().unwrap_or(0)))
}

fn filter_ack(packet: &'static str, body: &[u8]) -> Result<Frame, FrameError> {
    let id = packet_id(body, packet)?;
    let codes = match variable(&body[2..])? {
        Some((length, size)) => body.get(2 + size + length..),
        None => None,
    };
    match codes {
        Some(codes) if !codes.is_empty() => Ok(Frame::FilterAck(id, codes.to_vec())),
        _ => Err(malformed(packet, "no reason codes")),
    }
}

/// A DISCONNECT ends the connection whatever else it says, so nothing in it is an error.
fn disconnect(body: &[u8]) -> Frame {
    const REASON_STRING: u8 = 0x1f;
    let properties = body.get(1..).and_then(|rest| match variable(rest) {
        Ok(Some((length, size))) => rest.get(size..size + length),
        _ => None,
    });
    let reason = match properties {
        Some([REASON_STRING, high, low, text @ ..]) => text
            .get(..usize::from(u16::from_be_bytes([*high, *low])))
            .map(|text| String::from_utf8_lossy(text).into_owned()),
        _ => None,
    };
    Frame::Disconnect {
        code: body.first().copied().unwrap_or(0),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn take(bytes: &[u8]) -> Result<Next, FrameError> {
        next(
            &Codec::new(),
            &mut BytesMut::copy_from_slice(bytes),
            1_048_576,
        )
    }

    fn frame(bytes: &[u8]) -> Frame {
        match take(bytes) {
            Ok(Next::Frame(frame)) => frame,
            other => panic!("no frame: {other:?}"),
        }
    }

    #[test]
    fn publish_is_cut_from_its_frame() {
        let Frame::Publish(publish, payload) = frame(b"\x32\x0a\x00\x03a/b\x00\x07\x00hi!") else {
            panic!("not a PUBLISH");
        };
        assert_eq!(publish.topic.as_str(), "a/b");
        assert_eq!(publish.packet_id, NonZeroU16::new(7));
        assert_eq!(payload.as_ref(), b"hi");
    }

    #[test]
    fn publish_whose_properties_end_behind_the_packet_is_malformed() {
        assert_eq!(
            take(b"\x30\x06\x00\x03a/b\x7f").unwrap_err().to_string(),
            "malformed PUBLISH: the properties end behind the packet"
        );
        assert!(take(b"\x30\x02\xff\xff").is_err());
        assert!(take(b"\x36\x05\x00\x01a\x00\x01").is_err());
    }

    #[test]
    fn reason_code_outside_the_table_of_pubrec_is_kept() {
        assert!(matches!(
            frame(b"\x50\x03\x00\x05\x93"),
            Frame::Ack(Ack::PubRec, id, 0x93) if id.get() == 5
        ));
    }

    #[test]
    fn broker_of_version_3_is_named() {
        assert_eq!(
            take(b"\x20\x02\x00\x01").unwrap_err(),
            FrameError::NotVersion5
        );
    }

    #[test]
    fn oversize_is_refused_before_it_is_read() {
        assert_eq!(
            next(
                &Codec::new(),
                &mut BytesMut::copy_from_slice(b"\x30\xff\xff\x7f"),
                1_000
            )
            .unwrap_err(),
            FrameError::TooLarge {
                size: 2_097_155,
                max: 1_000
            }
        );
    }

    #[test]
    fn disconnect_carries_code_and_reason_string() {
        assert!(matches!(
            frame(b"\xe0\x07\x8b\x05\x1f\x00\x02no"),
            Frame::Disconnect { code: 0x8b, reason: Some(text) } if text == "no"
        ));
        assert!(matches!(
            frame(b"\xe0\x00"),
            Frame::Disconnect {
                code: 0,
                reason: None
            }
        ));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let codec = Codec::new();
            let mut buffer = BytesMut::copy_from_slice(&bytes);
            while let Ok(Next::Frame(_)) = next(&codec, &mut buffer, 1_000) {}
        }

        #[test]
        fn framed_garbage_never_panics(
            first in any::<u8>(),
            body in proptest::collection::vec(any::<u8>(), 0..120),
        ) {
            let mut bytes = vec![first, u8::try_from(body.len()).expect("below 120")];
            bytes.extend_from_slice(&body);
            drop(take(&bytes));
        }
    }
}
