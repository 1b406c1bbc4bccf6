//! Arbitrary and mutated input for everything that reads what others wrote.
//!
//! A [`Target`] takes bytes and must not panic, whatever they are; some check more, such as that
//! what was read is written back the same. [`drive`] feeds it for a while: half of the inputs are
//! mutations of valid ones, which get past the first check. Every input follows from a seed and a
//! number, both printed, so that a failure can be had again.

mod http;
mod mutate;
mod target;

use std::panic::{AssertUnwindSafe, catch_unwind};
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

/// Feeds a target until `budget` is over; says how many inputs it took.
///
/// # Errors
/// The first input that it panicked at.
pub fn drive(target: &Target, seed: u64, budget: Duration) -> Result<u64, Box<Failure>> {
    let began = Instant::now();
    let mut run = 0;
    while began.elapsed() < budget {
        // The clock is asked seldom, for some targets take less than a microsecond.
        for _ in 0..16 {
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
        for target in targets() {
            match drive(&target, seed, Duration::from_millis(300)) {
                Ok(runs) => assert!(runs > 0, "{}", target.name),
                Err(failure) => panic!("{} seed {seed}: {failure:?}", target.name),
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
        let failure = drive(&target, 1, Duration::from_secs(20)).unwrap_err();
        assert!(failure.message.contains("found"), "{failure:?}");
        let again = once(&target, 1, failure.run).unwrap_err();
        assert_eq!(again.input, failure.input);
    }
}
