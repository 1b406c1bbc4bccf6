//! The file of routes as it is written.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_shared::config::duration;
use fleet_shared::topic::TopicFilter;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::place::RouteError;
use super::template::Template;
use super::{CommandRoutes, Create, Route, Routes, topic_name};
use crate::record;

/// A file of routes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Routes of mqtt-fleet bridge")]
pub struct RoutesFile {
    /// From MQTT to Kafka. A message takes the first route that its topic matches.
    #[serde(default)]
    pub routes: Vec<RouteFile>,
    /// From Kafka to devices and back; absent, the bridge takes no commands.
    #[serde(default)]
    pub commands: Option<CommandsFile>,
}

/// A route as it is written.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteFile {
    /// Topic filter. Members of --group share it, or of the group that it names itself as in
    /// `$share/{group}/sensors/#`.
    #[schemars(with = "String")]
    pub filter: Spanned<String>,
    /// `false`: every bridge takes every message, and also what the broker had retained before.
    #[serde(default = "yes")]
    pub shared: bool,
    /// Kafka topic; `{1}` is a level of the MQTT topic.
    #[schemars(with = "String")]
    pub topic: Spanned<String>,
    /// Key, such as `{/sensor_id}`: records of equal keys keep their order. The MQTT topic without,
    /// and for messages that lack a part of it.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub key: Option<Spanned<String>>,
    /// Headers besides the bridge's own; one that a message lacks a part of is left out.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub headers: BTreeMap<String, Spanned<String>>,
    /// Create the Kafka topic at the start if it is not there; changes none that is.
    #[serde(default)]
    pub create: bool,
    /// Partitions of a topic that is created; 6 without.
    #[serde(default)]
    #[schemars(with = "Option<u32>", range(min = 1, max = 10_000))]
    pub partitions: Option<Spanned<u32>>,
    /// Replicas of a topic that is created; the brokers' default without.
    #[serde(default)]
    #[schemars(with = "Option<u32>", range(min = 1, max = 100))]
    pub replicas: Option<Spanned<u32>>,
    /// How long a topic that is created keeps records, such as `7d`; the brokers' default without.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub retention: Option<Spanned<String>>,
    /// A topic that is created keeps the last record of each key.
    #[serde(default)]
    pub compact: bool,
}

/// Where commands come from and answers go.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandsFile {
    /// Kafka topic of commands.
    #[schemars(with = "String")]
    pub topic: Spanned<String>,
    /// Kafka topic of the devices' answers.
    #[schemars(with = "String")]
    pub responses: Spanned<String>,
    /// Kafka topic of what is no command, or was refused by the broker.
    #[schemars(with = "String")]
    pub dead_letters: Spanned<String>,
    /// Create the three topics at the start if they are not there.
    #[serde(default)]
    pub create: bool,
    /// Partitions of topics that are created; 6 without.
    #[serde(default)]
    #[schemars(with = "Option<u32>", range(min = 1, max = 10_000))]
    pub partitions: Option<Spanned<u32>>,
    /// Replicas of topics that are created; the brokers' default without.
    #[serde(default)]
    #[schemars(with = "Option<u32>", range(min = 1, max = 100))]
    pub replicas: Option<Spanned<u32>>,
    /// How long topics that are created keep records.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub retention: Option<Spanned<String>>,
}

fn yes() -> bool {
    true
}

/// Partitions of a topic that is created: enough to add consumers, few enough for one broker.
const PARTITIONS: u32 = 6;

/// Reads the text of a file; members of `group` share what does not name a group of its own.
///
/// # Errors
/// Everything that is wrong with its routes, in order, or the first thing that makes it no YAML of
/// this form.
pub(super) fn parse(text: &str, group: &str) -> Result<Routes, Vec<RouteError>> {
    let file: RoutesFile =
        serde_saphyr::from_str(text).map_err(|error| vec![RouteError::yaml(&error)])?;
    let (mut routes, mut errors) = (Vec::<Route>::new(), Vec::new());
    for written in &file.routes {
        match compile(written, group) {
            Ok(route) if routes.iter().any(|known| known.filter == route.filter) => {
                let message = format!(
                    "there is another route with the filter `{}`: a message takes the first route \
                     that matches, so this one would get none",
                    written.filter.value
                );
                errors.push(RouteError::at(written.filter.referenced, message));
            }
            Ok(route) => routes.push(route),
            Err(error) => errors.push(error),
        }
    }
    let commands = match file.commands.as_ref().map(compile_commands).transpose() {
        Ok(commands) => commands,
        Err(error) => {
            errors.push(error);
            None
        }
    };
    if errors.is_empty() {
        Ok(Routes::new(routes, commands))
    } else {
        Err(errors)
    }
}

fn compile(file: &RouteFile, group: &str) -> Result<Route, RouteError> {
    let written = &file.filter;
    let refused = |message: String| RouteError::at(written.referenced, message);
    let plain = TopicFilter::parse(written.value.as_str()).map_err(|e| refused(e.to_string()))?;
    let filter = match (plain.share_group(), file.shared) {
        (Some(_), true) | (None, false) => plain,
        (Some(_), false) => {
            return Err(refused(format!(
                "`{plain}` names a group and `shared` is false: leave one of them out"
            )));
        }
        (None, true) => TopicFilter::parse(format!("$share/{group}/{plain}"))
            .map_err(|error| refused(error.to_string()))?,
    };
    if filter.filter().starts_with("fleet/") {
        return Err(refused(format!(
            "`{}` is the fleet's own: its dead letters would come back as records",
            written.value
        )));
    }
    let template = |text: &Spanned<String>| {
        Template::parse(&text.value).map_err(|error| RouteError::at(text.referenced, error))
    };
    let topic = template(&file.topic)?;
    if topic.reads_payload() {
        let message = format!(
            "`{}`: a payload cannot choose the Kafka topic, only the MQTT topic can",
            file.topic.value
        );
        return Err(RouteError::at(file.topic.referenced, message));
    }
    match topic.fixed() {
        Some(name) => topic_name(name)
            .map_err(|error| RouteError::at(file.topic.referenced, error.to_string()))?,
        None if file.create => {
            let message = format!(
                "`{}` stands for many topics, which cannot be created at the start: create them \
                 yourself and leave `create` out",
                file.topic.value
            );
            return Err(RouteError::at(file.topic.referenced, message));
        }
        None => {}
    }
    let mut headers = Vec::new();
    for (name, text) in &file.headers {
        if record::is_reserved(name) {
            let message = format!("the header `{name}` is the bridge's own: choose another name");
            return Err(RouteError::at(text.referenced, message));
        }
        headers.push((name.clone(), template(text)?));
    }
    let topic_settings = TopicSettings {
        partitions: file.partitions.as_ref(),
        replicas: file.replicas.as_ref(),
        retention: file.retention.as_ref(),
        compact: file.compact,
    };
    let create = topic_settings.checked()?;
    Ok(Route {
        filter,
        topic,
        key: file.key.as_ref().map(template).transpose()?,
        headers,
        create: file.create.then_some(create),
    })
}

fn compile_commands(file: &CommandsFile) -> Result<CommandRoutes, RouteError> {
    let name = |text: &Spanned<String>| {
        topic_name(&text.value)
            .map(|()| text.value.clone())
            .map_err(|error| RouteError::at(text.referenced, error.to_string()))
    };
    let topic_settings = TopicSettings {
        partitions: file.partitions.as_ref(),
        replicas: file.replicas.as_ref(),
        retention: file.retention.as_ref(),
        compact: false,
    };
    let create = topic_settings.checked()?;
    let commands = CommandRoutes {
        topic: name(&file.topic)?,
        responses: name(&file.responses)?,
        dead_letters: name(&file.dead_letters)?,
        create: file.create.then_some(create),
    };
    for (text, other) in [
        (&file.responses, &commands.topic),
        (&file.dead_letters, &commands.topic),
        (&file.dead_letters, &commands.responses),
    ] {
        if text.value == *other {
            let message = format!("`{other}` is named twice: three topics are needed");
            return Err(RouteError::at(text.referenced, message));
        }
    }
    Ok(commands)
}

/// What a topic that is created gets, as it is written.
struct TopicSettings<'a> {
    partitions: Option<&'a Spanned<u32>>,
    replicas: Option<&'a Spanned<u32>>,
    retention: Option<&'a Spanned<String>>,
    compact: bool,
}

impl TopicSettings<'_> {
    fn checked(&self) -> Result<Create, RouteError> {
        let within = |value: Option<&Spanned<u32>>, what: &str, max: u32| match value {
            Some(value) if !(1..=max).contains(&value.value) => {
                let message = format!("`{what}` is 1 to {max}, not {}", value.value);
                Err(RouteError::at(value.referenced, message))
            }
            value => Ok(value.map(|value| value.value)),
        };
        let retention = self
            .retention
            .map(|text| {
                match duration(&text.value) {
                    Ok(Duration::ZERO) => Err("keep records longer than 0".to_owned()),
                    other => other,
                }
                .map_err(|error| {
                    RouteError::at(text.referenced, format!("`{}`: {error}", text.value))
                })
            })
            .transpose()?;
        Ok(Create {
            partitions: within(self.partitions, "partitions", 10_000)?.unwrap_or(PARTITIONS),
            replicas: within(self.replicas, "replicas", 100)?,
            retention,
            compact: self.compact,
        })
    }
}
