/// One level of a topic: where it ends, and what finds it in a table.
#[derive(Clone, Copy)]
pub(super) struct Level {
    /// Length in bytes, up to the next `/` or the end.
    pub(super) len: usize,
    /// Its first eight bytes, zeros after its end: all there is to compare of most levels.
    pub(super) head: u64,
    /// The same for the same text, spread over all 64 bits.
    pub(super) hash: u64,
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;
const SLASHES: u64 = ONES * b'/' as u64;
const SEED: u64 = 0x9E37_79B9_7F4A_7C15;

/// Reads the level of `topic` that starts at byte `at`, eight bytes a step: its end, its head and
/// its hash come from the same words, and most levels are one word.
#[inline]
pub(super) fn read(topic: &[u8], at: usize) -> Level {
    let mut hash = SEED;
    let mut head = None;
    let mut len = 0;
    loop {
        let word = word_at(topic, at + len);
        // The lowest byte that was a `/` is zero now; the usual trick marks its high bit. Bytes
        // above it may be marked in error, which is why only the lowest is looked at.
        let zeroed = word ^ SLASHES;
        let marked = zeroed.wrapping_sub(ONES) & !zeroed & HIGHS;
        if marked == 0 {
            hash = mix(hash ^ word, SEED);
            head = head.or(Some(word));
            len += 8;
            continue;
        }
        let bits = marked.trailing_zeros() & !7;
        let part = word & !(u64::MAX << bits);
        len += bits as usize / 8;
        return Level {
            len,
            head: head.unwrap_or(part),
            hash: mix(hash ^ part, len as u64 ^ SEED),
        };
    }
}

/// The eight bytes at `at`, the first in the lowest place. Past the end stands a `/`, which ends
/// the last level like any other.
#[inline]
fn word_at(topic: &[u8], at: usize) -> u64 {
    let tail = topic.get(at..).unwrap_or_default();
    if let Some(chunk) = tail.first_chunk() {
        return u64::from_le_bytes(*chunk);
    }
    let past_end = SLASHES << (tail.len() * 8);
    // The last eight bytes, shifted: one load instead of up to seven.
    if let Some(chunk) = topic.last_chunk() {
        let unwanted = 8 - tail.len() as u32;
        let word = u64::from_le_bytes(*chunk).checked_shr(unwanted * 8);
        return word.unwrap_or(0) | past_end;
    }
    let bytes = tail.iter().rev();
    bytes.fold(0, |word, byte| word << 8 | u64::from(*byte)) | past_end
}

/// Spreads `a` and `b` over 64 bits: the folded product is cheap and every bit counts.
#[inline]
pub(super) fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::read;

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
            let bytes = topic.as_bytes();
            for at in 0..=bytes.len() {
                let rest = &bytes[at..];
                let expected = rest.iter().position(|byte| *byte == b'/');
                let level = read(bytes, at);
                assert_eq!(
                    level.len,
                    expected.unwrap_or(rest.len()),
                    "{topic:?} at {at}"
                );
                let mut head = [0; 8];
                let shown = level.len.min(8);
                head[..shown].copy_from_slice(&rest[..shown]);
                assert_eq!(level.head, u64::from_le_bytes(head), "{topic:?} at {at}");
            }
        }
    }

    #[test]
    fn level_hash_depends_on_the_level_alone() {
        for (one, at, other) in [
            ("ab/c", 0, "ab"),
            ("x/ab", 2, "ab"),
            ("long enough/ab", 12, "ab"),
            ("abcdefgh/i", 0, "abcdefgh"),
            ("/x", 0, ""),
        ] {
            let other = read(other.as_bytes(), 0).hash;
            assert_eq!(read(one.as_bytes(), at).hash, other, "{one}");
        }
        assert_ne!(read(b"ab", 0).hash, read(b"ba", 0).hash);
        assert_ne!(read(b"abcdefgh", 0).hash, read(b"abcdefghabcdefgh", 0).hash);
    }
}
