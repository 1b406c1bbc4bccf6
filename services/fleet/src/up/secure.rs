//! `fleet up --secure`: accounts, certificates and passwords of a run, kept in its data folder.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use fleet_shared::config::MqttArgs;
use fleet_shared::tls::ServerFiles;
use secrecy::ExposeSecret as _;

use super::args::UpArgs;
use super::settings;
use crate::access::{Accounts, Passwords};
use crate::broker::{Rules, Security};
use crate::certs::CertsArgs;
use crate::secret_file;

/// The account that a person uses beside the run.
const OPERATOR: &str = "operator";

/// Who there is in this run, and what each proves it with.
#[derive(Debug)]
pub(super) struct Secured {
    dir: PathBuf,
    rules: Arc<Rules>,
}

impl Secured {
    /// Makes what is missing in the folder `secure` of the data folder: passwords and certificates
    /// stay the same from run to run.
    pub(super) fn prepare(args: &UpArgs) -> anyhow::Result<Self> {
        let dir = args.data_dir.join("secure");
        let accounts = Accounts::usual(settings::devices(args).locations()?)?;
        let file = dir.join("passwords.csv");
        let mut passwords = Passwords::open(&file)?;
        passwords.complete(&accounts, |_| false);
        passwords.save(&file)?;
        if let Some(password) = passwords.get(OPERATOR) {
            let file = dir.join("operator.password");
            secret_file::write(&file, password.secret().expose_secret().as_bytes())
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        let mut certs = CertsArgs::at(&dir.join("certs"));
        certs.name.extend(named(args.mqtt_addr.ip()));
        certs.make_for(&accounts)?;
        Ok(Self {
            dir,
            rules: Arc::new(Rules {
                accounts,
                passwords,
            }),
        })
    }

    /// What the broker is told.
    pub(super) fn security(&self) -> Security {
        Security {
            tls: ServerFiles {
                cert: self.certs("servers/broker.crt"),
                key: self.certs("servers/broker.key"),
                client_ca: Some(self.certs("ca.crt")),
                client_required: false,
            },
            rules: Arc::clone(&self.rules),
        }
    }

    /// The settings of a session to it, which trust it and are nobody's yet.
    pub(super) fn trusting(&self, mut mqtt: MqttArgs) -> MqttArgs {
        mqtt.mqtt_url.addr.tls = true;
        mqtt.mqtt_ca_file = Some(self.certs("ca.crt"));
        mqtt
    }

    /// Those of an account.
    pub(super) fn sign_in(&self, account: &str, mqtt: MqttArgs) -> MqttArgs {
        let password = self.rules.passwords.get(account);
        MqttArgs {
            mqtt_username: Some(account.to_owned()),
            mqtt_password: password.map(|password| password.secret().clone()),
            ..mqtt
        }
    }

    /// The file with the devices' passwords.
    pub(super) fn passwords_file(&self) -> PathBuf {
        self.dir.join("passwords.csv")
    }

    fn certs(&self, file: &str) -> PathBuf {
        self.dir.join("certs").join(file)
    }
}

/// How `mosquitto_pub` signs in, for the hints.
pub(super) fn for_mosquitto(data_dir: &Path) -> String {
    let dir = data_dir.join("secure");
    format!(
        " --cafile {0}/certs/ca.crt -i {OPERATOR} -u {OPERATOR} -P \"$(cat {0}/operator.password)\"",
        dir.display()
    )
}

/// How a command of ours does.
pub(super) fn for_fleet(data_dir: &Path) -> String {
    let dir = data_dir.join("secure");
    format!(
        " --mqtt-ca-file {0}/certs/ca.crt --mqtt-username {OPERATOR} --mqtt-password-file {0}/operator.password",
        dir.display()
    )
}

/// An address that its certificate has to name, beside those of loopback.
fn named(ip: IpAddr) -> Option<String> {
    (!ip.is_unspecified() && !ip.is_loopback()).then(|| ip.to_string())
}
