//! When which device of a thread has something to do: one timer for all of them.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use tokio::sync::Notify;

/// Longest sleep when nothing is due: a step may be due beyond what a timer can hold.
const LOOK_AGAIN: Duration = Duration::from_secs(3_600);
/// Entries that count no more are thrown out when they are the most, and more than these.
const STALE_MIN: usize = 64;

/// What a thread's devices wait for. A device waits for one time only: the last it has named.
#[derive(Debug, Default)]
pub(crate) struct Timetable {
    entries: RefCell<Entries>,
    earlier: Notify,
}

#[derive(Debug, Default)]
struct Entries {
    heap: BinaryHeap<Reverse<(Duration, u32)>>,
    /// For each device, when it is due; the entries of the heap that say another count no more.
    due: Vec<Option<Duration>>,
}

impl Timetable {
    /// One more device; its number.
    pub(crate) fn enroll(&self) -> u32 {
        let mut entries = self.entries.borrow_mut();
        entries.due.push(None);
        u32::try_from(entries.due.len() - 1).unwrap_or(u32::MAX)
    }

    /// The device is due then, and at no other time.
    pub(crate) fn plan(&self, device: u32, due: Duration) {
        let mut entries = self.entries.borrow_mut();
        let Some(known) = entries.due.get_mut(device as usize) else {
            return;
        };
        if known.replace(due) == Some(due) {
            return;
        }
        let first = entries.heap.peek().map(|Reverse((first, _))| *first);
        entries.heap.push(Reverse((due, device)));
        if entries.heap.len() > STALE_MIN + 2 * entries.due.len() {
            entries.clean();
        }
        if first.is_none_or(|first| due < first) {
            self.earlier.notify_one();
        }
    }

    /// The device waits for nothing.
    pub(crate) fn cancel(&self, device: u32) {
        let mut entries = self.entries.borrow_mut();
        if let Some(known) = entries.due.get_mut(device as usize) {
            *known = None;
        }
    }

    /// Takes the next device that is due until `now`.
    pub(crate) fn take(&self, now: Duration) -> Option<u32> {
        self.entries.borrow_mut().take(now)
    }

    /// Waits until something may be due; `now` tells the time since the start of the run.
    pub(crate) async fn wait(&self, now: impl Fn() -> Duration) {
        let next = self.entries.borrow_mut().next();
        let pause = next.map_or(LOOK_AGAIN, |due| due.saturating_sub(now()));
        tokio::select! {
            () = tokio::time::sleep(pause.min(LOOK_AGAIN)) => {}
            () = self.earlier.notified() => {}
        }
    }
}

impl Entries {
    /// When the first entry is due that counts.
    fn next(&mut self) -> Option<Duration> {
        while let Some(Reverse((due, device))) = self.heap.peek() {
            if self.due.get(*device as usize) == Some(&Some(*due)) {
                return Some(*due);
            }
            self.heap.pop();
        }
        None
    }

    fn take(&mut self, now: Duration) -> Option<u32> {
        if self.next()? > now {
            return None;
        }
        let Reverse((_, device)) = self.heap.pop()?;
        self.due[device as usize] = None;
        Some(device)
    }

    fn clean(&mut self) {
        let due = std::mem::take(&mut self.due);
        self.heap
            .retain(|Reverse((at, device))| due.get(*device as usize) == Some(&Some(*at)));
        self.due = due;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(timetable: &Timetable, now: u64) -> Vec<u32> {
        std::iter::from_fn(|| timetable.take(Duration::from_secs(now))).collect()
    }

    #[test]
    fn devices_are_due_in_order_and_once_at_the_last_time_they_named() {
        let timetable = Timetable::default();
        let second = Duration::from_secs;
        for device in 0..4 {
            assert_eq!(timetable.enroll(), device);
            timetable.plan(device, second(10 - u64::from(device)));
        }
        timetable.plan(0, second(1));
        timetable.plan(1, second(60));
        timetable.cancel(2);
        assert!(taken(&timetable, 0).is_empty());
        assert_eq!(taken(&timetable, 20), [0, 3]);
        assert!(taken(&timetable, 20).is_empty());
        assert_eq!(taken(&timetable, 60), [1]);
        timetable.plan(2, second(5));
        assert_eq!(taken(&timetable, 60), [2]);
    }

    #[test]
    fn a_device_that_changes_its_mind_again_and_again_takes_no_memory() {
        let timetable = Timetable::default();
        timetable.enroll();
        for second in 0..10_000 {
            timetable.plan(0, Duration::from_secs(100_000 - second));
        }
        assert!(timetable.entries.borrow().heap.len() <= STALE_MIN + 3);
        assert_eq!(taken(&timetable, 100_000), [0]);
    }

    #[actix::test]
    async fn an_earlier_time_ends_the_wait() {
        let timetable = Timetable::default();
        let began = tokio::time::Instant::now();
        timetable.enroll();
        timetable.plan(0, Duration::from_secs(1_000));
        let wait = async {
            while timetable.take(began.elapsed()).is_none() {
                timetable.wait(|| began.elapsed()).await;
            }
        };
        let hurry = async {
            tokio::task::yield_now().await;
            timetable.plan(0, Duration::from_millis(20));
        };
        tokio::join!(wait, hurry);
        // A thousand seconds otherwise.
        assert!(began.elapsed() < Duration::from_secs(100));
    }
}
