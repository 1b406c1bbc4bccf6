use super::node::NONE;

/// A hash table from an edge's hash to the child it leads to: open addressing, at most half full,
/// eight bytes a slot. What the hash stands for is known to the nodes only, so the caller decides
/// whether a candidate is the child it looks for.
#[derive(Clone, Debug)]
pub(super) struct Edges {
    slots: Vec<Slot>,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u32,
    /// [`NONE`] if the slot is empty.
    child: u32,
}

const EMPTY: Slot = Slot {
    hash: 0,
    child: NONE,
};

/// Slots of a new table; the number of slots is always a power of two.
const SLOTS_MIN: usize = 16;

impl Edges {
    pub(super) fn new() -> Self {
        Self {
            slots: vec![EMPTY; SLOTS_MIN],
            len: 0,
        }
    }

    /// The child under `hash` that `is_it` accepts.
    #[inline]
    pub(super) fn find(&self, hash: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let mut at = self.home(hash);
        loop {
            let slot = self.slots[at];
            if slot.child == NONE {
                return None;
            }
            if slot.hash == hash && is_it(slot.child) {
                return Some(slot.child);
            }
            at = self.after(at);
        }
    }

    /// Adds an edge that is not there yet.
    pub(super) fn insert(&mut self, hash: u32, child: u32) {
        if (self.len + 1) * 2 > self.slots.len() {
            let larger = vec![EMPTY; self.slots.len() * 2];
            for slot in std::mem::replace(&mut self.slots, larger) {
                if slot.child != NONE {
                    self.put(slot);
                }
            }
        }
        self.put(Slot { hash, child });
        self.len += 1;
    }

    /// Removes the edge to `child`, which must be there.
    pub(super) fn remove(&mut self, hash: u32, child: u32) {
        let mut hole = self.home(hash);
        while self.slots[hole].child != child {
            if self.slots[hole].child == NONE {
                return;
            }
            hole = self.after(hole);
        }
        self.len -= 1;
        // Later slots of the run move up into the hole, so that no search ends at it too early.
        let mut at = hole;
        loop {
            at = self.after(at);
            let slot = self.slots[at];
            if slot.child == NONE {
                break;
            }
            let home = self.home(slot.hash);
            if self.distance(home, hole) < self.distance(home, at) {
                self.slots[hole] = slot;
                hole = at;
            }
        }
        self.slots[hole] = EMPTY;
    }

    fn put(&mut self, slot: Slot) {
        let mut at = self.home(slot.hash);
        while self.slots[at].child != NONE {
            at = self.after(at);
        }
        self.slots[at] = slot;
    }

    fn home(&self, hash: u32) -> usize {
        hash as usize & (self.slots.len() - 1)
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }

    /// Steps from `from` forward to `to`.
    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & (self.slots.len() - 1)
    }
}
