//! A broker of a few lines that says exactly what a test wants said, right or wrong.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Listens on a free port; the test plays the broker's part.
#[derive(Debug)]
pub struct Stub {
    listener: TcpListener,
}

/// A packet as it came: first byte and what follows the remaining length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Packet type in the upper four bits, flags in the lower.
    pub first: u8,
    /// Variable header and payload.
    pub body: Vec<u8>,
}

impl Packet {
    /// The packet type (MQTT 5, section 2.1.2).
    #[must_use]
    pub fn kind(&self) -> u8 {
        self.first >> 4
    }

    /// The packet identifier of packets that start with one.
    #[must_use]
    pub fn id(&self) -> [u8; 2] {
        [self.body[0], self.body[1]]
    }
}

/// A client's connection to the stub.
#[derive(Debug)]
pub struct Peer {
    stream: TcpStream,
}

impl Stub {
    /// Listens.
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .expect("a free port");
        Self { listener }
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.listener.local_addr().expect("bound").port()
    }

    /// The next connection.
    pub async fn accept(&self) -> Peer {
        let (stream, _) = self.listener.accept().await.expect("an open listener");
        Peer { stream }
    }
}

impl Peer {
    /// The next packet; an error when the client is gone.
    pub async fn packet(&mut self) -> io::Result<Packet> {
        let first = self.stream.read_u8().await?;
        let mut length = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.stream.read_u8().await?;
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        Ok(Packet { first, body })
    }

    /// Writes bytes as they are; a client that is gone already is not an error.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.ok();
    }

    /// Reads CONNECT, answers CONNACK with these properties and no session, and gives the CONNECT.
    pub async fn welcome(&mut self, properties: &[u8]) -> Packet {
        let connect = self.packet().await.expect("a CONNECT");
        assert_eq!(
            connect.kind(),
            1,
            "the first packet is CONNECT: {connect:?}"
        );
        let length = u8::try_from(properties.len()).expect("few properties");
        let mut connack = vec![0x20, 3 + length, 0, 0, length];
        connack.extend_from_slice(properties);
        self.send(&connack).await;
        connect
    }
}
