//! A collector that takes everything and keeps nothing.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Takes OTLP over HTTP until the program ends.
#[derive(Debug)]
pub struct SpanSink {
    url: String,
    bytes: Arc<AtomicU64>,
}

impl SpanSink {
    /// Listens.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let url = format!("http://{}", listener.local_addr()?);
        let bytes = Arc::<AtomicU64>::default();
        let counted = bytes.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counted = counted.clone();
                // A connection that ends is an exporter that has finished.
                thread::spawn(move || serve(stream, &counted).ok());
            }
        });
        Ok(Self { url, bytes })
    }

    /// For `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Bytes of spans taken since it was last asked.
    pub fn taken(&self) -> u64 {
        self.bytes.swap(0, Ordering::Relaxed)
    }
}

fn serve(stream: TcpStream, counted: &AtomicU64) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        counted.fetch_add(length as u64, Ordering::Relaxed);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        reader.get_mut().write_all(answer)?;
    }
}
