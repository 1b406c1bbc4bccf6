//! Which profile a run has: a built-in one, or a file.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::ProfileFile;
use crate::yaml::{self, FileError};

/// The built-in profiles: name and file.
const BUILT_IN: [(&str, &str); 3] = [
    ("tutorial", include_str!("../../profiles/tutorial.yaml")),
    ("mixed", include_str!("../../profiles/mixed.yaml")),
    ("load", include_str!("../../profiles/load.yaml")),
];

/// A built-in profile by its name, or a file by its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProfileName {
    /// One of `tutorial`, `mixed` and `load`.
    BuiltIn(&'static str),
    /// A YAML file.
    File(PathBuf),
}

impl ProfileName {
    /// Reads the file behind the name.
    ///
    /// # Errors
    /// When it is missing or no profile.
    pub fn load(&self) -> Result<ProfileFile, FileError> {
        match self {
            Self::BuiltIn(name) => {
                let text = BUILT_IN.iter().find(|(known, _)| known == name);
                ProfileFile::parse(text.map_or("", |(_, text)| text))
            }
            Self::File(path) => ProfileFile::parse(&yaml::open(path)?),
        }
    }
}

impl Default for ProfileName {
    fn default() -> Self {
        Self::BuiltIn(BUILT_IN[0].0)
    }
}

impl FromStr for ProfileName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((name, _)) = BUILT_IN.iter().find(|(name, _)| *name == text) {
            return Ok(Self::BuiltIn(name));
        }
        // A misspelt name is told from a path by the shape of a path.
        if text.contains(['/', '\\', '.']) {
            return Ok(Self::File(PathBuf::from(text)));
        }
        Err("give tutorial, mixed, load, or the path of a file such as ./mine.yaml".to_owned())
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn(name) => f.write_str(name),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::profile::{Profile, Setting};

    #[test]
    fn every_built_in_profile_is_a_good_file() {
        for (name, _) in BUILT_IN {
            let file = name.parse::<ProfileName>().unwrap().load().unwrap();
            let setting = Setting {
                seed: 1,
                start: Timestamp::UNIX_EPOCH,
                end: None,
                pace: 1.0,
            };
            let profile = Profile::new(file, setting).unwrap();
            assert!(
                profile
                    .schedule(1, std::time::Duration::ZERO)
                    .next()
                    .is_some()
            );
        }
    }

    #[test]
    fn a_misspelt_name_is_no_path() {
        assert!("tutoral".parse::<ProfileName>().is_err());
        assert_eq!(
            "./tutoral".parse(),
            Ok(ProfileName::File(PathBuf::from("./tutoral")))
        );
    }

    #[test]
    fn the_schema_is_that_of_the_types() {
        let schema = serde_json::to_string_pretty(&schemars::schema_for!(ProfileFile)).unwrap();
        let kept = include_str!("../../profiles/profile.schema.json");
        assert!(
            kept.trim_end() == schema,
            "put this into profiles/profile.schema.json:\n{schema}"
        );
    }

    #[test]
    fn what_is_wrong_in_a_file_is_named_with_its_place() {
        let error = |from: &str, to: &str| {
            let text = BUILT_IN[0].1.replacen(from, to, 1);
            assert_ne!(text, BUILT_IN[0].1);
            let setting = Setting {
                seed: 1,
                start: Timestamp::UNIX_EPOCH,
                end: None,
                pace: 1.0,
            };
            ProfileFile::parse(&text)
                .and_then(|file| Profile::new(file, setting))
                .unwrap_err()
                .to_string()
        };
        insta::assert_snapshot!(error("every: 5s", "evry: 5s"));
        insta::assert_snapshot!(error("every: 5s", "every: 5 s"));
        insta::assert_snapshot!(error("qos: 0", "qos: 3"));
        insta::assert_snapshot!(error("[10s, 60s]", "[60s, 10s]"));
        insta::assert_snapshot!(error("        every: 5s\n", ""));
        insta::assert_snapshot!(error("type: motion", "type: a/b"));
        insta::assert_snapshot!(error("firmware: 1.2.3", "firmware: ["));
    }
}
