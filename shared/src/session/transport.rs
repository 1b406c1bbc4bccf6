//! The socket below a session: TCP, or TLS over it.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use super::error::ConnectionError;
use super::options::Options;
use super::tls;

/// A connected byte stream. TLS is boxed: a plain connection must not pay for its size.
pub(super) enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Resolves, connects and, for `mqtts`, shakes hands. The caller bounds the time.
pub(super) async fn open(options: &Options) -> Result<Transport, ConnectionError> {
    let broker = &options.broker;
    let unreachable = |source| ConnectionError::Unreachable {
        broker: broker.clone(),
        source,
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let addresses = resolve(&broker.host, broker.port)
        .await
        .map_err(unreachable)?;
    let mut connected = None;
    for address in addresses {
        match connect(address, options).await {
            Ok(stream) => {
                connected = Some(stream);
                break;
            }
            Err(error) => last = error,
        }
    }
    let Some(stream) = connected else {
        return Err(unreachable(last));
    };
    // Acknowledgements are small: with Nagle's algorithm each waits for the peer's delayed
    // acknowledgement, which held a consumer to a twentieth of its rate.
    stream.set_nodelay(true).map_err(unreachable)?;
    if broker.tls {
        let stream = tls::handshake(stream, options).await?;
        Ok(Transport::Tls(Box::new(stream)))
    } else {
        Ok(Transport::Plain(stream))
    }
}

/// Answers of the resolver are used again for so long: thousands of sessions connect to one broker
/// at once, and each question takes a thread.
const RESOLVED_FOR: Duration = Duration::from_secs(1);

/// The last answer of the resolver on this thread.
struct Resolved {
    host: String,
    port: u16,
    at: Instant,
    addresses: Vec<SocketAddr>,
}

thread_local! {
    static RESOLVED: RefCell<Option<Resolved>> = const { RefCell::new(None) };
}

async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let known = RESOLVED.with_borrow(|known| {
        let known = known.as_ref()?;
        let same = known.host == host && known.port == port;
        (same && known.at.elapsed() < RESOLVED_FOR).then(|| known.addresses.clone())
    });
    if let Some(known) = known {
        return Ok(known);
    }
    let addresses: Vec<_> = lookup_host((host, port)).await?.collect();
    RESOLVED.set(Some(Resolved {
        host: host.to_owned(),
        port,
        at: Instant::now(),
        addresses: addresses.clone(),
    }));
    Ok(addresses)
}

async fn connect(address: SocketAddr, options: &Options) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if let Some(source) = options.source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    socket.connect(address).await
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
