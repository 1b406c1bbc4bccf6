//! Brokers with accounts and certificates.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fleet::access::{self, Accounts, Passwords};
use fleet::broker::{BrokerOptions, EmbeddedBroker, Rules, Security};
use fleet::certs::CertsArgs;
use fleet_shared::session::{BrokerAddr, ConnectionEvent, Options, Publish, QoS};
use fleet_shared::tls::ServerFiles;
use fleet_tests::{Acknowledge, Client, Mosquitto, Setup, TempDir, eventually};

/// For what should happen at once, on a loaded machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Accounts, their passwords and certificates, in a folder.
pub(crate) struct Trust {
    pub(crate) dir: TempDir,
    pub(crate) accounts: Accounts,
    pub(crate) passwords: Passwords,
}

impl Trust {
    pub(crate) fn of(accounts: Accounts) -> Self {
        let dir = TempDir::new().unwrap();
        let mut passwords = Passwords::default();
        passwords.complete(&accounts, |_| false);
        let args = CertsArgs::at(&dir.path().join("certs"));
        args.make_for(&accounts).unwrap();
        Self {
            dir,
            accounts,
            passwords,
        }
    }

    pub(crate) fn certs(&self, file: &str) -> PathBuf {
        self.dir.path().join("certs").join(file)
    }

    /// Options of an account that gives its password.
    pub(crate) fn with_password(&self, broker: BrokerAddr, name: &str) -> Options {
        let mut options = self.anonymous(broker, name);
        options.username = Some(name.to_owned());
        options.password = self.passwords.get(name).map(|it| it.secret().clone());
        options
    }

    /// Options of an account that shows its certificate.
    pub(crate) fn with_certificate(&self, broker: BrokerAddr, name: &str) -> Options {
        let mut options = self.anonymous(broker, name);
        options.tls.cert_file = Some(self.certs(&format!("accounts/{name}.crt")));
        options.tls.key_file = Some(self.certs(&format!("accounts/{name}.key")));
        options
    }

    /// Options that trust the broker, and prove nothing.
    pub(crate) fn anonymous(&self, broker: BrokerAddr, client_id: &str) -> Options {
        let mut options = Options::new(broker, client_id.to_owned());
        options.tls.ca_file = Some(self.certs("ca.crt"));
        options.reconnect.first = Duration::from_millis(50);
        options.reconnect.max = Duration::from_secs(1);
        options.session_expiry = Duration::ZERO;
        options
    }

    /// A Mosquitto with the plugin, and these listeners' certificate.
    pub(crate) async fn mosquitto(&self, certificates: bool) -> Mosquitto {
        let rules = self.write(
            "dynamic-security.json",
            &access::dynamic_security(&self.accounts, &self.passwords),
        );
        self.mosquitto_with(
            certificates,
            vec![
                "plugin mosquitto_dynamic_security.so".to_owned(),
                format!("plugin_opt_config_file {}", rules.display()),
            ],
        )
        .await
    }

    /// A Mosquitto with ACL and password file; `more` is added to the ACL.
    pub(crate) async fn mosquitto_with_files(&self, more: &str) -> Mosquitto {
        let acl = access::acl_file(&self.accounts) + more;
        let acl = self.write("acl", &acl);
        let passwords = access::password_file(&self.accounts, &self.passwords);
        let passwords = self.write("passwords", &passwords);
        self.mosquitto_with(
            false,
            vec![
                format!("acl_file {}", acl.display()),
                format!("password_file {}", passwords.display()),
            ],
        )
        .await
    }

    async fn mosquitto_with(&self, certificates: bool, rules: Vec<String>) -> Mosquitto {
        let mut lines = vec![
            "allow_anonymous false".to_owned(),
            format!("certfile {}", self.certs("servers/broker.crt").display()),
            format!("keyfile {}", self.certs("servers/broker.key").display()),
        ];
        if certificates {
            lines.push(format!("cafile {}", self.certs("ca.crt").display()));
            lines.push("require_certificate true".to_owned());
            lines.push("use_identity_as_username true".to_owned());
        }
        lines.extend(rules);
        Mosquitto::with(Setup { lines, tls: None }).await
    }

    /// The embedded broker: passwords and certificates on one port.
    pub(crate) fn embedded(&self) -> EmbeddedBroker {
        let security = Security {
            tls: ServerFiles {
                cert: self.certs("servers/broker.crt"),
                key: self.certs("servers/broker.key"),
                client_ca: Some(self.certs("ca.crt")),
                client_required: false,
            },
            rules: Arc::new(Rules {
                accounts: self.accounts.clone(),
                passwords: self.passwords.clone(),
            }),
        };
        let anywhere = "127.0.0.1:0".parse().unwrap();
        let options = BrokerOptions {
            security: Some(security),
            ..BrokerOptions::default()
        };
        EmbeddedBroker::start_with(anywhere, self.dir.path(), options).unwrap()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    }
}

/// Where a broker listens with TLS, under the name of its certificate.
pub(crate) fn tls(port: u16) -> BrokerAddr {
    BrokerAddr {
        host: "localhost".to_owned(),
        port,
        tls: true,
    }
}

/// A connected client.
pub(crate) async fn connected(options: Options) -> Client {
    Client::connected(options, Acknowledge::AtOnce).await
}

/// Why a client is not let in, as its operator reads it.
pub(crate) async fn refusal(options: Options) -> String {
    let client = Client::start(options, Acknowledge::AtOnce);
    eventually(SOON, "the client is told why not", async || {
        let events = client.events();
        let told = events.first().map(|event| match event {
            ConnectionEvent::Down { error, .. } | ConnectionEvent::Failed { error } => {
                error.to_string()
            }
            ConnectionEvent::Up { .. } => panic!("the client got in"),
        });
        told.ok_or(events)
    })
    .await
}

/// A message to a topic, to be acknowledged.
pub(crate) fn message(topic: &str, payload: &str) -> Publish {
    Publish::new(topic.to_owned(), "test", payload.to_owned()).qos(QoS::AtLeastOnce)
}

/// Reads a file of a test's folder.
pub(crate) fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}
