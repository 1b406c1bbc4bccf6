//! Back-pressure of a consumer: the socket is not read while too much is under way.

use actix::ResponseFuture;
use tokio::sync::oneshot;

/// Holds the session's reading back while a consumer has more under way than it may.
///
/// The consumer's handler of [`Inbound`](super::Inbound) answers with [`Gate::pass`], and whatever
/// finishes work calls [`Gate::release`]. The bound is exceeded by one socket read at most.
#[derive(Debug)]
pub struct Gate {
    max: usize,
    /// The session waits here; one at a time, as it hands over one batch at a time.
    held: Option<oneshot::Sender<()>>,
}

impl Gate {
    /// A gate that is open while at most `max` are under way.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, held: None }
    }

    /// The handler's answer with `under_way` taken and not finished: at once, or when
    /// [`Gate::release`] finds room.
    pub fn pass(&mut self, under_way: usize) -> ResponseFuture<()> {
        if under_way <= self.max {
            return Box::pin(std::future::ready(()));
        }
        let (held, room) = oneshot::channel();
        self.held = Some(held);
        Box::pin(async move {
            // An error means that the consumer stops, and then nothing more is to be read.
            drop(room.await);
        })
    }

    /// Work was finished and `under_way` is left: lets the session read on if that is few enough.
    pub fn release(&mut self, under_way: usize) {
        if under_way <= self.max
            && let Some(held) = self.held.take()
        {
            // A session that has ended does not wait any more.
            held.send(()).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::Gate;

    #[actix::test]
    async fn gate_holds_what_is_above_its_bound_until_there_is_room() {
        tokio::time::pause();
        let mut gate = Gate::new(10);
        gate.pass(10).await;
        let mut held = gate.pass(11);
        gate.release(11);
        assert!(timeout(Duration::from_secs(60), &mut held).await.is_err());
        gate.release(10);
        held.await;
    }
}
