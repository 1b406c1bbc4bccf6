//! `make fuzz`: feeds every target for its share of the time.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is a command, and says what it does"
)]

use std::panic::resume_unwind;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use fleet_fuzz::{Note, STACK_BYTES, Target, drive, drive_api, once, targets};
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

/// Feeds one target after the other.
fn feed(targets: &[Target], seed: u64, share: Duration, only: Option<u64>) -> std::io::Result<()> {
    let path = std::env::temp_dir().join(format!("fleet-fuzz-{}", std::process::id()));
    let note = Note::create(&path)?;
    for target in targets {
        let name = target.name;
        let again = format!("--target {name} --seed {seed} --run");
        // Said before, for an overflow of the stack ends the process.
        println!(
            "{name}: should the process end: {again} $(cat {})",
            path.display()
        );
        let outcome = match only {
            Some(run) => once(target, seed, run).map(|()| 1),
            None => drive(target, seed, share, &note),
        };
        match outcome {
            Ok(runs) => println!("{name:<14}{runs:>12} inputs, nothing found"),
            Err(failure) => {
                return Err(std::io::Error::other(format!(
                    "{name} failed: {}\ninput: {}\nagain: make fuzz ARGS=\"{again} {}\"",
                    failure.message,
                    failure.input.escape_ascii(),
                    failure.run,
                )));
            }
        }
    }
    std::fs::remove_file(path)
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
    let fed = std::thread::scope(|scope| {
        std::thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || feed(&targets, seed, share, args.run))
            .map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    match fed {
        Ok(Ok(())) => {}
        Ok(Err(error)) | Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
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
