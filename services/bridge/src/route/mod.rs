//! Routes: which messages become which records.

mod file;
mod place;
mod pointer;
mod template;
#[cfg(test)]
mod tests;

use std::time::Duration;

use fleet_shared::topic::{TopicFilter, Trie};

pub use file::{CommandsFile, RouteFile, RoutesFile};
pub use place::RouteError;
pub(crate) use template::Template;

/// The routes that ship with the program, as a file.
pub const DEFAULT_ROUTES: &str = include_str!("../../routes/default.yaml");

/// Longest name of a Kafka topic.
const TOPIC_NAME_MAX: usize = 249;

/// One route, checked.
#[derive(Clone, Debug)]
pub struct Route {
    /// What is subscribed to, with its group.
    pub filter: TopicFilter,
    pub(crate) topic: Template,
    pub(crate) key: Option<Template>,
    pub(crate) headers: Vec<(String, Template)>,
    /// How to create the topic; none if somebody else does.
    pub create: Option<Create>,
}

impl Route {
    /// The Kafka topic, unless it depends on the message.
    #[must_use]
    pub fn fixed_topic(&self) -> Option<&str> {
        self.topic.fixed()
    }
}

/// Where commands come from and answers go.
#[derive(Clone, Debug)]
pub struct CommandRoutes {
    /// Kafka topic of commands.
    pub topic: String,
    /// Kafka topic of answers.
    pub responses: String,
    /// Kafka topic of what is no command.
    pub dead_letters: String,
    /// How to create them; none if somebody else does.
    pub create: Option<Create>,
}

/// What a topic that is created gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Create {
    /// Number of partitions.
    pub partitions: u32,
    /// Number of replicas; the brokers' default without.
    pub replicas: Option<u32>,
    /// How long records are kept; the brokers' default without.
    pub retention: Option<Duration>,
    /// Whether the last record of each key is kept.
    pub compact: bool,
}

/// All routes of a file.
#[derive(Debug)]
pub struct Routes {
    routes: Vec<Route>,
    commands: Option<CommandRoutes>,
    index: Trie<usize>,
}

impl Routes {
    fn new(routes: Vec<Route>, commands: Option<CommandRoutes>) -> Self {
        let mut index = Trie::new();
        for (at, route) in routes.iter().enumerate() {
            // A filter with too many levels for the index matches nothing that a broker takes.
            index.insert(&route.filter, at).ok();
        }
        Self {
            routes,
            commands,
            index,
        }
    }

    /// Reads the text of a file; members of `group` share what names no group of its own.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str, group: &str) -> Result<Self, Vec<RouteError>> {
        file::parse(text, group)
    }

    /// Every route, in the order of the file.
    #[must_use]
    pub fn all(&self) -> &[Route] {
        &self.routes
    }

    /// Where commands come from, if any are taken.
    #[must_use]
    pub fn commands(&self) -> Option<&CommandRoutes> {
        self.commands.as_ref()
    }

    /// The route of a topic: the first of the file that matches.
    #[must_use]
    pub fn find(&self, topic: &str) -> Option<&Route> {
        let mut first = None::<usize>;
        self.index.for_each_match(topic, |&at| {
            first = Some(first.map_or(at, |first| first.min(at)));
        });
        self.routes.get(first?)
    }
}

/// Why a text is no name of a Kafka topic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{name}` is no name of a Kafka topic: use 1 to {TOPIC_NAME_MAX} letters, digits, `.`, `_` and `-`"
)]
pub struct TopicNameError {
    name: String,
}

/// Whether Kafka takes the name.
pub(crate) fn topic_name(name: &str) -> Result<(), TopicNameError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let length = 1..=TOPIC_NAME_MAX;
    if length.contains(&name.len()) && name.bytes().all(legal) && name != "." && name != ".." {
        return Ok(());
    }
    Err(TopicNameError {
        name: name.chars().take(TOPIC_NAME_MAX + 1).collect(),
    })
}
