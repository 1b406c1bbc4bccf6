//! An MQTT broker inside this process, for `fleet up` and for tests that need no installation.

mod depth;
mod guard;
mod handover;
mod secure;

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use fleet_shared::tls::ServerFiles;
use rmqtt::context::ServerContext;
use rmqtt::hook::Type;
use rmqtt::net::{Builder, Listener};
use rmqtt::server::MqttServer;
use tokio::runtime::Runtime;

use depth::Depth;
pub use guard::Rules;
use guard::{Guard, Peers};
use handover::Handover;
use secure::Front;

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

/// Connections at a time.
const MAX_CONNECTIONS: usize = 100_000;

/// Levels of a topic; those of the fleet have at most a handful more than a location has.
const MAX_TOPIC_LEVELS: usize = 32;

/// Subscriptions of one client.
const MAX_SUBSCRIPTIONS: usize = 10_000;

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

/// What makes a broker a secured one.
#[derive(Clone, Debug)]
pub struct Security {
    /// Its certificate, and whose client certificates it accepts.
    pub tls: ServerFiles,
    /// Who may do what.
    pub rules: Arc<Rules>,
}

/// Which member of a shared subscription (MQTT 5, section 4.8.2) gets a message; under the names that
/// EMQX has for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum SharedStrategy {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// The same one for all messages of a topic, for as long as it is connected.
    HashTopic,
    /// The same one for all messages of a publisher, for as long as it is connected.
    #[value(name = "hash_clientid")]
    HashClientId,
}

impl SharedStrategy {
    const fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::HashTopic => "hash_topic",
            Self::HashClientId => "hash_clientid",
        }
    }
}

/// What may be chosen of a broker.
#[derive(Clone, Debug, Default)]
pub struct BrokerOptions {
    /// Who gets what of a shared subscription.
    pub sharing: SharedStrategy,
    /// With it, it is reached by TLS only and has accounts: an account is proved by its password or by
    /// a client certificate with its name, and may do what [`crate::access`] says.
    pub security: Option<Security>,
}

/// A running broker. Any MQTT 3.1.1 or 5 client may connect, with or without a user name, unless it
/// was started with [`Security`].
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
        Self::start_with(addr, data_dir, BrokerOptions::default())
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`EmbeddedBroker::start`], and when a certificate cannot be used.
    pub fn start_with(
        addr: SocketAddr,
        data_dir: &Path,
        options: BrokerOptions,
    ) -> Result<Self, BrokerError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("broker")
            .enable_all()
            .build()
            .map_err(BrokerError::Threads)?;
        let settings = data_dir.join("broker");
        let (report, started) = mpsc::sync_channel(1);
        runtime.spawn(async move {
            let sharing = options.sharing;
            let outcome = match options.security {
                None => prepare(addr, settings, sharing, None).await,
                Some(security) => prepare_secured(addr, settings, sharing, security).await,
            };
            let (outcome, running) = match outcome {
                Ok((addr, running)) => (Ok(addr), Some(running)),
                Err(error) => (Err(error), None),
            };
            // The caller below waits for this, so the channel is open and has room.
            if report.send(outcome).is_ok()
                && let Some(running) = running
            {
                running.run().await;
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

/// What serves.
struct Running {
    server: MqttServer,
    /// TLS, and the address behind it.
    front: Option<(Front, SocketAddr)>,
}

impl Running {
    async fn run(self) {
        if let Some((front, inner)) = self.front {
            tokio::spawn(front.run(inner));
        }
        if let Err(error) = self.server.run().await {
            tracing::error!(%error, "the embedded broker stopped");
        }
    }
}

/// Binds for TLS, and builds a server behind it on a free port of loopback.
async fn prepare_secured(
    addr: SocketAddr,
    settings: PathBuf,
    sharing: SharedStrategy,
    security: Security,
) -> Result<(SocketAddr, Running), BrokerError> {
    let peers = Peers::default();
    let front = Front::bind(addr, &security.tls, peers.clone()).await?;
    let local_addr = front.local_addr().map_err(setup)?;
    let guard = Guard {
        rules: security.rules,
        peers,
    };
    let behind = SocketAddr::from(([127, 0, 0, 1], 0));
    let (inner, running) = prepare(behind, settings, sharing, Some(guard)).await?;
    let running = Running {
        front: Some((front, inner)),
        ..running
    };
    Ok((local_addr, running))
}

/// Binds, and builds the server around the listener.
async fn prepare(
    addr: SocketAddr,
    settings: PathBuf,
    sharing: SharedStrategy,
    guard: Option<Guard>,
) -> Result<(SocketAddr, Running), BrokerError> {
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
        .plugins_config_map_add(
            "rmqtt-shared-subscription",
            format!("strategy = \"{}\"\n", sharing.as_str()),
        )
        .build()
        .await;
    Handover::install(&context).await;
    rmqtt_retainer::register(&context, true, false)
        .await
        .map_err(setup)?;
    rmqtt_shared_subscription::register(&context, true, false)
        .await
        .map_err(setup)?;
    let register = context.extends.hook_mgr().register();
    let depth = Depth {
        guarded: guard.is_some(),
    };
    for question in [Type::ClientAuthenticate, Type::MessagePublishCheckAcl] {
        register
            .add_priority(question, depth::FIRST, Box::new(depth))
            .await;
    }
    if let Some(guard) = guard {
        for question in [
            Type::ClientAuthenticate,
            Type::ClientSubscribeCheckAcl,
            Type::MessagePublishCheckAcl,
        ] {
            register.add(question, Box::new(guard.clone())).await;
        }
    }
    register.start().await;
    // The id only has to be unique among the listeners of this context; a second would panic.
    let server = MqttServer::new(context)
        .listener_by_id(listener, local_addr.port())
        .build();
    let running = Running {
        server,
        front: None,
    };
    Ok((local_addr, running))
}

fn listen(addr: SocketAddr) -> Result<Listener, BrokerError> {
    Builder::new()
        .name("embedded")
        .laddr(addr)
        // Who is let in, [`Depth`] and [`Guard`] say.
        .allow_anonymous(false)
        .nodelay(true)
        .reuseaddr(Some(true))
        .max_inflight(MAX_IN_FLIGHT)
        .max_mqueue_len(MAX_QUEUED)
        .max_packet_size(MAX_PACKET)
        .max_connections(MAX_CONNECTIONS)
        .max_topic_levels(MAX_TOPIC_LEVELS)
        .max_subscriptions(MAX_SUBSCRIPTIONS)
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
