//! `fleet accounts`: the accounts of a fleet, as the brokers take them.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use device_sim::Scenario;
use fleet_shared::config::ConfigError;

use super::{Account, Accounts, Passwords, Role};
use super::{acl_file, authorization, bootstrap_users};
use super::{configuration, dynamic_security, password_file};
use crate::secret_file;

const EXAMPLES: &str = "\
The folder gets accounts.yaml (edit it and run this again), passwords.csv (secret: give each account
its own line), and of these for a broker: mosquitto/dynamic-security.json, mosquitto/mosquitto.conf,
mosquitto/acl, mosquitto/passwords, emqx/acl.conf, emqx/users.csv. Passwords stay as they are from run
to run; the brokers get their hashes only.

Examples:
  fleet accounts                                  # services and the ten devices of device-sim
  fleet accounts --devices 500 --dir accounts
  fleet accounts --renew sensor-007               # a new password for a device that was stolen
  fleet accounts --show                           # who may do what
  device-sim --device-passwords accounts/passwords.csv --mqtt-url mqtts://broker:8883
  MQTT_USERNAME=ingest MQTT_PASSWORD_FILE=ingest.password ingest";

/// Makes the accounts of a fleet and the rules of its broker: Mosquitto's and EMQX's files.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct AccountsArgs {
    /// Folder of the files; created when it is missing.
    #[arg(
        long,
        env = "FLEET_ACCOUNTS_DIR",
        value_name = "DIR",
        default_value = "accounts"
    )]
    pub dir: PathBuf,
    /// Accounts to use instead of DIR/accounts.yaml.
    #[arg(long, env = "FLEET_ACCOUNTS", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Devices of device-sim to put into a new accounts.yaml.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub devices: u32,
    /// Their profile: tutorial, mixed, load or a YAML file.
    #[arg(long, value_name = "NAME|FILE", default_value_t)]
    pub profile: device_sim::profile::ProfileName,
    /// Account that gets a new password; may be given several times.
    #[arg(long, value_name = "ACCOUNT")]
    pub renew: Vec<String>,
    /// Prints who may do what, and writes nothing.
    #[arg(long)]
    pub show: bool,
}

/// The command.
#[must_use]
pub fn run(args: &AccountsArgs) -> ExitCode {
    match make(args) {
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

fn make(args: &AccountsArgs) -> anyhow::Result<String> {
    let own = args.dir.join("accounts.yaml");
    let accounts = match &args.file {
        Some(file) => open(file)?,
        None if own.exists() => open(&own)?,
        None => {
            let devices = simulated(args)?;
            if !args.show {
                write(&own, &Accounts::to_yaml(&devices), false)?;
            }
            Accounts::usual(devices)?
        }
    };
    if args.show {
        return Ok(table(&accounts));
    }
    for name in &args.renew {
        if accounts.get(name).is_none() {
            let remedy = "there is no such account; `fleet accounts --show` lists them";
            return Err(ConfigError::value("--renew", name, remedy).into());
        }
    }
    let file = args.dir.join("passwords.csv");
    let mut passwords = Passwords::open(&file)?;
    let made = passwords.complete(&accounts, |name| args.renew.iter().any(|it| it == name));
    passwords.save(&file)?;
    let to = |name: &str| args.dir.join(name);
    write(
        &to("mosquitto/dynamic-security.json"),
        &dynamic_security(&accounts, &passwords),
        true,
    )?;
    write(&to("mosquitto/mosquitto.conf"), configuration(), false)?;
    write(&to("mosquitto/acl"), &acl_file(&accounts), false)?;
    write(
        &to("mosquitto/passwords"),
        &password_file(&accounts, &passwords),
        true,
    )?;
    write(&to("emqx/acl.conf"), &authorization(&accounts), false)?;
    write(
        &to("emqx/users.csv"),
        &bootstrap_users(&accounts, &passwords),
        true,
    )?;
    let devices = accounts.iter().filter(|it| it.role == Role::Device).count();
    let dir = args.dir.display();
    Ok(format!(
        "{} accounts, {devices} of them devices; {made} passwords are new\n\
         {dir}/passwords.csv       account,password,salt: secret\n\
         {dir}/mosquitto/          dynamic-security.json and mosquitto.conf; or acl and passwords\n\
         {dir}/emqx/               acl.conf (authorization) and users.csv (bootstrap_file)\n\
         The broker reads them when it starts. Who may do what: fleet accounts --show\n",
        accounts.iter().count(),
    ))
}

fn open(file: &Path) -> Result<Accounts, ConfigError> {
    Accounts::open(file).map_err(|error| {
        let remedy = format!("{:#}", anyhow::Error::new(error));
        ConfigError::value("--file (FLEET_ACCOUNTS)", file.display(), remedy)
    })
}

fn write(path: &Path, text: &str, secret: bool) -> anyhow::Result<()> {
    let written = if secret {
        secret_file::write(path, text.as_bytes())
    } else {
        secret_file::write_public(path, text.as_bytes())
    };
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// Id and locations of each simulated device.
fn simulated(args: &AccountsArgs) -> Result<Vec<(String, Vec<String>)>, ConfigError> {
    if args.devices == 0 {
        return Ok(Vec::new());
    }
    let scenario = Scenario {
        devices: args.devices,
        profile: args.profile.clone(),
        ..Scenario::default()
    };
    scenario.locations()
}

fn table(accounts: &Accounts) -> String {
    let mut text = String::new();
    for account in accounts.iter() {
        let Account {
            name,
            role,
            publish,
            subscribe,
        } = account;
        text += &format!("{name} ({})\n", role.name());
        for (what, topics) in [("publishes to", publish), ("subscribes to", subscribe)] {
            if !topics.is_empty() {
                text += &format!("  {what:<14}{}\n", topics.join("  "));
            }
        }
    }
    text
}
