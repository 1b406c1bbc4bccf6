//! A broker of any number of publishers that acknowledges what they publish and does nothing else.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

/// Listens for publishers until the program ends.
#[derive(Debug)]
pub struct Swallow {
    addr: SocketAddr,
}

impl Swallow {
    /// Listens, with a thread a connection: for some hundreds of them.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addr = listener.local_addr()?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A connection that ends is a publisher that has finished.
                thread::spawn(move || serve(stream).ok());
            }
        });
        Ok(Self { addr })
    }

    /// Where publishers are to connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

/// Answers one publisher's packets until it leaves.
fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut buffer, mut filled) = (vec![0; 64 * 1024], 0);
    let mut answers = Vec::new();
    loop {
        let read = stream.read(&mut buffer[filled..])?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let mut at = 0;
        while let Some((body, length)) = packet(&buffer[at..filled]) {
            let packet = &buffer[at..at + length];
            answer(packet[0], &packet[body..], &mut answers);
            at += length;
        }
        buffer.copy_within(at..filled, 0);
        filled -= at;
        stream.write_all(&answers)?;
        answers.clear();
    }
}

/// Where the body of the first packet begins, and the length of the whole, if all of it is there.
fn packet(bytes: &[u8]) -> Option<(usize, usize)> {
    let (mut length, mut shift) = (0_usize, 0);
    for (at, byte) in bytes.get(1..)?.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            let whole = 2 + at + length;
            return (bytes.len() >= whole).then_some((2 + at, whole));
        }
    }
    None
}

fn answer(first: u8, body: &[u8], answers: &mut Vec<u8>) {
    let id = |at: usize| [body[at], body[at + 1]];
    match (first >> 4, first >> 1 & 3) {
        // CONNACK with a receive maximum of 65,535.
        (1, _) => answers.extend([0x20, 6, 0, 0, 3, 0x21, 0xff, 0xff]),
        (3, qos @ (1 | 2)) => {
            let topic = usize::from(u16::from_be_bytes(id(0)));
            let [high, low] = id(2 + topic);
            answers.extend([if qos == 1 { 0x40 } else { 0x50 }, 2, high, low]);
        }
        (6, _) => answers.extend([0x70, 2, id(0)[0], id(0)[1]]),
        (8, _) => {
            let count = filters(&body[2..]);
            answers.extend([0x90, 3 + count, id(0)[0], id(0)[1], 0]);
            // Granted, at QoS 1.
            answers.extend(std::iter::repeat_n(1, usize::from(count)));
        }
        (12, _) => answers.extend([0xd0, 0]),
        _ => {}
    }
}

/// How many filters a SUBSCRIBE has, from its properties on, which are few.
fn filters(body: &[u8]) -> u8 {
    let (mut at, mut count) = (1 + usize::from(body[0]), 0);
    while at + 2 < body.len() {
        at += 3 + usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
        count += 1;
    }
    count
}
