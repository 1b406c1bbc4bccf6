//! What each device proves its identity with: a password, a certificate, or both.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fleet_shared::config::ConfigError;
use fleet_shared::session::Options;
use secrecy::SecretString;

/// Largest file of passwords that is read: a million devices have 80 MB.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Credentials of devices. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Credentials {
    passwords: Option<Arc<HashMap<String, SecretString>>>,
    certificates: Option<Arc<Path>>,
}

impl Credentials {
    /// Reads the passwords; certificates are read by each connection.
    pub(crate) fn open(
        passwords: Option<&Path>,
        certificates: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            passwords: passwords.map(read).transpose()?.map(Arc::new),
            certificates: certificates.map(Arc::from),
        })
    }

    /// Puts those of a device into its options: its user name is its id.
    pub(crate) fn apply(&self, device_id: &str, options: &mut Options) {
        if let Some(passwords) = &self.passwords {
            options.username = Some(device_id.to_owned());
            options.password = passwords.get(device_id).cloned();
        }
        if let Some(folder) = &self.certificates {
            let file =
                |end: &str| -> Option<PathBuf> { Some(folder.join(format!("{device_id}.{end}"))) };
            options.tls.cert_file = file("crt");
            options.tls.key_file = file("key");
        }
    }
}

/// Lines `account,password`, more fields are left out; no message holds any of it.
fn read(path: &Path) -> Result<HashMap<String, SecretString>, ConfigError> {
    use std::io::Read as _;

    const SETTING: &str = "--device-passwords (SIM_DEVICE_PASSWORDS)";
    let refused = |remedy: String| ConfigError::value(SETTING, path.display(), remedy);
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
        .map_err(|error| {
            refused(format!(
                "cannot read it ({error}); `fleet accounts` writes one"
            ))
        })?;
    let mut passwords = HashMap::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() || (index == 0 && line.starts_with("account,")) {
            continue;
        }
        let mut fields = line.split(',');
        match (fields.next(), fields.next()) {
            (Some(name), Some(password)) if !name.is_empty() && !password.is_empty() => {
                passwords.insert(name.to_owned(), SecretString::from(password));
            }
            _ => {
                return Err(refused(format!(
                    "line {} is not `account,password`; `fleet accounts` writes such a file",
                    index + 1
                )));
            }
        }
    }
    Ok(passwords)
}

#[cfg(test)]
mod tests {
    use fleet_shared::session::BrokerAddr;
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn each_device_has_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("passwords.csv");
        std::fs::write(&file, "account,password,salt\nd1,one,x\nd2,two\n").unwrap();
        let credentials = Credentials::open(Some(&file), Some(folder.path())).unwrap();
        let broker = BrokerAddr {
            host: "localhost".to_owned(),
            port: 8_883,
            tls: true,
        };
        let mut options = Options::new(broker, "d2".to_owned());
        credentials.apply("d2", &mut options);
        assert_eq!(options.username.as_deref(), Some("d2"));
        assert_eq!(options.password.unwrap().expose_secret(), "two");
        assert_eq!(options.tls.key_file, Some(folder.path().join("d2.key")));
    }

    #[test]
    fn a_broken_file_is_named_without_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("passwords.csv");
        std::fs::write(&file, "d1,one\nhunter2\n").unwrap();
        let error = Credentials::open(Some(&file), None)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("line 2") && !error.contains("hunter2"),
            "{error}"
        );
    }
}
