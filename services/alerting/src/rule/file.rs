//! The file of rules as it is written: YAML in the shape of Prometheus' rule files.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use cel::Env;
use fleet_shared::config::duration;
use fleet_shared::model::Severity;
use fleet_shared::session::QoS;
use fleet_shared::topic::{self, TopicFilter};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::message::Message;
use super::place::RuleError;
use super::{Action, Rule};
use crate::condition::{Condition, Topic, language};
use crate::state::{FLAP_EPISODES_MAX, Flap, Policy, TransitionKind};

/// Longest name of a rule in bytes: it is a topic level and a key of the store.
const NAME_BYTES_MAX: usize = 128;

/// Rules of a file: each is looked up by topic and type, so 100,000 cost what ten do.
const RULES_MAX: usize = 100_000;

/// Errors of a file that are told.
const ERRORS_MAX: usize = 100;

/// YAML nodes of a file: some fifty a rule. What bounds memory is the size of the file.
const NODES_MAX: usize = 5_000_000;

/// Damping of a rule that publishes and says nothing about it. What it publishes must not reach what
/// rules look at, but a device may answer with a reading: so many times to and fro in so short a time
/// is such a loop, and damping it ends it.
const LOOP_GUARD: Flap = Flap {
    episodes: FLAP_EPISODES_MAX,
    within: Duration::from_secs(10),
};

/// A file of rules.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Rules of mqtt-fleet alerting")]
pub struct RulesFile {
    /// The rules, in groups that only serve the reader.
    pub groups: Vec<GroupFile>,
}

/// A group of rules.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupFile {
    /// Its name, for people.
    pub name: String,
    /// Its rules.
    pub rules: Vec<RuleFile>,
}

/// A rule as it is written.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleFile {
    /// Name, unique in the file: letters, digits, `-` and `_`.
    #[schemars(with = "String", regex(pattern = "^[A-Za-z0-9_-]{1,128}$"))]
    pub alert: Spanned<String>,
    /// Topic filter under `sensors/` or `devices/+/status`; `sensors/#` without.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub topic: Option<Spanned<String>>,
    /// Look only at readings of this type.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// Condition in CEL: fires when it holds.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub when: Option<Spanned<String>>,
    /// Condition in CEL: resolves when it holds; without, when `when` does not.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub clear: Option<Spanned<String>>,
    /// Instead of `when`: fires when a sensor has said nothing for so long, such as `10m`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub absent: Option<Spanned<String>>,
    /// How long the condition must hold before it fires, such as `30s`.
    #[serde(default, rename = "for")]
    #[schemars(with = "Option<String>")]
    pub hold: Option<Spanned<String>>,
    /// How long it goes on firing once it is cleared.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub keep_firing_for: Option<Spanned<String>>,
    /// An alert ends when its sensor has said nothing for so long, such as `2m`: for sensors that tell
    /// of events only, and never that there is none.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub resolve_after: Option<Spanned<String>>,
    /// Damping of sensors that go to and fro.
    #[serde(default)]
    pub flap: Option<FlapFile>,
    /// How urgent it is.
    pub severity: Severity,
    /// For routing.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What is said, a template such as `{{ sensor_id }} is {{ value }} {{ unit }}`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub message: Option<Spanned<String>>,
    /// Further texts for people, templates too.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub annotations: BTreeMap<String, Spanned<String>>,
    /// Messages to publish when it fires or resolves.
    #[serde(default)]
    pub publish: Vec<ActionFile>,
}

/// Damping as it is written.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FlapFile {
    /// Firings from which on it is damped, 2 to 16.
    #[schemars(with = "u32", range(min = 2, max = 16))]
    pub episodes: Spanned<u32>,
    /// The time in which they are counted, and for which it must then be calm.
    #[schemars(with = "String")]
    pub within: Spanned<String>,
}

/// A message to publish, as it is written.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ActionFile {
    /// `firing`, the default, or `resolved`.
    #[serde(default)]
    pub on: Option<OnFile>,
    /// Where to, a template.
    #[schemars(with = "String")]
    pub topic: Spanned<String>,
    /// What, a template.
    #[schemars(with = "String")]
    pub payload: Spanned<String>,
    /// 0, 1 or 2; 1 without.
    #[serde(default)]
    #[schemars(with = "Option<u8>", range(min = 0, max = 2))]
    pub qos: Option<Spanned<u8>>,
    /// Whether the broker keeps it.
    #[serde(default)]
    pub retain: bool,
}

/// When a message is published.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFile {
    /// When the alert fires.
    Firing,
    /// When it resolves.
    Resolved,
}

/// Reads the text of a file.
///
/// # Errors
/// What is wrong with its rules, in order and up to a hundred, or the first thing that makes it no YAML of
/// this form.
pub(super) fn parse(text: &str) -> Result<Vec<Rule>, Vec<RuleError>> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_nodes: NODES_MAX, max_events: 2 * NODES_MAX },
    };
    let file: RulesFile = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| vec![RuleError::yaml(&error)])?;
    let count: usize = file.groups.iter().map(|group| group.rules.len()).sum();
    if count > RULES_MAX {
        return Err(vec![RuleError {
            line: 0,
            column: 0,
            message: format!("{count} rules; at most {RULES_MAX} are taken"),
        }]);
    }
    let mut compiler = Compiler::new(text);
    let (mut rules, mut errors) = (Vec::<Rule>::new(), Vec::new());
    let mut names = HashSet::new();
    let grouped = file.groups.into_iter().flat_map(|group| {
        let named = move |rule| (group.name.clone(), rule);
        group.rules.into_iter().map(named)
    });
    for (group, rule) in grouped {
        let name = rule.alert.clone();
        if !names.insert(name.value.clone()) {
            let message = format!("there is another rule `{}`: rename one", name.value);
            errors.push(RuleError::at(name.referenced, message));
        }
        match compiler.rule(group, rule) {
            Ok(rule) => rules.push(rule),
            Err(error) => errors.push(error),
        }
        if errors.len() >= ERRORS_MAX {
            errors.push(RuleError {
                line: 0,
                column: 0,
                message: format!("there may be more: {ERRORS_MAX} errors are told at most"),
            });
            break;
        }
    }
    if errors.is_empty() {
        Ok(rules)
    } else {
        Err(errors)
    }
}

/// Compiles the rules of one file. Texts that rules have in common are compiled once and shared: files
/// with tens of thousands of rules are made by programs.
struct Compiler<'a> {
    text: &'a str,
    /// Its lines, once something is wrong in one of them.
    lines: OnceCell<Vec<&'a str>>,
    env: Arc<Env>,
    conditions: HashMap<(String, Topic), Condition>,
    messages: HashMap<(String, Topic), Message>,
    defaults: HashMap<Topic, Message>,
}

impl<'a> Compiler<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            lines: OnceCell::new(),
            env: language(),
            conditions: HashMap::new(),
            messages: HashMap::new(),
            defaults: HashMap::new(),
        }
    }

    fn lines(&self) -> &[&'a str] {
        self.lines.get_or_init(|| self.text.lines().collect())
    }

    fn condition(
        &mut self,
        source: &Spanned<String>,
        topic: Topic,
    ) -> Result<Condition, RuleError> {
        let key = (source.value.clone(), topic);
        if let Some(known) = self.conditions.get(&key) {
            return Ok(known.clone());
        }
        let condition = Condition::compile(&source.value, topic, &self.env)
            .map_err(|error| RuleError::inside(self.lines(), source, &error))?;
        self.conditions.insert(key, condition.clone());
        Ok(condition)
    }

    fn template(&mut self, source: &Spanned<String>, topic: Topic) -> Result<Message, RuleError> {
        let key = (source.value.clone(), topic);
        if let Some(known) = self.messages.get(&key) {
            return Ok(known.clone());
        }
        let message = Message::compile(&source.value, topic)
            .map_err(|error| RuleError::inside(self.lines(), source, &error))?;
        self.messages.insert(key, message.clone());
        Ok(message)
    }

    fn default_message(&mut self, topic: Topic) -> Message {
        let defaults = &mut self.defaults;
        let message = defaults.entry(topic);
        message
            .or_insert_with(|| Message::default_for(topic))
            .clone()
    }

    fn rule(&mut self, group: String, file: RuleFile) -> Result<Rule, RuleError> {
        let name = checked_name(&file.alert)?;
        let (filter, topic) = topic_of(file.topic.as_ref())?;
        let mut condition = |source: &Spanned<String>| self.condition(source, topic);
        let when = file.when.as_ref().map(&mut condition).transpose()?;
        let clear = file.clear.as_ref().map(&mut condition).transpose()?;
        let absent = span(file.absent.as_ref())?;
        match (&when, absent) {
            (None, None) => {
                let message = format!("the rule `{name}` needs `when` or `absent`");
                return Err(RuleError::at(file.alert.referenced, message));
            }
            (Some(_), Some(_)) => {
                let message =
                    format!("the rule `{name}` has both `when` and `absent`: make it two");
                return Err(RuleError::at(file.alert.referenced, message));
            }
            _ => {}
        }
        let hold = span(file.hold.as_ref())?;
        if absent.is_some() && (hold.is_some() || clear.is_some()) {
            let message =
                format!("the rule `{name}` is about silence: it has no use for `for` and `clear`");
            return Err(RuleError::at(file.alert.referenced, message));
        }
        let resolve_after = span(file.resolve_after.as_ref())?;
        if let (Some(silence), Some(written)) = (resolve_after, &file.resolve_after)
            && (absent.is_some() || silence <= hold.unwrap_or_default())
        {
            let message = format!(
                "`resolve_after` ends alerts by silence: it goes with `when`, and is longer than `for`; \
                 `{}` in the rule `{name}` is not",
                written.value
            );
            return Err(RuleError::at(written.referenced, message));
        }
        if topic == Topic::Status && file.kind.is_some() {
            let message = format!("the rule `{name}` is about devices: they have no `type`");
            return Err(RuleError::at(file.alert.referenced, message));
        }
        let message = match &file.message {
            Some(message) => self.template(message, topic)?,
            None => self.default_message(topic),
        };
        let annotations = file
            .annotations
            .iter()
            .map(|(name, text)| Ok((name.clone(), self.template(text, topic)?)))
            .collect::<Result<_, RuleError>>()?;
        let publish: Vec<Action> = file
            .publish
            .iter()
            .map(|action| self.action(action, topic))
            .collect::<Result<_, RuleError>>()?;
        Ok(Rule {
            policy: Policy {
                hold: hold.unwrap_or_default(),
                keep_firing_for: span(file.keep_firing_for.as_ref())?.unwrap_or_default(),
                flap: match &file.flap {
                    Some(file) => Some(flap(file)?),
                    None => (!publish.is_empty()).then_some(LOOP_GUARD),
                },
                absent,
                resolve_after,
            },
            name,
            group,
            filter,
            topic,
            kind: file.kind,
            when,
            clear,
            severity: file.severity,
            labels: file.labels,
            message,
            annotations,
            publish,
        })
    }

    fn action(&mut self, file: &ActionFile, about: Topic) -> Result<Action, RuleError> {
        let target = self.template(&file.topic, about)?;
        // With the placeholders filled in any way at all, the first level must keep it out of what
        // rules look at: a rule that answers itself would never end.
        let first = file.topic.value.split('/').next().unwrap_or_default();
        if first.contains("{{") || matches!(first, "sensors" | "alerts" | "fleet" | "") {
            let message = format!(
                "a rule must not publish to `{}`: topics under sensors/, alerts/ and fleet/ are the \
             fleet's own, and the first level must be written out",
                file.topic.value
            );
            return Err(RuleError::at(file.topic.referenced, message));
        }
        let ends_in_status = file.topic.value.rsplit('/').next();
        if first == "devices"
            && ends_in_status.is_none_or(|last| last == "status" || last.contains("{{"))
        {
            let message = format!(
                "a rule must not publish to `{}`: rules look at the status of devices",
                file.topic.value
            );
            return Err(RuleError::at(file.topic.referenced, message));
        }
        if file.topic.value.contains(['+', '#']) {
            let message = format!("`{}` is a filter, not a topic", file.topic.value);
            return Err(RuleError::at(file.topic.referenced, message));
        }
        let qos = match &file.qos {
            None => QoS::AtLeastOnce,
            Some(level) => QoS::try_from(level.value)
                .map_err(|error| RuleError::at(level.referenced, error))?,
        };
        Ok(Action {
            on: match file.on {
                None | Some(OnFile::Firing) => TransitionKind::Firing,
                Some(OnFile::Resolved) => TransitionKind::Resolved,
            },
            topic: target,
            payload: self.template(&file.payload, about)?,
            qos,
            retain: file.retain,
        })
    }
}

fn checked_name(name: &Spanned<String>) -> Result<String, RuleError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let length = 1..=NAME_BYTES_MAX;
    if length.contains(&name.value.len()) && name.value.chars().all(plain) {
        return Ok(name.value.clone());
    }
    let message = format!(
        "`{}` is no name of a rule: use 1 to {NAME_BYTES_MAX} letters, digits, `-` and `_`",
        name.value
    );
    Err(RuleError::at(name.referenced, message))
}

fn topic_of(filter: Option<&Spanned<String>>) -> Result<(TopicFilter, Topic), RuleError> {
    let text = filter.map_or("sensors/#", |filter| filter.value.as_str());
    let refused = |message: String| match filter {
        Some(filter) => RuleError::at(filter.referenced, message),
        None => RuleError {
            line: 0,
            column: 0,
            message,
        },
    };
    let parsed = TopicFilter::parse(text).map_err(|error| refused(error.to_string()))?;
    let levels: Vec<&str> = text.split('/').collect();
    match levels.as_slice() {
        ["sensors", _, ..] => Ok((parsed, Topic::Readings)),
        ["devices", _, "status"] => Ok((parsed, Topic::Status)),
        _ => Err(refused(format!(
            "a rule looks at topics under `sensors/` or at `devices/+/status`, not at `{text}`"
        ))),
    }
}

fn span(text: Option<&Spanned<String>>) -> Result<Option<Duration>, RuleError> {
    text.map(|text| {
        duration(&text.value)
            .map_err(|error| RuleError::at(text.referenced, format!("`{}`: {error}", text.value)))
    })
    .transpose()
}

fn flap(file: &FlapFile) -> Result<Flap, RuleError> {
    let episodes = file.episodes.value;
    if !(2..=FLAP_EPISODES_MAX).contains(&episodes) {
        let message = format!("`episodes` is 2 to {FLAP_EPISODES_MAX}, not {episodes}");
        return Err(RuleError::at(file.episodes.referenced, message));
    }
    let within = span(Some(&file.within))?.unwrap_or_default();
    Ok(Flap { episodes, within })
}

/// Whether a rendered topic may be published to: once more, now that its placeholders are filled.
pub(crate) fn may_publish(rendered: &str) -> bool {
    let own = ["sensors/", "alerts/", "fleet/", "$"];
    let status = TopicFilter::parse("devices/+/status")
        .is_ok_and(|filter| topic::matches(filter.as_str(), rendered));
    topic::TopicName::parse(rendered).is_ok()
        && !status
        && !own.iter().any(|prefix| rendered.starts_with(prefix))
}
