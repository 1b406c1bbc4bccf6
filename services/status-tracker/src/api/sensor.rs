//! Sensors and their readings.

use std::sync::Arc;

use actix_web::{HttpRequest, web};
use fleet_store::{Bucket, Span};
use jiff::{Timestamp, ToSpan as _};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::answer::{Answer, Page, json, limit, storable};
use super::history;
use super::problem::Problem;
use super::query::Query;
use crate::sensor::Sensor;
use crate::tracker::Ask;

/// Points of a plot unless asked otherwise, and at most.
const POINTS: u32 = 300;
const POINTS_MAX: u32 = 2_000;

/// A sensor and its newest reading.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SensorBody {
    sensor_id: String,
    /// The device it belongs to, told from its name.
    device_id: Option<String>,
    #[serde(rename = "type")]
    kind: String,
    unit: String,
    location: String,
    value: f64,
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
    battery_percent: Option<u8>,
}

impl SensorBody {
    fn of(id: &Arc<str>, sensor: &Sensor) -> Self {
        Self {
            sensor_id: id.to_string(),
            device_id: sensor.device_id.as_deref().map(ToOwned::to_owned),
            kind: sensor.kind.to_string(),
            unit: sensor.unit.to_string(),
            location: sensor.location.to_string(),
            value: sensor.value,
            timestamp: sensor.timestamp,
            battery_percent: sensor.battery_percent,
        }
    }
}

/// A sensor's past in buckets.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReadingsBody {
    sensor_id: String,
    #[serde(rename = "type")]
    kind: String,
    /// Empty if the sensor was not heard since this replica started.
    unit: String,
    points: Vec<BucketBody>,
}

/// Readings of a part of the span.
#[derive(Debug, Serialize, ToSchema)]
struct BucketBody {
    /// Start of the part.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    min: f64,
    mean: f64,
    max: f64,
    count: u64,
}

impl From<Bucket> for BucketBody {
    fn from(bucket: Bucket) -> Self {
        Self {
            at: bucket.at,
            min: bucket.min,
            mean: bucket.mean,
            max: bucket.max,
            count: bucket.count,
        }
    }
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
    responses((status = 200, body = Page<SensorBody>), (status = 304, description = "As before"), (status = 400, body = Problem), (status = 401, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn list(
    request: HttpRequest,
    query: Query<SensorsQuery>,
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
            let after = query.cursor.as_deref();
            let body = |(id, sensor)| SensorBody::of(id, sensor);
            match &query.device {
                Some(device) => {
                    let mut of: Vec<_> = sensors.of(device).collect();
                    of.sort_unstable_by_key(|(id, _)| *id);
                    of.into_iter()
                        .filter(|(id, _)| after.is_none_or(|after| &***id > after))
                        .map(body)
                        .take(most)
                        .collect::<Vec<_>>()
                }
                None => sensors.list(after).map(body).take(most).collect(),
            }
        }))
        .await?;
    json(&request, &Page::of(items, limit, |it| it.sensor_id.clone()))
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

impl ReadingsQuery {
    fn span(&self, now: Timestamp) -> Result<Span, Problem> {
        let points = self.points.unwrap_or(POINTS);
        if !(1..=POINTS_MAX).contains(&points) {
            let detail = format!("points is {points}: give 1 to {POINTS_MAX}");
            return Err(Problem::bad_request(detail));
        }
        let to = self.to.unwrap_or(now);
        let from = match self.from {
            Some(from) => from,
            None => to.checked_sub(1.hour()).unwrap_or(Timestamp::UNIX_EPOCH),
        };
        // Nothing was measured before the epoch, and databases do not agree on how far time goes.
        if from < Timestamp::UNIX_EPOCH || from >= to {
            let detail = "from must be before to, and not before 1970";
            return Err(Problem::bad_request(detail));
        }
        if to.duration_since(from).as_hours() > 24 * 366 {
            return Err(Problem::bad_request(
                "from must be at most a year before to",
            ));
        }
        Ok(Span { from, to, points })
    }
}

/// A sensor's past: lowest, mean and highest value of each part of the span.
#[utoipa::path(get, path = "/api/v1/sensors/{id}/readings", tag = "sensors", params(("id" = String, Path), ReadingsQuery),
    responses((status = 200, body = ReadingsBody), (status = 304, description = "As before"), (status = 400, body = Problem), (status = 401, body = Problem), (status = 404, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn readings(
    request: HttpRequest,
    id: web::Path<String>,
    query: Query<ReadingsQuery>,
    api: web::Data<Api>,
) -> Answer {
    api.guard.read(&request)?;
    let span = query.span(Timestamp::now())?;
    let id = id.into_inner();
    let asked = id.clone();
    let heard = api
        .tracker
        .send(Ask::new(move |tracker, _| {
            let sensor = tracker.fleet.sensors.get(&asked)?;
            Some((sensor.kind.to_string(), sensor.unit.to_string()))
        }))
        .await?;
    let known = match (&query.kind, &heard) {
        (Some(kind), _) | (None, Some((kind, _))) => Some(kind.clone()),
        (None, None) => None,
    };
    let (store, asked) = (api.store.clone(), id.clone());
    let read = async move {
        let kind = match known {
            None if storable(&asked) => store.sensor_kind(&asked).await?,
            known => known,
        };
        let Some(kind) = kind else { return Ok(None) };
        let points = match storable(&asked) && storable(&kind) {
            true => store.reading_buckets(&asked, &kind, span).await?,
            false => Vec::new(),
        };
        Ok(Some((kind, points)))
    };
    let past = api.history.read(&request, history::cost(span), read);
    let Some((kind, points)) = past.await? else {
        return Err(Problem::not_found(format!(
            "There is no reading of a sensor `{id}`."
        )));
    };
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
