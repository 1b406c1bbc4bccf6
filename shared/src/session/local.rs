//! A session without an actor: for owners that live on its thread and have thousands of them.
//!
//! [`Session`](super::Session) takes requests from any thread through a mailbox, and hands over
//! through another. That is a hop, an allocation and a wake-up for each publish and each
//! acknowledgement, and for each idle session some hundred bytes. A [`LocalSession`] is called, and
//! calls its owner, directly.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::actor::keep_connected;
use super::connection::Handover;
use super::flight::Completion;
use super::message::{Inbound, Message, Publish, Ticket};
use super::metrics::SessionMetrics;
use super::options::Options;
use super::shared::Shared;
use super::stopping::StopRequest;
use super::{ConnectionEvent, PublishError, Stop};
use crate::telemetry::Metrics;

/// Hears what becomes of a [`LocalSession`]. It is called from the task of the connection, never
/// from within a call of the session, and may call the session in turn.
pub trait Owner {
    /// The outcome of the publish that was submitted under `token`.
    fn settled(&self, token: u64, outcome: Result<(), PublishError>);

    /// One socket read's worth of messages, in order of arrival. The owner has no way to hold the
    /// session back but the receive maximum, so it must not keep messages.
    fn received(&self, messages: Vec<Message>);

    /// A change of the connection.
    fn changed(&self, event: ConnectionEvent);
}

/// What is wrong with a connection on purpose, so that brokers can be tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    #[default]
    None,
    /// It is open and dead: nothing is read, written or noticed, not even its end.
    HalfOpen,
    /// After some bytes nothing is read for this time.
    SlowReader {
        /// The time.
        pause: Duration,
    },
}

/// A session on the thread of its owner. It ends, as with [`Stop::Abandon`] and without a further
/// word, when it is dropped.
pub struct LocalSession {
    shared: Rc<Shared>,
    task: JoinHandle<()>,
}

impl LocalSession {
    /// Starts a session on the current Arbiter and connects.
    pub fn start(options: Options, metrics: &Metrics, owner: Weak<dyn Owner>) -> Self {
        let session_metrics = SessionMetrics::new(metrics, &options.subscriptions);
        let shared = Rc::new(Shared::new(options));
        let task = actix::spawn(keep_connected(
            Rc::clone(&shared),
            Rc::new(RefCell::new(session_metrics)),
            Consumer::Local(owner),
        ));
        Self { shared, task }
    }

    /// Takes a publish; its outcome is told to the owner under `token`. Publishes go out in the
    /// order in which they are submitted.
    ///
    /// # Errors
    /// When it can never be sent, the outbox is full, or the session has ended: then nothing is told
    /// to the owner.
    pub fn submit(&self, publish: Publish, token: u64) -> Result<(), PublishError> {
        if self.shared.has_ended() {
            return Err(PublishError::Stopped);
        }
        let mut protocol = self.shared.protocol.borrow_mut();
        protocol.admit(&publish)?;
        protocol.submit(publish, Completion::Token(token));
        drop(protocol);
        self.shared.wake();
        Ok(())
    }

    /// Makes the connection a bad one, until it is told otherwise.
    pub fn disturb(&self, trouble: Trouble) {
        self.shared.trouble.set(trouble);
        self.shared.wake();
    }

    /// Acknowledges deliveries; the session does so in the order of arrival.
    pub fn acknowledge(&self, tickets: &[Ticket]) {
        self.shared.protocol.borrow_mut().acknowledge(tickets);
        self.shared.wake();
    }

    /// As [`Session::stop`](super::Session::stop).
    pub fn stop(&self, how: Stop, limit: Duration) -> impl Future<Output = bool> + use<> {
        let (done, complete) = oneshot::channel();
        let until = Instant::now() + limit;
        self.shared.request_stop(StopRequest { how, until }, done);
        async move { complete.await.unwrap_or(true) }
    }
}

impl std::fmt::Debug for LocalSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LocalSession")
    }
}

impl Drop for LocalSession {
    fn drop(&mut self) {
        self.task.abort();
        self.shared.end(false);
    }
}

/// Who gets what a session receives.
pub(super) enum Consumer {
    /// Actors, through their mailboxes.
    Actors {
        inbound: Recipient<Inbound>,
        events: Recipient<ConnectionEvent>,
    },
    /// The owner of a local session.
    Local(Weak<dyn Owner>),
}

impl Consumer {
    /// Hands messages over; until the answer is there, nothing more is read.
    pub(super) fn hand_over(&self, messages: Vec<Message>) -> Option<Handover> {
        match self {
            Self::Actors { inbound, .. } => Some(Box::pin(inbound.send(Inbound { messages }))),
            Self::Local(owner) => {
                if let Some(owner) = owner.upgrade() {
                    owner.received(messages);
                }
                None
            }
        }
    }

    /// Tells a change. The owner may be busy, even waiting for us: an actor is told without waiting
    /// for it. Down comes at most once a pause, Up once a connection, so there are never many on
    /// their way.
    pub(super) fn tell(&self, event: ConnectionEvent) {
        match self {
            Self::Actors { events, .. } => drop(actix::spawn(events.send(event))),
            Self::Local(owner) => {
                if let Some(owner) = owner.upgrade() {
                    owner.changed(event);
                }
            }
        }
    }

    /// Tells the outcomes of publishes that were submitted under a token.
    pub(super) fn tell_settled(&self, shared: &Shared) {
        let Self::Local(owner) = self else { return };
        loop {
            let settled = shared.protocol.borrow_mut().take_settled();
            if settled.is_empty() {
                return;
            }
            // The owner may submit more meanwhile, and some of that may be settled at once.
            if let Some(owner) = owner.upgrade() {
                for (token, outcome) in settled {
                    owner.settled(token, outcome);
                }
            }
        }
    }
}
