//! Passwords of accounts: made by chance, kept in one file, given to brokers as hashes.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rand::Rng as _;
use ring::{digest, pbkdf2};
use secrecy::{ExposeSecret as _, SecretString};

use super::Accounts;
use crate::secret_file;

/// Chance in a password: 192 bits, which no number of guesses finds.
const PASSWORD_BYTES: usize = 24;
const SALT_BYTES: usize = 12;
/// What `mosquitto_passwd` uses. Slowness protects passwords that people choose; these are made by
/// chance, and a broker computes it for every device that connects.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(101).expect("101 is not zero");

/// A password and the salt of its hashes, which stay the same from run to run.
#[derive(Clone, Debug)]
pub struct Password {
    secret: SecretString,
    salt: String,
}

/// The passwords of accounts, by name.
#[derive(Clone, Debug, Default)]
pub struct Passwords(BTreeMap<String, Password>);

/// Why the file of passwords cannot be used. No message holds one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PasswordsError {
    /// The operating system refuses.
    #[error("{}: cannot read or write the file of passwords", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// A line is not `account,password,salt`.
    #[error("{}: line {line} is not `account,password,salt`; delete the line for a new password", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
}

impl Password {
    /// A new one.
    #[must_use]
    pub fn generate() -> Self {
        let mut secret = [0; PASSWORD_BYTES];
        let mut salt = [0; SALT_BYTES];
        let mut chance = rand::rng();
        chance.fill_bytes(&mut secret);
        chance.fill_bytes(&mut salt);
        Self {
            secret: URL_SAFE_NO_PAD.encode(secret).into(),
            salt: STANDARD.encode(salt),
        }
    }

    /// The password itself.
    #[must_use]
    pub fn secret(&self) -> &SecretString {
        &self.secret
    }

    /// Salt, rounds and hash as Mosquitto keeps them: PBKDF2 with SHA-512.
    #[must_use]
    pub fn pbkdf2(&self) -> (&str, u32, String) {
        let mut hash = [0; 64];
        let salt = STANDARD.decode(&self.salt).unwrap_or_default();
        let secret = self.secret.expose_secret().as_bytes();
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA512,
            ITERATIONS,
            &salt,
            secret,
            &mut hash,
        );
        (&self.salt, ITERATIONS.get(), STANDARD.encode(hash))
    }

    /// Salt and hash as EMQX takes them: SHA-256 in hexadecimal, the salt's text first.
    #[must_use]
    pub fn sha256(&self) -> (&str, String) {
        let mut input = digest::Context::new(&digest::SHA256);
        input.update(self.salt.as_bytes());
        input.update(self.secret.expose_secret().as_bytes());
        let hash = input.finish();
        let hash = hash.as_ref().iter().map(|byte| format!("{byte:02x}"));
        (&self.salt, hash.collect())
    }
}

impl Passwords {
    /// Those of a file; none when it is not there.
    ///
    /// # Errors
    /// A file that cannot be read or understood.
    pub fn open(path: &Path) -> Result<Self, PasswordsError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(source) => {
                return Err(PasswordsError::Io {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let mut passwords = Self::default();
        for (index, line) in text.lines().enumerate() {
            if line.trim().is_empty() || (index == 0 && line.starts_with("account,")) {
                continue;
            }
            let malformed = || PasswordsError::Malformed {
                path: path.to_owned(),
                line: index + 1,
            };
            let mut fields = line.split(',');
            let (Some(name), Some(secret), Some(salt), None) =
                (fields.next(), fields.next(), fields.next(), fields.next())
            else {
                return Err(malformed());
            };
            if name.is_empty() || secret.is_empty() || STANDARD.decode(salt).is_err() {
                return Err(malformed());
            }
            let password = Password {
                secret: secret.into(),
                salt: salt.to_owned(),
            };
            passwords.0.insert(name.to_owned(), password);
        }
        Ok(passwords)
    }

    /// Gives every account a password that has none, or whose is to be renewed, and takes away
    /// those of accounts that are gone. Says how many are new.
    pub fn complete(&mut self, accounts: &Accounts, renewed: impl Fn(&str) -> bool) -> usize {
        self.0.retain(|name, _| accounts.get(name).is_some());
        let mut made = 0;
        for account in accounts.iter() {
            if renewed(&account.name) || !self.0.contains_key(&account.name) {
                self.0.insert(account.name.clone(), Password::generate());
                made += 1;
            }
        }
        made
    }

    /// The password of an account.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Password> {
        self.0.get(name)
    }

    /// Writes the file, readable by its owner only.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), PasswordsError> {
        let mut text = String::from("account,password,salt\n");
        for (name, password) in &self.0 {
            let Password { secret, salt } = password;
            text += &format!("{name},{},{salt}\n", secret.expose_secret());
        }
        secret_file::write(path, text.as_bytes()).map_err(|source| PasswordsError::Io {
            path: path.to_owned(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `mosquitto_passwd` wrote for `ingest` with that salt.
    #[test]
    fn the_hash_is_the_one_mosquitto_makes() {
        let password = Password {
            secret: "ingest".into(),
            salt: "NQX41LDktu778uDR".to_owned(),
        };
        let (_, rounds, hash) = password.pbkdf2();
        assert_eq!(rounds, 101);
        assert_eq!(
            hash,
            "g01RVmRt9FQsEaxpColhL8lV8dhi/psCUwJEyVSrWnZZCQnxlG3eXxbtsKkrhFFu8V/JdymvM8Pfg1v3ALBvkA=="
        );
    }

    #[test]
    fn passwords_stay_until_they_are_renewed_or_their_account_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("passwords.csv");
        let all = Accounts::usual([("d1".to_owned(), vec![])]).unwrap();
        let mut first = Passwords::open(&file).unwrap();
        assert_eq!(first.complete(&all, |_| false), 7);
        first.save(&file).unwrap();
        let text = std::fs::read(&file).unwrap();

        let mut second = Passwords::open(&file).unwrap();
        assert_eq!(second.complete(&all, |_| false), 0);
        second.save(&file).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), text, "nothing has changed");

        let fewer = Accounts::usual([]).unwrap();
        assert_eq!(second.complete(&fewer, |name| name == "viewer"), 1);
        let secret = |passwords: &Passwords, name: &str| {
            passwords
                .get(name)
                .unwrap()
                .secret()
                .expose_secret()
                .to_owned()
        };
        assert!(second.get("d1").is_none());
        assert_ne!(secret(&first, "viewer"), secret(&second, "viewer"));
        assert_eq!(secret(&first, "ingest"), secret(&second, "ingest"));
    }

    #[test]
    fn a_broken_line_is_named_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("passwords.csv");
        std::fs::write(&file, "account,password,salt\ningest,hunter2\n").unwrap();
        let error = Passwords::open(&file).unwrap_err().to_string();
        assert!(
            error.contains("line 2") && !error.contains("hunter2"),
            "{error}"
        );
    }
}
