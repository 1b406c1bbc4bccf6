//! Alerts: what fires and fired, why, and who took note.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use fleet_store::{
    AlertCursor, AlertEvent, AlertFilter, AlertPhase, AlertStory, EventKind, MQTT_CHANNEL,
    Outgoing, StoredAlert, StoredAttempt, StoryMessage,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::answer::{Answer, Page, bad_cursor, json, limit, storable};
use super::problem::Problem;
use super::query::Query;
use super::request::typed;
use crate::tracker::Ask;

/// Longest name of somebody, in characters.
pub(super) const NAME_MAX: usize = 200;

/// An alert.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AlertBody {
    alert_id: String,
    rule: String,
    severity: String,
    sensor_id: String,
    /// The device of the sensor, told from its name; absent if it is not known.
    device_id: Option<String>,
    message: String,
    /// `firing` or `resolved`.
    state: &'static str,
    #[schema(value_type = String, format = DateTime)]
    fired_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    resolved_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    acknowledged_at: Option<Timestamp>,
    acknowledged_by: Option<String>,
    /// Texts by name, at least `rule`, `value` and `state`.
    #[schema(value_type = Object)]
    metadata: Value,
}

impl From<StoredAlert> for AlertBody {
    fn from(row: StoredAlert) -> Self {
        let state = if row.resolved_at.is_some() {
            "resolved"
        } else {
            "firing"
        };
        Self {
            alert_id: row.alert.alert_id,
            rule: row.alert.rule,
            severity: row.alert.severity,
            sensor_id: row.alert.sensor_id,
            device_id: None,
            message: row.alert.message,
            state,
            fired_at: row.alert.fired_at,
            resolved_at: row.resolved_at,
            acknowledged_at: row.acknowledged_at,
            acknowledged_by: row.acknowledged_by,
            metadata: object(&row.alert.metadata),
        }
    }
}

/// The object that a text is; an empty one if it is none.
fn object(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Value::Object(object),
        _ => Value::Object(serde_json::Map::new()),
    }
}

/// States that alerts are asked for by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum StateFilter {
    /// The condition holds.
    Firing,
    /// It holds, and somebody has taken note.
    Acknowledged,
    /// It is over.
    Resolved,
    /// Any.
    All,
}

/// How much an alert matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum SeverityFilter {
    Critical,
    Warning,
    Info,
}

/// Filters and page of the alerts.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AlertsQuery {
    /// Only those in this state.
    #[param(inline)]
    state: Option<StateFilter>,
    /// Only those of this severity.
    #[param(inline)]
    severity: Option<SeverityFilter>,
    /// Only those about this sensor; of a status, the device.
    sensor: Option<String>,
    /// Alerts on the page.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

impl AlertsQuery {
    fn filter(&self) -> AlertFilter {
        AlertFilter {
            state: match self.state {
                Some(StateFilter::Firing) => Some(AlertPhase::Firing),
                Some(StateFilter::Acknowledged) => Some(AlertPhase::Acknowledged),
                Some(StateFilter::Resolved) => Some(AlertPhase::Resolved),
                Some(StateFilter::All) | None => None,
            },
            severity: self.severity.map(|severity| {
                match severity {
                    SeverityFilter::Critical => "critical",
                    SeverityFilter::Warning => "warning",
                    SeverityFilter::Info => "info",
                }
                .to_owned()
            }),
            sensor_id: self.sensor.clone(),
        }
    }
}

/// Alerts, the newest first.
#[utoipa::path(get, path = "/api/v1/alerts", tag = "alerts", params(AlertsQuery),
    responses((status = 200, body = Page<AlertBody>), (status = 304, description = "As before"), (status = 400, body = Problem), (status = 401, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn list(
    request: HttpRequest,
    query: Query<AlertsQuery>,
    api: web::Data<Api>,
) -> Answer {
    api.guard.read(&request)?;
    let limit = limit(query.limit)?;
    let after = match &query.cursor {
        Some(cursor) => Some(place(cursor).ok_or_else(bad_cursor)?),
        None => None,
    };
    let filter = query.filter();
    let rows = if filter.sensor_id.as_deref().is_none_or(storable) {
        let alerts = api.alerts.clone();
        let read = async move { alerts.alert_page(&filter, after.as_ref(), limit + 1).await };
        api.history.read(&request, 1.0, read).await?
    } else {
        Vec::new()
    };
    let page = Page::of(rows, limit, |row| {
        let place = AlertCursor::of(row);
        format!("{}_{}", place.fired_at.as_microsecond(), place.alert_id)
    });
    let mut items: Vec<_> = page.items.into_iter().map(AlertBody::from).collect();
    name_devices(&api, items.iter_mut()).await?;
    let next_cursor = page.next_cursor;
    json(&request, &Page { items, next_cursor })
}

/// Notes of each alert which device its sensor belongs to.
async fn name_devices<'a>(
    api: &Api,
    alerts: impl Iterator<Item = &'a mut AlertBody>,
) -> Result<(), Problem> {
    let mut alerts: Vec<_> = alerts.collect();
    let sensors: Vec<_> = alerts.iter().map(|it| it.sensor_id.clone()).collect();
    let devices = api.tracker.send(Ask::new(move |tracker, _| {
        let device_of = |id: &String| tracker.fleet.device_of(id).map(str::to_owned);
        sensors.iter().map(device_of).collect::<Vec<_>>()
    }));
    for (alert, device) in alerts.iter_mut().zip(devices.await?) {
        alert.device_id = device;
    }
    Ok(())
}

/// The place in the order of alerts that a cursor names.
fn place(cursor: &str) -> Option<AlertCursor> {
    let (at, alert_id) = cursor.split_once('_')?;
    let fired_at = Timestamp::from_microsecond(at.parse().ok()?).ok()?;
    (fired_at >= Timestamp::UNIX_EPOCH && storable(alert_id)).then(|| AlertCursor {
        fired_at,
        alert_id: alert_id.to_owned(),
    })
}

/// An alert with all that led to it and followed from it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExplainedBody {
    #[serde(flatten)]
    alert: AlertBody,
    explanation: Explanation,
}

/// Why an alert fired, and who was told.
#[derive(Debug, Serialize, ToSchema)]
struct Explanation {
    /// What decided: the readings or statuses at each change.
    inputs: Vec<EventBody>,
    /// Pending, firing, clearing, resolved, acknowledged.
    state_changes: Vec<EventBody>,
    /// Routes it was given to, and what kept it from being told.
    routes: Vec<EventBody>,
    /// What was or is to be sent about it, with every attempt.
    notifications: Vec<NotificationBody>,
}

/// Something that happened to an alert.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct EventBody {
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    kind: String,
    /// What alerting says of it.
    #[schema(value_type = Object)]
    detail: Value,
}

impl From<AlertEvent> for EventBody {
    fn from(event: AlertEvent) -> Self {
        Self {
            at: event.at,
            kind: event.kind,
            detail: object(&event.detail),
        }
    }
}

/// A message about an alert.
#[derive(Debug, Serialize, ToSchema)]
struct NotificationBody {
    /// `mqtt` for the broker, or a receiver.
    channel: String,
    /// Where it was published to; absent for one to a receiver.
    topic: Option<String>,
    /// The group of alerts it is about; absent for one to the broker.
    group: Option<String>,
    /// What it says of the alert: `firing` or `resolved`; absent for one to the broker.
    says: Option<String>,
    /// When it is to be sent next, or was.
    #[schema(value_type = String, format = DateTime)]
    due_at: Timestamp,
    /// When it was done with.
    #[schema(value_type = Option<String>, format = DateTime)]
    done_at: Option<Timestamp>,
    /// `sent`, `given_up` or `suppressed`; absent while it waits.
    outcome: Option<String>,
    /// What the last attempt that failed was told.
    error: Option<String>,
    /// Attempts, the first first.
    attempts: Vec<AttemptBody>,
}

/// An attempt to send a message.
#[derive(Debug, Serialize, ToSchema)]
struct AttemptBody {
    /// From 1.
    attempt: u32,
    /// When it ended.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    took_ms: u64,
    /// `sent`, `failed` or `given_up`.
    outcome: String,
    error: Option<String>,
}

impl From<StoredAttempt> for AttemptBody {
    fn from(attempt: StoredAttempt) -> Self {
        Self {
            attempt: attempt.attempt,
            at: attempt.at,
            took_ms: u64::try_from(attempt.took.as_millis()).unwrap_or(u64::MAX),
            outcome: attempt.outcome,
            error: attempt.error,
        }
    }
}

impl From<StoryMessage> for NotificationBody {
    fn from(message: StoryMessage) -> Self {
        let attempts = message.attempts.into_iter();
        let outgoing = message.stored.message;
        Self {
            topic: published_to(&outgoing),
            channel: outgoing.channel,
            group: message.group_key,
            says: message.says,
            due_at: message.stored.due_at,
            done_at: message.stored.done_at,
            outcome: message.stored.outcome,
            error: message.stored.error,
            attempts: attempts.map(AttemptBody::from).collect(),
        }
    }
}

/// The topic of a message to the broker.
fn published_to(message: &Outgoing) -> Option<String> {
    #[derive(Deserialize)]
    struct Body {
        topic: String,
    }
    if message.channel != MQTT_CHANNEL {
        return None;
    }
    let body: Body = serde_json::from_str(&message.body).ok()?;
    Some(body.topic)
}

impl From<AlertStory> for ExplainedBody {
    fn from(story: AlertStory) -> Self {
        let of = |kinds: &[EventKind]| -> Vec<EventBody> {
            let events = story.events.iter();
            events
                .filter(|event| kinds.iter().any(|kind| kind.as_str() == event.kind))
                .cloned()
                .map(EventBody::from)
                .collect()
        };
        let changes = [
            EventKind::Pending,
            EventKind::Firing,
            EventKind::Clearing,
            EventKind::FiringAgain,
            EventKind::Resolved,
        ];
        let mut inputs = of(&changes);
        inputs.retain(|event| event.detail.as_object().is_some_and(|it| !it.is_empty()));
        let state_changes = of(&[changes.as_slice(), &[EventKind::Acknowledged]].concat());
        let routes = of(&[
            EventKind::Routed,
            EventKind::Suppressed,
            EventKind::Released,
        ]);
        Self {
            explanation: Explanation {
                inputs,
                state_changes,
                routes,
                notifications: story.messages.into_iter().map(Into::into).collect(),
            },
            alert: story.alert.into(),
        }
    }
}

/// One alert with its explanation: what decided, what became of it, who was told and how that went.
#[utoipa::path(get, path = "/api/v1/alerts/{id}", tag = "alerts", params(("id" = String, Path)),
    responses((status = 200, body = ExplainedBody), (status = 304, description = "As before"), (status = 400, body = Problem), (status = 401, body = Problem), (status = 404, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn one(
    request: HttpRequest,
    id: web::Path<String>,
    api: web::Data<Api>,
) -> Answer {
    api.guard.read(&request)?;
    if !storable(&id) {
        return Err(unknown(&id));
    }
    let (alerts, asked) = (api.alerts.clone(), id.clone());
    let read = async move { alerts.alert_story(&asked).await };
    let story = api.history.read(&request, 1.0, read).await?;
    let story = story.ok_or_else(|| unknown(&id))?;
    let mut body = ExplainedBody::from(story);
    name_devices(&api, std::iter::once(&mut body.alert)).await?;
    json(&request, &body)
}

fn unknown(id: &str) -> Problem {
    Problem::not_found(format!("There is no alert `{id}`; see /api/v1/alerts."))
}

/// Who takes note.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AcknowledgeBody {
    /// A name, at most 200 characters; `api` if it is absent.
    #[serde(default)]
    #[schema(max_length = 200)]
    by: Option<String>,
}

/// Takes note of an alert: it is not notified again. Who was first stays.
#[utoipa::path(post, path = "/api/v1/alerts/{id}/acknowledge", tag = "alerts", params(("id" = String, Path)),
    request_body = Option<AcknowledgeBody>, security(("token" = [])),
    responses((status = 200, body = AlertBody), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem), (status = 408, body = Problem), (status = 409, body = Problem), (status = 413, body = Problem), (status = 415, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn acknowledge(
    request: HttpRequest,
    id: web::Path<String>,
    payload: web::Payload,
    api: web::Data<Api>,
) -> Answer {
    api.guard.write(&request)?;
    let by = typed::<AcknowledgeBody>(&request, payload).await?.by;
    let by = name(by.as_deref().unwrap_or("api"), "by")?;
    if !storable(&id) {
        return Err(unknown(&id));
    }
    let known = api.alerts.alert(&id).await?;
    let known = known.ok_or_else(|| unknown(&id))?;
    if known.resolved_at.is_some() && known.acknowledged_at.is_none() {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "/problems/alert-resolved",
            "The alert is over",
            "Nothing was changed: nobody is notified about it any more.",
        ));
    }
    let alert = api
        .alerts
        .acknowledge_alert(&id, Timestamp::now(), &by)
        .await?;
    let alert = alert.ok_or_else(|| unknown(&id))?;
    let mut body = AlertBody::from(alert);
    name_devices(&api, std::iter::once(&mut body)).await?;
    api.hub.send("acknowledged", &body);
    Ok(HttpResponse::Ok().json(body))
}

/// A text of a person: not empty, not endless, and storable.
pub(super) fn name(text: &str, field: &str) -> Result<String, Problem> {
    let text = text.trim();
    let count = text.chars().count();
    if (1..=NAME_MAX).contains(&count) && storable(text) {
        return Ok(text.to_owned());
    }
    Err(Problem::bad_request(format!(
        "{field} has {count} characters: give 1 to {NAME_MAX}, none of them NUL."
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_names_a_place_in_the_order() {
        let place_of = place("1000000_a_b").unwrap();
        assert_eq!(
            (place_of.fired_at.as_second(), place_of.alert_id.as_str()),
            (1, "a_b")
        );
        for bad in ["", "1", "x_y", "-1_a", "1_\0"] {
            assert!(place(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn names_are_texts_that_people_write() {
        assert_eq!(name(" ana ", "by").unwrap(), "ana");
        for bad in ["", "  ", "a\0b", &"x".repeat(201)] {
            assert!(name(bad, "by").is_err(), "{bad:?}");
        }
    }
}
