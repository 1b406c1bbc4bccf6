//! A network between client and broker that can be broken on purpose.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A TCP proxy on a free port that hands every connection on to one port of 127.0.0.1.
///
/// What is set applies to open connections and to new ones. It runs on the thread of the test.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    line: watch::Sender<Line>,
    listener: JoinHandle<()>,
}

/// The state of the network.
#[derive(Clone, Debug, Default)]
struct Line {
    /// Nothing passes towards the broker.
    hold_up: bool,
    /// Nothing passes towards the client.
    hold_down: bool,
    /// How long each piece travels.
    delay: Duration,
    /// Longest piece written at once; pieces are of random size up to it.
    piece_max: Option<usize>,
    /// How often all connections were cut.
    cuts: u64,
    /// New connections are closed at once.
    closed: bool,
}

#[derive(Clone, Copy)]
enum Direction {
    Up,
    Down,
}

impl Line {
    fn holds(&self, direction: Direction) -> bool {
        match direction {
            Direction::Up => self.hold_up,
            Direction::Down => self.hold_down,
        }
    }
}

impl Proxy {
    /// Starts one before the server on that port.
    pub async fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let (line, seen) = watch::channel(Line::default());
        let listener = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if !seen.borrow().closed {
                    tokio::spawn(link(client, upstream, seen.clone()));
                }
            }
        });
        Self {
            port,
            line,
            listener,
        }
    }

    /// Where clients connect.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Resets every open connection (RST on both sides); new ones pass.
    pub fn cut(&self) {
        self.line.send_modify(|line| line.cuts += 1);
    }

    /// Resets every open connection and closes each new one until [`Proxy::heal`].
    pub fn close(&self) {
        self.line.send_modify(|line| {
            line.cuts += 1;
            line.closed = true;
        });
    }

    /// Lets nothing pass in either direction while every connection stays open.
    pub fn black_hole(&self) {
        self.line.send_modify(|line| {
            line.hold_up = true;
            line.hold_down = true;
        });
    }

    /// Lets the client's data through and holds the broker's.
    pub fn half_open(&self) {
        self.line.send_modify(|line| line.hold_down = true);
    }

    /// Lets everything pass again; what was held arrives.
    pub fn heal(&self) {
        self.line.send_modify(|line| {
            line.hold_up = false;
            line.hold_down = false;
            line.closed = false;
        });
    }

    /// Delays every piece in both directions.
    pub fn delay(&self, delay: Duration) {
        self.line.send_modify(|line| line.delay = delay);
    }

    /// Cuts what passes into pieces of random size, at most `piece_max` bytes each.
    pub fn split(&self, piece_max: usize) {
        self.line
            .send_modify(|line| line.piece_max = Some(piece_max));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
        self.cut();
    }
}

/// One connection, until either side ends it or it is cut.
async fn link(mut client: TcpStream, upstream: u16, line: watch::Receiver<Line>) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", upstream)).await else {
        return;
    };
    // A piece has to leave as its own segment.
    client.set_nodelay(true).expect("an open socket");
    server.set_nodelay(true).expect("an open socket");
    let cut = {
        let (client_in, client_out) = client.split();
        let (server_in, server_out) = server.split();
        tokio::select! {
            () = pump(client_in, server_out, Direction::Up, line.clone()) => false,
            () = pump(server_in, client_out, Direction::Down, line.clone()) => false,
            () = until_cut(line) => true,
        }
    };
    if cut {
        // With a linger of zero the kernel answers the close with a reset.
        client.set_zero_linger().expect("an open socket");
        server.set_zero_linger().expect("an open socket");
    }
}

async fn until_cut(mut line: watch::Receiver<Line>) {
    let cuts = line.borrow().cuts;
    // The sender is gone only when the proxy is, which is a cut as well.
    line.wait_for(|line| line.cuts != cuts).await.ok();
}

/// Carries one direction; ends with the stream or the proxy.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    direction: Direction,
    mut line: watch::Receiver<Line>,
) {
    let mut rng = Pcg64Mcg::seed_from_u64(1);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            let open = line.wait_for(|line| !line.holds(direction)).await;
            let Ok((delay, piece_max)) = open.map(|line| (line.delay, line.piece_max)) else {
                return;
            };
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            let size = match piece_max {
                Some(max) => rng.random_range(1..=max).min(rest.len()),
                None => rest.len(),
            };
            let (piece, after) = rest.split_at(size);
            if to.write_all(piece).await.is_err() {
                return;
            }
            rest = after;
            if piece_max.is_some() {
                // The reader on the other end gets its turn before the next piece.
                tokio::task::yield_now().await;
            }
        }
    }
}
