//! TLS in front of the embedded broker.
//!
//! The library's own TLS brings a second cryptography provider that needs CMake, and reads its
//! certificates once. So TLS ends here, by the rustls that is everywhere else, and goes on to a
//! listener on loopback that takes connections from nobody else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fleet_shared::tls::{ServerFiles, server_config};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::parse_x509_certificate;

use super::BrokerError;
use super::guard::Peers;

/// Connections at a time; one takes two sockets and about 20 kB. More are closed at once.
const CONNECTIONS_MAX: usize = 10_000;

/// A client that has not finished its handshake by then is gone, or holds a place on purpose.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Pause after the operating system refused a connection, for instance for want of file handles.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// What stands in front of the broker.
pub(super) struct Front {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    peers: Peers,
}

impl Front {
    pub(super) async fn bind(
        addr: SocketAddr,
        files: &ServerFiles,
        peers: Peers,
    ) -> Result<Self, BrokerError> {
        let config = server_config(files).map_err(super::setup)?;
        let listener = TcpListener::bind(addr)
            .await
            .map_err(|source| match source.kind() {
                std::io::ErrorKind::AddrInUse => BrokerError::AddressInUse { addr },
                _ => BrokerError::Bind { addr, source },
            })?;
        Ok(Self {
            listener,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            peers,
        })
    }

    pub(super) fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Takes connections for ever, on to the broker at `inner`.
    pub(super) async fn run(self, inner: SocketAddr) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let (socket, from) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "the embedded broker cannot take a connection");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                tracing::warn!(%from, max = CONNECTIONS_MAX, "too many connections; one more is closed");
                continue;
            };
            let (acceptor, peers) = (self.acceptor.clone(), self.peers.clone());
            tokio::spawn(async move {
                if let Err(error) = carry(socket, acceptor, peers, inner).await {
                    tracing::debug!(%from, %error, "a connection ended");
                }
                drop(place);
            });
        }
    }
}

async fn carry(
    socket: TcpStream,
    acceptor: TlsAcceptor,
    peers: Peers,
    inner: SocketAddr,
) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let handshake = tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(socket));
    let mut outside = match handshake.await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::info!(%error, "a client's TLS handshake failed");
            return Ok(());
        }
        Err(_) => return Ok(()),
    };
    let common_name = common_name(&outside);
    let mut inside = TcpStream::connect(inner).await?;
    inside.set_nodelay(true)?;
    // Before the first byte goes on, so that the broker finds it.
    let _entered = peers.enter(inside.local_addr()?, common_name);
    tokio::io::copy_bidirectional(&mut outside, &mut inside).await?;
    Ok(())
}

/// The common name of the client's certificate, which the handshake has verified.
fn common_name(stream: &TlsStream<TcpStream>) -> Option<String> {
    let (_, connection) = stream.get_ref();
    let certificate = connection.peer_certificates()?.first()?;
    let (_, certificate) = parse_x509_certificate(certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?;
    // A certificate without a readable name is one of nobody, and no account has that name.
    Some(name.as_str().unwrap_or_default().to_owned())
}
