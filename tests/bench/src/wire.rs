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
