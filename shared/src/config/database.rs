//! Where readings are stored.

use std::path::PathBuf;
use std::str::FromStr;

use secrecy::{ExposeSecret as _, SecretString};

use super::{ConfigError, secret};

const URL: &str = "--database-url (DATABASE_URL)";
const PASSWORD_FILE: &str = "--database-password-file (DATABASE_PASSWORD_FILE)";

/// Settings of the store; flatten it into the program's own.
#[derive(clap::Args, Clone, Debug)]
pub struct DatabaseArgs {
    /// Store of the readings: sqlite://FILE or postgres://USER@HOST/NAME.
    #[arg(
        long,
        env = "DATABASE_URL",
        hide_env_values = true,
        value_name = "URL",
        default_value = "sqlite://data/fleet.db",
        help_heading = "Store"
    )]
    pub database_url: DatabaseUrl,

    /// File that holds the password for a postgres URL without one.
    #[arg(
        long,
        env = "DATABASE_PASSWORD_FILE",
        value_name = "FILE",
        help_heading = "Store"
    )]
    pub database_password_file: Option<PathBuf>,
}

impl DatabaseArgs {
    /// The store with the password of the file in it.
    ///
    /// # Errors
    /// When the password file cannot be read, or there is no use for it.
    pub fn url(&self) -> Result<DatabaseUrl, ConfigError> {
        let Some(password) = secret(
            None,
            "",
            self.database_password_file.as_deref(),
            PASSWORD_FILE,
        )?
        else {
            return Ok(self.database_url.clone());
        };
        self.database_url.with_password(&password)
    }
}

/// A store: a file for SQLite, or a PostgreSQL server. `Debug` and `Display` show no password.
#[derive(Clone)]
pub enum DatabaseUrl {
    /// The database file; its folder must exist.
    Sqlite(PathBuf),
    /// The whole URL, which tokio-postgres parses; it may hold a password.
    Postgres(SecretString),
}

impl DatabaseUrl {
    fn with_password(&self, password: &SecretString) -> Result<Self, ConfigError> {
        let Self::Postgres(url) = self else {
            return Err(ConfigError::setting(
                PASSWORD_FILE,
                format!("{URL} is {self}, which has no password; leave the file out"),
            ));
        };
        let parts = PostgresParts::of(url.expose_secret());
        if parts.has_password() {
            return Err(ConfigError::setting(
                format!("{URL} and {PASSWORD_FILE}"),
                "both give a password; keep one of them",
            ));
        }
        let Some(user) = parts.user else {
            return Err(ConfigError::setting(
                URL,
                "a password needs a user; give postgres://USER@HOST/NAME",
            ));
        };
        let PostgresParts {
            scheme,
            hosts,
            tail,
            ..
        } = parts;
        let password = percent_encode(password.expose_secret());
        Ok(Self::Postgres(
            format!("{scheme}://{user}:{password}@{hosts}{tail}").into(),
        ))
    }
}

impl FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err("give sqlite://FILE or postgres://USER@HOST/NAME".to_owned());
        };
        match scheme {
            "sqlite" if rest.is_empty() => {
                Err("the file is missing; give sqlite://FILE".to_owned())
            }
            "sqlite" if rest.contains(['?', '#']) => {
                Err("sqlite:// takes a file and no parameters".to_owned())
            }
            "sqlite" => Ok(Self::Sqlite(PathBuf::from(rest))),
            "postgres" | "postgresql" if PostgresParts::of(text).hosts.is_empty() => {
                Err("the host is missing; give postgres://USER@HOST/NAME".to_owned())
            }
            "postgres" | "postgresql" => Ok(Self::Postgres(text.into())),
            other => Err(format!(
                "there is no store `{other}`; give sqlite://FILE or postgres://USER@HOST/NAME"
            )),
        }
    }
}

impl std::fmt::Display for DatabaseUrl {
    /// Without the password, and without parameters when one of them is a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            Self::Postgres(url) => {
                let parts = PostgresParts::of(url.expose_secret());
                write!(f, "{}://", parts.scheme)?;
                if let Some(user) = parts.user {
                    write!(f, "{user}@")?;
                }
                let tail = match parts.tail.split_once('?') {
                    Some((path, query)) if query.contains("password") => path,
                    _ => parts.tail,
                };
                write!(f, "{}{tail}", parts.hosts)
            }
        }
    }
}

impl std::fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// `scheme://user:password@host:port,host:port/name?parameters`, cut but not decoded. The `url`
/// crate cannot be used: it refuses the several hosts that PostgreSQL allows.
struct PostgresParts<'a> {
    scheme: &'a str,
    user: Option<&'a str>,
    password: Option<&'a str>,
    hosts: &'a str,
    tail: &'a str,
}

impl<'a> PostgresParts<'a> {
    fn of(url: &'a str) -> Self {
        let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", url));
        let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
        // A password with an unescaped slash ends the authority early; looking for the last `@`
        // of the whole keeps such a password out of logs.
        let at = rest.rfind('@');
        let (login, host_start) = match at {
            Some(at) => (Some(&rest[..at]), at + 1),
            None => (None, 0),
        };
        let authority_end = if authority_end < host_start {
            host_start
                + rest[host_start..]
                    .find(['/', '?'])
                    .unwrap_or(rest.len() - host_start)
        } else {
            authority_end
        };
        let (user, password) = match login.map(|login| login.split_once(':').ok_or(login)) {
            Some(Ok((user, password))) => (Some(user), Some(password)),
            Some(Err(user)) => (Some(user), None),
            None => (None, None),
        };
        Self {
            scheme,
            user: user.filter(|user| !user.is_empty()),
            password,
            hosts: &rest[host_start..authority_end],
            tail: &rest[authority_end..],
        }
    }

    fn has_password(&self) -> bool {
        self.password.is_some_and(|password| !password.is_empty())
            || self.tail.split_once('?').is_some_and(|(_, query)| {
                query
                    .split('&')
                    .any(|parameter| parameter.starts_with("password="))
            })
    }
}

fn percent_encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> DatabaseUrl {
        text.parse().unwrap()
    }

    #[test]
    fn sqlite_takes_relative_and_absolute_files() {
        for (text, file) in [
            ("sqlite://data/fleet.db", "data/fleet.db"),
            ("sqlite:///var/fleet.db", "/var/fleet.db"),
        ] {
            match parse(text) {
                DatabaseUrl::Sqlite(path) => assert_eq!(path, PathBuf::from(file)),
                DatabaseUrl::Postgres(_) => panic!("{text} is a file"),
            }
        }
    }

    #[test]
    fn what_is_no_store_is_refused() {
        for text in [
            "",
            "fleet.db",
            "mysql://h/d",
            "sqlite://",
            "sqlite://f?mode=ro",
            "postgres://",
            "postgres://u:p@/db",
        ] {
            assert!(text.parse::<DatabaseUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn no_form_of_password_is_shown() {
        for (text, shown) in [
            ("postgres://u:hidden@h:5432/d", "postgres://u@h:5432/d"),
            ("postgres://u:hid/hidden@h/d", "postgres://u@h/d"),
            (
                "postgres://u:hid@hidden@h/d?sslmode=require",
                "postgres://u@h/d?sslmode=require",
            ),
            (
                "postgresql://u:hidden@h1:1,h2:2/d",
                "postgresql://u@h1:1,h2:2/d",
            ),
            ("postgres://h/d?user=u&password=hidden", "postgres://h/d"),
            ("postgres://h", "postgres://h"),
        ] {
            let url = parse(text);
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), shown);
        }
    }

    #[test]
    fn password_is_escaped_into_the_url() {
        let url = parse("postgres://u@h1:1,h2:2/d?sslmode=require")
            .with_password(&"p@s:/é".into())
            .unwrap();
        let DatabaseUrl::Postgres(url) = url else {
            panic!("{url}")
        };
        assert_eq!(
            url.expose_secret(),
            "postgres://u:p%40s%3A%2F%C3%A9@h1:1,h2:2/d?sslmode=require"
        );
    }

    #[test]
    fn password_file_without_use_is_refused() {
        for text in [
            "sqlite://f",
            "postgres://u:p@h/d",
            "postgres://h/d",
            "postgres://h/d?password=x",
        ] {
            assert!(parse(text).with_password(&"p".into()).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "(postgres|sqlite|.*)://[a:@/?&é,=]*") {
            if let Ok(url) = text.parse::<DatabaseUrl>() {
                drop((url.to_string(), url.with_password(&"p".into())));
            }
        }
    }
}
