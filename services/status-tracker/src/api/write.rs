//! What changes something: commands and configuration.

use std::time::Instant;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use fleet_shared::session::{Publish, PublishError, Session};
use fleet_shared::topic::{self, TopicError, templates};
use futures_util::StreamExt as _;
use serde_json::Value;
use uuid::Uuid;

use super::Api;
use super::body::AnswerBody;
use super::problem::Problem;
use super::read::{Answer, unknown_device};
use crate::command::{Busy, request as command_request};
use crate::tracker::Ask;

/// Largest body of a request, in bytes; as large as a configuration may be.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Longest wait for the broker to acknowledge.
const BROKER_LIMIT: std::time::Duration = std::time::Duration::from_secs(5);

/// The body as JSON; `null` if there is none.
async fn body(mut payload: web::Payload) -> Result<Value, Problem> {
    let mut bytes = Vec::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| Problem::bad_request(error.to_string()))?;
        if bytes.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "/problems/too-large",
                "The body is too large",
                format!("Nothing was changed. At most {BODY_BYTES_MAX} bytes are taken."),
            ));
        }
        bytes.extend_from_slice(&chunk);
    }
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| Problem::bad_request(format!("The body is not JSON: {error}.")))
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

async fn publish(session: &Session, publish: Publish) -> Result<(), Problem> {
    match tokio::time::timeout(BROKER_LIMIT, session.publish(publish)).await {
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
    params(("id" = String, Path), ("name" = String, Path)), request_body(content = Option<Object>, description = "What the command takes"),
    security(("token" = [])),
    responses((status = 200, body = AnswerBody), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem), (status = 413, body = Problem), (status = 422, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem), (status = 504, body = Problem)))]
pub(super) async fn command(
    request: HttpRequest,
    path: web::Path<(String, String)>,
    payload: web::Payload,
    api: web::Data<Api>,
) -> Answer {
    api.guard.write(&request)?;
    let (device_id, name) = path.into_inner();
    let payload = match body(payload).await? {
        Value::Null => Value::Object(serde_json::Map::new()),
        payload => payload,
    };
    let (id, limit, asked) = (Uuid::now_v7(), api.command_timeout, device_id.clone());
    let (session, publish_it, answered) = api
        .tracker
        .send(Ask::new(move |tracker, now| {
            let view = tracker.fleet.presence.view(&asked, now);
            let view = view.ok_or_else(|| unknown_device(&asked))?;
            if !view.online {
                return Err(offline(&asked));
            }
            let session = tracker.session.clone().ok_or_else(Problem::stopping)?;
            let client_id = &tracker.client_id;
            let publish = command_request(client_id, &asked, &name, id, &payload, limit)
                .map_err(|error| bad_topic(&error))?;
            let answered = tracker.requests.open(id).map_err(|Busy| busy())?;
            Ok((session, publish, answered))
        }))
        .await??;
    let started = Instant::now();
    publish(&session, publish_it).await?;
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

fn busy() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "/problems/too-many-commands",
        "Too many commands wait for an answer",
        "Nothing was sent. Try again in a moment.",
    )
}

/// Sets what a device's configuration should be; the device obeys when it is there.
#[utoipa::path(put, path = "/api/v1/devices/{id}/config", tag = "devices", params(("id" = String, Path)),
    request_body(content = Object, description = "A JSON object"), security(("token" = [])),
    responses((status = 204, description = "The broker keeps it"), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem), (status = 413, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn set_config(
    request: HttpRequest,
    id: web::Path<String>,
    payload: web::Payload,
    api: web::Data<Api>,
) -> Answer {
    api.guard.write(&request)?;
    let desired = body(payload).await?;
    if !desired.is_object() {
        return Err(Problem::bad_request("The body must be a JSON object."));
    }
    retain_config(&api, id.into_inner(), desired.to_string().into_bytes()).await
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
    retain_config(&api, id.into_inner(), Vec::new()).await
}

async fn retain_config(api: &Api, id: String, payload: Vec<u8>) -> Answer {
    let topic = topic::device_config(&id).map_err(|error| bad_topic(&error))?;
    let session = api
        .tracker
        .send(Ask::new(move |tracker, _| {
            if !tracker.fleet.presence.knows(&id) {
                return Err(unknown_device(&id));
            }
            tracker.session.clone().ok_or_else(Problem::stopping)
        }))
        .await??;
    let retained = Publish::new(topic, templates::DEVICE_CONFIG, payload).retain(true);
    publish(&session, retained).await?;
    Ok(HttpResponse::NoContent().finish())
}
