//! `make fuzz`: feeds every target for its share of the time.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is a command, and says what it does"
)]

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use fleet_fuzz::{drive, drive_api, once, targets};
use fleet_shared::config::duration;

/// Feeds arbitrary and mutated input to everything that reads what others wrote.
#[derive(clap::Parser)]
struct Args {
    /// Time for all targets together.
    #[arg(long, default_value = "10m", value_parser = duration)]
    budget: Duration,
    /// Makes inputs repeatable; a new one every time without it.
    #[arg(long)]
    seed: Option<u64>,
    /// Only this target; `api` is the HTTP API of status-tracker.
    #[arg(long)]
    target: Option<String>,
    /// Only this input of the seed, as a failure named it.
    #[arg(long, requires = "seed", requires = "target")]
    run: Option<u64>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let seed = args.seed.unwrap_or_else(rand::random);
    let wanted = |name: &str| args.target.as_deref().is_none_or(|only| only == name);
    let targets: Vec<_> = targets().into_iter().filter(|it| wanted(it.name)).collect();
    let api = wanted("api");
    let count = targets.len() + usize::from(api);
    let Some(share) = args
        .budget
        .checked_div(u32::try_from(count).unwrap_or(u32::MAX))
    else {
        eprintln!("there is no such target; `--target api`, or one of those that a run lists");
        return ExitCode::from(2);
    };
    println!("seed {seed}, {count} targets, {share:.0?} each");
    // What panics is told below, with its input.
    std::panic::set_hook(Box::new(|_| {}));
    for target in &targets {
        let outcome = match args.run {
            Some(run) => once(target, seed, run).map(|()| 1),
            None => drive(target, seed, share),
        };
        match outcome {
            Ok(runs) => println!("{:<14}{runs:>12} inputs, nothing found", target.name),
            Err(failure) => {
                eprintln!(
                    "{} failed: {}\ninput: {}\nagain: cargo run -p fleet-fuzz -- --target {} --seed {seed} --run {}",
                    target.name,
                    failure.message,
                    failure.input.escape_ascii(),
                    target.name,
                    failure.run,
                );
                return ExitCode::FAILURE;
            }
        }
    }
    if api {
        match drive_api(seed, share) {
            Ok(answered) => println!(
                "{:<14}{answered:>12} requests answered, nothing found",
                "api"
            ),
            Err(error) => {
                eprintln!("api failed: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
