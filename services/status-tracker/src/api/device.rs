//! Devices: who is there, and what was when.

use actix_web::{HttpRequest, web};
use fleet_store::DeviceTransition;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Api;
use super::answer::{Answer, Page, PageQuery, bad_cursor, json, limit, storable};
use super::problem::Problem;
use super::query::Query;
use crate::fleet::Fleet;
use crate::presence::{DeviceView, Now, State};
use crate::tracker::Ask;

/// Devices that are looked at for one page: some milliseconds. A page of a rare state may then hold
/// fewer than asked for, and another follows it.
const LOOKED_AT_MAX: usize = 100_000;

/// A device.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeviceBody {
    device_id: String,
    online: bool,
    state: State,
    /// When it came to be on or offline.
    #[schema(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// When it was last heard, by the tracker's clock.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_seen: Option<Timestamp>,
    /// Why it is as it is.
    reason: Option<String>,
    firmware_version: Option<String>,
    /// In dBm.
    signal_strength: Option<i16>,
    uptime_seconds: Option<u32>,
    /// Of the device itself by its telemetry, else of one of its sensors.
    battery_percent: Option<u8>,
    /// The newest connection.
    session_id: Option<Uuid>,
    /// Its clock less the tracker's.
    clock_skew_ms: Option<i32>,
    /// Silence after which it counts as offline.
    silence_limit_ms: u64,
    location: Option<String>,
    /// What its sensors measure.
    types: Vec<String>,
}

impl DeviceBody {
    pub(crate) fn of(view: &DeviceView, fleet: &Fleet) -> Self {
        let mut types: Vec<String> = Vec::new();
        let (mut location, mut battery) = (None, view.battery_percent);
        for (_, sensor) in fleet.sensors.of(&view.device_id) {
            types.push(sensor.kind.to_string());
            location.get_or_insert_with(|| sensor.location.to_string());
            battery = battery.or(sensor.battery_percent);
        }
        types.sort_unstable();
        types.dedup();
        Self {
            device_id: view.device_id.to_string(),
            online: view.online,
            state: view.state,
            since: view.since,
            last_seen: view.last_seen,
            reason: view.reason.as_deref().map(ToOwned::to_owned),
            firmware_version: view.firmware_version.as_deref().map(ToOwned::to_owned),
            signal_strength: view.signal_strength,
            uptime_seconds: view.uptime_seconds,
            battery_percent: battery,
            session_id: view.session_id,
            clock_skew_ms: view.clock_skew_ms,
            silence_limit_ms: view.silence_limit_ms,
            location,
            types,
        }
    }
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

impl DevicesQuery {
    fn page(&self, fleet: &Fleet, now: Now, limit: usize) -> Page<DeviceBody> {
        let mut items = Vec::new();
        let mut last = None;
        let states = fleet.presence.states(self.cursor.as_deref());
        for (looked_at, (id, state)) in states.enumerate() {
            if items.len() == limit || looked_at == LOOKED_AT_MAX {
                return Page {
                    items,
                    next_cursor: last.map(str::to_owned),
                };
            }
            last = Some(&**id);
            if self.state.is_none_or(|wanted| wanted == state)
                && self.measures(fleet, id)
                && let Some(view) = fleet.presence.view(id, now)
            {
                items.push(DeviceBody::of(&view, fleet));
            }
        }
        Page {
            items,
            next_cursor: None,
        }
    }

    /// Whether a sensor of the device is where it is asked for, and one measures what is.
    fn measures(&self, fleet: &Fleet, device_id: &str) -> bool {
        let sensors = || fleet.sensors.of(device_id).map(|(_, sensor)| sensor);
        let location = self.location.as_deref();
        location.is_none_or(|wanted| {
            sensors()
                .next()
                .is_some_and(|it| below(&it.location, wanted))
        }) && self
            .kind
            .as_deref()
            .is_none_or(|wanted| sensors().any(|it| *it.kind == *wanted))
    }
}

/// Whether a location is `wanted` or a place in it.
fn below(location: &str, wanted: &str) -> bool {
    let rest = location.strip_prefix(wanted);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Devices in the order of their ids.
#[utoipa::path(get, path = "/api/v1/devices", tag = "devices", params(DevicesQuery),
    responses((status = 200, body = Page<DeviceBody>), (status = 304, description = "As before"), (status = 400, body = Problem), (status = 401, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn list(
    request: HttpRequest,
    query: Query<DevicesQuery>,
    api: web::Data<Api>,
) -> Answer {
    api.guard.read(&request)?;
    let query = query.into_inner();
    let limit = limit(query.limit)? as usize;
    let page = api
        .tracker
        .send(Ask::new(move |tracker, now| {
            query.page(&tracker.fleet, now, limit)
        }))
        .await?;
    json(&request, &page)
}

/// One device.
#[utoipa::path(get, path = "/api/v1/devices/{id}", tag = "devices", params(("id" = String, Path)),
    responses((status = 200, body = DeviceBody), (status = 304, description = "As before"), (status = 400, body = Problem), (status = 401, body = Problem), (status = 404, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn one(
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
    json(&request, &found.ok_or_else(|| unknown(&id))?)
}

pub(super) fn unknown(id: &str) -> Problem {
    Problem::not_found(format!(
        "Nothing was heard of a device `{id}`; see /api/v1/devices."
    ))
}

/// A device went on or off.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TransitionBody {
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    online: bool,
    reason: String,
    session_id: Option<Uuid>,
}

impl From<DeviceTransition> for TransitionBody {
    fn from(row: DeviceTransition) -> Self {
        Self {
            at: row.at,
            online: row.online,
            reason: row.reason,
            session_id: row.session_id,
        }
    }
}

/// When a device went on and off, the newest first; nothing of a device that never did.
#[utoipa::path(get, path = "/api/v1/devices/{id}/transitions", tag = "devices", params(("id" = String, Path), PageQuery),
    responses((status = 200, body = Page<TransitionBody>), (status = 304, description = "As before"), (status = 400, body = Problem), (status = 401, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn transitions(
    request: HttpRequest,
    id: web::Path<String>,
    query: Query<PageQuery>,
    api: web::Data<Api>,
) -> Answer {
    api.guard.read(&request)?;
    let limit = limit(query.limit)?;
    let before = match &query.cursor {
        Some(cursor) => Some(moment(cursor).ok_or_else(bad_cursor)?),
        None => None,
    };
    let rows = if storable(&id) {
        let (store, id) = (api.store.clone(), id.into_inner());
        let read = async move { store.transitions(&id, before, limit + 1).await };
        api.history.read(&request, 1.0, read).await?
    } else {
        Vec::new()
    };
    let items = rows.into_iter().map(TransitionBody::from).collect();
    let page = Page::of(items, limit, |it: &TransitionBody| {
        it.at.as_microsecond().to_string()
    });
    json(&request, &page)
}

/// The moment that a cursor of [`transitions`] names.
fn moment(cursor: &str) -> Option<Timestamp> {
    let at = Timestamp::from_microsecond(cursor.parse().ok()?).ok()?;
    (at >= Timestamp::UNIX_EPOCH).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_holds_the_places_in_it() {
        assert!(below("site-1/floor-2", "site-1"));
        assert!(below("site-1", "site-1"));
        assert!(!below("site-10", "site-1"));
        assert!(!below("site", "site-1"));
    }

    #[test]
    fn only_a_moment_since_1970_is_a_cursor() {
        assert_eq!(moment("0"), Some(Timestamp::UNIX_EPOCH));
        for bad in ["-1", "x", "", "99999999999999999999", "-377705023201000000"] {
            assert_eq!(moment(bad), None, "{bad}");
        }
    }
}
