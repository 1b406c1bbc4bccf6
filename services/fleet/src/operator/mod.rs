//! An operator's own MQTT session: there for one command, and forgotten by the broker afterwards.

mod payload;
pub mod publish;
pub mod request;
pub mod tail;

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use anyhow::Context as _;
use fleet_shared::config::MqttArgs;
use fleet_shared::service::Host;
use fleet_shared::session::{
    ConnectionError, ConnectionEvent, Inbound, Message as Received, Session, Stop, Subscription,
};
use tokio::sync::{mpsc, watch};

/// Messages between the session and the command. When it is full the session stops reading, so a
/// terminal that is slower than the broker slows the broker down.
const MESSAGES_MAX: usize = 1_024;
/// For the goodbye; everything is acknowledged by then.
const GOODBYE: Duration = Duration::from_secs(2);

/// How the connection is.
#[derive(Clone, Debug, Default)]
enum Link {
    #[default]
    Connecting,
    Up,
    Down(Arc<ConnectionError>),
    Failed(Arc<ConnectionError>),
}

/// A connected session and what it receives.
pub(crate) struct Operator {
    /// To publish on.
    pub(crate) session: Session,
    messages: mpsc::Receiver<Received>,
    link: watch::Receiver<Link>,
}

impl Operator {
    /// Connects for `command`, and subscribes.
    ///
    /// Without `--mqtt-client-id` the client id has the process's number in it: a second operator
    /// on the same machine must not end the connection of the first.
    ///
    /// # Errors
    /// If a setting cannot be used, the broker refuses, or cannot be reached in time; the reason of
    /// the last attempt is told.
    pub(crate) async fn connect(
        command: &str,
        mqtt: &MqttArgs,
        host: &Host,
        subscriptions: impl FnOnce(&str) -> Vec<Subscription>,
    ) -> anyhow::Result<Self> {
        let instance = format!("{}-{}", host.instance(), std::process::id());
        let mut options = mqtt.options(&format!("fleet-{command}"), &instance)?;
        options.clean_start = true;
        options.session_expiry = Duration::ZERO;
        let client_id = options.client_id.to_string();
        options.subscriptions = subscriptions(&client_id);
        let limit = options.connect_timeout;
        let (sender, messages) = mpsc::channel(MESSAGES_MAX);
        let (told, mut link) = watch::channel(Link::default());
        let desk = Desk { sender, told }.start();
        let session = Session::start(
            options,
            host.metrics(),
            desk.clone().recipient(),
            desk.recipient(),
        );
        let settled = link.wait_for(|link| matches!(link, Link::Up | Link::Failed(_)));
        let settled = tokio::select! {
            settled = tokio::time::timeout(limit, settled) => settled.map(drop),
            () = host.stopping() => anyhow::bail!("interrupted"),
        };
        let seen = link.borrow().clone();
        match (settled, seen) {
            (Ok(()), Link::Up) => {}
            (_, Link::Failed(error) | Link::Down(error)) => {
                session.stop(Stop::Abandon, GOODBYE).await;
                return Err(anyhow::Error::new(error)).with_context(|| {
                    format!("cannot use the broker {} (MQTT_URL)", mqtt.mqtt_url)
                });
            }
            (_, Link::Connecting | Link::Up) => {
                session.stop(Stop::Abandon, GOODBYE).await;
                anyhow::bail!(
                    "{} (MQTT_URL) did not answer within {limit:?}; see whether a broker runs there",
                    mqtt.mqtt_url
                );
            }
        }
        Ok(Self {
            session,
            messages,
            link,
        })
    }

    /// The next message, in order of arrival, also after reconnects.
    ///
    /// # Errors
    /// When the session has given up.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Received> {
        let failed = async {
            let failed = self.link.wait_for(|link| matches!(link, Link::Failed(_)));
            match failed.await.map(|link| link.clone()) {
                Ok(Link::Failed(error)) => anyhow::Error::new(error),
                _ => anyhow::anyhow!("the session is gone"),
            }
        };
        tokio::select! {
            biased;
            message = self.messages.recv() => message.context("the session is gone"),
            error = failed => Err(error.context("the session gave up")),
        }
    }

    /// Says goodbye; the broker forgets the session.
    pub(crate) async fn leave(self) {
        self.session.stop(Stop::EndSession, GOODBYE).await;
    }
}

/// Takes what the session hands over.
struct Desk {
    sender: mpsc::Sender<Received>,
    told: watch::Sender<Link>,
}

impl Actor for Desk {
    type Context = Context<Self>;
}

impl Handler<ConnectionEvent> for Desk {
    type Result = ();

    fn handle(&mut self, event: ConnectionEvent, _: &mut Self::Context) {
        self.told.send_replace(match event {
            ConnectionEvent::Up { .. } => Link::Up,
            ConnectionEvent::Down { error, retry_in } => {
                tracing::warn!(
                    error = format!("{:#}", anyhow::Error::new(Arc::clone(&error))),
                    ?retry_in,
                    "not connected"
                );
                Link::Down(error)
            }
            ConnectionEvent::Failed { error } => Link::Failed(error),
        });
    }
}

impl Handler<Inbound> for Desk {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Inbound { messages }: Inbound, _: &mut Self::Context) -> Self::Result {
        let sender = self.sender.clone();
        Box::pin(async move {
            for message in messages {
                if sender.send(message).await.is_err() {
                    // The command is on its way out and wants no more.
                    return;
                }
            }
        })
    }
}
