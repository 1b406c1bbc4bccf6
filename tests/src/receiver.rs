//! A receiver of HTTP requests that answers as it is told: takes, fails, stalls, recovers.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use fleet_shared::tls::{ServerFiles, server_config};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// How a request is answered.
#[derive(Clone, Debug)]
pub enum Reply {
    /// With a status.
    Status(u16),
    /// With a status, and when to come again in seconds.
    RetryAfter(u16, u64),
    /// Not at all, until the sender gives up.
    Stall,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Posted {
    /// The path.
    pub path: String,
    /// Headers by their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body as text.
    pub body: String,
}

impl Posted {
    /// A header; empty if it is not there.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

#[derive(Debug, Default)]
struct Shared {
    posted: Vec<Posted>,
    plans: BTreeMap<String, VecDeque<Reply>>,
}

/// A server on a free port. Every path is answered with 200 unless it has a plan.
#[derive(Debug)]
pub struct Receiver {
    addr: SocketAddr,
    scheme: &'static str,
    shared: Arc<Mutex<Shared>>,
    task: JoinHandle<()>,
}

impl Receiver {
    /// Starts to listen.
    ///
    /// # Panics
    /// If there is no free port.
    pub async fn start() -> Self {
        Self::with(None).await
    }

    /// One that speaks TLS by these files, which it reads again when they change.
    ///
    /// # Panics
    /// If there is no free port, or the files cannot be used.
    pub async fn secure(files: &ServerFiles) -> Self {
        let config = server_config(files).expect("files of a server");
        Self::with(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn with(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a free port");
        let addr = listener.local_addr().expect("the address of a socket");
        let shared = Arc::new(Mutex::new(Shared::default()));
        let known = shared.clone();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (known, tls) = (known.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, known).await,
                        Some(tls) => {
                            // Who is turned away is seen by what does not come.
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, known).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            addr,
            scheme,
            shared,
            task,
        }
    }

    /// The URL of a path.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        match self.scheme {
            // By the name in its certificate.
            "https" => format!("https://localhost:{}{path}", self.addr.port()),
            scheme => format!("{scheme}://{}{path}", self.addr),
        }
    }

    /// Says how the next requests to `path` are answered; later ones are taken.
    pub fn plan(&self, path: &str, replies: impl IntoIterator<Item = Reply>) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = shared.plans.entry(path.to_owned()).or_default();
        plan.extend(replies);
    }

    /// Requests to `path` so far.
    #[must_use]
    pub fn posted(&self, path: &str) -> Vec<Posted> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let to_path = shared.posted.iter().filter(|posted| posted.path == path);
        to_path.cloned().collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, shared: Arc<Mutex<Shared>>) {
    let Some(posted) = read(&mut stream).await else {
        return;
    };
    let reply = {
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = shared.plans.get_mut(&posted.path);
        let reply = plan.and_then(VecDeque::pop_front);
        shared.posted.push(posted);
        reply.unwrap_or(Reply::Status(200))
    };
    let (status, more) = match reply {
        Reply::Status(status) => (status, String::new()),
        Reply::RetryAfter(status, seconds) => (status, format!("retry-after: {seconds}\r\n")),
        Reply::Stall => {
            // Until the sender closes the connection.
            let mut rest = [0; 64];
            while matches!(stream.read(&mut rest).await, Ok(read) if read > 0) {}
            return;
        }
    };
    let answer =
        format!("HTTP/1.1 {status} X\r\n{more}content-length: 0\r\nconnection: close\r\n\r\n");
    // A sender that has gone away has its reasons; the test sees them elsewhere.
    stream.write_all(answer.as_bytes()).await.ok();
    stream.shutdown().await.ok();
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Posted> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    let head_end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        let read = stream
            .read(&mut chunk)
            .await
            .ok()
            .filter(|read| *read > 0)?;
        bytes.extend_from_slice(&chunk[..read]);
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
    let mut lines = head.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length: usize = headers.get("content-length")?.parse().ok()?;
    let mut body = bytes.split_off(head_end + 4);
    while body.len() < length {
        let read = stream
            .read(&mut chunk)
            .await
            .ok()
            .filter(|read| *read > 0)?;
        body.extend_from_slice(&chunk[..read]);
    }
    Some(Posted {
        path,
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}
