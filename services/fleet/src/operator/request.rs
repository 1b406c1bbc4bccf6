//! `fleet request`: a command to a device, and its answer.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use fleet_shared::config::{ConfigError, LogArgs, MqttArgs, duration, format_duration};
use fleet_shared::service::Host;
use fleet_shared::session::{Message, Properties, Publish, QoS, Subscription};
use fleet_shared::topic::{self, templates};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::Operator;
use crate::place::Output;

/// How long the broker has to send the device's retained status, which comes with the subscription.
const STATUS_WAIT: Duration = Duration::from_millis(500);

const EXAMPLES: &str = "\
A device that is offline, one that refuses and one that does not answer in time are three different
answers; each exits with 1, and `outcome` of --output json names it: answered, offline, refused or
timeout. After a timeout the device may still do what it was asked.

Examples:
  fleet request sensor-001 ping
  fleet request sensor-001 set-interval '{\"interval_ms\":10000}'
  fleet request sensor-001 reboot --timeout 5s --output json";

/// Sends a command to a device and waits for its answer.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
#[command(mut_arg("log", |arg| arg.default_value("warn")))]
pub struct RequestArgs {
    /// The device.
    #[arg(value_name = "DEVICE")]
    pub device: String,
    /// What it is to do: simulated devices know ping, reboot, set-interval and identify.
    #[arg(value_name = "COMMAND")]
    pub command: String,
    /// What the command takes.
    #[arg(value_name = "JSON", default_value = "{}")]
    pub payload: String,
    /// Longest wait for the connection, and then for the answer.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
    /// Send it to a device that is offline too: one with a session may find it when it is back.
    #[arg(long)]
    pub even_offline: bool,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
    /// The broker.
    #[command(flatten)]
    pub mqtt: MqttArgs,
    /// What is logged, and how.
    #[command(flatten)]
    pub logs: LogArgs,
}

/// What came of a request.
#[derive(Debug, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
enum Outcome {
    /// The device answered.
    Answered { elapsed_ms: u64, answer: Value },
    /// The device answered with an error.
    Refused { elapsed_ms: u64, answer: Value },
    /// Its last status says that it is not there; nothing was sent.
    Offline { status: Value },
    /// No answer in time.
    Timeout { waited_ms: u64 },
}

impl Outcome {
    fn text(&self, device: &str) -> String {
        match self {
            Self::Answered { elapsed_ms, answer } => format!("{answer}\n# after {elapsed_ms} ms"),
            Self::Refused { elapsed_ms, answer } => {
                format!(
                    "{device} refused after {elapsed_ms} ms: {}",
                    answer["error"]
                )
            }
            Self::Offline { status } => format!(
                "{device} is offline ({status}); nothing was sent. --even-offline sends it all the same"
            ),
            Self::Timeout { waited_ms } => format!(
                "{device} did not answer within {}; it may still do it",
                format_duration(Duration::from_millis(*waited_ms))
            ),
        }
    }

    fn code(&self) -> ExitCode {
        ExitCode::from(u8::from(!matches!(self, Self::Answered { .. })))
    }
}

/// The command.
///
/// # Errors
/// If a name cannot be a topic level, the payload is not JSON, or the broker cannot be used.
pub async fn run(args: RequestArgs, host: Host) -> anyhow::Result<ExitCode> {
    let level = |name, value: &str, error: topic::TopicError| {
        ConfigError::value(name, value, format!("it cannot be a topic level: {error}"))
    };
    let status =
        topic::device_status(&args.device).map_err(|error| level("DEVICE", &args.device, error))?;
    let topic = topic::device_command(&args.device, &args.command)
        .map_err(|error| level("COMMAND", &args.command, error))?;
    let payload: Value = serde_json::from_str(&args.payload)
        .map_err(|error| ConfigError::value("JSON", &args.payload, format!("{error}")))?;

    let id = Uuid::now_v7().to_string();
    // A device answers under its own id: its account lets it publish nowhere else.
    let answers = format!("responses/{}/+", args.device);
    let subscriptions = |_: &str| {
        [answers, status.to_string()]
            .map(|filter| Subscription::new(filter, QoS::AtLeastOnce))
            .into()
    };
    let mut operator = Operator::connect(
        "request",
        &args.mqtt,
        &host,
        Some(args.timeout),
        subscriptions,
    )
    .await?;
    let response =
        topic::response(&args.device, &id).map_err(|error| level("DEVICE", &args.device, error))?;
    let publish = Publish::new(
        topic,
        templates::DEVICE_COMMAND,
        payload.to_string().into_bytes(),
    )
    .properties(Properties {
        response_topic: Some(response.to_string().into()),
        correlation_data: Some(id.clone().into_bytes().into()),
        content_type: Some("application/json".into()),
        message_expiry: Some(args.timeout.max(Duration::from_secs(1))),
        ..Properties::default()
    });
    let outcome = tokio::select! {
        outcome = ask(&args, &mut operator, &status, &id, publish) => outcome,
        () = host.stopping() => Err(anyhow::anyhow!("interrupted")),
    };
    operator.leave().await;
    let outcome = outcome?;
    let shown = match args.output {
        Output::Json => serde_json::to_string(&outcome)?,
        Output::Text => outcome.text(&args.device),
    };
    writeln!(std::io::stdout(), "{shown}").context("writing the answer")?;
    Ok(outcome.code())
}

async fn ask(
    args: &RequestArgs,
    operator: &mut Operator,
    status: &str,
    id: &str,
    publish: Publish,
) -> anyhow::Result<Outcome> {
    if !args.even_offline
        && let Some(status) = offline(operator, status).await?
    {
        return Ok(Outcome::Offline { status });
    }
    let started = Instant::now();
    let session = operator.session.clone();
    let answered = async {
        session
            .publish(publish)
            .await
            .context("publishing the request")?;
        loop {
            let message = operator.next().await?;
            operator
                .session
                .acknowledge(message.ticket.into_iter().collect());
            if let Some(answer) = answer(&message, id) {
                return anyhow::Ok(answer);
            }
        }
    };
    let elapsed =
        |started: Instant| u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(match tokio::time::timeout(args.timeout, answered).await {
        Err(_) => Outcome::Timeout {
            waited_ms: elapsed(started),
        },
        Ok(answer) => {
            let (answer, elapsed_ms) = (answer?, elapsed(started));
            match answer.get("error") {
                Some(_) => Outcome::Refused { elapsed_ms, answer },
                None => Outcome::Answered { elapsed_ms, answer },
            }
        }
    })
}

/// The device's last status, if it says that it is offline. A device of which the broker remembers
/// nothing is asked.
async fn offline(operator: &mut Operator, status: &str) -> anyhow::Result<Option<Value>> {
    let Ok(message) = tokio::time::timeout(STATUS_WAIT, operator.next()).await else {
        return Ok(None);
    };
    let message = message?;
    operator
        .session
        .acknowledge(message.ticket.into_iter().collect());
    let said: Option<Value> = serde_json::from_slice(&message.payload).ok();
    Ok(said.filter(|said| message.topic == status && said["online"] == false))
}

/// The answer in a message, if it belongs to the request: by correlation data, by the JSON envelope
/// of a peer without MQTT 5, or by its topic.
fn answer(message: &Message, id: &str) -> Option<Value> {
    if !message.topic.starts_with("responses/") {
        return None;
    }
    let payload = serde_json::from_slice(&message.payload)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&message.payload).into_owned()));
    let properties = message.properties.as_ref();
    let correlation = properties.and_then(|it| it.correlation_data.as_deref());
    let enveloped = payload.get("correlation_id").and_then(Value::as_str) == Some(id);
    let named = match correlation {
        Some(data) => data == id.as_bytes(),
        None => enveloped || message.topic.ends_with(id),
    };
    if !named {
        return None;
    }
    match payload {
        Value::Object(mut envelope) if enveloped && envelope.contains_key("payload") => {
            envelope.remove("payload")
        }
        payload => Some(payload),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(topic: &str, payload: &Value, correlation: Option<&'static str>) -> Message {
        Message {
            topic: topic.into(),
            payload: payload.to_string().into_bytes().into(),
            qos: QoS::AtLeastOnce,
            retain: false,
            dup: false,
            properties: correlation.map(|data| {
                Box::new(Properties {
                    correlation_data: Some(data.as_bytes().to_vec().into()),
                    ..Properties::default()
                })
            }),
            ticket: None,
        }
    }

    #[test]
    fn an_answer_belongs_to_its_request_by_data_envelope_or_topic() {
        let pong = json!({"pong": true});
        let envelope = json!({"correlation_id": "7", "payload": pong});
        for (topic, payload, data, expected) in [
            ("responses/c/x", &pong, Some("7"), Some(&pong)),
            ("responses/c/7", &pong, None, Some(&pong)),
            ("responses/c/x", &envelope, None, Some(&pong)),
            ("responses/c/7", &pong, Some("8"), None),
            ("responses/c/8", &pong, None, None),
            ("devices/d/status", &pong, Some("7"), None),
        ] {
            let found = answer(&message(topic, payload, data), "7");
            assert_eq!(found.as_ref(), expected, "{topic} {payload} {data:?}");
        }
    }

    #[test]
    fn the_four_outcomes_are_told_apart() {
        let outcomes = [
            Outcome::Answered {
                elapsed_ms: 3,
                answer: json!({"pong": true}),
            },
            Outcome::Refused {
                elapsed_ms: 3,
                answer: json!({"error": {"code": "unknown_command"}}),
            },
            Outcome::Offline {
                status: json!({"online": false}),
            },
            Outcome::Timeout { waited_ms: 30_000 },
        ];
        let shown = outcomes.map(|it| it.text("d1") + "\n" + &serde_json::to_string(&it).unwrap());
        insta::assert_snapshot!(shown.join("\n"));
    }
}
