//! Settings of a program of several commands, such as `fleet`.

use std::path::PathBuf;

use fleet_shared::config::{self, Common, Refused};

use crate::settings::file;

/// The shape of a program of several commands.
#[derive(clap::Parser, Debug)]
#[command(version)]
struct Tool {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Runs.
    Up {
        #[command(flatten)]
        common: Common,
        #[arg(long, default_value_t = 1)]
        devices: u32,
        #[arg(long)]
        seed: u64,
    },
    /// Compares.
    Verify {
        #[command(flatten)]
        common: Common,
        #[arg(long)]
        ledger: PathBuf,
    },
}

fn tool(args: &[&str]) -> Result<Tool, Refused> {
    config::load("fleet", args.iter().map(Into::into))
}

#[test]
fn file_reaches_the_commands_of_a_program() {
    let folder = tempfile::tempdir().unwrap();
    let config = file(
        &folder,
        "fleet.toml",
        "log = 'warn'\n[fleet]\ndevices = 2\nledger = 'l'\n[fleet.up]\nseed = 3\nlog = 'error'\n",
    );
    match tool(&["fleet", "up", "--config", &config]).unwrap().command {
        Command::Up {
            common,
            devices,
            seed,
        } => {
            assert_eq!((common.logs.log.as_str(), devices, seed), ("error", 2, 3));
        }
        Command::Verify { .. } => panic!("another command"),
    }
    match tool(&["fleet", "verify", "--config", &config])
        .unwrap()
        .command
    {
        Command::Verify { common, ledger } => {
            assert_eq!(
                (common.logs.log.as_str(), ledger),
                ("warn", PathBuf::from("l"))
            );
        }
        Command::Up { .. } => panic!("another command"),
    }
}

#[test]
fn wrong_use_of_commands_is_said_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let misplaced = file(&folder, "misplaced.toml", "[fleet.verify]\ndevices = 2\n");
    let misspelt = file(&folder, "misspelt.toml", "[fleet.upp]\ndevices = 2\n");
    let refused = |args: &[&str]| match tool(args) {
        Err(Refused::Error(error)) => error
            .to_string()
            .replace(folder.path().to_str().unwrap(), "DIR"),
        other => panic!("{other:?}"),
    };
    for (args, expected) in [
        (&["fleet"][..], "a command is missing; try --help"),
        (
            &["fleet", "verfy"],
            "unrecognized subcommand 'verfy'; a similar subcommand exists: 'verify'; try --help",
        ),
        (
            &["fleet", "up"],
            "the following required arguments were not provided: --seed <SEED>; try --help",
        ),
        (
            &["fleet", "up", "--seed=x"],
            "--seed is `x`: invalid digit found in string; try --help",
        ),
        (
            &["fleet", "up", "--config", &misplaced],
            "DIR/misplaced.toml: in [fleet.verify] `devices` is no setting; see --help for what can be set",
        ),
        (
            &["fleet", "up", "--config", &misspelt],
            "DIR/misspelt.toml: [fleet.upp] is of no command; did you mean up?",
        ),
    ] {
        assert_eq!(refused(args), expected);
    }
    for args in [
        &["fleet", "--help"][..],
        &["fleet", "up", "--help"],
        &["fleet", "help", "up"],
    ] {
        assert!(
            matches!(tool(args), Err(Refused::Answer(text)) if text.contains("Usage: fleet")),
            "{args:?}"
        );
    }
}
