//! One connection: moves bytes between the socket and the protocol, keeps time, hands over.

use std::cell::{Cell, RefCell};
use std::future::Future as _;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix::prelude::RecipientRequest;
use ntex_bytes::{BytePage, BytePageSize, BytePages, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWrite as _};
use tokio::time::{Instant, Sleep, sleep_until};

use super::error::ConnectionError;
use super::handshake::Established;
use super::local::{Consumer, Trouble};
use super::message::Inbound;
use super::metrics::SessionMetrics;
use super::protocol::Received;
use super::shared::Shared;
use super::stopping::{Step, Stopping};
use super::transport::Transport;

/// What one read may bring; some 250 readings.
const READ_SIZE: usize = 64 * 1024;

/// What a slow reader reads at a time.
const SLOW_READ: u64 = 64;

/// A read that brings so much is followed by the next at once.
const GATHERED: usize = 8 * 1024;

/// Below this much room a new buffer is taken for reading.
const READ_ROOM_MIN: usize = 4 * 1024;

/// Reads and writes in one turn of the task before others get theirs.
const TURNS_MAX: usize = 16;

/// Longest sleep of the connection's timer when nothing else is due.
const LOOK_MAX: Duration = Duration::from_secs(3_600);

/// How long the goodbye may take: writing DISCONNECT and seeing the broker close.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

thread_local! {
    /// Where connections without a half-read packet read into, so that an idle one owns no buffer.
    static READ_BUFFER: Cell<Option<BytesMut>> = const { Cell::new(None) };
}

/// A batch on its way to the consumer; done when the consumer's handler has answered.
pub(super) type Handover = Pin<Box<RecipientRequest<Inbound>>>;

/// How a connection ended.
pub(super) enum End {
    /// It broke; the session connects again.
    Lost(ConnectionError),
    /// The session cannot go on.
    Fatal(ConnectionError),
    /// It was stopped; whether everything asked for was done.
    Stopped { complete: bool },
}

pub(super) struct Connection<'a> {
    shared: &'a Rc<Shared>,
    consumer: &'a Consumer,
    metrics: &'a RefCell<SessionMetrics>,
    transport: Transport,
    /// The beginning of a packet whose rest has not come.
    input: BytesMut,
    /// Bytes that a whole packet takes, as far as known.
    need: usize,
    congested: bool,
    gather: Duration,
    /// When is read again: by a slow reader, or after a read that brought little.
    read_again: Option<Instant>,
    output: Option<BytePages>,
    page: Option<BytePage>,
    unflushed: bool,
    handover: Option<Handover>,
    keep_alive: Duration,
    ping_timeout: Duration,
    last_sent: Instant,
    last_received: Instant,
    ping_sent: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    stopping: Stopping,
    goodbye: Option<Goodbye>,
}

/// What the clock asks for.
enum Due {
    End(End),
    Now,
    At(Instant),
}

/// DISCONNECT is written or on its way.
#[derive(Clone, Copy)]
struct Goodbye {
    complete: bool,
    until: Instant,
    shut: bool,
}

impl<'a> Connection<'a> {
    pub(super) fn new(
        shared: &'a Rc<Shared>,
        consumer: &'a Consumer,
        metrics: &'a RefCell<SessionMetrics>,
        established: Established,
    ) -> Self {
        let now = Instant::now();
        let keep_alive = established.keep_alive;
        let (ping_timeout, gather) = {
            let protocol = shared.protocol.borrow();
            (protocol.options().ping_timeout, protocol.options().gather)
        };
        Self {
            shared,
            consumer,
            metrics,
            transport: established.transport,
            // What came behind CONNACK is looked at before anything is read.
            congested: !established.input.is_empty(),
            // An idle connection owns no buffer, not even that of CONNACK.
            input: Some(established.input)
                .filter(|input| !input.is_empty())
                .unwrap_or_default(),
            need: 2,
            gather,
            read_again: None,
            output: None,
            page: None,
            unflushed: false,
            handover: None,
            keep_alive,
            ping_timeout: ping_timeout.min(keep_alive / 2),
            last_sent: now,
            last_received: now,
            ping_sent: None,
            timer: Box::pin(sleep_until(now + keep_alive.max(Duration::from_secs(1)))),
            stopping: Stopping::new(),
            goodbye: None,
        }
    }

    /// Runs until the connection ends. `up` is called once, when the subscriptions are made.
    ///
    /// Also answers the batch that the consumer has not taken yet. It must not be dropped: actix
    /// leaves out a message whose sender has gone, and a QoS 2 message does not come twice.
    pub(super) async fn run(mut self, mut up: impl FnMut()) -> (End, Option<Handover>) {
        let mut announced = false;
        let end = std::future::poll_fn(|cx| {
            self.shared.register(cx.waker());
            if self.shared.trouble.get() == Trouble::HalfOpen
                && self.shared.stop_request().is_none()
            {
                return Poll::Pending;
            }
            for _ in 0..TURNS_MAX {
                let now = Instant::now();
                let moved = match self.turn(cx, now) {
                    Ok(moved) => moved,
                    Err(end) => return Poll::Ready(end),
                };
                if !announced && self.shared.protocol.borrow().is_subscribed() {
                    announced = true;
                    up();
                }
                match self.check_time(now) {
                    Due::End(end) => return Poll::Ready(end),
                    Due::Now => continue,
                    Due::At(deadline) => {
                        if self.timer.is_elapsed() || self.timer.deadline() > deadline {
                            self.timer.as_mut().reset(deadline);
                        }
                        if self.timer.as_mut().poll(cx).is_pending() && !moved {
                            return Poll::Pending;
                        }
                    }
                }
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        (end, self.handover.take())
    }

    /// One read, all writes, one step of a stop: whether another turn may find more to do.
    fn turn(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, End> {
        let input = self.poll_input(cx, now);
        self.consumer.tell_settled(self.shared);
        let mut moved = match input {
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(end)) => return Err(self.ended(end)),
            Poll::Pending => false,
        };
        {
            let mut protocol = self.shared.protocol.borrow_mut();
            if let Some(refused) = protocol.take_refused() {
                return Err(End::Fatal(refused.into()));
            }
            if protocol.take_pong() {
                self.ping_sent = None;
                self.stopping.pong();
            }
        }
        let output = self.poll_output(cx, now);
        // Of QoS 0 nothing more is heard.
        self.consumer.tell_settled(self.shared);
        match output {
            Poll::Ready(Ok(())) => {
                moved |= self.step_stop(cx, now)?;
                // What was written may have made room for what waits to be taken.
                moved |= self.congested && !self.shared.protocol.borrow().is_congested();
            }
            Poll::Ready(Err(source)) => {
                return Err(self.ended(End::Lost(ConnectionError::Broken { source })));
            }
            Poll::Pending => {}
        }
        Ok(moved)
    }

    /// The end of a connection whose DISCONNECT is out is no loss.
    fn ended(&self, end: End) -> End {
        match self.goodbye {
            Some(goodbye) => End::Stopped {
                complete: goodbye.complete && goodbye.shut,
            },
            None => end,
        }
    }

    /// One read and what it brings; pending while the consumer has not taken the last.
    fn poll_input(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<Result<(), End>> {
        if let Some(request) = &mut self.handover {
            let taken = ready!(request.as_mut().poll(cx));
            self.handover = None;
            // Nothing was read meanwhile, so silence was ours.
            self.last_received = now;
            if taken.is_err() && self.goodbye.is_none() {
                return Poll::Ready(Err(End::Fatal(ConnectionError::ConsumerGone)));
            }
        }
        if self.congested {
            let mut input = std::mem::take(&mut self.input);
            let taken = self.take_packets(&mut input, now);
            self.input = input;
            // Nothing was read meanwhile, so silence was ours.
            self.last_received = now;
            taken?;
            if self.congested {
                return Poll::Pending;
            }
            if self.handover.is_some() {
                return Poll::Ready(Ok(()));
            }
        }
        if self.read_again.is_some_and(|again| now < again) {
            return Poll::Pending;
        }
        self.read_again = None;
        let slow = match self.shared.trouble.get() {
            Trouble::SlowReader { pause } => Some(pause),
            Trouble::None | Trouble::HalfOpen => None,
        };
        let shared_buffer = self.input.is_empty();
        let mut buffer = if shared_buffer {
            READ_BUFFER.take().unwrap_or_default()
        } else {
            std::mem::take(&mut self.input)
        };
        if buffer.capacity() - buffer.len() < READ_ROOM_MIN {
            buffer.reserve(READ_SIZE.max(self.need.saturating_sub(buffer.len())));
        }
        let read = match slow {
            None => pin!(self.transport.read_buf(&mut buffer)).poll(cx),
            Some(pause) => {
                self.read_again = Some(now + pause);
                let mut little = (&mut self.transport).take(SLOW_READ);
                pin!(little.read_buf(&mut buffer)).poll(cx)
            }
        };
        let outcome = match read {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(source)) => {
                Poll::Ready(Err(End::Lost(ConnectionError::Broken { source })))
            }
            Poll::Ready(Ok(0)) => Poll::Ready(Err(End::Lost(ConnectionError::Broken {
                source: io::Error::new(io::ErrorKind::UnexpectedEof, "the broker closed it"),
            }))),
            Poll::Ready(Ok(size)) => {
                self.last_received = now;
                let taken = self.take_packets(&mut buffer, now);
                // A large packet is not to come in small pieces with a pause behind each.
                let goes_on = !buffer.is_empty() && self.need > GATHERED;
                let stops = self.shared.stop_request().is_some();
                if size < GATHERED && !self.gather.is_zero() && !goes_on && !stops {
                    self.read_again = Some(now + self.gather);
                }
                Poll::Ready(taken)
            }
        };
        if shared_buffer {
            if !buffer.is_empty() {
                self.input = BytesMut::copy_from_slice(&buffer);
                buffer.clear();
            }
            READ_BUFFER.set(Some(buffer));
        } else if !buffer.is_empty() {
            self.input = buffer;
        }
        outcome
    }

    /// Takes the packets in `input` and starts to hand over their messages.
    fn take_packets(&mut self, input: &mut BytesMut, now: Instant) -> Result<(), End> {
        if self.goodbye.is_some() {
            input.clear();
            return Ok(());
        }
        let mut messages = Vec::new();
        let received = self
            .shared
            .protocol
            .borrow_mut()
            .receive(input, now, &mut messages);
        self.congested = matches!(received, Ok(Received::Congested));
        if let Ok(Received::Need(size)) = received {
            self.need = size;
        }
        if !messages.is_empty() {
            self.stopping.arrived();
            self.metrics.borrow_mut().received(&messages);
            // On an error too: what came before the malformed packet came in full.
            self.handover = self.consumer.hand_over(messages);
        }
        received.map(drop).map_err(End::Lost)
    }

    /// Writes until nothing is left to write.
    fn poll_output(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<io::Result<()>> {
        loop {
            let page = match &mut self.page {
                Some(page) => page,
                None => {
                    let output = self
                        .output
                        .get_or_insert_with(|| BytePages::new(BytePageSize::Size16));
                    if output.is_empty() && self.goodbye.is_none() {
                        let mut protocol = self.shared.protocol.borrow_mut();
                        protocol.fill(output, now);
                        self.metrics
                            .borrow_mut()
                            .published(protocol.take_published());
                    }
                    match output.take() {
                        Some(page) => self.page.insert(page),
                        None => {
                            self.output = None;
                            if self.unflushed {
                                ready!(Pin::new(&mut self.transport).poll_flush(cx))?;
                                self.unflushed = false;
                            }
                            return Poll::Ready(Ok(()));
                        }
                    }
                }
            };
            let written = ready!(Pin::new(&mut self.transport).poll_write(cx, page.as_ref()))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.last_sent = now;
            if written == page.len() {
                self.page = None;
            } else {
                page.advance_to(written);
            }
        }
    }

    /// Everything is written; a stop that was asked for takes its next step.
    fn step_stop(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, End> {
        if let Some(goodbye) = &mut self.goodbye {
            if !goodbye.shut && Pin::new(&mut self.transport).poll_shutdown(cx).is_ready() {
                goodbye.shut = true;
            }
            // Closing a socket with unread bytes resets it, and the broker might never read our
            // DISCONNECT; so reading goes on until the broker closes.
            return Ok(false);
        }
        let Some(request) = self.shared.stop_request() else {
            return Ok(false);
        };
        let mut protocol = self.shared.protocol.borrow_mut();
        let idle = self.handover.is_none() && !self.congested;
        match self.stopping.step(request, &mut protocol, idle, now) {
            Step::Wait => Ok(false),
            Step::Again => Ok(true),
            Step::Close => Err(End::Stopped { complete: true }),
            Step::Disconnect {
                end_session,
                complete,
            } => {
                let output = self
                    .output
                    .get_or_insert_with(|| BytePages::new(BytePageSize::Size16));
                protocol.disconnect(end_session, output);
                self.goodbye = Some(Goodbye {
                    complete,
                    until: now + GOODBYE_MAX,
                    shut: false,
                });
                Ok(true)
            }
        }
    }

    /// What has become due, or when the next thing does.
    fn check_time(&mut self, now: Instant) -> Due {
        if let Some(goodbye) = self.goodbye {
            if now >= goodbye.until {
                return Due::End(End::Stopped {
                    complete: goodbye.complete && goodbye.shut,
                });
            }
            return Due::At(goodbye.until);
        }
        let mut deadline = now + LOOK_MAX;
        if let Some(at) = self.ping_deadline() {
            if now < at {
                deadline = deadline.min(at);
            } else if self.ping_sent.is_some() && !self.reading_paused() {
                return Due::End(End::Lost(ConnectionError::PingTimeout {
                    limit: self.ping_timeout,
                }));
            } else {
                self.shared.protocol.borrow_mut().ping();
                self.ping_sent = Some(now);
                return Due::Now;
            }
        }
        let held = self.shared.protocol.borrow().held_until();
        let stop = self.shared.stop_request().map(|request| request.until);
        for at in [held, stop, self.stopping.next_look(), self.read_again]
            .into_iter()
            .flatten()
        {
            // What is due already waits for the socket, which wakes us by itself.
            if at > now {
                deadline = deadline.min(at);
            }
        }
        Due::At(deadline)
    }

    /// Whether the socket is left unread, because the consumer is not ready for more.
    fn reading_paused(&self) -> bool {
        self.handover.is_some()
            || self.congested
            || (self.read_again.is_some() && self.shared.trouble.get() != Trouble::None)
    }

    /// When the next PINGREQ or its answer is due. While nothing is read no answer can be seen, but
    /// the broker still wants to hear from us.
    fn ping_deadline(&self) -> Option<Instant> {
        if self.keep_alive.is_zero() {
            return None;
        }
        Some(match self.ping_sent {
            sent if self.reading_paused() => {
                sent.map_or(self.last_sent, |sent| sent.max(self.last_sent)) + self.keep_alive
            }
            Some(sent) => sent.max(self.last_received) + self.ping_timeout,
            None => self.last_sent.min(self.last_received) + self.keep_alive,
        })
    }
}
