//! Routes: which alerts are told to whom, together with which others, how soon and how often.

mod compile;
mod file;
mod interval;
mod matcher;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

pub use file::{
    AlertmanagerFile, EmailFile, InhibitFile, LogFile, NtfyFile, ReceiverFile, RouteFile,
    RoutesFile, SlackFile, SmtpTls, TimeIntervalFile, TwilioFile, WebhookFile,
};
pub use interval::TimeInterval;
pub use matcher::{CompiledMatcher, Labels, MatcherError};

use crate::roomy::roomy;
use crate::rule::RuleError;
use crate::template::Template;

/// The routes in force when no file is named.
pub const DEFAULT_ROUTES: &str = "receivers: []\n";

/// Routes, receivers and inhibitions of one file, checked and compiled.
#[derive(Debug)]
pub struct Routes {
    /// Every node that alerts may end at, parents before their children; the first is the root.
    nodes: Vec<Node>,
    /// The ways out, each with a name of its own.
    channels: Vec<Arc<Channel>>,
    /// What keeps quiet about what.
    pub(crate) inhibitions: Vec<Inhibition>,
    /// Severities that end in the log because nobody is named for them, for a word at the start.
    pub(crate) degraded: Vec<&'static str>,
}

/// A node of the tree with everything it inherits.
#[derive(Debug)]
pub(crate) struct Node {
    /// The matchers on the way to it, as people read it.
    pub(crate) path: String,
    pub(crate) matchers: Vec<CompiledMatcher>,
    /// Whether its later siblings are asked too.
    pub(crate) goes_on: bool,
    pub(crate) children: Vec<usize>,
    pub(crate) receiver: String,
    /// Places in the list of channels.
    pub(crate) channels: Vec<usize>,
    /// Labels that a group has in common; none for one group for each alert.
    pub(crate) group_by: GroupBy,
    pub(crate) group_wait: Duration,
    pub(crate) group_interval: Duration,
    pub(crate) repeat_interval: Duration,
    /// Not told while one of these holds.
    pub(crate) mute: Vec<TimeInterval>,
    /// If any, told only while one of these holds.
    pub(crate) active: Vec<TimeInterval>,
}

/// How alerts are put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GroupBy {
    /// Those with the same values of these labels.
    Labels(Vec<String>),
    /// Each alone.
    Each,
}

/// A way out: one receiver's one integration for one recipient.
#[derive(Debug)]
pub struct Channel {
    /// `receiver/kind/number`, as the outbox has it.
    pub name: String,
    /// The receiver.
    pub receiver: String,
    /// How it is reached.
    pub kind: Kind,
    /// Whether ends are told too.
    pub send_resolved: bool,
    /// Messages a minute at most; more wait.
    pub rate_per_minute: u32,
    /// Line above the text, and the text.
    pub(crate) texts: Texts,
}

/// How a receiver is reached.
#[derive(Clone, Debug)]
pub enum Kind {
    /// HTTP POST signed as Standard Webhooks.
    Webhook(WebhookFile),
    /// E-mail.
    Email(EmailFile),
    /// SMS by an API in the shape of Twilio's, to one number.
    Sms(TwilioFile, String),
    /// A call that reads the text aloud, by the same API, to one number.
    Call(TwilioFile, String),
    /// HTTP POST in the shape of Slack's incoming webhooks.
    Slack(SlackFile),
    /// A push by ntfy.
    Ntfy(NtfyFile),
    /// An Alertmanager, by its API v2.
    Alertmanager(AlertmanagerFile),
    /// The log.
    Log,
}

impl Kind {
    /// All values of the metric label `channel`.
    pub const NAMES: [&'static str; 8] = [
        "webhook",
        "email",
        "sms",
        "call",
        "slack",
        "ntfy",
        "alertmanager",
        "log",
    ];

    /// The metric label.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Email(_) => "email",
            Self::Sms(..) => "sms",
            Self::Call(..) => "call",
            Self::Slack(_) => "slack",
            Self::Ntfy(_) => "ntfy",
            Self::Alertmanager(_) => "alertmanager",
            Self::Log => "log",
        }
    }

    /// Whether alerts must be told again and again while they fire, lest the receiver takes them for
    /// resolved.
    #[must_use]
    pub const fn keeps_alive(&self) -> bool {
        matches!(self, Self::Alertmanager(_))
    }
}

/// Templates of a receiver; those that ship with the program without.
#[derive(Clone, Debug, Default)]
pub(crate) struct Texts {
    pub(crate) title: Option<Template>,
    pub(crate) text: Option<Template>,
}

/// An alert that matches `source` keeps quiet those that match `target` and have the same values of
/// `equal`.
#[derive(Debug)]
pub(crate) struct Inhibition {
    pub(crate) source: Vec<CompiledMatcher>,
    pub(crate) target: Vec<CompiledMatcher>,
    pub(crate) equal: Vec<String>,
}

impl Inhibition {
    pub(crate) fn is_source(&self, labels: &Labels) -> bool {
        all_match(&self.source, labels)
    }

    pub(crate) fn is_target(&self, labels: &Labels) -> bool {
        all_match(&self.target, labels)
    }

    pub(crate) fn equals(&self, labels: &Labels) -> Vec<String> {
        let value = |name: &String| labels.get(name).to_owned();
        self.equal.iter().map(value).collect()
    }
}

pub(crate) fn all_match(matchers: &[CompiledMatcher], labels: &Labels) -> bool {
    matchers.iter().all(|matcher| matcher.holds(labels))
}

impl Node {
    /// Why nothing is told at `now`, if so: the time of day.
    pub(crate) fn is_muted(&self, now: Timestamp) -> bool {
        let holds = |interval: &TimeInterval| interval.contains(now);
        self.mute.iter().any(holds) || (!self.active.is_empty() && !self.active.iter().any(holds))
    }
}

impl Routes {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// Everything that is wrong with it, with line and column.
    pub fn parse(text: &str) -> Result<Self, Vec<RuleError>> {
        roomy(|| compile::compile(text)).map_err(|error| vec![RuleError::thread(&error)])?
    }

    /// Reads a file, and sees that every file of secrets it names can be read.
    ///
    /// # Errors
    /// That it cannot be read, or everything that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, Vec<RuleError>> {
        let nowhere = |message: String| RuleError {
            line: 0,
            column: 0,
            message,
        };
        let text = std::fs::read_to_string(path)
            .map_err(|error| vec![nowhere(format!("the file cannot be read: {error}"))])?;
        let routes = Self::parse(&text)?;
        let missing = routes.missing_secrets();
        if missing.is_empty() {
            Ok(routes)
        } else {
            Err(missing.into_iter().map(nowhere).collect())
        }
    }

    /// What is wrong with the files that the receivers name, one sentence each.
    #[must_use]
    pub fn missing_secrets(&self) -> Vec<String> {
        let named = self.channels.iter().flat_map(|channel| {
            let files = channel.kind.files().into_iter();
            files.map(move |(setting, path)| (&channel.receiver, setting, path))
        });
        let mut missing: Vec<String> = named
            .filter_map(|(receiver, setting, path)| {
                let error = std::fs::File::open(&path).err()?;
                let path = path.display();
                Some(format!(
                    "receiver `{receiver}`: `{setting}` names {path}, which cannot be read: {error}"
                ))
            })
            .collect();
        missing.dedup();
        missing
    }

    /// The ways out.
    #[must_use]
    pub fn channels(&self) -> &[Arc<Channel>] {
        &self.channels
    }

    pub(crate) fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// Nodes that an alert with these labels ends at, in the order of the file.
    pub(crate) fn nodes_for(&self, labels: &Labels) -> Vec<usize> {
        let mut found = Vec::new();
        self.descend(0, labels, &mut found);
        found
    }

    /// As Alertmanager does it: the first child that matches takes the alert, and further ones only
    /// if it says `continue`; where none does, it ends here.
    fn descend(&self, index: usize, labels: &Labels, found: &mut Vec<usize>) {
        let before = found.len();
        for &child in &self.nodes[index].children {
            let node = &self.nodes[child];
            if !all_match(&node.matchers, labels) {
                continue;
            }
            self.descend(child, labels, found);
            if !node.goes_on {
                break;
            }
        }
        if found.len() == before {
            found.push(index);
        }
    }

    /// Where alerts with these labels go, for people: path, receiver, channels.
    #[must_use]
    pub fn explain(&self, labels: &Labels) -> Vec<(String, String, Vec<String>)> {
        let one = |index: usize| {
            let node = &self.nodes[index];
            let names = node.channels.iter();
            let names = names.map(|channel| self.channels[*channel].name.clone());
            (node.path.clone(), node.receiver.clone(), names.collect())
        };
        self.nodes_for(labels).into_iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests;
