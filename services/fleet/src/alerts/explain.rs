//! `fleet alerts show` and `fleet alerts explain`.

use anyhow::Context as _;
use fleet_store::{AlertEvent, AlertStory, EventKind, MQTT_CHANNEL, StoryMessage};
use serde_json::{Value, json};

use super::text::{alert_json, head, object, visible};
use super::{Where, no_alert};
use crate::place::Output;

const EXAMPLES: &str = "\
It tells the readings that decided, the changes of state, the routes, what kept it quiet, and every
attempt to tell somebody.

Examples:
  fleet alerts explain 0f0e0d0c-0b0a-8908-8706-050403020100
  fleet alerts explain 0f0e0d0c-0b0a-8908-8706-050403020100 --output json | jq .explanation.inputs";

/// Tells why an alert fired, what became of it, and who was told.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
#[command(mut_arg("log", |arg| arg.default_value("warn")))]
pub struct ExplainArgs {
    /// The alert.
    #[arg(value_name = "ALERT")]
    pub alert_id: String,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
    /// Where it is.
    #[command(flatten)]
    pub place: Where,
}

/// Shows one alert.
#[derive(clap::Args, Clone, Debug)]
#[command(mut_arg("log", |arg| arg.default_value("warn")))]
pub struct ShowArgs {
    /// The alert.
    #[arg(value_name = "ALERT")]
    pub alert_id: String,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
    /// Where it is.
    #[command(flatten)]
    pub place: Where,
}

pub(super) async fn show(args: &ShowArgs) -> anyhow::Result<String> {
    let store = args.place.read().await?;
    let found = store.alert(&args.alert_id).await;
    let found = found.context("reading the alert")?;
    let alert = found.ok_or_else(|| no_alert(&args.alert_id))?;
    match args.output {
        Output::Json => Ok(serde_json::to_string(&alert_json(&alert))? + "\n"),
        Output::Text => {
            let mut text = head(&alert);
            if let Value::Object(metadata) = object(&alert.alert.metadata) {
                for (name, value) in metadata {
                    text += &format!("    {}: {}\n", visible(&name), plain(&value));
                }
            }
            Ok(text)
        }
    }
}

pub(super) async fn run(args: &ExplainArgs) -> anyhow::Result<String> {
    let store = args.place.read().await?;
    let found = store.alert_story(&args.alert_id).await;
    let story = found
        .context("reading the alert's story")?
        .ok_or_else(|| no_alert(&args.alert_id))?;
    match args.output {
        Output::Json => Ok(as_json(&story)?.to_string() + "\n"),
        Output::Text => Ok(as_text(&story)),
    }
}

fn as_json(story: &AlertStory) -> anyhow::Result<Value> {
    let of = |wanted: fn(&str) -> bool| -> Vec<Value> {
        let events = story.events.iter().filter(|event| wanted(&event.kind));
        events
            .map(|event| {
                json!({ "at": event.at, "kind": event.kind, "detail": object(&event.detail) })
            })
            .collect()
    };
    let messages = story.messages.iter().map(|message| {
        let attempts: Vec<Value> = message
            .attempts
            .iter()
            .map(|attempt| {
                let took = u64::try_from(attempt.took.as_millis()).unwrap_or(u64::MAX);
                json!({
                    "attempt": attempt.attempt, "at": attempt.at, "took_ms": took,
                    "outcome": attempt.outcome, "error": attempt.error,
                })
            })
            .collect();
        let stored = &message.stored;
        json!({
            "id": stored.message.name, "channel": stored.message.channel,
            "group": message.group_key, "says": message.says, "due_at": stored.due_at,
            "done_at": stored.done_at, "outcome": stored.outcome, "error": stored.error,
            "attempts": attempts,
        })
    });
    let mut body = serde_json::to_value(alert_json(&story.alert))?;
    body["explanation"] = json!({
        "inputs": of(is_state),
        "state_changes": of(|kind| is_state(kind) || kind == EventKind::Acknowledged.as_str()),
        "routes": of(|kind| !is_state(kind) && kind != EventKind::Acknowledged.as_str()),
        "notifications": messages.collect::<Vec<_>>(),
    });
    Ok(body)
}

fn is_state(kind: &str) -> bool {
    let states = [
        EventKind::Pending,
        EventKind::Firing,
        EventKind::Clearing,
        EventKind::FiringAgain,
        EventKind::Resolved,
    ];
    states.iter().any(|state| state.as_str() == kind)
}

fn as_text(story: &AlertStory) -> String {
    let mut text = head(&story.alert);
    text += "\nWhat happened\n";
    for event in &story.events {
        text += &event_line(event);
    }
    if story.events.is_empty() {
        text += "  nothing is known: it is from before this was kept\n";
    }
    text += "\nWho was told\n";
    let mut told = false;
    for message in &story.messages {
        if message.stored.message.channel != MQTT_CHANNEL {
            told = true;
            text += &message_lines(message);
        }
    }
    if !told {
        text += "  nobody yet\n";
    }
    text += "\nWhat was published\n";
    for message in &story.messages {
        if message.stored.message.channel == MQTT_CHANNEL {
            let body = object(&message.stored.message.body);
            text += &format!("  {}: {}\n", plain(&body["topic"]), outcome(message));
        }
    }
    text
}

fn event_line(event: &AlertEvent) -> String {
    let detail = object(&event.detail);
    let mut parts = Vec::new();
    if let Value::Object(fields) = &detail {
        // The most telling first.
        let order = ["by", "reading", "condition", "windows"];
        let known = order
            .iter()
            .filter_map(|name| Some((*name, fields.get(*name)?)));
        let rest = fields
            .iter()
            .filter(|(name, _)| !order.contains(&name.as_str()))
            .map(|(name, value)| (name.as_str(), value));
        for (name, value) in known.chain(rest) {
            match (name, value) {
                ("reading", Value::Object(reading)) => parts.push(reading_text(reading)),
                ("routes", Value::Array(routes)) => {
                    parts.extend(routes.iter().map(route_text));
                }
                _ => parts.push(format!("{name} {}", plain(value))),
            }
        }
    }
    let separator = if parts.len() > 3 { "\n      " } else { "; " };
    format!("  {} {}: {}\n", event.at, event.kind, parts.join(separator))
}

fn reading_text(reading: &serde_json::Map<String, Value>) -> String {
    let field = |name: &str| reading.get(name).map(plain).unwrap_or_default();
    let what = [field("type"), field("value"), field("unit")].join(" ");
    let mut text = format!("{} at {}", what.trim(), field("timestamp"));
    if let Some(location) = reading.get("location") {
        text += &format!(" in {}", plain(location));
    }
    text
}

fn route_text(route: &Value) -> String {
    let channels = route["channels"].as_array().map(Vec::as_slice);
    let channels: Vec<String> = channels.unwrap_or_default().iter().map(plain).collect();
    format!(
        "{} -> {} ({}), group {}",
        plain(&route["route"]),
        plain(&route["receiver"]),
        channels.join(", "),
        plain(&route["group"])
    )
}

fn message_lines(message: &StoryMessage) -> String {
    let mut text = format!(
        "  {} {} ({}): {}\n",
        message.stored.message.channel,
        message.says.as_deref().unwrap_or("?"),
        message.stored.message.name,
        outcome(message)
    );
    for attempt in &message.attempts {
        let error = attempt.error.as_deref().map(visible);
        text += &format!(
            "    {}. {} {} after {} ms{}\n",
            attempt.attempt,
            attempt.at,
            attempt.outcome,
            attempt.took.as_millis(),
            error.map(|error| format!(": {error}")).unwrap_or_default()
        );
    }
    text
}

fn outcome(message: &StoryMessage) -> String {
    match (&message.stored.outcome, message.stored.done_at) {
        (Some(outcome), Some(at)) => format!("{outcome} {at}"),
        _ if message.stored.message.attempts > 0 => {
            format!("waits until {} for another attempt", message.stored.due_at)
        }
        _ => "waits".to_owned(),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => visible(text),
        other => visible(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fleet_store::{NewAlert, Outgoing, StoredAlert, StoredAttempt, StoredOutgoing};
    use jiff::Timestamp;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    fn event(kind: EventKind, second: i64, detail: &str) -> AlertEvent {
        AlertEvent {
            at: at(second),
            kind: kind.as_str().to_owned(),
            detail: detail.to_owned(),
        }
    }

    fn message(channel: &str, body: &str, attempts: Vec<StoredAttempt>) -> StoryMessage {
        StoryMessage {
            stored: StoredOutgoing {
                message: Outgoing {
                    seq: 1,
                    name: "msg_1".to_owned(),
                    alert_id: "a".to_owned(),
                    channel: channel.to_owned(),
                    body: body.to_owned(),
                    attempts: u32::try_from(attempts.len()).unwrap(),
                },
                due_at: at(5),
                done_at: Some(at(9)),
                outcome: Some("sent".to_owned()),
                error: None,
            },
            group_key: Some("{}:{location=\"hall\"}".to_owned()),
            says: Some("firing".to_owned()),
            attempts,
        }
    }

    fn story() -> AlertStory {
        let attempt = |attempt, outcome: &str, error: Option<&str>| StoredAttempt {
            attempt,
            at: at(6),
            took: Duration::from_millis(12),
            outcome: outcome.to_owned(),
            error: error.map(str::to_owned),
        };
        let attempts = vec![
            attempt(1, "failed", Some("the receiver answered 503")),
            attempt(2, "sent", None),
        ];
        AlertStory {
            alert: StoredAlert {
                alert: NewAlert {
                    alert_id: "0f0e0d0c-0000-8000-8000-000000000001".to_owned(),
                    rule: "TemperatureHigh".to_owned(),
                    severity: "critical".to_owned(),
                    sensor_id: "s1".to_owned(),
                    message: "s1 is at 31 celsius".to_owned(),
                    fired_at: at(0),
                    metadata: "{\"rule\":\"TemperatureHigh\"}".to_owned(),
                },
                resolved_at: None,
                acknowledged_at: Some(at(60)),
                acknowledged_by: Some("ada".to_owned()),
            },
            events: vec![
                event(
                    EventKind::Firing,
                    0,
                    r#"{"by":"reading","condition":"value > 30","for":"30s","reading":{"type":"temperature","value":31.0,"unit":"celsius","location":"hall","timestamp":"2026-09-21T13:33:20Z"}}"#,
                ),
                event(
                    EventKind::Routed,
                    1,
                    r#"{"routes":[{"route":"{}","receiver":"ops","channels":["ops/webhook/0"],"group":"{}:{location=\"hall\"}"}]}"#,
                ),
            ],
            messages: vec![
                message("mqtt", r#"{"topic":"alerts/critical/s1"}"#, Vec::new()),
                message("ops/webhook/0", "{}", attempts),
            ],
        }
    }

    #[test]
    fn people_read_what_happened_and_who_was_told() {
        insta::assert_snapshot!(as_text(&story()));
    }

    #[test]
    fn programs_get_the_form_of_the_http_api() {
        let body = as_json(&story()).unwrap();
        assert_eq!(body["state"], "firing");
        let explanation = &body["explanation"];
        assert_eq!(explanation["inputs"][0]["detail"]["reading"]["value"], 31.0);
        assert_eq!(explanation["routes"][0]["kind"], "routed");
        assert_eq!(
            explanation["notifications"][1]["attempts"][0]["outcome"],
            "failed"
        );
    }
}
