//! An operator's own MQTT session: there for one command, and forgotten by the broker afterwards.

pub(crate) mod link;
mod payload;
pub mod publish;
pub mod request;
pub mod tail;

use std::time::Duration;

use actix::prelude::*;
use anyhow::Context as _;
use fleet_shared::config::{MqttArgs, format_duration};
use fleet_shared::service::Host;
use fleet_shared::session::{
    ConnectionEvent, Inbound, Message as Received, Session, Stop, Subscription,
};
use tokio::sync::{mpsc, watch};

use link::{Link, Teller, failed, unusable};

/// Messages between the session and the command. When it is full the session stops reading, so a
/// terminal that is slower than the broker slows the broker down.
const MESSAGES_MAX: usize = 1_024;
/// For the goodbye; everything is acknowledged by then.
const GOODBYE: Duration = Duration::from_secs(2);

/// A connected session and what it receives.
pub(crate) struct Operator {
    /// To publish on.
    pub(crate) session: Session,
    messages: mpsc::Receiver<Received>,
    link: watch::Receiver<Link>,
    mqtt: MqttArgs,
}

impl Operator {
    /// Connects for `command`, and subscribes, within the command's own `limit` if it has one that is
    /// shorter than that of the connection.
    ///
    /// Without `--mqtt-client-id` the client id has the process's number in it: a second operator
    /// on the same machine must not end the connection of the first.
    ///
    /// # Errors
    /// If a setting cannot be used, the broker cannot be reached in time, of which the last attempt
    /// is told, or at once when it refuses for good.
    pub(crate) async fn connect(
        command: &str,
        mqtt: &MqttArgs,
        host: &Host,
        limit: Option<Duration>,
        subscriptions: impl FnOnce(&str) -> Vec<Subscription>,
    ) -> anyhow::Result<Self> {
        let instance = format!("{}-{}", host.instance(), std::process::id());
        let mut options = mqtt.options(&format!("fleet-{command}"), &instance)?;
        options.clean_start = true;
        options.session_expiry = Duration::ZERO;
        let client_id = options.client_id.to_string();
        options.subscriptions = subscriptions(&client_id);
        let limit = limit.map_or(options.connect_timeout, |limit| {
            options.connect_timeout.min(limit)
        });
        options.connect_timeout = limit;
        let (sender, messages) = mpsc::channel(MESSAGES_MAX);
        let (teller, mut link) = Teller::new();
        let desk = Desk { sender, teller }.start();
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
        let problem = match (settled, seen) {
            (Ok(()), Link::Up) => {
                let mqtt = mqtt.clone();
                return Ok(Self {
                    session,
                    messages,
                    link,
                    mqtt,
                });
            }
            (_, Link::Failed(error)) => unusable(&error, mqtt),
            (_, Link::Down(error)) => {
                let tried = format_duration(limit);
                anyhow::anyhow!("{}; tried for {tried}", unusable(&error, mqtt))
            }
            (_, Link::Connecting | Link::Up) => anyhow::anyhow!(
                "{} (MQTT_URL) did not answer within {}; see whether a broker runs there",
                mqtt.mqtt_url,
                format_duration(limit)
            ),
        };
        session.stop(Stop::Abandon, GOODBYE).await;
        Err(problem)
    }

    /// The next message, in order of arrival, also after reconnects.
    ///
    /// # Errors
    /// When the session has given up.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Received> {
        tokio::select! {
            biased;
            message = self.messages.recv() => message.context("the session is gone"),
            error = failed(&mut self.link, &self.mqtt) => Err(error),
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
    teller: Teller,
}

impl Actor for Desk {
    type Context = Context<Self>;
}

impl Handler<ConnectionEvent> for Desk {
    type Result = ();

    fn handle(&mut self, event: ConnectionEvent, _: &mut Self::Context) {
        self.teller.tell(event);
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
