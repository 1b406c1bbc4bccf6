//! An MQTT broker inside this process, for `fleet up` and for tests that need no installation.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use rmqtt::context::ServerContext;
use rmqtt::net::{Builder, Listener};
use rmqtt::server::MqttServer;
use tokio::runtime::Runtime;

/// QoS 1 and 2 messages in flight to one client, as far as the client's receive maximum allows.
/// Rows stored a second are at most messages in flight divided by the time of a commit, so the
/// library's 16 would hold `ingest` to a few thousand a second.
const MAX_IN_FLIGHT: NonZeroU16 = NonZeroU16::new(1_000).expect("1,000 is not zero");

/// Messages that wait for one client. The library's 1,000 drops the oldest after a second without
/// the client at 1,000 readings a second; this lasts for three minutes of it, and takes at most
/// 60 MB for one client at 300 bytes a reading.
const MAX_QUEUED: usize = 200_000;

/// Largest packet, in bytes; the same limit as the session's.
const MAX_PACKET: u32 = 1024 * 1024;

/// Threads of the broker's runtime. It serves a development machine, not a fleet.
const THREADS: usize = 2;

/// Why the embedded broker did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// Another program, most often another broker, listens there.
    #[error(
        "--mqtt-addr {addr}: the address is in use; stop the broker that listens there, \
         choose another port (0 takes a free one), or use that broker with --broker mqtt://{addr}"
    )]
    AddressInUse {
        /// The address that was asked for.
        addr: SocketAddr,
    },
    /// The address does not belong to this machine, or the port needs privileges.
    #[error(
        "--mqtt-addr {addr}: cannot listen there; use an address of this machine and a port above 1023"
    )]
    Bind {
        /// The address that was asked for.
        addr: SocketAddr,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The operating system gave no threads.
    #[error("cannot start the broker's threads")]
    Threads(#[source] std::io::Error),
    /// The library refused its configuration.
    #[error("cannot set up the embedded broker: {0}; use another one with --broker URL")]
    Setup(String),
}

/// A running broker. Any MQTT 3.1.1 or 5 client may connect, with or without a user name.
///
/// Sessions and retained messages live in memory: they survive a client, not this process.
/// Messages never expire unless their publisher says so, and are sent again only after a
/// reconnect, as MQTT 5 section 4.4 wants. Dropping it closes every connection without waiting.
#[derive(Debug)]
pub struct EmbeddedBroker {
    local_addr: SocketAddr,
    /// The library has no way to stop; ending the runtime that runs it is one.
    runtime: Option<Runtime>,
}

impl EmbeddedBroker {
    /// Listens on `addr` (port 0 takes a free one) and serves from threads of its own. Returns
    /// once clients can connect. May be called inside and outside of an async runtime.
    ///
    /// The library looks for plugin settings in a folder; it is given one below `data_dir`, so
    /// that nothing outside is read or written.
    ///
    /// # Errors
    /// When the address cannot be listened on; the message names the flag and the remedy.
    pub fn start(addr: SocketAddr, data_dir: &Path) -> Result<Self, BrokerError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("broker")
            .enable_all()
            .build()
            .map_err(BrokerError::Threads)?;
        let settings = data_dir.join("broker");
        let (report, started) = mpsc::sync_channel(1);
        runtime.spawn(async move {
            let outcome = prepare(addr, settings).await;
            let (outcome, server) = match outcome {
                Ok((addr, server)) => (Ok(addr), Some(server)),
                Err(error) => (Err(error), None),
            };
            // The caller below waits for this, so the channel is open and has room.
            if report.send(outcome).is_ok()
                && let Some(server) = server
                && let Err(error) = server.run().await
            {
                tracing::error!(%error, "the embedded broker stopped");
            }
        });
        let outcome = started.recv();
        let mut broker = Self {
            local_addr: addr,
            runtime: Some(runtime),
        };
        // When this returns an error, dropping `broker` ends the runtime without blocking.
        broker.local_addr =
            outcome.map_err(|_| BrokerError::Setup("its task ended early".to_owned()))??;
        Ok(broker)
    }

    /// Where it listens, with the port that was taken.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Closes the listener and every connection; wills are not published. Blocks until the
    /// broker's threads have ended, at most for `timeout`.
    pub fn stop(mut self, timeout: Duration) {
        let Some(runtime) = self.runtime.take() else {
            return;
        };
        // A runtime must not be waited for on a thread that runs another one, which is where
        // callers are.
        let ending = std::thread::Builder::new()
            .name("broker-stop".to_owned())
            .spawn(move || runtime.shutdown_timeout(timeout));
        match ending.map(std::thread::JoinHandle::join) {
            Ok(Ok(())) => {}
            Ok(Err(_)) => tracing::error!("the embedded broker did not stop in order"),
            // The runtime was dropped with the closure, which closes everything as well.
            Err(error) => tracing::error!(%error, "no thread to stop the embedded broker on"),
        }
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Binds, and builds the server around the listener.
async fn prepare(
    addr: SocketAddr,
    settings: PathBuf,
) -> Result<(SocketAddr, MqttServer), BrokerError> {
    let listener = listen(addr)?;
    let local_addr = listener.local_addr().map_err(setup)?;
    let context = ServerContext::new()
        .plugins_config_dir(settings.to_string_lossy())
        // It would refuse connections when other programs load the machine.
        .busy_check_enable(false)
        // A ttl of 0 keeps retained messages until they are replaced.
        .plugins_config_map_add(
            "rmqtt-retainer",
            "storage.type = \"ram\"\nmax_retained_messages = 0\nmax_payload_size = \"1MB\"\n\
             retained_message_ttl = \"0m\"\n",
        )
        .plugins_config_map_add("rmqtt-shared-subscription", "strategy = \"round_robin\"\n")
        .build()
        .await;
    rmqtt_retainer::register(&context, true, false)
        .await
        .map_err(setup)?;
    rmqtt_shared_subscription::register(&context, true, false)
        .await
        .map_err(setup)?;
    // The id only has to be unique among the listeners of this context; a second would panic.
    let server = MqttServer::new(context)
        .listener_by_id(listener, local_addr.port())
        .build();
    Ok((local_addr, server))
}

fn listen(addr: SocketAddr) -> Result<Listener, BrokerError> {
    Builder::new()
        .name("embedded")
        .laddr(addr)
        .allow_anonymous(true)
        .nodelay(true)
        .reuseaddr(Some(true))
        .max_inflight(MAX_IN_FLIGHT)
        .max_mqueue_len(MAX_QUEUED)
        .max_packet_size(MAX_PACKET)
        // Zero is "never" for both: a message waits for its consumer however long the consumer's
        // session lasts, and a slow consumer is not sent the same message again and again.
        .message_expiry_interval(Duration::ZERO)
        .message_retry_interval(Duration::ZERO)
        .bind()
        .and_then(Listener::tcp)
        .map_err(|error| match error.downcast::<std::io::Error>() {
            Ok(source) if source.kind() == std::io::ErrorKind::AddrInUse => {
                BrokerError::AddressInUse { addr }
            }
            Ok(source) => BrokerError::Bind { addr, source },
            Err(error) => setup(error),
        })
}

fn setup(error: impl std::fmt::Display) -> BrokerError {
    BrokerError::Setup(error.to_string())
}
