//! How a session ends: what has to be done before DISCONNECT may be sent.

use std::time::Duration;

use tokio::time::Instant;

use super::Stop;
use super::protocol::Protocol;

/// A stop that was asked for, and when it has to be over.
#[derive(Clone, Copy, Debug)]
pub(super) struct StopRequest {
    pub(super) how: Stop,
    pub(super) until: Instant,
}

/// What to do next on the way to the end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Something is still open; a packet or the consumer will wake us.
    Wait,
    /// Packets were made and are to be written.
    Again,
    /// Close the socket without a word.
    Close,
    /// Send DISCONNECT.
    Disconnect { end_session: bool, complete: bool },
}

/// Answered pings without a delivery between them, before the broker is taken to have nothing left
/// for us. A broker sends what is queued when an acknowledgement makes room, before it looks at the
/// ping behind that acknowledgement; the further rounds are for brokers that queue in another task.
const QUIET_ROUNDS: u8 = 3;

/// Pause between those pings.
const ROUND: Duration = Duration::from_millis(100);

/// Progress of a stop on one connection.
#[derive(Debug)]
pub(super) struct Stopping {
    unsubscribed: bool,
    deliveries: u64,
    /// Deliveries when the ping that is out was sent.
    barrier: Option<u64>,
    quiet: u8,
    next: Option<Instant>,
    ponged: bool,
}

impl Stopping {
    pub(super) fn new() -> Self {
        Self {
            unsubscribed: false,
            deliveries: 0,
            barrier: None,
            quiet: 0,
            next: None,
            ponged: false,
        }
    }

    /// Messages were received.
    pub(super) fn arrived(&mut self) {
        self.deliveries += 1;
    }

    /// A PINGRESP was received.
    pub(super) fn pong(&mut self) {
        self.ponged = true;
    }

    /// When [`Stopping::step`] wants to be called again although nothing happened.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.next
    }

    /// The next step; `idle` says that the consumer has taken all that was received.
    pub(super) fn step(
        &mut self,
        request: StopRequest,
        protocol: &mut Protocol,
        idle: bool,
        now: Instant,
    ) -> Step {
        if request.how == Stop::Abandon {
            return Step::Close;
        }
        if now >= request.until {
            return Step::Disconnect {
                end_session: false,
                complete: false,
            };
        }
        if request.how == Stop::KeepSession {
            return if protocol.is_flushed() {
                Step::Disconnect {
                    end_session: false,
                    complete: true,
                }
            } else {
                Step::Wait
            };
        }
        if !self.unsubscribed {
            self.unsubscribed = true;
            protocol.unsubscribe_all();
            return Step::Again;
        }
        if !(idle && protocol.is_flushed() && protocol.is_settled()) {
            self.barrier = None;
            self.quiet = 0;
            self.next = None;
            return Step::Wait;
        }
        match self.barrier {
            None if self.next.is_some_and(|next| now < next) => Step::Wait,
            None => {
                self.ponged = false;
                self.barrier = Some(self.deliveries);
                protocol.ping();
                Step::Again
            }
            Some(_) if !self.ponged => Step::Wait,
            Some(deliveries) => {
                self.barrier = None;
                self.next = Some(now + ROUND);
                self.quiet = if deliveries == self.deliveries {
                    self.quiet + 1
                } else {
                    0
                };
                if self.quiet < QUIET_ROUNDS {
                    return Step::Wait;
                }
                Step::Disconnect {
                    end_session: true,
                    complete: true,
                }
            }
        }
    }
}
