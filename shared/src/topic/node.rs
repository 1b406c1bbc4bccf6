use super::level::{self, Level};

/// The index of no node and no entry.
pub(super) const NONE: u32 = u32::MAX;

/// The node above the first level.
pub(super) const ROOT: u32 = 0;

/// Longest level text that lies in the node itself; what is left of a cache line.
const INLINE_MAX: usize = 30;

/// One level of the filters in a trie. Exactly one cache line, so that a visit is one miss.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct Node {
    /// The first eight bytes of the text, zeros after its end.
    head: u64,
    /// The level above; of an unused node the next unused one.
    pub(super) parent: u32,
    /// The child for a `+`.
    pub(super) plus: u32,
    /// First entry of the filters that end here.
    pub(super) own: u32,
    /// First entry of the filters that end with a `#` after this level.
    pub(super) multi: u32,
    /// How many children other than `+` there are; without any there is nothing to look up.
    pub(super) literals: u32,
    text: Text,
}

const _: () = assert!(size_of::<Node>() == 64, "a node is one cache line");

#[derive(Clone, Debug)]
enum Text {
    Inline { len: u8, bytes: [u8; INLINE_MAX] },
    Long(Box<[u8]>),
}

impl Node {
    pub(super) fn new(parent: u32, text: &[u8]) -> Self {
        let head = level::read(text, 0).head;
        let mut bytes = [0; INLINE_MAX];
        let text = match bytes.get_mut(..text.len()) {
            Some(inline) => {
                inline.copy_from_slice(text);
                let len = text.len() as u8;
                Text::Inline { len, bytes }
            }
            None => Text::Long(text.into()),
        };
        Self {
            head,
            parent,
            plus: NONE,
            own: NONE,
            multi: NONE,
            literals: 0,
            text,
        }
    }

    #[inline]
    pub(super) fn text(&self) -> &[u8] {
        match &self.text {
            Text::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Text::Long(bytes) => bytes,
        }
    }

    /// Whether this is the child of `parent` for the level at byte `at` of `topic`.
    #[inline]
    pub(super) fn is_child(&self, parent: u32, level: &Level, topic: &[u8], at: usize) -> bool {
        if self.parent != parent || self.head != level.head {
            return false;
        }
        let text = self.text();
        text.len() == level.len && (level.len <= 8 || text[8..] == topic[at + 8..at + level.len])
    }

    /// First entry of the filters that end here, with a `#` or without.
    pub(super) fn chain(&self, is_multi: bool) -> u32 {
        if is_multi { self.multi } else { self.own }
    }

    pub(super) fn chain_mut(&mut self, is_multi: bool) -> &mut u32 {
        if is_multi {
            &mut self.multi
        } else {
            &mut self.own
        }
    }

    /// Whether neither a filter ends here nor a level follows.
    pub(super) fn is_bare(&self) -> bool {
        self.own == NONE && self.multi == NONE && self.plus == NONE && self.literals == 0
    }
}
