//! Whether a command's session has a connection, and whether another attempt could bring one.

use std::io;
use std::sync::Arc;

use actix::prelude::*;
use fleet_shared::config::MqttArgs;
use fleet_shared::session::{ConnectionError, ConnectionEvent, Inbound};
use tokio::sync::watch;

/// How the connection is.
#[derive(Clone, Debug, Default)]
pub(crate) enum Link {
    /// Not tried to its end.
    #[default]
    Connecting,
    /// There.
    Up,
    /// Not there; the session tries again.
    Down(Arc<ConnectionError>),
    /// Not there, and no attempt will bring it.
    Failed(Arc<ConnectionError>),
}

/// Tells a command of its session's connection.
pub(crate) struct Teller {
    link: watch::Sender<Link>,
    /// Once it was there it is tried again whatever is said: a broker that starts anew may not know
    /// its accounts at once.
    was_up: bool,
    said: String,
}

impl Teller {
    pub(crate) fn new() -> (Self, watch::Receiver<Link>) {
        let (link, watched) = watch::channel(Link::default());
        let teller = Self {
            link,
            was_up: false,
            said: String::new(),
        };
        (teller, watched)
    }

    pub(crate) fn tell(&mut self, event: ConnectionEvent) {
        if matches!(*self.link.borrow(), Link::Failed(_)) {
            return;
        }
        self.link.send_replace(match event {
            ConnectionEvent::Up { .. } => {
                self.was_up = true;
                self.said.clear();
                Link::Up
            }
            ConnectionEvent::Down { error, .. } if !self.was_up && is_final(&error) => {
                Link::Failed(error)
            }
            ConnectionEvent::Down { error, retry_in } => {
                let text = format!("{:#}", anyhow::Error::new(Arc::clone(&error)));
                // What is the same at every attempt is said once.
                if self.said != text {
                    tracing::warn!(error = text, ?retry_in, "not connected");
                    self.said = text;
                }
                Link::Down(error)
            }
            ConnectionEvent::Failed { error } => Link::Failed(error),
        });
    }
}

/// Resolves when the session has given up, or should.
pub(crate) async fn failed(link: &mut watch::Receiver<Link>, mqtt: &MqttArgs) -> anyhow::Error {
    let failed = link.wait_for(|link| matches!(link, Link::Failed(_)));
    match failed.await.map(|link| link.clone()) {
        Ok(Link::Failed(error)) => unusable(&error, mqtt),
        _ => anyhow::anyhow!("the session is gone"),
    }
}

/// Whether another attempt would end the same way, so that somebody has to change something first.
pub(crate) fn is_final(error: &ConnectionError) -> bool {
    match error {
        // Of the codes of CONNACK (MQTT 5, section 3.2.2.2) those about who we are and what we
        // speak; the others are about how the broker is at the moment.
        ConnectionError::Refused { code, .. } => {
            matches!(code, 0x81 | 0x82 | 0x84..=0x87 | 0x8a | 0x8c | 0x95 | 0x9d)
        }
        ConnectionError::TlsFile { .. } | ConnectionError::Subscribe(_) => true,
        // A certificate stays what it is; a connection that closes may be that of a broker which
        // starts or stops.
        ConnectionError::Tls { source, .. } => {
            source.kind() == io::ErrorKind::InvalidInput
                || source
                    .get_ref()
                    .is_some_and(|inner| inner.is::<rustls::Error>())
        }
        _ => false,
    }
}

/// One line about a broker that cannot be used: why, and what to do about it.
pub(crate) fn unusable(error: &Arc<ConnectionError>, mqtt: &MqttArgs) -> anyhow::Error {
    let why = match &**error {
        ConnectionError::Refused {
            code,
            reason,
            detail,
            ..
        } => {
            let remedy = remedy(*code, mqtt);
            format!("it refused the connection: {reason} (0x{code:02x}){detail}{remedy}")
        }
        ConnectionError::Unreachable { source, .. } => {
            format!("{source}; see whether a broker runs there")
        }
        ConnectionError::Tls { hint, .. } => format!("TLS failed: {hint}"),
        ConnectionError::Subscribe(refused) => {
            format!("{refused}; sign in with an account that may read it (MQTT_USERNAME)")
        }
        _ => format!("{:#}", anyhow::Error::new(Arc::clone(error))),
    };
    anyhow::anyhow!("cannot use the broker {} (MQTT_URL): {why}", mqtt.mqtt_url)
}

fn remedy(code: u8, mqtt: &MqttArgs) -> &'static str {
    let anonymous = mqtt.mqtt_username.is_none() && mqtt.mqtt_url.username.is_none();
    match code {
        0x84 => "; use a broker or listener that speaks MQTT 5",
        0x85 => "; choose another --mqtt-client-id (MQTT_CLIENT_ID)",
        0x86 | 0x87 if anonymous => {
            "; name an account with MQTT_USERNAME and MQTT_PASSWORD_FILE, or a client certificate with MQTT_CERT_FILE"
        }
        0x86 => "; check MQTT_USERNAME and MQTT_PASSWORD or MQTT_PASSWORD_FILE",
        0x87 => "; see what this account may (MQTT_USERNAME), and as which client (MQTT_CLIENT_ID)",
        _ => "",
    }
}

/// Takes the events of a session that subscribes to nothing.
pub(crate) struct Watch(pub(crate) Teller);

impl Actor for Watch {
    type Context = Context<Self>;
}

impl Handler<ConnectionEvent> for Watch {
    type Result = ();

    fn handle(&mut self, event: ConnectionEvent, _: &mut Self::Context) {
        self.0.tell(event);
    }
}

impl Handler<Inbound> for Watch {
    type Result = ();

    fn handle(&mut self, _: Inbound, _: &mut Self::Context) {}
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fleet_shared::session::BrokerAddr;

    use super::*;

    fn broker() -> BrokerAddr {
        BrokerAddr {
            host: "b".to_owned(),
            port: 1,
            tls: true,
        }
    }

    fn refused(code: u8) -> Arc<ConnectionError> {
        Arc::new(ConnectionError::Refused {
            broker: broker(),
            code,
            reason: "no".to_owned(),
            detail: String::new(),
        })
    }

    fn down(error: Arc<ConnectionError>) -> ConnectionEvent {
        let retry_in = Duration::ZERO;
        ConnectionEvent::Down { error, retry_in }
    }

    #[test]
    fn what_no_attempt_mends_is_told_from_what_may_pass() {
        for code in [0x84, 0x85, 0x86, 0x87, 0x8a, 0x8c] {
            assert!(is_final(&refused(code)), "0x{code:02x}");
        }
        // Unspecified, unavailable, busy, shutting down, quota, another server, too often.
        for code in [0x80, 0x83, 0x88, 0x89, 0x8b, 0x97, 0x9c, 0x9f] {
            assert!(!is_final(&refused(code)), "0x{code:02x}");
        }
        let tls = |source| ConnectionError::Tls {
            broker: broker(),
            hint: String::new(),
            source,
        };
        let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        assert!(is_final(&tls(io::Error::new(
            io::ErrorKind::InvalidData,
            unknown
        ))));
        assert!(!is_final(&tls(io::ErrorKind::UnexpectedEof.into())));
        let source = io::ErrorKind::ConnectionRefused.into();
        let broker = broker();
        assert!(!is_final(&ConnectionError::Unreachable { broker, source }));
    }

    #[test]
    fn a_final_refusal_ends_the_attempts_but_not_a_connection_that_was_there() {
        let (mut teller, link) = Teller::new();
        teller.tell(down(refused(0x88)));
        assert!(matches!(*link.borrow(), Link::Down(_)));
        teller.tell(down(refused(0x86)));
        assert!(matches!(*link.borrow(), Link::Failed(_)));
        // What comes afterwards of a session that is not stopped yet does not count.
        teller.tell(down(refused(0x88)));
        assert!(matches!(*link.borrow(), Link::Failed(_)));

        let (mut teller, link) = Teller::new();
        teller.tell(ConnectionEvent::Up {
            session_present: false,
            connection_id: uuid::Uuid::nil(),
        });
        teller.tell(down(refused(0x86)));
        assert!(matches!(*link.borrow(), Link::Down(_)));
    }
}
