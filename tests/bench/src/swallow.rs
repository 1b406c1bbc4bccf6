//! A broker of any number of publishers that acknowledges what they publish and does nothing else.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::wire;

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
        while let Some((body, length)) = wire::whole(&buffer[at..filled]) {
            let packet = &buffer[at..at + length];
            wire::answer(packet[0], &packet[body..], &mut answers);
            at += length;
        }
        buffer.copy_within(at..filled, 0);
        filled -= at;
        stream.write_all(&answers)?;
        answers.clear();
    }
}
