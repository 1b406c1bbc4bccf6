//! As much of MQTT as the benchmarks write and read themselves, so that what they measure is not
//! measured with itself.

use std::io::{self, Read, Write};
use std::net::TcpStream;

/// Opens an MQTT 3.1.1 connection with a clean session: its publisher may have as many messages in
/// flight as it likes.
///
/// # Errors
/// When the broker is not there or refuses.
pub fn connect(addr: &str, client_id: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    let mut body = b"\x00\x04MQTT\x04\x02\x00\x00".to_vec();
    text(&mut body, client_id);
    let mut packet = Vec::new();
    push(&mut packet, 0x10, &body);
    stream.write_all(&packet)?;
    let mut connack = [0; 4];
    stream.read_exact(&mut connack)?;
    if connack[3] != 0 {
        return Err(io::Error::other(format!(
            "the broker refused: {}",
            connack[3]
        )));
    }
    Ok(stream)
}

/// Adds a string with its length.
pub fn text(into: &mut Vec<u8>, text: &str) {
    into.extend_from_slice(&(text.len() as u16).to_be_bytes());
    into.extend_from_slice(text.as_bytes());
}

/// Adds a packet.
pub fn push(into: &mut Vec<u8>, first: u8, body: &[u8]) {
    into.push(first);
    let mut length = body.len();
    loop {
        let low = (length % 128) as u8;
        length /= 128;
        into.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    into.extend_from_slice(body);
}

/// Where the body of the first packet starts and ends, if all of it is there.
pub fn whole(bytes: &[u8]) -> Option<(usize, usize)> {
    let (mut length, mut shift) = (0_usize, 0);
    for (place, byte) in bytes.get(1..)?.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            let start = place + 2;
            return (bytes.len() >= start + length).then_some((start, start + length));
        }
    }
    None
}

/// Adds a PUBLISH of QoS 1, of which `number` gives the packet identifier: of MQTT 5 with these few
/// properties, of MQTT 3.1.1 without.
pub fn publish(
    into: &mut Vec<u8>,
    number: u64,
    topic: &str,
    properties: Option<&[u8]>,
    payload: &[u8],
) {
    let mut body = Vec::with_capacity(topic.len() + payload.len() + 128);
    text(&mut body, topic);
    body.extend_from_slice(&((number % 65_535) as u16 + 1).to_be_bytes());
    if let Some(properties) = properties {
        // Short enough for a length of one byte.
        body.push(properties.len() as u8);
        body.extend_from_slice(properties);
    }
    body.extend_from_slice(payload);
    push(into, 0x32, &body);
}

/// Adds what a broker that takes and grants everything says to a client's packet of MQTT 5.
pub fn answer(first: u8, body: &[u8], answers: &mut Vec<u8>) {
    let id = |at: usize| [body[at], body[at + 1]];
    match (first >> 4, first >> 1 & 3) {
        // CONNACK with a receive maximum of 65,535, so that the client's own publishes are not held up.
        (1, _) => answers.extend([0x20, 6, 0, 0, 3, 0x21, 0xff, 0xff]),
        (3, qos @ (1 | 2)) => {
            let topic = usize::from(u16::from_be_bytes(id(0)));
            let [high, low] = id(2 + topic);
            answers.extend([if qos == 1 { 0x40 } else { 0x50 }, 2, high, low]);
        }
        (6, _) => answers.extend([0x70, 2, id(0)[0], id(0)[1]]),
        (kind @ (8 | 10), _) => {
            let codes = codes(&body[2..], kind == 8);
            let length = 3 + codes.len() as u8;
            answers.extend([(kind + 1) << 4, length, id(0)[0], id(0)[1], 0]);
            answers.extend(codes);
        }
        (12, _) => answers.extend([0xd0, 0]),
        _ => {}
    }
}

/// A reason code for each filter of a SUBSCRIBE, which is the QoS asked for, or of an UNSUBSCRIBE, from
/// its properties on, which are few.
fn codes(body: &[u8], subscribes: bool) -> Vec<u8> {
    let (mut at, mut codes) = (1 + usize::from(body[0]), Vec::new());
    while at + 2 <= body.len() {
        at += 2 + usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
        codes.push(if subscribes { body[at] & 3 } else { 0 });
        at += usize::from(subscribes);
    }
    codes
}
