//! Requests over MQTT: what rules are in force, and what others would have said.
//!
//! They are answered by the active process. A backtest runs on a thread of its own, one at a time,
//! with bounds, so that no evaluation waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fleet_shared::config::DatabaseUrl;
use fleet_shared::session::{Bytes, Message, Properties, Publish, Session};
use fleet_shared::topic::{FleetTopic, templates};
use fleet_store::{OpenOptions, StoreError};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::backtest::{Backtest, Bounds, backtest};
use crate::engine::Engine;
use crate::rule::{RuleError, RuleSet};

/// Bounds of a backtest that somebody waits for: a request is given up after 30 seconds.
const BOUNDS: Bounds = Bounds {
    readings: 5_000_000,
    evaluations: 20_000_000,
    time: Duration::from_secs(20),
};

/// Longest text of rules in a request.
const RULES_BYTES_MAX: usize = 256 * 1_024;

/// Where an answer goes.
#[derive(Clone, Debug)]
struct Reply {
    topic: String,
    correlation: Option<Bytes>,
    /// The correlation id of a peer without MQTT 5, which gets it back in the payload.
    envelope: Option<String>,
}

/// A peer without MQTT 5 has no properties: it writes them into the payload.
#[derive(Deserialize)]
struct Envelope {
    correlation_id: String,
    response_topic: String,
    #[serde(default)]
    payload: Value,
}

/// What a backtest is asked for.
#[derive(Deserialize)]
struct BacktestRequest {
    #[serde(default)]
    rules: Option<String>,
    from: Timestamp,
    to: Timestamp,
    #[serde(default)]
    sensor_id: Option<String>,
}

/// Why a request is not answered with what it asks for.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("there is no request `{0}`: ask for `rules` or `backtest`")]
    Unknown(String),
    #[error("the request cannot be read: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("{0}")]
    Invalid(String),
    #[error("{}", all(.0))]
    Rules(Vec<RuleError>),
    #[error("another backtest is running: ask again in some seconds")]
    Busy,
    #[error("the store does not answer")]
    Store(#[from] StoreError),
    #[error("the thread of the backtest cannot be started")]
    Thread(#[from] std::io::Error),
}

impl Refusal {
    const fn code(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "unknown_request",
            Self::Malformed(_) | Self::Invalid(_) => "invalid_request",
            Self::Rules(_) => "invalid_rules",
            Self::Busy => "busy",
            Self::Store(_) => "store",
            Self::Thread(_) => "unavailable",
        }
    }

    fn answer(self) -> Value {
        let code = self.code();
        let detail = match self {
            // One line for each, with nothing before its place.
            Self::Rules(_) => self.to_string(),
            other => format!("{:#}", anyhow::Error::new(other)),
        };
        json!({"error": {"code": code, "detail": detail}})
    }
}

fn all(errors: &[RuleError]) -> String {
    let lines: Vec<String> = errors
        .iter()
        .map(|error| format!("{}:{} {}", error.line, error.column, error.message))
        .collect();
    lines.join("\n")
}

impl Reply {
    /// Where to answer, and what is asked; none if the message does not say where.
    fn read(message: &Message) -> Option<(Self, Result<Value, serde_json::Error>)> {
        let properties = message.properties.as_deref();
        if let Some(topic) = properties.and_then(|properties| properties.response_topic.as_ref()) {
            let reply = Self {
                topic: topic.to_string(),
                correlation: properties.and_then(|properties| properties.correlation_data.clone()),
                envelope: None,
            };
            let payload = match message.payload.is_empty() {
                true => Ok(Value::Null),
                false => serde_json::from_slice(&message.payload),
            };
            return reply.checked().map(|reply| (reply, payload));
        }
        let envelope: Envelope = serde_json::from_slice(&message.payload).ok()?;
        let reply = Self {
            topic: envelope.response_topic,
            correlation: None,
            envelope: Some(envelope.correlation_id),
        };
        reply.checked().map(|reply| (reply, Ok(envelope.payload)))
    }

    /// An answer goes to a response topic, not wherever somebody wants alerting to publish.
    fn checked(self) -> Option<Self> {
        matches!(
            FleetTopic::parse(&self.topic),
            Some(FleetTopic::Response { .. })
        )
        .then_some(self)
    }

    fn publish(self, answer: Value) -> Publish {
        let answer = match self.envelope {
            None => answer,
            Some(id) => json!({"correlation_id": id, "payload": answer}),
        };
        let properties = Properties {
            correlation_data: self.correlation,
            content_type: Some("application/json".into()),
            ..Properties::default()
        };
        Publish::new(
            self.topic,
            templates::RESPONSE,
            answer.to_string().into_bytes(),
        )
        .properties(properties)
    }
}

/// Takes requests.
#[derive(Debug)]
pub(crate) struct Desk {
    database: DatabaseUrl,
    busy: Arc<AtomicBool>,
}

impl Desk {
    pub(crate) fn new(database: DatabaseUrl) -> Self {
        Self {
            database,
            busy: Arc::default(),
        }
    }

    /// Where readings are.
    pub(crate) fn database(&self) -> &DatabaseUrl {
        &self.database
    }

    /// Answers a request on `outlet`, now or when its backtest is done. False if it does not say
    /// where to.
    pub(crate) fn take(
        &self,
        name: &str,
        message: &Message,
        engine: &Engine,
        outlet: &Session,
    ) -> bool {
        let Some((reply, payload)) = Reply::read(message) else {
            return false;
        };
        let answer = match (name, payload) {
            (_, Err(error)) => Err(error.into()),
            ("rules", Ok(_)) => Ok(in_force(engine)),
            ("backtest", Ok(payload)) => {
                match self.backtest(payload, engine.rules(), reply.clone(), outlet.clone()) {
                    Ok(()) => return true,
                    Err(refusal) => Err(refusal),
                }
            }
            (other, Ok(_)) => Err(Refusal::Unknown(other.to_owned())),
        };
        send(
            outlet,
            reply.publish(answer.unwrap_or_else(Refusal::answer)),
        );
        true
    }

    fn backtest(
        &self,
        payload: Value,
        current: &Arc<RuleSet>,
        reply: Reply,
        outlet: Session,
    ) -> Result<(), Refusal> {
        let request: BacktestRequest = serde_json::from_value(payload)?;
        if request.from >= request.to {
            let (from, to) = (request.from, request.to);
            return Err(Refusal::Invalid(format!(
                "`from` ({from}) is not before `to` ({to})"
            )));
        }
        if let Some(rules) = &request.rules
            && rules.len() > RULES_BYTES_MAX
        {
            return Err(Refusal::Invalid(format!(
                "the rules are {} bytes; {RULES_BYTES_MAX} are the most: use `fleet rules backtest`",
                rules.len()
            )));
        }
        if self.busy.swap(true, Ordering::AcqRel) {
            return Err(Refusal::Busy);
        }
        let done = Release(self.busy.clone());
        let (database, current) = (self.database.clone(), current.clone());
        let work = move || {
            let answer = run(request, current, &database).unwrap_or_else(Refusal::answer);
            drop(done);
            send(&outlet, reply.publish(answer));
        };
        // Were it not started, the closure is dropped and with it the mark.
        std::thread::Builder::new()
            .name("backtest".to_owned())
            .spawn(work)?;
        Ok(())
    }
}

/// Lets the next backtest begin, however this one ends.
struct Release(Arc<AtomicBool>);

impl Drop for Release {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

fn send(outlet: &Session, publish: Publish) {
    outlet.fire(publish, |outcome| {
        if let Err(error) = outcome {
            tracing::warn!(%error, "a request is not answered");
        }
    });
}

/// The backtest itself, with a runtime and a connection to the store of its own.
fn run(
    request: BacktestRequest,
    current: Arc<RuleSet>,
    database: &DatabaseUrl,
) -> Result<Value, Refusal> {
    let rules = match &request.rules {
        None => current,
        Some(text) => Arc::new(RuleSet::parse(text).map_err(Refusal::Rules)?),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let store = fleet_store::open(database, OpenOptions::reader("alerting-backtest")).await?;
        let tested = Backtest::new(rules, request.from, request.to);
        let outcome = backtest(store.clone(), tested, request.sensor_id, BOUNDS, |_| true).await;
        store.close().await?;
        let (report, _) = outcome?;
        Ok(serde_json::to_value(report)?)
    })
}

/// The rules in force, and how many sensors are in which state.
fn in_force(engine: &Engine) -> Value {
    let set = engine.rules();
    let counts = engine.counts();
    let span = |span: Duration| fleet_shared::config::format_duration(span);
    let rules: Vec<Value> = set
        .rules()
        .iter()
        .zip(counts)
        .map(|(rule, (firing, pending))| {
            let patience = |it: Duration| (!it.is_zero()).then(|| span(it));
            json!({
                "name": rule.name,
                "group": rule.group,
                "severity": rule.severity,
                "topic": rule.filter.as_str(),
                "type": rule.kind,
                "when": rule.when.as_ref().map(|condition| condition.source()),
                "clear": rule.clear.as_ref().map(|condition| condition.source()),
                "for": patience(rule.policy.hold),
                "keep_firing_for": patience(rule.policy.keep_firing_for),
                "absent": rule.policy.absent.map(span),
                "resolve_after": rule.policy.resolve_after.map(span),
                "message": rule.message.source(),
                "labels": rule.labels,
                "firing": firing,
                "pending": pending,
            })
        })
        .collect();
    json!({"loaded_at": set.loaded_at(), "source": set.source(), "rules": rules})
}
