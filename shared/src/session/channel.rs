//! A session for code that is no actor: connect, publish, and wait for messages one by one.

use std::sync::Arc;

use actix::prelude::*;
use tokio::sync::{mpsc, watch};

use super::{ConnectionError, ConnectionEvent, Inbound, Message, Options, Session, Ticket};
use crate::telemetry::Metrics;

/// Messages between the session and who waits for them. When it is full the session stops reading,
/// so a slow reader slows the broker down.
const MESSAGES_MAX: usize = 1_024;

/// A connected session and what it receives, in order. For tools, examples and tests; a service
/// takes batches in an actor of its own, which costs less a message.
#[derive(Debug)]
pub struct Channel {
    /// To publish, subscribe and stop.
    pub session: Session,
    /// The broker had the session already.
    pub session_present: bool,
    messages: mpsc::Receiver<Message>,
}

impl Channel {
    /// Connects once; later connections are made by themselves.
    ///
    /// # Errors
    /// Why the first attempt failed.
    pub async fn connect(options: Options) -> Result<Self, Arc<ConnectionError>> {
        let (sender, messages) = mpsc::channel(MESSAGES_MAX);
        let (told, mut first) = watch::channel(None);
        let desk = Desk { sender, told }.start();
        let inbound = desk.clone().recipient();
        let session = Session::start(options, &Metrics::new(), inbound, desk.recipient());
        // The desk lives as long as the session, which lives here.
        let first = match first.wait_for(Option::is_some).await {
            Ok(first) => first.clone(),
            Err(_) => None,
        };
        let session_present = first.unwrap_or(Err(Arc::new(ConnectionError::ConsumerGone)))?;
        Ok(Self {
            session,
            session_present,
            messages,
        })
    }

    /// The next message, also after reconnects; none when the session has stopped.
    pub async fn next(&mut self) -> Option<Message> {
        self.messages.recv().await
    }

    /// Tells the broker that a message is taken; at QoS 0 there is nothing to tell.
    pub fn acknowledge(&self, message: &Message) {
        let tickets: Vec<Ticket> = message.ticket.into_iter().collect();
        if !tickets.is_empty() {
            self.session.acknowledge(tickets);
        }
    }
}

/// Takes what the session hands over.
struct Desk {
    sender: mpsc::Sender<Message>,
    told: watch::Sender<Option<Result<bool, Arc<ConnectionError>>>>,
}

impl Actor for Desk {
    type Context = Context<Self>;
}

impl Handler<ConnectionEvent> for Desk {
    type Result = ();

    fn handle(&mut self, event: ConnectionEvent, _: &mut Self::Context) {
        let outcome = match event {
            ConnectionEvent::Up {
                session_present, ..
            } => Ok(session_present),
            ConnectionEvent::Down { error, .. } | ConnectionEvent::Failed { error } => Err(error),
        };
        self.told.send_if_modified(|first| {
            let is_first = first.is_none();
            if is_first {
                *first = Some(outcome);
            }
            is_first
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
                    // Nobody waits for more.
                    return;
                }
            }
        })
    }
}
