//! Live events for whoever listens: numbered, so that a listener can go on where it was.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::broadcast;

/// Events kept for listeners that come back; also what a slow one may lag behind.
const KEPT: usize = 1_024;

/// An event as it goes out.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) number: u64,
    pub(crate) name: &'static str,
    pub(crate) data: Arc<str>,
}

/// Where events go.
#[derive(Clone, Debug)]
pub(crate) struct Hub {
    /// Tells this process's numbers from another's.
    epoch: u64,
    kept: Arc<Mutex<Kept>>,
    sender: broadcast::Sender<Event>,
}

#[derive(Debug, Default)]
struct Kept {
    next: u64,
    events: VecDeque<Event>,
}

/// What a listener gets: what it missed, if that is known, and what is to come.
pub(crate) struct Listener {
    /// None if more was missed than is kept: the listener has to look at everything anew.
    pub(crate) missed: Option<Vec<Event>>,
    pub(crate) events: broadcast::Receiver<Event>,
}

impl Hub {
    pub(crate) fn new(epoch: u64) -> Self {
        Self {
            epoch,
            kept: Arc::default(),
            sender: broadcast::channel(KEPT).0,
        }
    }

    /// Tells all listeners.
    pub(crate) fn send(&self, name: &'static str, data: &impl Serialize) {
        let Ok(data) = serde_json::to_string(data) else {
            return;
        };
        let mut kept = self.lock();
        let event = Event {
            number: kept.next,
            name,
            data: data.into(),
        };
        kept.next += 1;
        if kept.events.len() == KEPT {
            kept.events.pop_front();
        }
        kept.events.push_back(event.clone());
        // Nobody listens: then it is only kept.
        self.sender.send(event).ok();
    }

    /// The id that a listener gives to go on behind an event.
    pub(crate) fn id(&self, number: u64) -> String {
        format!("{:x}-{number}", self.epoch)
    }

    /// A listener that has seen everything up to `last`, an id of ours or anything else.
    pub(crate) fn listen(&self, last: Option<&str>) -> Listener {
        let kept = self.lock();
        let missed = match last {
            None => Some(Vec::new()),
            Some(id) => self.number(id).and_then(|number| {
                let first = kept.next - kept.events.len() as u64;
                (number < kept.next && number + 1 >= first).then(|| {
                    let behind = kept.events.iter().filter(|event| event.number > number);
                    behind.cloned().collect()
                })
            }),
        };
        Listener {
            missed,
            events: self.sender.subscribe(),
        }
    }

    pub(crate) fn listeners(&self) -> usize {
        self.sender.receiver_count()
    }

    fn number(&self, id: &str) -> Option<u64> {
        let (epoch, number) = id.split_once('-')?;
        (u64::from_str_radix(epoch, 16).ok()? == self.epoch).then_some(())?;
        number.parse().ok()
    }

    /// Nothing that is done under the lock panics.
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_goes_on_where_it_was_or_starts_anew() {
        let hub = Hub::new(7);
        for number in 0..3 {
            hub.send("device", &number);
        }
        let missed = |last: Option<&str>| {
            let listener = hub.listen(last);
            listener.missed.map(|events| {
                events
                    .iter()
                    .map(|it| it.data.to_string())
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(missed(None), Some(vec![]));
        assert_eq!(missed(Some(&hub.id(0))), Some(vec!["1".into(), "2".into()]));
        assert_eq!(missed(Some(&hub.id(9))), None);
        assert_eq!(missed(Some("8-1")), None);
        assert_eq!(missed(Some("nonsense")), None);
        for number in 0..KEPT {
            hub.send("device", &number);
        }
        assert_eq!(missed(Some(&hub.id(1))), None);
    }
}
