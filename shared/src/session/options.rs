//! How a session connects and what bounds it.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use uuid::Uuid;

use super::message::{ByteString, Subscription, Will};
use crate::tls::TlsOptions;

/// Makes the will of one connection from its id, so that birth and will can carry the same id.
#[derive(Clone)]
pub struct WillSource(Arc<dyn Fn(Uuid) -> Will + Send + Sync>);

impl WillSource {
    /// A will that depends on the connection.
    pub fn new(make: impl Fn(Uuid) -> Will + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }

    pub(super) fn make(&self, connection_id: Uuid) -> Will {
        (self.0)(connection_id)
    }
}

impl From<Will> for WillSource {
    fn from(will: Will) -> Self {
        Self::new(move |_| will.clone())
    }
}

impl std::fmt::Debug for WillSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WillSource")
    }
}

/// Settings of one session. Start from [`Options::new`] and change what differs.
#[derive(Clone, Debug)]
pub struct Options {
    /// The broker.
    pub broker: BrokerAddr,
    /// Stable per replica: the broker ties the session's queue to it.
    pub client_id: ByteString,
    /// User name and password, if the broker asks for them.
    pub username: Option<String>,
    /// Never logged.
    pub password: Option<SecretString>,
    /// TLS files; used when the broker's scheme is `mqtts`.
    pub tls: TlsOptions,
    /// Longest time without a packet to the broker; zero turns the keep-alive off.
    pub keep_alive: Duration,
    /// Limit for resolving, connecting, TLS and CONNACK together.
    pub connect_timeout: Duration,
    /// Limit for the answer to a PINGREQ; half the keep-alive when that is shorter, so that a
    /// silent broker is noticed within one and a half keep-alives.
    pub ping_timeout: Duration,
    /// Pauses between attempts to connect.
    pub reconnect: Reconnect,
    /// How long the broker keeps the session after a disconnect; whole seconds.
    pub session_expiry: Duration,
    /// Ask the broker to forget an earlier session on the first connect of this process.
    pub clean_start: bool,
    /// QoS 1 and 2 messages the broker may have in flight to us: the back-pressure bound.
    pub receive_maximum: u16,
    /// Pause after a read that brought little, so that the next brings more: a message waits so much
    /// longer, and a consumer that works in batches is woken once instead of for each. Zero for none.
    pub gather: Duration,
    /// Largest packet accepted from the broker, in bytes.
    pub packet_max: u32,
    /// Publishes that wait for room in flight; one more is refused.
    pub outbox_max: usize,
    /// QoS 1 and 2 publishes in flight, whatever more CONNACK allows.
    pub flight_max: u16,
    /// QoS 2 publishes among them: EMQX holds 100 and refuses the next, whatever CONNACK says.
    pub flight_qos2_max: u16,
    /// How long after a reconnect a publish that expects a subscriber goes again while the broker
    /// says that there is none.
    pub subscriber_grace: Duration,
    /// Published by the broker when we vanish; made anew for every connection.
    pub will: Option<WillSource>,
    /// User properties of CONNECT.
    pub user: Vec<(ByteString, ByteString)>,
    /// Made on connect and remade when the broker has no session.
    pub subscriptions: Vec<Subscription>,
    /// Local address to connect from, for more connections than one address has ports.
    pub source: Option<std::net::IpAddr>,
    /// Bounds how many sessions that share it are between connect and CONNACK at once. A broker's
    /// queue of connections is short (100 in Mosquitto), and what does not fit into it is tried
    /// again by TCP only after a second.
    pub connect_gate: Option<Arc<tokio::sync::Semaphore>>,
}

impl Options {
    /// The defaults of the contract for a broker and a client id.
    pub fn new(broker: BrokerAddr, client_id: impl Into<ByteString>) -> Self {
        Self {
            broker,
            client_id: client_id.into(),
            username: None,
            password: None,
            tls: TlsOptions::default(),
            keep_alive: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(10),
            reconnect: Reconnect::default(),
            session_expiry: Duration::from_secs(3_600),
            clean_start: false,
            receive_maximum: 1_000,
            gather: Duration::ZERO,
            packet_max: 1024 * 1024,
            outbox_max: 10_000,
            flight_max: 1_000,
            flight_qos2_max: 100,
            subscriber_grace: Duration::from_secs(10),
            will: None,
            user: Vec::new(),
            subscriptions: Vec::new(),
            source: None,
            connect_gate: None,
        }
    }
}

/// Where the broker listens, from a URL such as `mqtts://broker:8883`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerAddr {
    /// Name or address; with TLS it must be in the broker's certificate.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// `mqtts`.
    pub tls: bool,
}

impl std::fmt::Display for BrokerAddr {
    /// The URL without user name or password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

/// Pauses between connection attempts: full jitter under a ceiling that doubles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reconnect {
    /// Ceiling of the first pause.
    pub first: Duration,
    /// Highest ceiling.
    pub max: Duration,
    /// A connection that lasted at least so long starts the ceiling over; a broker that accepts
    /// and then drops us is still backed off.
    pub stable_after: Duration,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(200),
            max: Duration::from_secs(60),
            stable_after: Duration::from_secs(5),
        }
    }
}
