//! What can be read.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH};
use actix_web::{HttpRequest, HttpResponse, web};
use fleet_store::{DeadLetterFilter, Span};
use jiff::{Timestamp, ToSpan as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::IntoParams;
use uuid::Uuid;

use super::Api;
use super::body::{
    AlertBody, ConfigBody, DeadLetterBody, DeviceBody, Page, ReadingsBody, SensorBody, SummaryBody,
    TransitionBody,
};
use super::problem::Problem;
use crate::presence::State;
use crate::tracker::Ask;

const LIMIT: u32 = 100;
const LIMIT_MAX: u32 = 1_000;
const POINTS: u32 = 300;
const POINTS_MAX: u32 = 2_000;

pub(super) type Answer = Result<HttpResponse, Problem>;

/// The answer as JSON with an entity tag; without a body if the client has it already.
pub(super) fn json(request: &HttpRequest, body: &impl Serialize) -> Answer {
    let text = serde_json::to_string(body).map_err(|error| {
        tracing::error!(%error, "an answer cannot be written as JSON");
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "about:blank",
            "Internal error",
            "The log says more.",
        )
    })?;
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    // Weak, since the same answer may be compressed or not.
    let tag = format!("W/\"{:016x}\"", hasher.finish());
    let given = request.headers().get(IF_NONE_MATCH);
    let known = given
        .and_then(|given| given.to_str().ok())
        .is_some_and(|given| given.split(',').any(|given| given.trim() == tag));
    let mut response = if known {
        HttpResponse::NotModified()
    } else {
        HttpResponse::Ok()
    };
    response
        .insert_header((ETAG, tag))
        .insert_header((CACHE_CONTROL, "no-cache"));
    if known {
        return Ok(response.finish());
    }
    Ok(response.content_type("application/json").body(text))
}

fn limit(asked: Option<u32>) -> Result<u32, Problem> {
    match asked.unwrap_or(LIMIT) {
        limit @ 1..=LIMIT_MAX => Ok(limit),
        other => Err(Problem::bad_request(format!(
            "limit is {other}: give 1 to {LIMIT_MAX}"
        ))),
    }
}

/// Takes one more than a page holds, to know whether there is another.
fn page<T>(mut items: Vec<T>, limit: u32, cursor: impl Fn(&T) -> String) -> Page<T> {
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next_cursor = if more { items.last().map(cursor) } else { None };
    Page { items, next_cursor }
}

/// The fleet at a glance.
#[utoipa::path(get, path = "/api/v1/summary", tag = "fleet",
    responses((status = 200, body = SummaryBody), (status = 304, description = "As before"), (status = 401, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn summary(request: HttpRequest, api: web::Data<Api>) -> Answer {
    api.guard.read(&request)?;
    let summary = api.tracker.send(Ask::new(SummaryBody::of)).await?;
    json(&request, &summary)
}

/// Filters and page of the devices.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct DevicesQuery {
    /// Only devices in this state.
    state: Option<State>,
    /// Only devices there or below.
    location: Option<String>,
    /// Only devices that measure this.
    #[serde(rename = "type")]
    #[param(rename = "type")]
    kind: Option<String>,
    /// Devices on the page.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Devices in the order of their ids.
#[utoipa::path(get, path = "/api/v1/devices", tag = "devices", params(DevicesQuery),
    responses((status = 200, body = Page<DeviceBody>), (status = 304, description = "As before"), (status = 400, body = Problem), (status = 401, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn devices(
    request: HttpRequest,
    query: web::Query<DevicesQuery>,
    api: web::Data<Api>,
) -> Answer {
    api.guard.read(&request)?;
    let query = query.into_inner();
    let limit = limit(query.limit)?;
    let items = api
        .tracker
        .send(Ask::new(move |tracker, now| {
            let fleet = &tracker.fleet;
            fleet
                .presence
                .list(query.cursor.as_deref(), now)
                .map(|view| DeviceBody::of(&view, fleet))
                .filter(|it| {
                    it.passes(
                        query.state,
                        query.location.as_deref(),
                        query.kind.as_deref(),
                    )
                })
                .take(limit as usize + 1)
                .collect::<Vec<_>>()
        }))
        .await?;
    json(&request, &page(items, limit, |it| it.id().to_owned()))
}

/// One device.
#[utoipa::path(get, path = "/api/v1/devices/{id}", tag = "devices", params(("id" = String, Path)),
    responses((status = 200, body = DeviceBody), (status = 304, description = "As before"), (status = 401, body = Problem), (status = 404, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn device(
    request: HttpRequest,
    id: web::Path<String>,
    api: web::Data<Api>,
) -> Answer {
    api.guard.read(&request)?;
    let id = id.into_inner();
    let asked = id.clone();
    let found = api
        .tracker
        .send(Ask::new(move |tracker, now| {
            let view = tracker.fleet.presence.view(&asked, now)?;
            Some(DeviceBody::of(&view, &tracker.fleet))
        }))
        .await?;
    json(&request, &found.ok_or_else(|| unknown_device(&id))?)
}

pub(super) fn unknown_device(id: &str) -> Problem {
    Problem::not_found(format!(
        "Nothing was heard of a device `{id}`; see /api/v1/devices."
    ))
}

/// Page of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// Entries on the page.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// When a device went on and off, the newest first.
#[utoipa::path(get, path = "/api/v1/devices/{id}/transitions", tag = "devices", params(("id" = String, Path), PageQuery),
    responses((status = 200, body = Page<TransitionBody>), (status = 304, description = "As before"), (status = 400, body = Problem), (status = 401, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn transitions(
    request: HttpRequest,
    id: web::Path<String>,
    query: web::Query<PageQuery>,
    api: web::Data<Api>,
) -> Answer {
    api.guard.read(&request)?;
    let limit = limit(query.limit)?;
    let before = query.cursor.as_deref().map(|cursor| {
        let micros = cursor.parse().ok();
        micros
            .and_then(|micros| Timestamp::from_microsecond(micros).ok())
            .ok_or_else(|| Problem::bad_request("cursor is not one that this API gave"))
    });
    let rows = api
        .store
        .transitions(&id, before.transpose()?, limit + 1)
        .await?;
    let items = rows.into_iter().map(TransitionBody::from).collect();
    json(&request, &page(items, limit, TransitionBody::cursor))
}

/// Configuration of a device, desired and reported.
#[utoipa::path(get, path = "/api/v1/devices/{id}/config", tag = "devices", params(("id" = String, Path)),
    responses((status = 200, body = ConfigBody), (status = 304, description = "As before"), (status = 401, body = Problem), (status = 404, body = Problem), (status = 503, body = Problem)))]
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
        .ok_or_else(|| unknown_device(&id))?;
    let value = |text: Option<std::sync::Arc<str>>| -> Option<Value> {
        text.and_then(|text| serde_json::from_str(&text).ok())
    };
    json(
        &request,
        &ConfigBody::new(value(found.desired), value(found.reported)),
    )
}

/// Filters and page of the sensors.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct SensorsQuery {
    /// Only those of this device.
    device: Option<String>,
    /// Sensors on the page.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Sensors that were heard since this replica started, in the order of their ids.
#[utoipa::path(get, path = "/api/v1/sensors", tag = "sensors", params(SensorsQuery),
    responses((status = 200, body = Page<SensorBody>), (status = 304, description = "As before"), (status = 400, body = Problem), (status = 401, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn sensors(
    request: HttpRequest,
    query: web::Query<SensorsQuery>,
    api: web::Data<Api>,
) -> Answer {
    api.guard.read(&request)?;
    let query = query.into_inner();
    let limit = limit(query.limit)?;
    let items = api
        .tracker
        .send(Ask::new(move |tracker, _| {
            let sensors = &tracker.fleet.sensors;
            let most = limit as usize + 1;
            let body = |(id, sensor)| SensorBody::of(id, sensor);
            match &query.device {
                Some(device) => sensors.of(device).map(body).take(most).collect::<Vec<_>>(),
                None => sensors
                    .list(query.cursor.as_deref())
                    .map(body)
                    .take(most)
                    .collect(),
            }
        }))
        .await?;
    json(&request, &page(items, limit, |it| it.id().to_owned()))
}

/// Span and resolution.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ReadingsQuery {
    /// Start of the span; an hour before its end by default.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// End of the span; now by default.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
    /// Most points.
    #[param(minimum = 1, maximum = 2000)]
    points: Option<u32>,
    /// What is measured, if the sensor measures several things.
    #[serde(rename = "type")]
    #[param(rename = "type")]
    kind: Option<String>,
}

/// A sensor's past: lowest, mean and highest value of each part of the span.
#[utoipa::path(get, path = "/api/v1/sensors/{id}/readings", tag = "sensors", params(("id" = String, Path), ReadingsQuery),
    responses((status = 200, body = ReadingsBody), (status = 304, description = "As before"), (status = 400, body = Problem), (status = 401, body = Problem), (status = 404, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn readings(
    request: HttpRequest,
    id: web::Path<String>,
    query: web::Query<ReadingsQuery>,
    api: web::Data<Api>,
) -> Answer {
    api.guard.read(&request)?;
    let to = query.to.unwrap_or_else(Timestamp::now);
    let from = match query.from {
        Some(from) => from,
        None => to.checked_sub(1.hour()).unwrap_or(Timestamp::UNIX_EPOCH),
    };
    let points = query.points.unwrap_or(POINTS);
    if !(1..=POINTS_MAX).contains(&points) {
        let detail = format!("points is {points}: give 1 to {POINTS_MAX}");
        return Err(Problem::bad_request(detail));
    }
    if from >= to || to.duration_since(from).as_hours() > 24 * 366 {
        let detail = "from must be before to, and at most a year before it";
        return Err(Problem::bad_request(detail));
    }
    let id = id.into_inner();
    let asked = id.clone();
    let heard = api
        .tracker
        .send(Ask::new(move |tracker, _| {
            let sensor = tracker.fleet.sensors.get(&asked)?;
            Some((sensor.kind.to_string(), sensor.unit.to_string()))
        }))
        .await?;
    let kind = match (&query.kind, &heard) {
        (Some(kind), _) | (None, Some((kind, _))) => Some(kind.clone()),
        (None, None) => api.store.sensor_kind(&id).await?,
    };
    let Some(kind) = kind else {
        return Err(Problem::not_found(format!(
            "There is no reading of a sensor `{id}`."
        )));
    };
    let span = Span { from, to, points };
    let points = api.store.reading_buckets(&id, &kind, span).await?;
    let unit = heard
        .filter(|(heard, _)| *heard == kind)
        .map(|(_, unit)| unit);
    let body = ReadingsBody {
        sensor_id: id,
        kind,
        unit: unit.unwrap_or_default(),
        points: points.into_iter().map(Into::into).collect(),
    };
    json(&request, &body)
}

/// Filters and page of the dead letters.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct DeadLettersQuery {
    /// Only those refused for this reason.
    reason: Option<String>,
    /// Only those refused by this service.
    service: Option<String>,
    /// Dead letters on the page.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Messages that could not be used, the newest first.
#[utoipa::path(get, path = "/api/v1/dead-letters", tag = "fleet", params(DeadLettersQuery),
    responses((status = 200, body = Page<DeadLetterBody>), (status = 304, description = "As before"), (status = 400, body = Problem), (status = 401, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn dead_letters(
    request: HttpRequest,
    query: web::Query<DeadLettersQuery>,
    api: web::Data<Api>,
) -> Answer {
    api.guard.read(&request)?;
    let query = query.into_inner();
    let limit = limit(query.limit)?;
    let before = query.cursor.as_deref().map(Uuid::try_parse).transpose();
    let before =
        before.map_err(|_| Problem::bad_request("cursor is not one that this API gave"))?;
    let filter = DeadLetterFilter {
        service: query.service,
        reason: query.reason,
    };
    // A text with a NUL is in no store, and PostgreSQL cannot be asked for it.
    let letters = if [&filter.service, &filter.reason]
        .into_iter()
        .flatten()
        .any(|it| it.contains('\0'))
    {
        Vec::new()
    } else {
        api.store
            .newest_dead_letters(filter, before, limit + 1)
            .await?
    };
    let items = letters.into_iter().map(DeadLetterBody::from).collect();
    json(
        &request,
        &page(items, limit, |it: &DeadLetterBody| it.id.to_string()),
    )
}

/// Filters of the alerts.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AlertsQuery {
    /// `firing`: only those that fire.
    state: Option<AlertState>,
    /// Most alerts.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum AlertState {
    /// The condition holds.
    Firing,
    /// Firing or over.
    All,
}

/// Alerts, the newest first.
#[utoipa::path(get, path = "/api/v1/alerts", tag = "fleet", params(AlertsQuery),
    responses((status = 200, body = Page<AlertBody>), (status = 304, description = "As before"), (status = 400, body = Problem), (status = 401, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn alerts(
    request: HttpRequest,
    query: web::Query<AlertsQuery>,
    api: web::Data<Api>,
) -> Answer {
    api.guard.read(&request)?;
    let limit = limit(query.limit)?;
    let firing = query.state == Some(AlertState::Firing);
    let rows = api.alerts.alerts(firing, limit).await?;
    let items = rows.into_iter().map(AlertBody::from).collect();
    json(
        &request,
        &Page {
            items,
            next_cursor: None,
        },
    )
}
