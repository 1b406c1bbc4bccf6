//! What can go wrong between a session and its broker.

use std::time::Duration;

use super::options::BrokerAddr;

/// Why a connection could not be opened, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The name did not resolve, or nothing listens there.
    #[error("cannot reach {broker}")]
    Unreachable {
        /// Where we tried.
        broker: BrokerAddr,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// Resolving, connecting, TLS and CONNACK together took too long.
    #[error("no connection to {broker} within {limit:?}")]
    ConnectTimeout {
        /// Where we tried.
        broker: BrokerAddr,
        /// The limit that passed.
        limit: Duration,
    },
    /// A TLS file is missing or not what it should be.
    #[error("{setting} {path}: {reason}")]
    TlsFile {
        /// The setting that names the file.
        setting: &'static str,
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The TLS handshake failed.
    #[error("TLS with {broker} failed: {hint}")]
    Tls {
        /// Where we tried.
        broker: BrokerAddr,
        /// What it means and what to set.
        hint: String,
        /// rustls's own reason.
        #[source]
        source: std::io::Error,
    },
    /// CONNACK with a reason code of 0x80 or more (MQTT 5, section 3.2.2.2).
    #[error("{broker} refused the connection: {reason} (0x{code:02x}){detail}")]
    Refused {
        /// Who refused.
        broker: BrokerAddr,
        /// The reason code.
        code: u8,
        /// Its name in the specification.
        reason: String,
        /// The broker's reason string, if it sent one.
        detail: String,
    },
    /// DISCONNECT from the broker (section 3.14.2.1).
    #[error("the broker ended the connection: {reason} (0x{code:02x}){detail}")]
    Disconnected {
        /// The reason code.
        code: u8,
        /// Its name in the specification.
        reason: String,
        /// The broker's reason string, if it sent one.
        detail: String,
    },
    /// The socket closed or failed.
    #[error("the connection broke")]
    Broken {
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// PINGREQ was not answered in time.
    #[error("the broker did not answer a PINGREQ within {limit:?}")]
    PingTimeout {
        /// The limit that passed.
        limit: Duration,
    },
    /// The broker sent what the specification forbids.
    #[error("protocol error: {0}")]
    Protocol(String),
    /// A subscription that the session was started with was refused.
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    /// The actor that takes the messages is gone, so nothing could be acknowledged any more.
    #[error("the consumer of the session's messages has stopped")]
    ConsumerGone,
}

/// Why a publish did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The outbox is full: the broker is away or slower than the publisher. Try again later.
    #[error("the outbox is full ({max} publishes wait)")]
    OutboxFull {
        /// `outbox_max`.
        max: usize,
    },
    /// The broker refused this message (sections 3.4.2.1 and 3.5.2.1).
    #[error("the broker refused the publish on `{topic}`: {reason} (0x{code:02x})")]
    Refused {
        /// Where it was published to.
        topic: String,
        /// The reason code.
        code: u8,
        /// Its name in the specification.
        reason: &'static str,
    },
    /// Larger than what the broker accepts, or not encodable.
    #[error("publish on `{topic}` cannot be sent: {reason}")]
    Invalid {
        /// Where it was to go.
        topic: String,
        /// What is wrong.
        reason: String,
    },
    /// The session was stopped before the broker acknowledged.
    #[error("the session stopped before the broker acknowledged")]
    Stopped,
}

impl PublishError {
    /// What went wrong as a word of a closed set, for traces.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::OutboxFull { .. } => "outbox_full",
            Self::Refused { reason, .. } => reason,
            Self::Invalid { .. } => "invalid",
            Self::Stopped => "stopped",
        }
    }

    /// Whether the same publish may succeed later. A refusal for want of quota never gets here:
    /// the session holds such a publish back and sends it again.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::OutboxFull { .. })
    }
}

/// Why a subscription was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// SUBACK with a reason code of 0x80 or more (section 3.9.3).
    #[error("the broker refused the filter `{filter}`: {reason} (0x{code:02x})")]
    Refused {
        /// The filter.
        filter: String,
        /// The reason code.
        code: u8,
        /// Its name in the specification.
        reason: &'static str,
    },
    /// The filter breaks the rules of section 4.7.1.
    #[error("`{filter}` is not a topic filter: {reason}")]
    Invalid {
        /// The filter.
        filter: String,
        /// The rule it breaks.
        reason: String,
    },
    /// The session was stopped.
    #[error("the session is stopped")]
    Stopped,
}
