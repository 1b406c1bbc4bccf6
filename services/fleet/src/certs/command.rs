//! The command.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use fleet_shared::config::{ConfigError, duration};
use jiff::Timestamp;

use super::authority::with_end;
use super::{Authority, CertError, Decision, Facts, Purpose, Wanted, decide};
use crate::access::{Accounts, Role};

/// Servers that get a certificate, with the names of this machine and those of `--name`.
const SERVERS: [&str; 4] = ["broker", "status-tracker", "postgres", "kafka"];

const EXAMPLES: &str = "\
The folder gets ca.crt and ca.key; servers/broker, servers/status-tracker, … for what listens; and
accounts/NAME for every service and device of accounts.yaml (see `fleet accounts`): each a .crt and a
.key that only you can read. What is there and good is kept; what ends soon is made again.
For development and tests: ca.key lies on this disk.

Examples:
  fleet certs --name broker.example.org           # servers are also found under that name
  fleet certs --renew servers/broker              # one certificate; --renew all, --renew ca
  mosquitto_sub --cafile certs/ca.crt --cert certs/accounts/viewer.crt --key certs/accounts/viewer.key \\
    -h localhost -p 8884 -i viewer -t 'sensors/#'
  ingest --mqtt-url mqtts://localhost:8884 --mqtt-ca-file certs/ca.crt \\
    --mqtt-cert-file certs/accounts/ingest.crt --mqtt-key-file certs/accounts/ingest.key
Mosquitto reads certificates again on SIGHUP; ours read them when the files change.";

/// Makes a certificate authority for development, and certificates for servers and accounts.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct CertsArgs {
    /// Folder of the certificates; created when it is missing.
    #[arg(
        long,
        env = "FLEET_CERTS_DIR",
        value_name = "DIR",
        default_value = "certs"
    )]
    pub dir: PathBuf,
    /// Another host name or address of the servers; may be given several times.
    #[arg(long, value_name = "HOST")]
    pub name: Vec<String>,
    /// Accounts that get a certificate; without the file, every service does.
    #[arg(
        long,
        env = "FLEET_ACCOUNTS",
        value_name = "FILE",
        default_value = "accounts/accounts.yaml"
    )]
    pub accounts: PathBuf,
    /// How long certificates are good.
    #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = duration)]
    pub valid_for: Duration,
    /// How long the authority is good.
    #[arg(long, value_name = "DURATION", default_value = "3650d", value_parser = duration)]
    pub ca_valid_for: Duration,
    /// Made again although it is good: servers/NAME, accounts/NAME, all, or ca with all it signs.
    #[arg(long, value_name = "WHAT")]
    pub renew: Vec<String>,
}

/// The command.
#[must_use]
pub fn run(args: &CertsArgs) -> ExitCode {
    match told(args) {
        Ok(text) => {
            // A closed pipe has got what it wanted.
            std::io::stdout().write_all(text.as_bytes()).ok();
            ExitCode::SUCCESS
        }
        Err(error) => {
            let usage = error.downcast_ref::<ConfigError>().is_some();
            let line = format!("error: {error:#}\n");
            std::io::stderr().write_all(line.as_bytes()).ok();
            ExitCode::from(if usage { 2 } else { 1 })
        }
    }
}

fn told(args: &CertsArgs) -> anyhow::Result<String> {
    let accounts = if args.accounts.exists() {
        Accounts::open(&args.accounts)
    } else {
        Accounts::usual([])
    };
    let accounts = accounts.map_err(|error| {
        let remedy = format!("{:#}", anyhow::Error::new(error));
        ConfigError::value(
            "--accounts (FLEET_ACCOUNTS)",
            args.accounts.display(),
            remedy,
        )
    })?;
    let wanted = wanted(&args.name, &accounts);
    for what in &args.renew {
        let known = ["all", "ca"].contains(&what.as_str())
            || wanted.iter().any(|it| path_of(it) == Path::new(what));
        if !known {
            let remedy = "give `all`, `ca`, or a file without its end, such as servers/broker";
            return Err(ConfigError::value("--renew", what, remedy).into());
        }
    }
    let made = make(args, &wanted, Timestamp::now())?;
    let dir = args.dir.display();
    let mut text = String::new();
    for (file, reason) in &made {
        text += &format!("{dir}/{}.crt  {reason}\n", file.display());
    }
    text += &format!(
        "{} certificates made, {} kept\n\
         trust {dir}/ca.crt: MQTT_CA_FILE={dir}/ca.crt; how to use the rest: fleet certs --help\n",
        made.len(),
        wanted.len() + 1 - made.len()
    );
    Ok(text)
}

fn wanted(names: &[String], accounts: &Accounts) -> Vec<Wanted> {
    let mut hosts: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    for name in names {
        if !hosts.contains(name) {
            hosts.push(name.clone());
        }
    }
    let servers = SERVERS.map(|name| Wanted {
        name: name.to_owned(),
        purpose: Purpose::Server,
        names: hosts.clone(),
    });
    let clients = accounts.iter().map(|account| Wanted {
        name: account.name.clone(),
        purpose: Purpose::Client,
        names: Vec::new(),
    });
    servers.into_iter().chain(clients).collect()
}

/// Where a certificate is, below the folder and without an end.
fn path_of(wanted: &Wanted) -> PathBuf {
    let folder = match wanted.purpose {
        Purpose::Server => "servers",
        Purpose::Client => "accounts",
    };
    Path::new(folder).join(&wanted.name)
}

/// Makes what is missing or not good any more. Returns what was made, below the folder and without
/// an end, each with the reason.
///
/// # Errors
/// Names that no certificate can have, and files that cannot be read or written.
pub fn make(
    args: &CertsArgs,
    wanted: &[Wanted],
    now: Timestamp,
) -> Result<Vec<(PathBuf, &'static str)>, CertError> {
    let asked = |what: &str| args.renew.iter().any(|it| it == what);
    let authority = Authority::open(
        &args.dir,
        args.ca_valid_for,
        args.valid_for,
        asked("ca"),
        now,
    )?;
    let mut made = Vec::new();
    if authority.is_new() {
        made.push((PathBuf::from("ca"), "new"));
    }
    for wanted in wanted {
        let path = path_of(wanted);
        let file = args.dir.join(&path);
        let there = match with_end(&file, "key").exists() {
            true => Facts::of(&with_end(&file, "crt"))?,
            false => None,
        };
        let renew = asked("all") || path.to_str().is_some_and(asked);
        let facts = authority.facts();
        let decision = decide(wanted, there.as_ref(), facts, args.valid_for, renew, now);
        if let Decision::Make(reason) = decision {
            authority.issue(&file, wanted, args.valid_for, now)?;
            made.push((path, reason));
        }
    }
    Ok(made)
}

impl CertsArgs {
    /// For the servers and accounts of a run of this process.
    #[must_use]
    pub fn at(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            name: Vec::new(),
            accounts: PathBuf::new(),
            valid_for: Duration::from_secs(90 * 86_400),
            ca_valid_for: Duration::from_secs(3_650 * 86_400),
            renew: Vec::new(),
        }
    }

    /// Makes what those accounts need; devices have passwords only.
    ///
    /// # Errors
    /// As [`make`].
    pub fn make_for(&self, accounts: &Accounts) -> Result<(), CertError> {
        let all = wanted(&self.name, accounts);
        let needed: Vec<_> = all
            .into_iter()
            .filter(|it| {
                accounts
                    .get(&it.name)
                    .is_none_or(|account| account.role != Role::Device)
            })
            .collect();
        make(self, &needed, Timestamp::now()).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn made(args: &CertsArgs, at: Timestamp) -> Vec<String> {
        let accounts = Accounts::usual([("sensor-001".to_owned(), vec![])]).unwrap();
        let made = make(args, &wanted(&args.name, &accounts), at).unwrap();
        made.iter()
            .map(|(path, _)| path.display().to_string())
            .collect()
    }

    fn facts(dir: &Path, file: &str) -> Facts {
        Facts::of(&dir.join(file)).unwrap().unwrap()
    }

    #[test]
    fn what_is_made_once_is_kept_until_it_ends_or_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let mut args = CertsArgs::at(dir);
        args.name = vec!["broker.example.org".to_owned()];
        assert_eq!(made(&args, now()).len(), 1 + 4 + 6 + 1);
        assert_eq!(made(&args, now()), [""; 0]);

        let broker = facts(dir, "servers/broker.crt");
        assert_eq!(broker.common_name, "broker");
        assert_eq!(
            broker.names,
            ["localhost", "127.0.0.1", "::1", "broker.example.org"]
        );
        assert_eq!(broker.authority_key, facts(dir, "ca.crt").own_key);
        let device = facts(dir, "accounts/sensor-001.crt");
        assert_eq!(
            (device.common_name.as_str(), device.names.len()),
            ("sensor-001", 0)
        );
        for file in ["ca.key", "servers/broker.key", "accounts/sensor-001.key"] {
            let mode = std::fs::metadata(dir.join(file))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }

        args.renew = vec!["servers/broker".to_owned()];
        assert_eq!(made(&args, now()), ["servers/broker"]);
        assert_ne!(facts(dir, "servers/broker.crt").serial, broker.serial);
        args.renew.clear();
        let later = now() + Duration::from_secs(61 * 86_400);
        assert_eq!(made(&args, later).len(), 11, "all but the authority");
    }

    #[test]
    fn a_new_authority_signs_all_and_the_old_one_stays_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let mut args = CertsArgs::at(dir);
        made(&args, now());
        let old = std::fs::read_to_string(dir.join("ca.crt")).unwrap();
        args.renew = vec!["ca".to_owned()];
        assert_eq!(made(&args, now()).len(), 12);
        let trusted = std::fs::read_to_string(dir.join("ca.crt")).unwrap();
        assert!(trusted.ends_with(&old) && trusted != old);
        assert_eq!(trusted.matches("BEGIN").count(), 2);
        made(&args, now());
        let third = std::fs::read_to_string(dir.join("ca.crt")).unwrap();
        assert_eq!(third.matches("BEGIN").count(), 2, "only the one before");
        assert!(!third.contains(old.trim()));
    }

    #[test]
    fn a_file_that_is_no_certificate_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        std::fs::write(dir.join("ca.crt"), "nothing").unwrap();
        let error = make(&CertsArgs::at(dir), &[], now())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("ca.crt") && error.contains("delete it"),
            "{error}"
        );
    }
}
