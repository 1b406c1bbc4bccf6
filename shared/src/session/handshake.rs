//! From nothing to a connection that may carry messages: socket, CONNECT, CONNACK.

use std::io;
use std::time::Duration;

use ntex_bytes::{BytePageSize, BytePages, BytesMut};
use ntex_mqtt::v5::codec::Codec;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;
use uuid::Uuid;

use super::error::ConnectionError;
use super::frame::{self, Frame, Next};
use super::packet;
use super::shared::Shared;
use super::tls;
use super::transport::{self, Transport};

/// Room for a CONNACK with its properties.
const CONNACK_SIZE: usize = 512;

/// A connection after CONNACK.
pub(super) struct Established {
    pub(super) transport: Transport,
    /// What was read behind CONNACK.
    pub(super) input: BytesMut,
    pub(super) session_present: bool,
    /// In force: the broker may have asked for another than ours.
    pub(super) keep_alive: Duration,
}

/// Connects within the limit of the options.
pub(super) async fn establish(
    shared: &Shared,
    connection_id: Uuid,
) -> Result<Established, ConnectionError> {
    let options = shared.protocol.borrow().options().clone();
    let limit = options.connect_timeout;
    // The wait for its turn is not the broker's. A gate that was closed lets everybody pass.
    let _turn = match &options.connect_gate {
        Some(gate) => gate.acquire().await.ok(),
        None => None,
    };
    let attempt = async {
        let mut transport = transport::open(&options).await?;
        let broken = |source: io::Error| {
            if options.broker.tls {
                tls::failure(&options, source)
            } else {
                ConnectionError::Broken { source }
            }
        };
        let mut pages = BytePages::new(BytePageSize::Size4);
        shared
            .protocol
            .borrow_mut()
            .connect(connection_id, &mut pages)?;
        transport.write_all(&pages.freeze()).await.map_err(broken)?;
        transport.flush().await.map_err(broken)?;
        let codec = Codec::new();
        let mut input = BytesMut::with_capacity(CONNACK_SIZE);
        loop {
            match frame::next(&codec, &mut input, options.packet_max) {
                Ok(Next::Need(_)) => {}
                Ok(Next::Frame(Frame::ConnectAck(ack))) => {
                    if u8::from(ack.reason_code) >= super::reason::FAILURE {
                        return Err(packet::refusal(&options, &ack));
                    }
                    let keep_alive = shared.protocol.borrow_mut().connected(&ack, Instant::now());
                    return Ok(Established {
                        transport,
                        input,
                        session_present: ack.session_present,
                        keep_alive,
                    });
                }
                Ok(Next::Frame(other)) => {
                    return Err(ConnectionError::Protocol(format!(
                        "expected CONNACK, got {other:?}"
                    )));
                }
                Err(error) => return Err(ConnectionError::Protocol(error.to_string())),
            }
            if transport.read_buf(&mut input).await.map_err(broken)? == 0 {
                return Err(broken(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the broker closed it before CONNACK",
                )));
            }
        }
    };
    match tokio::time::timeout(limit, attempt).await {
        Ok(result) => result,
        Err(_) => Err(ConnectionError::ConnectTimeout {
            broker: options.broker.clone(),
            limit,
        }),
    }
}
