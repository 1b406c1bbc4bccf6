//! The MQTT 5 session: one client id's conversation with a broker, kept up over any number of
//! connections, as an actor.
//!
//! [`Session`] is the handle. Behind it an actor takes requests from any thread and a task of the
//! same thread runs the connection; both share a protocol state machine that knows no socket:
//!
//! ```text
//!  Session ──▶ SessionActor ──▶ Protocol ◀── Connection ◀──▶ socket
//!  (any thread)  (mailbox)     (pure state)     (task) ──▶ Inbound, ConnectionEvent to the owner
//! ```
//!
//! Guarantees, as long as the process lives:
//! - publishes go out in the order they were submitted, and again, in that order and with DUP, after
//!   a reconnect (MQTT 5, section 4.4);
//! - received messages are handed over in order, one batch a socket read; the next is read when the
//!   consumer's handler has answered;
//! - nothing received is acknowledged before the consumer says so, and acknowledgements go out in
//!   the order of arrival (section 4.6);
//! - a QoS 2 message is handed over once, also when the broker delivers it again after a reconnect.
//!
//! Everything is bounded: the outbox by `outbox_max`, the flight by `flight_max` and CONNACK, what is
//! received by `receive_maximum` and by the consumer's pace, packets by `packet_max`.
//!
//! This module is the only code of the fleet that names ntex-mqtt.

mod actor;
mod arrivals;
mod backoff;
mod channel;
mod connection;
mod error;
mod flight;
mod frame;
mod gate;
mod handshake;
mod local;
mod message;
mod metrics;
mod options;
mod packet;
mod protocol;
#[cfg(test)]
mod protocol_tests;
mod reason;
mod shared;
mod stopping;
pub(crate) mod tls;
mod transport;

pub use actor::{Done, Session};
pub use channel::Channel;
pub use error::{ConnectionError, PublishError, SubscribeError};
pub use gate::Gate;
pub use local::{LocalSession, Owner, Trouble};
pub use message::{
    ByteString, Bytes, Inbound, Message, Properties, Publish, QoS, Retained, Subscription, Ticket,
    Will,
};
pub use options::{BrokerAddr, Options, Reconnect, WillSource};

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use uuid::Uuid;

/// Opens the byte stream to a broker as a session does, with TLS where the options say so: for tools that
/// speak MQTT themselves because they ask for what a session never would. The caller bounds the time.
///
/// # Errors
/// When the broker cannot be reached, or the TLS handshake fails.
pub async fn dial(
    options: &Options,
) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static, ConnectionError> {
    transport::open(options).await
}

/// How many whole packets a session reads from the start of `bytes`, as a broker may have sent
/// them, before they end in the middle of one. For fuzzing: it must not panic on anything.
///
/// # Errors
/// What makes the session end the connection.
pub fn read_packets(bytes: &[u8], packet_max: u32) -> Result<usize, ConnectionError> {
    frame::count(bytes, packet_max).map_err(|error| ConnectionError::Protocol(error.to_string()))
}

/// A change of the connection, sent in order to the session's owner.
#[derive(Clone, Debug, actix::Message)]
#[rtype(result = "()")]
pub enum ConnectionEvent {
    /// CONNACK arrived and the subscriptions of the options are made.
    Up {
        /// The broker kept the session: its queue, our subscriptions.
        session_present: bool,
        /// Names this connection; sorts by time. The will was made with the same.
        connection_id: Uuid,
    },
    /// The connection ended or could not be opened; the next attempt follows.
    Down {
        /// Why.
        error: Arc<ConnectionError>,
        /// When the next attempt starts.
        retry_in: Duration,
    },
    /// The session gave up for good (a refused subscription, a consumer that is gone).
    Failed {
        /// Why.
        error: Arc<ConnectionError>,
    },
}

/// How to go on when the outbox is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Attempts after the first.
    pub attempts: u32,
    /// Pause before the first of them; doubles each time.
    pub first: Duration,
    /// Longest pause.
    pub max: Duration,
}

/// How to end a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Send what waits, DISCONNECT, and let the broker keep the session.
    KeepSession,
    /// UNSUBSCRIBE, go on taking and acknowledging until the broker has nothing left for this
    /// session, then DISCONNECT with session expiry 0.
    EndSession,
    /// Close the socket without DISCONNECT, as a crash would: the broker publishes the will.
    Abandon,
}

/// A point-in-time view of a session for tests, `/debug/actors` and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Observed {
    /// CONNACK received and the socket open.
    pub connected: bool,
    /// Connections opened so far.
    pub connections: u32,
    /// Publishes that wait for room in flight.
    pub outbox: usize,
    /// Publishes sent and not yet acknowledged.
    pub in_flight: usize,
    /// Deliveries handed to the consumer and not yet acknowledged.
    pub unacknowledged: usize,
}
