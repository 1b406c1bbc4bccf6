//! Rules: what is watched, when it is wrong, and what is said then.

mod file;
mod index;
mod message;
mod place;

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_shared::model::Severity;
use fleet_shared::session::QoS;
use fleet_shared::topic::TopicFilter;

use crate::condition::{Condition, Subject, Topic};
use crate::state::{Policy, Verdict};
use crate::template::RenderError;
use crate::window::Window;

pub use file::{GroupFile, RuleFile, RulesFile};
pub use index::RuleSet;
pub use message::{Facts, Message};
pub use place::RuleError;

/// The rules that ship with the program, as a file.
pub const DEFAULT_RULES: &str = include_str!("../../rules/default.yaml");

/// One rule, checked and compiled.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its name; one topic level, unique in the file.
    pub name: String,
    /// Name of its group in the file.
    pub group: String,
    /// The topics it looks at.
    pub filter: TopicFilter,
    /// Whether those carry readings or presence.
    pub topic: Topic,
    /// Looks only at readings of this type; at all without.
    pub kind: Option<String>,
    /// When it is wrong; none in a rule about silence.
    pub when: Option<Condition>,
    /// When it is right again; without, whenever `when` does not hold.
    pub clear: Option<Condition>,
    /// Patience.
    pub policy: Policy,
    /// How urgent it is.
    pub severity: Severity,
    /// For routing.
    pub labels: BTreeMap<String, String>,
    /// What is said.
    pub message: Message,
    /// Further texts for people, by name.
    pub annotations: BTreeMap<String, Message>,
    /// Messages published when the alert fires or resolves.
    pub publish: Vec<Action>,
}

/// A message that a rule publishes.
#[derive(Clone, Debug)]
pub struct Action {
    /// On which change; [`crate::state::TransitionKind::Firing`] unless said otherwise.
    pub on: crate::state::TransitionKind,
    /// Where to.
    pub topic: Message,
    /// What.
    pub payload: Message,
    /// Delivery guarantee.
    pub qos: QoS,
    /// Whether the broker keeps it.
    pub retain: bool,
}

impl Action {
    /// Topic and payload of the message; none for a topic that rules look at, or that is none, once
    /// its placeholders are filled: a rule must not answer itself.
    ///
    /// # Errors
    /// If a template does not render.
    pub fn render(
        &self,
        rule: &str,
        facts: &Facts,
    ) -> Result<Option<(String, String)>, RenderError> {
        let topic = self.topic.render(rule, self.on.as_str(), facts)?;
        if !file::may_publish(&topic) {
            return Ok(None);
        }
        let payload = self.payload.render(rule, self.on.as_str(), facts)?;
        Ok(Some((topic, payload)))
    }
}

impl Rule {
    /// The longest time a condition of it looks back, if one looks at more than one reading.
    #[must_use]
    pub fn span(&self) -> Option<Duration> {
        let conditions = self.when.iter().chain(&self.clear);
        conditions.filter_map(Condition::span).max()
    }

    /// Whether its windows are those of `other`: they hold the same readings for as long.
    pub(crate) fn remembers_as(&self, other: &Self) -> bool {
        self.span() == other.span()
            && self.filter.as_str() == other.filter.as_str()
            && self.kind == other.kind
    }

    /// What it says of a message; none if that cannot be said.
    ///
    /// # Errors
    /// What went wrong in evaluating a condition.
    pub fn verdict(
        &self,
        subject: Subject<'_>,
        window: Option<&Window>,
    ) -> Result<Option<Verdict>, String> {
        let Some(when) = &self.when else {
            return Ok(Some(Verdict::Cleared));
        };
        let Some(crossed) = when.holds(subject, window)? else {
            return Ok(None);
        };
        if crossed {
            return Ok(Some(Verdict::Crossed));
        }
        let Some(clear) = &self.clear else {
            return Ok(Some(Verdict::Cleared));
        };
        let cleared = clear.holds(subject, window)?;
        Ok(Some(if cleared == Some(true) {
            Verdict::Cleared
        } else {
            Verdict::Between
        }))
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod deep_tests;
