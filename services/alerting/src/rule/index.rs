//! All rules of a file, and which of them look at a topic.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use fleet_shared::topic::Trie;
use jiff::Timestamp;

use super::file::parse;
use super::{Rule, RuleError};
use crate::roomy::roomy;

/// Largest file of rules that is read, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Labels of a rule, which go into each of its alerts.
const LABELS_MAX: usize = 32;

/// The rules of one file. Finding those that look at a topic costs by how many there are, not by
/// how many rules the file has: topics are found in a trie, one for each type that rules name.
#[derive(Debug, Default)]
pub struct RuleSet {
    rules: Vec<Arc<Rule>>,
    by_name: HashMap<String, u32>,
    any_kind: Trie<u32>,
    by_kind: HashMap<String, Trie<u32>>,
    source: String,
    loaded_at: Option<Timestamp>,
}

impl RuleSet {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Vec<RuleError>> {
        let rules = roomy(|| parse(text)).map_err(|error| vec![RuleError::thread(&error)])??;
        Self::new(rules).map_err(|error| vec![error])
    }

    /// Reads a file.
    ///
    /// # Errors
    /// That it cannot be read, or everything that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, Vec<RuleError>> {
        let refused = |message| {
            vec![RuleError {
                line: 0,
                column: 0,
                message,
            }]
        };
        let mut text = String::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
            .map_err(|error| refused(format!("the file cannot be read: {error}")))?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(refused(format!(
                "the file is larger than {FILE_BYTES_MAX} bytes; is it the right one?"
            )));
        }
        Self::parse(&text)
    }

    fn new(rules: Vec<Rule>) -> Result<Self, RuleError> {
        let refused = |message: String| RuleError {
            line: 0,
            column: 0,
            message,
        };
        let mut set = Self::default();
        for (id, rule) in (0..).zip(rules) {
            if rule.labels.len() > LABELS_MAX {
                let (name, count) = (&rule.name, rule.labels.len());
                return Err(refused(format!(
                    "rule `{name}` has {count} labels; at most {LABELS_MAX} are taken"
                )));
            }
            let trie = match &rule.kind {
                None => &mut set.any_kind,
                Some(kind) => set.by_kind.entry(kind.clone()).or_default(),
            };
            trie.insert(&rule.filter, id).map_err(|error| RuleError {
                line: 0,
                column: 0,
                message: format!("rule `{}`: {error}", rule.name),
            })?;
            set.by_name.insert(rule.name.clone(), id);
            set.rules.push(Arc::new(rule));
        }
        Ok(set)
    }

    /// The same, saying where it comes from and when it was read.
    #[must_use]
    pub fn loaded_from(mut self, source: impl Into<String>, at: Timestamp) -> Self {
        self.source = source.into();
        self.loaded_at = Some(at);
        self
    }

    /// Where it comes from, for people; empty if it was not said.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// When it was read.
    #[must_use]
    pub const fn loaded_at(&self) -> Option<Timestamp> {
        self.loaded_at
    }

    /// All rules, in the order of the file.
    #[must_use]
    pub fn rules(&self) -> &[Arc<Rule>] {
        &self.rules
    }

    /// A rule by its number.
    #[must_use]
    pub fn rule(&self, id: u32) -> Option<&Arc<Rule>> {
        self.rules.get(id as usize)
    }

    /// The number of the rule of that name.
    #[must_use]
    pub fn id_of(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// Puts the numbers of all rules that look at `topic` into `found`, which is emptied first.
    pub fn matching(&self, topic: &str, found: &mut Vec<u32>) {
        found.clear();
        self.any_kind.for_each_match(topic, |id| found.push(*id));
        let kind = topic.rsplit('/').next().unwrap_or_default();
        if let Some(trie) = self.by_kind.get(kind) {
            trie.for_each_match(topic, |id| found.push(*id));
        }
        // In the order of the file, so that what one reading causes comes in one order everywhere.
        found.sort_unstable();
    }
}
