//! Inputs: arbitrary bytes, and valid ones that something happened to.

use rand::{Rng as _, RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// Longest arbitrary input; mutations of valid ones may be longer.
const ARBITRARY_MAX: usize = 400;
/// Longest input at all.
const INPUT_MAX: usize = 100_000;

/// Numbers at which arithmetic goes wrong.
const NUMBERS: [&str; 12] = [
    "0",
    "-1",
    "1e999",
    "-0",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551616",
    "0.1e-400",
    "NaN",
    "Infinity",
    "1E+2",
    "00",
];

/// What breaks texts.
const TEXTS: [&str; 16] = [
    "\u{0}",
    "\"",
    "\\",
    "\\ud800",
    "\u{202e}",
    "\u{1f980}",
    "#",
    "+",
    "/",
    "$share/g/",
    "{",
    "[[[[[[[[",
    "\r\n",
    ": ",
    "- ",
    "&a *a",
];

/// The input number `run` of a seed.
#[must_use]
pub fn input(seeds: &[Vec<u8>], words: &[&str], seed: u64, run: u64) -> Vec<u8> {
    let mut chance = Pcg64Mcg::seed_from_u64(seed.rotate_left(32) ^ run);
    if seeds.is_empty() || chance.random_bool(0.1) {
        let mut bytes = vec![0; chance.random_range(0..ARBITRARY_MAX)];
        chance.fill_bytes(&mut bytes);
        return bytes;
    }
    let mut bytes = seeds[chance.random_range(0..seeds.len())].clone();
    for _ in 0..chance.random_range(1..6) {
        mutate(&mut bytes, seeds, words, &mut chance);
        bytes.truncate(INPUT_MAX);
    }
    bytes
}

fn mutate(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], words: &[&str], chance: &mut Pcg64Mcg) {
    let at = chance.random_range(0..=bytes.len());
    let end = (at + chance.random_range(0..24)).min(bytes.len());
    match chance.random_range(0..10) {
        // A bit, a byte, a piece away, a piece again, the rest away.
        0 if at < bytes.len() => bytes[at] ^= 1 << chance.random_range(0..8),
        1 if at < bytes.len() => {
            let values = [0, 1, 0x7f, 0x80, 0xff, b'"', b'/', b'#'];
            bytes[at] = values[chance.random_range(0..values.len())];
        }
        2 => drop(bytes.drain(at..end)),
        3 => {
            let piece = bytes[at..end].to_vec();
            let times = chance.random_range(1..40);
            bytes.splice(at..at, piece.repeat(times));
        }
        4 => bytes.truncate(at),
        // What has a meaning here, what breaks texts, what breaks numbers.
        5 | 6 if !words.is_empty() => {
            let word = words[chance.random_range(0..words.len())];
            bytes.splice(at..end, word.bytes());
        }
        7 => drop(bytes.splice(at..at, TEXTS[chance.random_range(0..TEXTS.len())].bytes())),
        8 => number(bytes, at, chance),
        // The head of one valid input and the tail of another.
        _ => {
            let other = &seeds[chance.random_range(0..seeds.len())];
            let from = chance.random_range(0..=other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
    }
}

/// Replaces the first number after `at`.
fn number(bytes: &mut Vec<u8>, at: usize, chance: &mut Pcg64Mcg) {
    let is_part = |byte: &u8| byte.is_ascii_digit() || b".-+eE".contains(byte);
    let Some(start) = bytes[at..].iter().position(u8::is_ascii_digit) else {
        return;
    };
    let start = at + start;
    let length = bytes[start..]
        .iter()
        .take_while(|byte| is_part(byte))
        .count();
    let other = NUMBERS[chance.random_range(0..NUMBERS.len())];
    bytes.splice(start..start + length, other.bytes());
}
