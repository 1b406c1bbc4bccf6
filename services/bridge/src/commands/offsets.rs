//! Which offset of a partition may be committed.

use std::collections::{HashMap, VecDeque};

/// A record under way: its partition's turn, so that one of an earlier assignment is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    turn: u64,
}

/// The records under way of every partition that is assigned.
///
/// Pure. An offset may be committed when its record and all before it are done.
#[derive(Debug, Default)]
pub(crate) struct Offsets {
    turn: u64,
    partitions: HashMap<i32, Partition>,
}

#[derive(Debug)]
struct Partition {
    turn: u64,
    /// Offsets in order, and whether their record is done.
    under_way: VecDeque<(i64, bool)>,
}

impl Offsets {
    /// A record was taken.
    pub(crate) fn taken(&mut self, partition: i32, offset: i64) -> Place {
        let turn = &mut self.turn;
        let entry = self.partitions.entry(partition).or_insert_with(|| {
            *turn += 1;
            Partition {
                turn: *turn,
                under_way: VecDeque::new(),
            }
        });
        entry.under_way.push_back((offset, false));
        Place {
            partition,
            offset,
            turn: entry.turn,
        }
    }

    /// A record is done: gives the last offset up to which all are, if it moved.
    pub(crate) fn done(&mut self, place: Place) -> Option<i64> {
        let entry = self.partitions.get_mut(&place.partition)?;
        if entry.turn != place.turn {
            return None;
        }
        let at = entry
            .under_way
            .binary_search_by_key(&place.offset, |(offset, _)| *offset)
            .ok()?;
        entry.under_way[at].1 = true;
        let mut last = None;
        while let Some((offset, true)) = entry.under_way.front() {
            last = Some(*offset);
            entry.under_way.pop_front();
        }
        last
    }

    /// A partition went to another member: what is under way there is no longer ours to commit.
    pub(crate) fn revoked(&mut self, partition: i32) {
        self.partitions.remove(&partition);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn offset_moves_only_over_records_that_are_done() {
        let mut offsets = Offsets::default();
        let [a, b, c] = [3, 4, 7].map(|offset| offsets.taken(0, offset));
        assert_eq!(offsets.done(b), None);
        assert_eq!(offsets.done(a), Some(4));
        assert_eq!(offsets.done(a), None);
        assert_eq!(offsets.done(c), Some(7));
    }

    #[test]
    fn record_of_an_earlier_assignment_moves_nothing() {
        let mut offsets = Offsets::default();
        let old = offsets.taken(1, 5);
        offsets.revoked(1);
        assert_eq!(offsets.done(old), None);
        let new = offsets.taken(1, 5);
        assert_eq!(offsets.done(old), None);
        assert_eq!(offsets.done(new), Some(5));
    }

    proptest! {
        #[test]
        fn whatever_the_order_all_is_committed_and_never_too_much(order in Just((0..50_i64).collect::<Vec<_>>()).prop_shuffle()) {
            let mut offsets = Offsets::default();
            let places: Vec<_> = (0..50).map(|offset| offsets.taken(0, offset)).collect();
            let (mut done, mut committed) = (std::collections::BTreeSet::new(), -1);
            for offset in order {
                done.insert(offset);
                if let Some(last) = offsets.done(places[offset as usize]) {
                    prop_assert!(last > committed);
                    committed = last;
                }
                prop_assert!((0..=committed).all(|offset| done.contains(&offset)));
            }
            prop_assert_eq!(committed, 49);
        }
    }
}
