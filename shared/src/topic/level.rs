/// The first level of a topic: how long it is, and a hash of its text.
#[derive(Clone, Copy)]
pub(super) struct Level {
    /// Length in bytes, up to the next `/` or the end.
    pub(super) len: usize,
    /// The same for the same text, spread over all 64 bits.
    pub(super) hash: u64,
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;
const SLASHES: u64 = ONES * b'/' as u64;
const SEED: u64 = 0x9E37_79B9_7F4A_7C15;

/// Finds the end of the first level of `rest` and hashes the level on the way, eight bytes a step.
///
/// Levels are mostly shorter than that, so most of a lookup's splitting and hashing is one step a
/// level.
#[inline]
pub(super) fn first(rest: &[u8]) -> Level {
    let mut hash = SEED;
    let mut len = 0;
    loop {
        let tail = &rest[len..];
        let word = match tail.first_chunk() {
            Some(chunk) => u64::from_le_bytes(*chunk),
            // The end of the topic ends its last level as a `/` would.
            None => {
                let mut padded = [b'/'; 8];
                padded[..tail.len()].copy_from_slice(tail);
                u64::from_le_bytes(padded)
            }
        };
        // The lowest byte that was a `/` is zero now; the usual trick marks its high bit. Bytes
        // above it may be marked in error, which is why only the lowest is looked at.
        let zeroed = word ^ SLASHES;
        let marked = zeroed.wrapping_sub(ONES) & !zeroed & HIGHS;
        if marked != 0 {
            let bits = marked.trailing_zeros() & !7;
            let part = word & !(u64::MAX << bits);
            len += bits as usize / 8;
            return Level {
                len,
                hash: mix(hash ^ part, len as u64 ^ SEED),
            };
        }
        hash = mix(hash ^ word, SEED);
        len += 8;
    }
}

/// Spreads `a` and `b` over 64 bits: the folded product is cheap and every bit counts.
#[inline]
pub(super) fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::first;

    #[test]
    fn level_ends_at_the_first_slash_or_the_end() {
        for topic in [
            "",
            "/",
            "a",
            "a/",
            "abcdefg",
            "abcdefgh",
            "abcdefgh/",
            "abcdefghi",
            "abcdefg/hi",
            "0123456789abcdef/x",
            "é/ü",
            "\u{7f}\u{80}/",
            "././",
            "0/",
        ] {
            let expected = topic.find('/').unwrap_or(topic.len());
            assert_eq!(first(topic.as_bytes()).len, expected, "{topic:?}");
        }
    }

    #[test]
    fn level_hash_depends_on_the_level_alone() {
        for (one, other) in [("ab/c", "ab"), ("abcdefgh/i", "abcdefgh"), ("/x", "")] {
            assert_eq!(first(one.as_bytes()).hash, first(other.as_bytes()).hash);
        }
        assert_ne!(first(b"ab").hash, first(b"ba").hash);
        assert_ne!(first(b"abcdefgh").hash, first(b"abcdefghabcdefgh").hash);
    }
}
