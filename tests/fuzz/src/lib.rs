//! Arbitrary and mutated input for everything that reads what others wrote.
//!
//! A [`Target`] takes bytes and must not panic, whatever they are; some check more, such as that
//! what was read is written back the same. [`drive`] feeds it for a while: half of the inputs are
//! mutations of valid ones, which get past the first check. Every input follows from a seed and a
//! number, both printed, so that a failure can be had again.

mod http;
mod mutate;
mod target;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

pub use http::drive_api;
pub use mutate::input;
pub use target::{Target, targets};

/// What a target panicked at.
#[derive(Debug)]
pub struct Failure {
    /// Number of the input, from 0.
    pub run: u64,
    /// The input.
    pub input: Vec<u8>,
    /// What the panic said.
    pub message: String,
}

/// Stack of the thread that feeds, in bytes: what threads of the services have. A target that nests
/// without a bound overflows it and ends the process, which no panic tells of.
pub const STACK_BYTES: usize = 2 * 1_024 * 1_024;

/// A file that has the number of the input that is being fed, for when the process itself ends.
#[derive(Debug)]
pub struct Note(File);

impl Note {
    /// Makes the file anew.
    ///
    /// # Errors
    /// What the file system says.
    pub fn create(path: &Path) -> io::Result<Self> {
        File::create(path).map(Self)
    }

    fn write(&self, run: u64) -> io::Result<()> {
        self.0.write_all_at(format!("{run:>20}\n").as_bytes(), 0)
    }
}

/// Feeds a target until `budget` is over; says how many inputs it took.
///
/// # Errors
/// The first input that it panicked at, or that its number cannot be noted.
pub fn drive(
    target: &Target,
    seed: u64,
    budget: Duration,
    note: &Note,
) -> Result<u64, Box<Failure>> {
    let began = Instant::now();
    let mut run = 0;
    while began.elapsed() < budget {
        // The clock is asked seldom, for some targets take less than a microsecond.
        for _ in 0..16 {
            note.write(run).map_err(|error| Failure {
                run,
                input: Vec::new(),
                message: format!("the number of the input cannot be noted: {error}"),
            })?;
            once(target, seed, run)?;
            run += 1;
        }
    }
    Ok(run)
}

/// Feeds a target one input.
///
/// # Errors
/// If it panicked.
pub fn once(target: &Target, seed: u64, run: u64) -> Result<(), Box<Failure>> {
    let input = input(&target.seeds, target.words, seed, run);
    catch_unwind(AssertUnwindSafe(|| (target.feed)(&input))).map_err(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        Box::new(Failure {
            run,
            message: text.unwrap_or("no message").to_owned(),
            input,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A part of a second each, so that a target that stopped to work is seen at once; `make fuzz`
    /// takes its time.
    #[test]
    fn every_target_takes_whatever_it_is_fed() {
        let seed: u64 = rand::random();
        let dir = tempfile::tempdir().unwrap();
        let note = Note::create(&dir.path().join("note")).unwrap();
        for target in targets() {
            // Said before, for an overflow of the stack ends the process.
            let name = target.name;
            eprintln!("make fuzz ARGS=\"--target {name} --seed {seed}\"");
            match drive(&target, seed, Duration::from_millis(300), &note) {
                Ok(runs) => assert!(runs > 0, "{name}"),
                Err(failure) => panic!("{name} seed {seed}: {failure:?}"),
            }
        }
    }

    #[test]
    fn valid_inputs_are_taken_as_such() {
        for target in targets() {
            for seed in &target.seeds {
                (target.feed)(seed);
            }
            assert!(!target.seeds.is_empty(), "{}", target.name);
        }
    }

    #[test]
    fn the_same_seed_and_number_give_the_same_input() {
        for target in targets() {
            let input = |run| input(&target.seeds, target.words, 7, run);
            assert_eq!(input(3), input(3));
            assert!((0..20).any(|run| input(run) != input(run + 1)));
        }
    }

    #[test]
    fn a_panic_is_found_and_shown() {
        let target = Target {
            name: "fragile",
            seeds: vec![b"abc".to_vec()],
            words: &["boom"],
            feed: Box::new(|input| assert!(!input.windows(4).any(|it| it == b"boom"), "found")),
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("note");
        let note = Note::create(&path).unwrap();
        let failure = drive(&target, 1, Duration::from_secs(20), &note).unwrap_err();
        assert!(failure.message.contains("found"), "{failure:?}");
        let noted = std::fs::read_to_string(&path).unwrap();
        assert_eq!(noted.trim(), failure.run.to_string());
        let again = once(&target, 1, failure.run).unwrap_err();
        assert_eq!(again.input, failure.input);
    }
}
