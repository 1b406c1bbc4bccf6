//! Settings from a TOML file: one file may serve every program.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::builder::OsStr;
use clap::{Arg, ArgAction, Args as _, Command};
use toml::{Table, Value};

use super::{Common, ConfigError, DatabaseArgs, MqttArgs, usage};

/// A table in the file must be named after one of them, so that a misspelt one is noticed.
const PROGRAMS: [&str; 6] = [
    "device-sim",
    "ingest",
    "alerting",
    "status-tracker",
    "bridge",
    "fleet",
];

/// Larger than any settings file; a device or an endless pipe must not be read for ever.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A settings file, read and parsed.
pub(super) struct SettingsFile {
    path: PathBuf,
    table: Table,
}

/// Settings by flag name.
type Settings<'a> = BTreeMap<String, &'a Value>;

impl SettingsFile {
    /// Reads `path`; `setting` says who named it.
    pub(super) fn read(path: &Path, setting: &str) -> Result<Self, ConfigError> {
        use std::io::Read as _;

        let unreadable = |source| ConfigError::Unreadable {
            setting: setting.to_owned(),
            path: path.to_owned(),
            source,
        };
        let mut text = String::new();
        std::fs::File::open(path)
            .map_err(unreadable)?
            .take(FILE_BYTES_MAX + 1)
            .read_to_string(&mut text)
            .map_err(unreadable)?;
        let mut file = Self {
            path: path.to_owned(),
            table: Table::new(),
        };
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(file.problem(format!(
                "it is longer than {FILE_BYTES_MAX} bytes; name a TOML settings file"
            )));
        }
        file.table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| {
                text.as_bytes()[..span.start.min(text.len())]
                    .iter()
                    .filter(|byte| **byte == b'\n')
                    .count()
                    + 1
            });
            file.problem(format!(
                "line {line} is not TOML: {}",
                error.message().replace('\n', ", ")
            ))
        })?;
        Ok(file)
    }

    /// Makes the file's values the defaults of the command and its subcommands, so that flags
    /// and variables stay above them.
    pub(super) fn apply(&self, program: &str, command: Command) -> Result<Command, ConfigError> {
        let own = flags(&command);
        let mut shared = Command::new("shared");
        shared = MqttArgs::augment_args(DatabaseArgs::augment_args(Common::augment_args(shared)));
        let known: BTreeSet<_> = own.union(&flags(&shared)).cloned().collect();

        let mut section = None;
        for (name, value) in &self.table {
            let Value::Table(table) = value else { continue };
            if name == program {
                section = Some(table);
            } else if !PROGRAMS.contains(&name.as_str()) {
                let nearest = nearest(name, PROGRAMS);
                return Err(self.problem(format!(
                    "table [{name}] is of no program{}",
                    did_you_mean(nearest, "[", "]")
                )));
            }
        }
        let mut settings = self.settings("", &self.table, &known)?;
        if let Some(table) = section {
            settings.extend(self.settings(&format!("in [{program}] "), table, &own)?);
        }
        self.apply_to(program, command, &settings, section)
    }

    fn apply_to(
        &self,
        name: &str,
        mut command: Command,
        settings: &Settings<'_>,
        section: Option<&Table>,
    ) -> Result<Command, ConfigError> {
        let matching: Vec<_> = command
            .get_arguments()
            .filter_map(|arg| Some((arg.get_id().clone(), *settings.get(arg.get_long()?)?)))
            .collect();
        for (id, value) in matching {
            let mut defaults = Ok(Vec::new());
            command = command.mut_arg(id, |arg| {
                defaults = self.defaults(&arg, value);
                match &defaults {
                    Ok(values) => {
                        // What is secret in the environment is secret in the file too.
                        let secret = arg.is_hide_env_values_set();
                        arg.required(false)
                            .default_values(values)
                            .hide_default_value(secret)
                    }
                    Err(_) => arg,
                }
            });
            defaults?;
        }

        let subcommands: Vec<_> = command
            .get_subcommands()
            .map(|command| command.get_name().to_owned())
            .collect();
        if let Some(table) = section {
            for (key, _) in table.iter().filter(|(_, value)| value.is_table()) {
                if !subcommands.contains(key) {
                    let nearest = nearest(key, subcommands.iter().map(String::as_str));
                    return Err(self.problem(format!(
                        "[{name}.{key}] is of no command{}",
                        did_you_mean(nearest, "", "")
                    )));
                }
            }
        }
        for subcommand in subcommands {
            let section = section
                .and_then(|table| table.get(&subcommand))
                .and_then(Value::as_table);
            let full_name = format!("{name}.{subcommand}");
            let mut settings = settings.clone();
            let mut failed = None;
            command = command.mut_subcommand(&subcommand, |subcommand| {
                let applied = match section {
                    Some(table) => self
                        .settings(&format!("in [{full_name}] "), table, &flags(&subcommand))
                        .map(|own| settings.extend(own)),
                    None => Ok(()),
                }
                .and_then(|()| self.apply_to(&full_name, subcommand.clone(), &settings, section));
                applied.unwrap_or_else(|error| {
                    failed = Some(error);
                    subcommand
                })
            });
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(command)
    }

    /// The keys of one table that are not tables, as flag names.
    fn settings<'a>(
        &self,
        place: &str,
        table: &'a Table,
        known: &BTreeSet<String>,
    ) -> Result<Settings<'a>, ConfigError> {
        let mut settings = Settings::new();
        for (key, value) in table.iter().filter(|(_, value)| !value.is_table()) {
            let flag = key.replace('_', "-");
            if flag == "config" {
                return Err(self.problem(format!(
                    "{place}`{key}` cannot be set: a file does not name another; remove it"
                )));
            }
            if !known.contains(&flag) {
                let nearest = nearest(&flag, known.iter().map(String::as_str));
                return Err(self.problem(format!(
                    "{place}`{key}` is no setting{}",
                    did_you_mean(nearest, "`", "`")
                )));
            }
            if settings.insert(flag.clone(), value).is_some() {
                return Err(self.problem(format!(
                    "{place}`{flag}` is set twice, with dashes and underscores; keep one"
                )));
            }
        }
        Ok(settings)
    }

    /// The value as default values of the argument, each checked: clap takes defaults unchecked.
    fn defaults(&self, arg: &Arg, value: &Value) -> Result<Vec<OsStr>, ConfigError> {
        let flag = arg.get_long().unwrap_or_default();
        let items = match value {
            Value::Array(items) => items.as_slice(),
            single => std::slice::from_ref(single),
        };
        let takes_several = matches!(arg.get_action(), ArgAction::Append)
            || arg.get_value_delimiter().is_some()
            || arg
                .get_num_args()
                .is_some_and(|range| range.max_values() > 1);
        if value.is_array() && !takes_several {
            return Err(self.problem(format!(
                "`{flag}` is a list, but takes one value; give `{flag} = …` without brackets"
            )));
        }
        let mut defaults = Vec::with_capacity(items.len());
        for item in items {
            let text = match item {
                Value::String(text) => text.clone(),
                Value::Integer(number) => number.to_string(),
                Value::Float(number) => number.to_string(),
                Value::Boolean(flag) => flag.to_string(),
                Value::Datetime(time) => time.to_string(),
                Value::Array(_) | Value::Table(_) => {
                    return Err(self.problem(format!(
                        "`{flag}` is a list of lists; give a list of values"
                    )));
                }
            };
            if let Err(error) = usage::probe(arg, &text) {
                let shown = match usage::shown(arg, &text) {
                    Some(value) => format!(" is `{value}`"),
                    None => String::new(),
                };
                return Err(self.problem(format!("`{flag}`{shown}: {}", usage::reason(&error))));
            }
            defaults.push(OsStr::from(text));
        }
        Ok(defaults)
    }

    fn problem(&self, problem: String) -> ConfigError {
        ConfigError::File {
            path: self.path.clone(),
            problem,
        }
    }
}

/// Every flag of a command and its subcommands that a file may set.
fn flags(command: &Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter_map(Arg::get_long);
    own.filter(|flag| !matches!(*flag, "config" | "help" | "version"))
        .map(str::to_owned)
        .chain(command.get_subcommands().flat_map(flags))
        .collect()
}

fn did_you_mean(nearest: Option<&str>, open: &str, close: &str) -> String {
    match nearest {
        Some(name) => format!("; did you mean {open}{name}{close}?"),
        None => "; see --help for what can be set".to_owned(),
    }
}

/// The most similar name, if it is similar enough to be a slip of the keyboard.
fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    names
        .into_iter()
        .map(|candidate| (edits(name, candidate), candidate))
        .min()
        .filter(|(edits, candidate)| *edits <= candidate.len().div_ceil(3))
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance, by rows.
fn edits(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(l != *r);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_insertions_deletions_and_substitutions() {
        for (left, right, distance) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
        ] {
            assert_eq!(edits(left, right), distance, "{left} {right}");
        }
    }
}
