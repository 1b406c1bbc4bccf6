//! The handle, the actor behind it, and the task that keeps the connection up.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

use super::backoff::Backoff;
use super::connection::{Connection, End, Handover};
use super::flight::{Completion, Control};
use super::handshake::establish;
use super::local::Consumer;
use super::message::{ByteString, Inbound, Publish, Subscription, Ticket};
use super::metrics::SessionMetrics;
use super::options::Options;
use super::packet;
use super::shared::Shared;
use super::stopping::StopRequest;
use super::{ConnectionEvent, Observed, PublishError, Retry, Stop, SubscribeError};
use crate::telemetry::Metrics;

/// Requests that may wait for the actor; senders wait beyond. Each takes the actor well under a
/// microsecond, so this is room for bursts, not a queue: the outbox is the queue.
const MAILBOX: usize = 256;

/// Handle to a running session. Cheap to clone, usable from any thread. The session ends, as with
/// [`Stop::Abandon`], when its last handle is dropped.
#[derive(Clone, Debug)]
pub struct Session {
    actor: Addr<SessionActor>,
}

impl Session {
    /// Starts a session on the current Arbiter and connects.
    pub fn start(
        options: Options,
        metrics: &Metrics,
        inbound: Recipient<Inbound>,
        events: Recipient<ConnectionEvent>,
    ) -> Self {
        let metrics = SessionMetrics::new(metrics, &options.subscriptions);
        let actor = SessionActor {
            shared: Rc::new(Shared::new(options)),
            metrics: Rc::new(RefCell::new(metrics)),
            consumer: Some(Consumer::Actors { inbound, events }),
            task: None,
        };
        Self {
            actor: actor.start(),
        }
    }

    /// Publishes and waits until the broker has acknowledged (QoS 0: until written to the socket).
    /// Waits through disconnects.
    pub async fn publish(&self, publish: Publish) -> Result<(), PublishError> {
        let (done, outcome) = oneshot::channel();
        let submit = Submit(vec![(publish, Completion::Waiter(done))]);
        if self.actor.send(submit).await.is_err() {
            return Err(PublishError::Stopped);
        }
        outcome.await.unwrap_or(Err(PublishError::Stopped))
    }

    /// As [`Session::publish`]; while the outbox is full it waits, with pauses that double, and
    /// tries again.
    pub async fn publish_retrying(
        &self,
        publish: Publish,
        retry: Retry,
    ) -> Result<(), PublishError> {
        let mut pause = retry.first;
        for _ in 0..retry.attempts {
            match self.publish(publish.clone()).await {
                Err(error) if error.is_transient() => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(retry.max);
                }
                outcome => return outcome,
            }
        }
        self.publish(publish).await
    }

    /// Publishes without waiting. `done` is called with the outcome: on the session's thread, or at
    /// once on this one when there is no room for the request.
    pub fn fire(
        &self,
        publish: Publish,
        done: impl FnOnce(Result<(), PublishError>) + Send + 'static,
    ) {
        self.fire_all(vec![(publish, Box::new(done) as Done)]);
    }

    /// As [`Session::fire`] for many at once, in order, with one hop to the session.
    pub fn fire_all(&self, publishes: Vec<(Publish, Done)>) {
        let publishes = publishes
            .into_iter()
            .map(|(publish, done)| (publish, Completion::Callback(done)))
            .collect();
        let refused = match self.actor.try_send(Submit(publishes)) {
            Ok(()) => return,
            Err(SendError::Full(submit)) => (submit, PublishError::OutboxFull { max: MAILBOX }),
            Err(SendError::Closed(submit)) => (submit, PublishError::Stopped),
        };
        let (Submit(publishes), error) = refused;
        for (_, done) in publishes {
            // Nothing of an actor's session has a token.
            drop(done.complete(Err(error.clone())));
        }
    }

    /// Subscribes to several filters at once and waits for the broker, through disconnects. An
    /// error names the first refused filter; the others are subscribed.
    pub async fn subscribe(&self, subscriptions: Vec<Subscription>) -> Result<(), SubscribeError> {
        for subscription in &subscriptions {
            packet::check_filter(&subscription.filter)?;
        }
        self.change(|done| Control::Subscribe {
            subscriptions,
            done: Some(done),
        })
        .await
    }

    /// Ends subscriptions and waits for the broker, through disconnects.
    pub async fn unsubscribe(&self, filters: Vec<ByteString>) -> Result<(), SubscribeError> {
        for filter in &filters {
            packet::check_filter(filter)?;
        }
        self.change(|done| Control::Unsubscribe {
            filters,
            done: Some(done),
        })
        .await
    }

    async fn change(
        &self,
        control: impl FnOnce(oneshot::Sender<Result<(), SubscribeError>>) -> Control,
    ) -> Result<(), SubscribeError> {
        let (done, outcome) = oneshot::channel();
        if self.actor.send(Change(control(done))).await.is_err() {
            return Err(SubscribeError::Stopped);
        }
        outcome.await.unwrap_or(Err(SubscribeError::Stopped))
    }

    /// Acknowledges deliveries. Late, in any batches; the session sends them in arrival order.
    #[expect(
        clippy::disallowed_methods,
        reason = "a refused acknowledgement would stall the broker; the receive maximum bounds them"
    )]
    pub fn acknowledge(&self, tickets: Vec<Ticket>) {
        self.actor.do_send(Acknowledge(tickets));
    }

    /// Stops as told and answers when the socket is closed: true when all was sent, acknowledged
    /// and (for [`Stop::EndSession`]) nothing was left at the broker. When `limit` passes first, the
    /// session is closed as with [`Stop::KeepSession`] and the answer is false.
    pub async fn stop(&self, how: Stop, limit: Duration) -> bool {
        // A session whose actor is gone has nothing open.
        self.actor
            .send(StopSession(how, limit))
            .await
            .unwrap_or(true)
    }

    /// The state now; the default when the session has stopped.
    pub async fn observe(&self) -> Observed {
        self.actor.send(Observe).await.unwrap_or_default()
    }
}

/// Called with the outcome of a publish.
pub type Done = Box<dyn FnOnce(Result<(), PublishError>) + Send>;

#[derive(Message)]
#[rtype(result = "()")]
struct Submit(Vec<(Publish, Completion)>);

#[derive(Message)]
#[rtype(result = "()")]
struct Change(Control);

#[derive(Message)]
#[rtype(result = "()")]
struct Acknowledge(Vec<Ticket>);

#[derive(Message)]
#[rtype(result = "bool")]
struct StopSession(Stop, Duration);

#[derive(Message)]
#[rtype(result = "Observed")]
struct Observe;

/// Owns the session's state and its connection task.
struct SessionActor {
    shared: Rc<Shared>,
    metrics: Rc<RefCell<SessionMetrics>>,
    /// Until the task has it.
    consumer: Option<Consumer>,
    task: Option<JoinHandle<()>>,
}

impl Actor for SessionActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        if let Some(consumer) = self.consumer.take() {
            self.task = Some(actix::spawn(keep_connected(
                self.shared.clone(),
                self.metrics.clone(),
                consumer,
            )));
        }
    }
}

impl Drop for SessionActor {
    /// Nobody can ask for anything any more: the connection goes with its last handle.
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        self.shared.end(false);
    }
}

impl Handler<Submit> for SessionActor {
    type Result = ();

    fn handle(&mut self, Submit(publishes): Submit, _: &mut Self::Context) {
        let ended = self.shared.has_ended();
        let mut protocol = self.shared.protocol.borrow_mut();
        for (publish, done) in publishes {
            if ended {
                drop(done.complete(Err(PublishError::Stopped)));
            } else {
                protocol.submit(publish, done);
            }
        }
        drop(protocol);
        self.shared.wake();
    }
}

impl Handler<Change> for SessionActor {
    type Result = ();

    fn handle(&mut self, Change(control): Change, _: &mut Self::Context) {
        if let Control::Subscribe { subscriptions, .. } = &control {
            let mut metrics = self.metrics.borrow_mut();
            for subscription in subscriptions {
                metrics.subscribed(subscription);
            }
        }
        self.shared.protocol.borrow_mut().control(control);
        if self.shared.has_ended() {
            self.shared.protocol.borrow_mut().stopped();
        }
        self.shared.wake();
    }
}

impl Handler<Acknowledge> for SessionActor {
    type Result = ();

    fn handle(&mut self, Acknowledge(tickets): Acknowledge, _: &mut Self::Context) {
        self.shared.protocol.borrow_mut().acknowledge(&tickets);
        self.shared.wake();
    }
}

impl Handler<StopSession> for SessionActor {
    type Result = ResponseFuture<bool>;

    fn handle(
        &mut self,
        StopSession(how, limit): StopSession,
        _: &mut Self::Context,
    ) -> Self::Result {
        let (done, complete) = oneshot::channel();
        let until = Instant::now() + limit;
        self.shared.request_stop(StopRequest { how, until }, done);
        Box::pin(async move { complete.await.unwrap_or(false) })
    }
}

impl Handler<Observe> for SessionActor {
    type Result = MessageResult<Observe>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        let protocol = self.shared.protocol.borrow();
        MessageResult(Observed {
            connected: self.shared.connected.get(),
            connections: self.shared.connections.get(),
            outbox: protocol.outbox_len(),
            in_flight: protocol.in_flight(),
            unacknowledged: protocol.unacknowledged(),
        })
    }
}

/// Lets the consumer take a batch although nobody waits for it any more.
fn finish(handover: Option<Handover>) {
    if let Some(handover) = handover {
        actix::spawn(async move { handover.await.ok() });
    }
}

/// Connects, runs the connection, waits, and again, until the session is stopped.
pub(super) async fn keep_connected(
    shared: Rc<Shared>,
    metrics: Rc<RefCell<SessionMetrics>>,
    consumer: Consumer,
) {
    let mut backoff = Backoff::new(shared.protocol.borrow().options().reconnect);
    let complete = loop {
        let started = Instant::now();
        let connection_id = Uuid::now_v7();
        // Boxed: the state of a TLS handshake must not stay with an idle connection.
        let established = tokio::select! {
            biased;
            complete = shared.stop_due() => break complete,
            established = Box::pin(establish(&shared, connection_id)) => established,
        };
        let (end, handover) = match established {
            Ok(established) => {
                shared.connected.set(true);
                shared.connections.set(shared.connections.get() + 1);
                metrics.borrow_mut().connected(true);
                let session_present = established.session_present;
                let up = || {
                    consumer.tell(ConnectionEvent::Up {
                        session_present,
                        connection_id,
                    });
                };
                Connection::new(&shared, &consumer, &metrics, established)
                    .run(up)
                    .await
            }
            Err(error) => (End::Lost(error), None),
        };
        shared.connected.set(false);
        shared.protocol.borrow_mut().disconnected();
        metrics.borrow_mut().connected(false);
        let error = match end {
            End::Stopped { complete } => {
                finish(handover);
                break complete;
            }
            End::Fatal(error) => {
                finish(handover);
                consumer.tell(ConnectionEvent::Failed {
                    error: Arc::new(error),
                });
                break false;
            }
            End::Lost(error) => error,
        };
        backoff.connection_ended(started.elapsed());
        let retry_in = backoff.pause(rand::random());
        consumer.tell(ConnectionEvent::Down {
            error: Arc::new(error),
            retry_in,
        });
        let mut handover = handover;
        let pause = async {
            tokio::time::sleep(retry_in).await;
            // One batch at a time, over connections too. An error means that the consumer is gone,
            // which the next batch will tell.
            if let Some(taken) = &mut handover {
                taken.await.ok();
            }
        };
        let stop = tokio::select! {
            biased;
            complete = shared.stop_due() => Some(complete),
            () = pause => None,
        };
        if let Some(complete) = stop {
            finish(handover);
            break complete;
        }
    };
    // A session that was stopped is neither connected nor missed.
    metrics.borrow_mut().connected(true);
    shared.end(complete);
    consumer.tell_settled(&shared);
}
