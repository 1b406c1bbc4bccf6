//! Ports nobody else takes in between.

use std::net::TcpListener;

use rand::RngExt;

/// A TCP port on 127.0.0.1 that was free a moment ago.
///
/// It lies below the range from which the kernel takes the local ports of outgoing connections,
/// so that a server which is stopped and started again finds its port still free, and a client
/// that connects meanwhile does not meet itself.
#[must_use]
pub fn free_port() -> u16 {
    let mut rng = rand::rng();
    for _ in 0..1_000 {
        let port = rng.random_range(10_240..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port found between 10240 and 32000 on 127.0.0.1 in 1,000 attempts");
}
