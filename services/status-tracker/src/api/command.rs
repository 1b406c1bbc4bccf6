//! Commands to devices, and their configuration.

use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use fleet_shared::session::{Publish, PublishError, Session};
use fleet_shared::topic::{self, TopicError, templates};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use super::answer::{Answer, json};
use super::device::unknown;
use super::problem::Problem;
use super::request::body;
use super::trace;
use crate::command::{Asked, Busy, request as request_to};
use crate::tracker::Ask;

/// Longest wait for the broker to acknowledge.
const BROKER_LIMIT: Duration = Duration::from_secs(5);

/// A device's answer to a command.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AnswerBody {
    correlation_id: Uuid,
    /// From the request to its answer.
    elapsed_ms: u64,
    /// What it said.
    #[schema(value_type = serde_json::Value)]
    answer: Value,
}

/// Configuration of a device.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ConfigBody {
    /// What it should be; absent if nothing is asked for.
    #[schema(value_type = Option<serde_json::Value>)]
    desired: Option<Value>,
    /// What is in force, as the device says.
    #[schema(value_type = Option<serde_json::Value>)]
    reported: Option<Value>,
    /// Whether the device does what is asked.
    in_sync: bool,
}

impl ConfigBody {
    /// In sync means that every desired key is reported with the same value.
    fn new(desired: Option<Value>, reported: Option<Value>) -> Self {
        let in_sync = match (&desired, &reported) {
            (None, _) => true,
            (Some(Value::Object(desired)), Some(Value::Object(reported))) => desired
                .iter()
                .all(|(key, value)| reported.get(key) == Some(value)),
            (desired, reported) => desired == reported,
        };
        Self {
            desired,
            reported,
            in_sync,
        }
    }
}

fn bad_topic(error: &TopicError) -> Problem {
    Problem::bad_request(format!("The name cannot be a topic level: {error}."))
}

fn not_published(error: &PublishError) -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "/problems/broker",
        "The broker did not take the message",
        format!("{error}. Nothing is known to have changed; try again in a moment."),
    )
}

/// Publishes as part of the request's trace, and waits for the broker.
pub(super) async fn publish(
    api: &Api,
    request: &HttpRequest,
    session: &Session,
    publish: Publish,
) -> Result<(), Problem> {
    let published = trace::publish(api, request, session, publish);
    match tokio::time::timeout(BROKER_LIMIT, published).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(not_published(&error)),
        Err(_) => Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "/problems/broker",
            "The broker did not acknowledge in time",
            "It may still take the message when it is back. Look before you try again.",
        )),
    }
}

/// Sends a command to a device and waits for its answer.
///
/// A device that is offline (409), one that refuses (422) and one that does not answer in time (504)
/// are three different problems; after the last the device may still do it.
#[utoipa::path(post, path = "/api/v1/devices/{id}/commands/{name}", tag = "devices",
    params(("id" = String, Path), ("name" = String, Path)), request_body(content = Option<serde_json::Value>, description = "What the command takes; any JSON, or nothing"),
    security(("token" = [])),
    responses((status = 200, body = AnswerBody), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem), (status = 408, body = Problem), (status = 409, body = Problem), (status = 413, body = Problem), (status = 415, body = Problem), (status = 422, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem), (status = 504, body = Problem)))]
pub(super) async fn send(
    request: HttpRequest,
    path: web::Path<(String, String)>,
    payload: web::Payload,
    api: web::Data<Api>,
) -> Answer {
    api.guard.write(&request)?;
    let (device_id, name) = path.into_inner();
    let payload = match body(&request, payload).await? {
        Value::Null => Value::Object(serde_json::Map::new()),
        payload => payload,
    };
    let topic = topic::device_command(&device_id, &name).map_err(|error| bad_topic(&error))?;
    let (id, limit, asked) = (Uuid::now_v7(), api.command_timeout, device_id.clone());
    let (session, publish_it, answered) = api
        .tracker
        .send(Ask::new(move |tracker, now| {
            let view = tracker.fleet.presence.view(&asked, now);
            let view = view.ok_or_else(|| unknown(&asked))?;
            if !view.online {
                return Err(offline(&asked));
            }
            let session = tracker.session.clone().ok_or_else(Problem::stopping)?;
            let publish = Publish::new(
                topic,
                templates::DEVICE_COMMAND,
                payload.to_string().into_bytes(),
            );
            // A device answers under its own id: its account lets it publish nowhere else.
            let publish =
                request_to(&asked, publish, id, limit).map_err(|error| bad_topic(&error))?;
            let answered = tracker
                .requests
                .open(Asked::Device, id)
                .map_err(|Busy| busy())?;
            Ok((session, publish, answered))
        }))
        .await??;
    let started = Instant::now();
    publish(&api, &request, &session, publish_it).await?;
    match tokio::time::timeout(limit, answered).await {
        Ok(Ok(answer)) if answer.get("error").is_some() => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "/problems/command-refused",
            "The device refused the command",
            format!("`{device_id}` answered with an error; nothing else was sent."),
        )
        .answer(answer)),
        Ok(Ok(answer)) => Ok(HttpResponse::Ok().json(AnswerBody {
            correlation_id: id,
            elapsed_ms: started.elapsed().as_millis() as u64,
            answer,
        })),
        Ok(Err(_)) => Err(Problem::stopping()),
        Err(_) => Err(Problem::new(
            StatusCode::GATEWAY_TIMEOUT,
            "/problems/command-timeout",
            "The device did not answer in time",
            format!("`{device_id}` did not answer within {limit:?}. It may still act on it."),
        )),
    }
}

fn offline(device_id: &str) -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "/problems/device-offline",
        "The device is offline",
        format!("Nothing was sent. Try again when `{device_id}` is online."),
    )
}

/// Too many requests wait for their answer.
pub(super) fn busy() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "/problems/too-many-commands",
        "Too many requests wait for an answer",
        "Nothing was sent. Try again in a moment.",
    )
}

/// Configuration of a device, desired and reported.
#[utoipa::path(get, path = "/api/v1/devices/{id}/config", tag = "devices", params(("id" = String, Path)),
    responses((status = 200, body = ConfigBody), (status = 304, description = "As before"), (status = 400, body = Problem), (status = 401, body = Problem), (status = 404, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn config(
    request: HttpRequest,
    id: web::Path<String>,
    api: web::Data<Api>,
) -> Answer {
    api.guard.read(&request)?;
    let id = id.into_inner();
    let asked = id.clone();
    let found = api
        .tracker
        .send(Ask::new(move |tracker, _| {
            let known = tracker.fleet.configurations.get(asked.as_str()).cloned();
            let device = tracker.fleet.presence.knows(&asked);
            known.or_else(|| device.then(Default::default))
        }))
        .await?
        .ok_or_else(|| unknown(&id))?;
    let value = |text: Option<std::sync::Arc<str>>| -> Option<Value> {
        text.and_then(|text| serde_json::from_str(&text).ok())
    };
    let body = ConfigBody::new(value(found.desired), value(found.reported));
    json(&request, &body)
}

/// Sets what a device's configuration should be; the device obeys when it is there.
#[utoipa::path(put, path = "/api/v1/devices/{id}/config", tag = "devices", params(("id" = String, Path)),
    request_body(content = Object, description = "A JSON object"), security(("token" = [])),
    responses((status = 204, description = "The broker keeps it"), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem), (status = 408, body = Problem), (status = 413, body = Problem), (status = 415, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn set_config(
    request: HttpRequest,
    id: web::Path<String>,
    payload: web::Payload,
    api: web::Data<Api>,
) -> Answer {
    api.guard.write(&request)?;
    let desired = body(&request, payload).await?;
    if !desired.is_object() {
        return Err(Problem::bad_request("The body must be a JSON object."));
    }
    let desired = desired.to_string().into_bytes();
    retain_config(&api, &request, id.into_inner(), desired).await
}

/// Asks nothing of a device's configuration any more.
#[utoipa::path(delete, path = "/api/v1/devices/{id}/config", tag = "devices", params(("id" = String, Path)), security(("token" = [])),
    responses((status = 204, description = "The broker forgot it"), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn clear_config(
    request: HttpRequest,
    id: web::Path<String>,
    api: web::Data<Api>,
) -> Answer {
    api.guard.write(&request)?;
    retain_config(&api, &request, id.into_inner(), Vec::new()).await
}

async fn retain_config(api: &Api, request: &HttpRequest, id: String, payload: Vec<u8>) -> Answer {
    let topic = topic::device_config(&id).map_err(|error| bad_topic(&error))?;
    let session = api
        .tracker
        .send(Ask::new(move |tracker, _| {
            if !tracker.fleet.presence.knows(&id) {
                return Err(unknown(&id));
            }
            tracker.session.clone().ok_or_else(Problem::stopping)
        }))
        .await??;
    let retained = Publish::new(topic, templates::DEVICE_CONFIG, payload).retain(true);
    publish(api, request, &session, retained).await?;
    Ok(HttpResponse::NoContent().finish())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn in_sync_is_what_does_all_that_is_asked() {
        let sync = |desired, reported| ConfigBody::new(desired, reported).in_sync;
        assert!(sync(None, Some(json!({"a": 1}))));
        assert!(sync(Some(json!({"a": 1})), Some(json!({"a": 1, "b": 2}))));
        assert!(!sync(Some(json!({"a": 1})), Some(json!({"a": 2}))));
        assert!(!sync(Some(json!({"a": 1})), None));
    }
}
