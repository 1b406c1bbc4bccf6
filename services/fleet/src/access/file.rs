//! The file that names the accounts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use fleet_shared::topic::{TopicFilter, TopicName};
use serde::Deserialize;

use super::{Account, Role};

/// Longest name of an account, in bytes: what a certificate's common name may hold.
const NAME_BYTES_MAX: usize = 64;

/// Largest file of accounts that is read: a million devices in one location each have 60 MB.
const FILE_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Every account, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts(BTreeMap<String, Account>);

/// Why a file of accounts cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccountsError {
    /// The operating system refuses.
    #[error("{}: cannot read it; `fleet accounts` writes one", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// It is no YAML, or a field is unknown or of the wrong form.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        reason: String,
    },
    /// A name or a topic breaks a rule.
    #[error("account `{name}`: {rule}")]
    Rule {
        /// The account.
        name: String,
        /// What it breaks, and what to write instead.
        rule: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountsFile {
    #[serde(default)]
    services: BTreeMap<String, ServiceFile>,
    #[serde(default)]
    devices: BTreeMap<String, DeviceFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceFile {
    role: Option<String>,
    #[serde(default)]
    publish: Vec<String>,
    #[serde(default)]
    subscribe: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceFile {
    #[serde(default)]
    locations: Vec<String>,
    #[serde(default)]
    publish: Vec<String>,
    #[serde(default)]
    subscribe: Vec<String>,
}

impl Accounts {
    /// One account for every service, and those of `devices`: id and locations.
    ///
    /// # Errors
    /// A name or a location that cannot be used.
    pub fn usual(
        devices: impl IntoIterator<Item = (String, Vec<String>)>,
    ) -> Result<Self, AccountsError> {
        let mut accounts = Self::default();
        for (name, role) in Role::SERVICES {
            accounts.add(Account::service(name, role))?;
        }
        for (id, locations) in devices {
            accounts.add_device(&id, &locations)?;
        }
        accounts.check_names()?;
        Ok(accounts)
    }

    /// Reads a file of accounts.
    ///
    /// # Errors
    /// A file that cannot be read or understood, or a name or topic that cannot be used.
    pub fn open(path: &Path) -> Result<Self, AccountsError> {
        use std::io::Read as _;
        let unreadable = |source| AccountsError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let mut text = String::new();
        std::fs::File::open(path)
            .map_err(unreadable)?
            .take(FILE_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(unreadable)?;
        Self::parse(&text).map_err(|error| match error {
            AccountsError::Malformed { reason, .. } => AccountsError::Malformed {
                path: path.to_owned(),
                reason,
            },
            other => other,
        })
    }

    /// Reads the text of such a file.
    ///
    /// # Errors
    /// As [`Accounts::open`].
    pub fn parse(text: &str) -> Result<Self, AccountsError> {
        let file: AccountsFile =
            serde_saphyr::from_str(text).map_err(|error| AccountsError::Malformed {
                path: PathBuf::from("accounts"),
                reason: error.to_string(),
            })?;
        let mut accounts = Self::default();
        for (name, service) in file.services {
            let role = service.role.as_deref().unwrap_or(&name);
            let Some(role) = Role::named(role) else {
                let known = Role::SERVICES.map(|(name, _)| name).join(", ");
                let rule = format!("there is no role `{role}`; give `role:` one of {known}");
                return Err(AccountsError::Rule { name, rule });
            };
            let mut account = Account::service(&name, role);
            account.publish.extend(service.publish);
            account.subscribe.extend(service.subscribe);
            accounts.add(account)?;
        }
        for (id, device) in file.devices {
            let account = accounts.add_device(&id, &device.locations)?;
            account.publish.extend(device.publish);
            account.subscribe.extend(device.subscribe);
            check_filters(account)?;
        }
        accounts.check_names()?;
        Ok(accounts)
    }

    /// The text of a file that has these accounts, as long as none was given more than its role.
    #[must_use]
    pub fn to_yaml(devices: &[(String, Vec<String>)]) -> String {
        let mut text = String::from(
            "# Who may use the broker. After a change, run `fleet accounts` again.\n\
             #\n\
             # A service may do what it needs, and what is added here:\n\
             #   bridge: {subscribe: [\"$share/bridge/plant/#\"]}\n\
             #   ingest: {subscribe: [\"$share/ingest/tele/+/SENSOR\"]}\n\
             services:\n",
        );
        for (name, _) in Role::SERVICES {
            text += &format!("  {name}: {{}}\n");
        }
        text += "\n# A device may publish readings of its locations; `barn/#` stands for all below barn.\ndevices:\n";
        for (id, locations) in devices {
            let locations: Vec<_> = locations.iter().map(|it| quoted(it)).collect();
            // Writing to a string cannot fail.
            writeln!(
                text,
                "  {}: {{locations: [{}]}}",
                quoted(id),
                locations.join(", ")
            )
            .ok();
        }
        if devices.is_empty() {
            text += "  {}\n";
        }
        text
    }

    /// The account of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Account> {
        self.0.get(name)
    }

    /// Every account, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = &Account> {
        self.0.values()
    }

    fn add(&mut self, account: Account) -> Result<&mut Account, AccountsError> {
        check_filters(&account)?;
        let name = account.name.clone();
        if self.0.contains_key(&name) {
            let rule = "there are two accounts of that name; rename one".to_owned();
            return Err(AccountsError::Rule { name, rule });
        }
        Ok(self.0.entry(name).or_insert(account))
    }

    fn add_device(
        &mut self,
        id: &str,
        locations: &[String],
    ) -> Result<&mut Account, AccountsError> {
        for location in locations {
            let plain = location.strip_suffix("/#").unwrap_or(location);
            if TopicName::parse(format!("sensors/{plain}/x")).is_err() || plain.is_empty() {
                return Err(AccountsError::Rule {
                    name: id.to_owned(),
                    rule: format!(
                        "`{location}` is no location; write topic levels without wildcards, `/#` at the end for all below"
                    ),
                });
            }
        }
        self.add(Account::device(id, locations))
    }

    /// Names that fit in every broker's files, and devices that cannot pass for a service.
    fn check_names(&self) -> Result<(), AccountsError> {
        for account in self.iter() {
            let name = &account.name;
            let refused = |rule: String| AccountsError::Rule {
                name: name.escape_debug().to_string(),
                rule,
            };
            let fits = name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
            if name.is_empty() || name.len() > NAME_BYTES_MAX || !fits {
                return Err(refused(format!(
                    "the name is used in topics, files and certificates: 1 to {NAME_BYTES_MAX} letters, digits, `.`, `_` and `-`"
                )));
            }
            if account.role == Role::Device
                && let Some(service) = self
                    .iter()
                    .find(|it| it.role != Role::Device && it.may_connect_as(name))
            {
                return Err(refused(format!(
                    "a device of that name would have the client id of `{}`; rename it",
                    service.name
                )));
            }
        }
        Ok(())
    }
}

fn check_filters(account: &Account) -> Result<(), AccountsError> {
    let refused = |filter: &str, reason: &dyn std::fmt::Display| AccountsError::Rule {
        name: account.name.clone(),
        rule: format!("`{filter}` is no topic filter: {reason}"),
    };
    for filter in account.publish.iter().chain(&account.subscribe) {
        TopicFilter::parse(filter.as_str()).map_err(|error| refused(filter, &error))?;
        // They would end a line or a string in a broker's file.
        if filter.contains(['"', '\\']) || filter.chars().any(char::is_control) {
            return Err(refused(
                filter,
                &"quotes, backslashes and control characters cannot be written to the brokers' files",
            ));
        }
    }
    match account.publish.iter().find(|it| it.starts_with('$')) {
        Some(filter) => Err(refused(
            filter,
            &"nothing is published to a share or to the broker's own topics",
        )),
        None => Ok(()),
    }
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Action;

    #[test]
    fn what_is_written_is_read_back() {
        let devices = [
            (
                "sensor-001".to_owned(),
                vec!["kitchen".to_owned(), "barn/#".to_owned()],
            ),
            ("sensor-002".to_owned(), vec![]),
        ];
        let text = Accounts::to_yaml(&devices);
        assert_eq!(
            Accounts::parse(&text).unwrap(),
            Accounts::usual(devices).unwrap(),
            "{text}"
        );
        assert_eq!(
            Accounts::parse(&Accounts::to_yaml(&[])).unwrap(),
            Accounts::usual([]).unwrap()
        );
    }

    #[test]
    fn accounts_can_be_given_more_than_their_role() {
        let accounts = Accounts::parse(
            "services:\n  ingest: {subscribe: [\"$share/ingest/tele/+/SENSOR\"]}\n  grafana: {role: viewer}\n\
             devices:\n  plug-1: {publish: [\"tele/plug-1/+\"]}\n",
        )
        .unwrap();
        let may = |name: &str, action, topic| accounts.get(name).unwrap().may(action, topic);
        assert!(may(
            "ingest",
            Action::Subscribe,
            "$share/ingest/tele/+/SENSOR"
        ));
        assert!(may("grafana", Action::Subscribe, "sensors/#"));
        assert!(may("plug-1", Action::Publish, "tele/plug-1/SENSOR"));
        assert!(!may("plug-1", Action::Publish, "tele/plug-2/SENSOR"));
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_the_name_and_the_remedy() {
        for (text, expected) in [
            ("devices:\n  ingest-1: {}\n", "client id of `ingest`"),
            ("devices:\n  \"a b\": {}\n", "letters, digits"),
            ("devices:\n  a: {locations: [\"x/+\"]}\n", "is no location"),
            ("devices:\n  a: {locations: [\"\"]}\n", "is no location"),
            ("devices:\n  a: {publish: [\"x/#/y\"]}\n", "no topic filter"),
            ("devices:\n  a: {publish: [\"$SYS/x\"]}\n", "own topics"),
            ("devices:\n  a: {publish: ['x\"y']}\n", "quotes"),
            ("services:\n  x: {}\n", "no role `x`"),
            ("services:\n  ingest: {colour: red}\n", "colour"),
            (
                "devices:\n  ingest: {}\nservices:\n  ingest: {}\n",
                "two accounts",
            ),
            ("nothing", ""),
        ] {
            let services = if text.contains("services") {
                ""
            } else {
                "services:\n  ingest: {}\n"
            };
            let error = Accounts::parse(&format!("{services}{text}"))
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
