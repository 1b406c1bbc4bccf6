//! What a session's actor and its connection task hold in common, on one thread.

use std::cell::{Cell, RefCell};
use std::task::{Poll, Waker};

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::Stop;
use super::local::Trouble;
use super::options::Options;
use super::protocol::Protocol;
use super::stopping::StopRequest;

pub(super) struct Shared {
    pub(super) protocol: RefCell<Protocol>,
    pub(super) connected: Cell<bool>,
    pub(super) connections: Cell<u32>,
    pub(super) trouble: Cell<Trouble>,
    ended: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    stop: Cell<Option<StopRequest>>,
    waiting: RefCell<Vec<oneshot::Sender<bool>>>,
}

impl Shared {
    pub(super) fn new(options: Options) -> Self {
        Self {
            protocol: RefCell::new(Protocol::new(options)),
            connected: Cell::new(false),
            connections: Cell::new(0),
            trouble: Cell::default(),
            ended: Cell::new(false),
            waker: RefCell::new(None),
            stop: Cell::new(None),
            waiting: RefCell::new(Vec::new()),
        }
    }

    /// The connection task waits; [`Shared::wake`] is to reach it.
    pub(super) fn register(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }

    /// There is something new to do for the connection task.
    pub(super) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Asks the task to stop; `done` hears whether all was done. Of several requests the latest
    /// counts, except that nothing takes back [`Stop::Abandon`].
    pub(super) fn request_stop(&self, request: StopRequest, done: oneshot::Sender<bool>) {
        if self.ended.get() {
            // Nobody listens any more when this fails.
            done.send(true).ok();
            return;
        }
        let abandoned = self
            .stop
            .get()
            .is_some_and(|earlier| earlier.how == Stop::Abandon);
        if !abandoned {
            self.stop.set(Some(request));
        }
        self.waiting.borrow_mut().push(done);
        self.wake();
    }

    pub(super) fn stop_request(&self) -> Option<StopRequest> {
        self.stop.get()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// The session is over: refuses what comes and tells whoever waits.
    pub(super) fn end(&self, complete: bool) {
        self.ended.set(true);
        self.connected.set(false);
        self.protocol.borrow_mut().stopped();
        for done in self.waiting.take() {
            done.send(complete).ok();
        }
    }

    /// Waits until a stop without a connection is due, which is at once when nothing is open.
    pub(super) async fn stop_due(&self) -> bool {
        loop {
            let until = match self.stop.get() {
                Some(request) if request.how == Stop::Abandon => return true,
                Some(request) => {
                    let nothing_open =
                        request.how == Stop::KeepSession && self.protocol.borrow().is_flushed();
                    if nothing_open {
                        return true;
                    }
                    if Instant::now() >= request.until {
                        return false;
                    }
                    Some(request.until)
                }
                None => None,
            };
            let before = self.stop.get().map(|request| request.how);
            let changed = std::future::poll_fn(|cx| {
                self.register(cx.waker());
                let now = self.stop.get().map(|request| request.how);
                if now == before {
                    Poll::Pending
                } else {
                    Poll::Ready(())
                }
            });
            match until {
                None => changed.await,
                // Running out of time is what the next round of the loop looks at.
                Some(until) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(until) => {}
                },
            }
        }
    }
}
