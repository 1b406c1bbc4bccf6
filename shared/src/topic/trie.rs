use super::edges::Edges;
use super::error::TopicError;
use super::excerpt::Excerpt;
use super::filter::TopicFilter;
use super::level::{self, Level};
use super::node::{NONE, Node, ROOT};

/// Most levels a filter in a [`Trie`] may have; it bounds the depth of every lookup, however long
/// the topic.
pub const LEVELS_MAX: usize = 128;

/// Many topic filters, each with a value, and the question which of them match a topic.
///
/// A lookup visits only the part of the tree the topic can reach, allocates nothing and never does
/// more steps than there are nodes. Shared filters count by their filter proper: two groups on one
/// filter are two entries, both of which match. The same filter may be put in several times, also
/// with equal values.
///
/// Nodes lie in one `Vec`, a cache line each with their level's text inside; one table of 8-byte
/// slots leads from a node and a level's text to the child. So a step costs two cache misses at
/// most, which is what counts when there are 100,000 filters.
#[derive(Clone, Debug)]
pub struct Trie<T> {
    nodes: Vec<Node>,
    edges: Edges,
    entries: Vec<Entry<T>>,
    /// Heads of the chains of unused nodes (linked by `parent`) and entries (linked by `next`).
    free_node: u32,
    free_entry: u32,
    len: usize,
}

/// A value, and the next one of the same filter. The value is gone once the entry is unused.
#[derive(Clone, Debug)]
struct Entry<T> {
    value: Option<T>,
    next: u32,
}

impl<T> Trie<T> {
    /// A trie that matches nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            nodes: vec![Node::new(NONE, b"")],
            edges: Edges::new(),
            entries: Vec::new(),
            free_node: NONE,
            free_entry: NONE,
            len: 0,
        }
    }

    /// How many values it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds no value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds `value` under `filter`, beside those already there.
    ///
    /// # Errors
    /// [`TopicError::TooManyLevels`] if the filter has more than [`LEVELS_MAX`] levels.
    pub fn insert(&mut self, filter: &TopicFilter, value: T) -> Result<(), TopicError> {
        let levels = filter.filter().split('/').count();
        if levels > LEVELS_MAX {
            return Err(TopicError::TooManyLevels {
                filter: Excerpt::new(filter.as_str()),
                levels,
            });
        }
        let (mut node, mut is_multi) = (ROOT, false);
        for text in filter.filter().split('/') {
            match text {
                "#" => is_multi = true,
                "+" => node = self.plus_child(node),
                _ => node = self.literal_child(node, text.as_bytes()),
            }
        }
        let next = self.nodes[node as usize].chain(is_multi);
        let entry = self.take_entry(value, next);
        *self.nodes[node as usize].chain_mut(is_multi) = entry;
        self.len += 1;
        Ok(())
    }

    /// Removes one entry of `filter` whose value equals `value`; false if there is none.
    pub fn remove(&mut self, filter: &TopicFilter, value: &T) -> bool
    where
        T: PartialEq,
    {
        let Some((node, is_multi)) = self.find(filter.filter()) else {
            return false;
        };
        let (mut before, mut at) = (NONE, self.nodes[node as usize].chain(is_multi));
        while at != NONE && self.entries[at as usize].value.as_ref() != Some(value) {
            (before, at) = (at, self.entries[at as usize].next);
        }
        if at == NONE {
            return false;
        }
        let next = self.entries[at as usize].next;
        match before {
            NONE => *self.nodes[node as usize].chain_mut(is_multi) = next,
            before => self.entries[before as usize].next = next,
        }
        self.entries[at as usize] = Entry {
            value: None,
            next: self.free_entry,
        };
        self.free_entry = at;
        self.len -= 1;
        self.prune(node);
        true
    }

    /// Calls `visit` with the value of every filter that matches `topic`, in no certain order.
    ///
    /// `topic` must be a valid topic name; of another text the answer means nothing.
    pub fn for_each_match<'a>(&'a self, topic: &str, mut visit: impl FnMut(&'a T)) {
        let topic = topic.as_bytes();
        if topic.first() != Some(&b'$') {
            self.walk(ROOT, topic, 0, &mut visit);
            return;
        }
        // A leading wildcard does not match topics of the broker's own, those that start with `$`.
        let first = level::read(topic, 0);
        if let Some(child) = self.child(ROOT, &first, topic, 0) {
            self.walk(child, topic, first.len + 1, &mut visit);
        }
    }

    /// The values of every filter that matches `topic`, in no certain order.
    ///
    /// [`Trie::for_each_match`] does the same without the allocation.
    #[must_use]
    pub fn matches(&self, topic: &str) -> Vec<&T> {
        let mut found = Vec::new();
        self.for_each_match(topic, |value| found.push(value));
        found
    }

    /// Visits what matches at `node` and below, the topic's levels from byte `at` on being left.
    /// Recursion only follows `+`, so its depth is at most a filter's levels.
    fn walk<'a>(&'a self, node: u32, topic: &[u8], at: usize, visit: &mut impl FnMut(&'a T)) {
        let (mut node, mut at) = (node, at);
        loop {
            let here = &self.nodes[node as usize];
            self.visit_chain(here.multi, visit);
            // One past the end: the node's level was the last. At the end: an empty one is left.
            if at > topic.len() {
                self.visit_chain(here.own, visit);
                return;
            }
            if here.plus == NONE && here.literals == 0 {
                return;
            }
            let level = level::read(topic, at);
            let after = at + level.len + 1;
            let child = self.child(node, &level, topic, at);
            (node, at) = match (child, here.plus) {
                (Some(child), NONE) => (child, after),
                (Some(child), plus) => {
                    self.walk(plus, topic, after, visit);
                    (child, after)
                }
                (None, NONE) => return,
                (None, plus) => (plus, after),
            };
        }
    }

    /// The child of `node` for the level at byte `at` of `topic`.
    #[inline]
    fn child(&self, node: u32, level: &Level, topic: &[u8], at: usize) -> Option<u32> {
        if self.nodes[node as usize].literals == 0 {
            return None;
        }
        let is_it = |child: u32| self.nodes[child as usize].is_child(node, level, topic, at);
        self.edges.find(edge_hash(node, level.hash), is_it)
    }

    #[inline]
    fn visit_chain<'a>(&'a self, mut at: u32, visit: &mut impl FnMut(&'a T)) {
        while let Some(entry) = self.entries.get(at as usize) {
            if let Some(value) = &entry.value {
                visit(value);
            }
            at = entry.next;
        }
    }

    /// The node of a filter and whether it ends in `#`, if it was ever put in.
    fn find(&self, filter: &str) -> Option<(u32, bool)> {
        let (mut node, mut is_multi) = (ROOT, false);
        for text in filter.split('/') {
            node = match text {
                "#" => {
                    is_multi = true;
                    node
                }
                "+" => self.nodes[node as usize].plus,
                _ => self.child(node, &level::read(text.as_bytes(), 0), text.as_bytes(), 0)?,
            };
            if node == NONE {
                return None;
            }
        }
        Some((node, is_multi))
    }

    fn plus_child(&mut self, parent: u32) -> u32 {
        let plus = self.nodes[parent as usize].plus;
        if plus != NONE {
            return plus;
        }
        let child = self.take_node(Node::new(parent, b"+"));
        self.nodes[parent as usize].plus = child;
        child
    }

    fn literal_child(&mut self, parent: u32, text: &[u8]) -> u32 {
        let level = level::read(text, 0);
        if let Some(child) = self.child(parent, &level, text, 0) {
            return child;
        }
        let child = self.take_node(Node::new(parent, text));
        self.nodes[parent as usize].literals += 1;
        self.edges.insert(edge_hash(parent, level.hash), child);
        child
    }

    /// Takes away `node` and its ancestors as far as nothing hangs on them any more.
    fn prune(&mut self, mut node: u32) {
        while node != ROOT && self.nodes[node as usize].is_bare() {
            let parent = self.nodes[node as usize].parent;
            if self.nodes[parent as usize].plus == node {
                self.nodes[parent as usize].plus = NONE;
            } else {
                let level = level::read(self.nodes[node as usize].text(), 0);
                self.edges.remove(edge_hash(parent, level.hash), node);
                self.nodes[parent as usize].literals -= 1;
            }
            self.nodes[node as usize] = Node::new(self.free_node, b"");
            self.free_node = node;
            node = parent;
        }
    }

    fn take_node(&mut self, node: Node) -> u32 {
        match self.free_node {
            NONE => {
                self.nodes.push(node);
                index(self.nodes.len() - 1)
            }
            at => {
                self.free_node = self.nodes[at as usize].parent;
                self.nodes[at as usize] = node;
                at
            }
        }
    }

    fn take_entry(&mut self, value: T, next: u32) -> u32 {
        let value = Some(value);
        match self.free_entry {
            NONE => {
                self.entries.push(Entry { value, next });
                index(self.entries.len() - 1)
            }
            at => {
                self.free_entry = self.entries[at as usize].next;
                self.entries[at as usize] = Entry { value, next };
                at
            }
        }
    }
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[inline]
fn edge_hash(parent: u32, level_hash: u64) -> u32 {
    (level::mix(level_hash ^ u64::from(parent), 0xA076_1D64_78BD_642F) >> 32) as u32
}

fn index(at: usize) -> u32 {
    u32::try_from(at)
        .ok()
        .filter(|&at| at != NONE)
        .expect("four billion nodes of 64 bytes do not fit into any memory we run in")
}
