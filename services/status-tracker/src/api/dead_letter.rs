//! Messages that could not be used, and a second try for them.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use fleet_store::replay::{self, Chosen, ReplayError};
use fleet_store::{DeadLetterFilter, StoredDeadLetter};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Api;
use super::answer::{Answer, Page, bad_cursor, json, limit, storable};
use super::problem::Problem;
use super::query::Query;
use super::request::typed;
use crate::tracker::Ask;

/// Bytes of a dead letter's payload that are shown.
const EXCERPT_BYTES: usize = 512;

/// Names in one request.
const IDS_MAX: usize = 1_000;

/// Dead letters that one request publishes again: some seconds of work.
const REPLAYED_MAX: u64 = 10_000;

/// Longest wait for the broker to acknowledge a page.
const PATIENCE: Duration = Duration::from_secs(10);

/// A message that could not be used.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeadLetterBody {
    id: Uuid,
    /// Which service could not use it.
    service: String,
    /// Where it was published.
    topic: String,
    /// Why, in a word.
    reason: String,
    /// Why, in a sentence.
    detail: String,
    #[schema(value_type = String, format = DateTime)]
    received_at: Timestamp,
    /// The payload's beginning, what is no text replaced.
    payload: String,
    /// Bytes of all of it.
    payload_bytes: usize,
}

impl From<StoredDeadLetter> for DeadLetterBody {
    fn from(letter: StoredDeadLetter) -> Self {
        let shown = &letter.payload[..letter.payload.len().min(EXCERPT_BYTES)];
        Self {
            id: letter.id,
            service: letter.service,
            topic: letter.topic,
            reason: letter.reason,
            detail: letter.detail,
            received_at: letter.received_at,
            payload: String::from_utf8_lossy(shown).into_owned(),
            payload_bytes: letter.payload.len(),
        }
    }
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
#[utoipa::path(get, path = "/api/v1/dead-letters", tag = "dead letters", params(DeadLettersQuery),
    responses((status = 200, body = Page<DeadLetterBody>), (status = 304, description = "As before"), (status = 400, body = Problem), (status = 401, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn list(
    request: HttpRequest,
    query: Query<DeadLettersQuery>,
    api: web::Data<Api>,
) -> Answer {
    api.guard.read(&request)?;
    let query = query.into_inner();
    let limit = limit(query.limit)?;
    let before = query.cursor.as_deref().map(Uuid::try_parse).transpose();
    let before = before.map_err(|_| bad_cursor())?;
    let filter = DeadLetterFilter {
        service: query.service,
        reason: query.reason,
    };
    let letters = if passable(&filter) {
        let store = api.store.clone();
        let read = async move { store.newest_dead_letters(filter, before, limit + 1).await };
        api.history.read(&request, 1.0, read).await?
    } else {
        Vec::new()
    };
    let items = letters.into_iter().map(DeadLetterBody::from).collect();
    let page = Page::of(items, limit, |it: &DeadLetterBody| it.id.to_string());
    json(&request, &page)
}

fn passable(filter: &DeadLetterFilter) -> bool {
    let texts = [&filter.service, &filter.reason];
    texts.into_iter().flatten().all(|it| storable(it))
}

/// Which dead letters are published again: `ids`, or those of a reason or a service, or all.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplayBody {
    /// These, each of which must be there; at most 1,000.
    #[serde(default)]
    #[schema(max_items = 1000)]
    ids: Option<Vec<Uuid>>,
    /// Those refused for this reason.
    #[serde(default)]
    reason: Option<String>,
    /// Those refused by this service.
    #[serde(default)]
    service: Option<String>,
    /// All of them.
    #[serde(default)]
    all: bool,
}

impl ReplayBody {
    fn chosen(self) -> Result<Chosen, Problem> {
        let filter = DeadLetterFilter {
            service: self.service,
            reason: self.reason,
        };
        let filtered = filter != DeadLetterFilter::default();
        match (self.ids, filtered, self.all) {
            (Some(ids), false, false) if (1..=IDS_MAX).contains(&ids.len()) => Ok(Chosen::Ids(ids)),
            (Some(ids), false, false) => Err(Problem::bad_request(format!(
                "There are {} ids: give 1 to {IDS_MAX}.",
                ids.len()
            ))),
            (None, true, false) | (None, false, true) => {
                if !passable(&filter) {
                    return Err(Problem::bad_request(
                        "A reason or service has no NUL in it.",
                    ));
                }
                Ok(Chosen::Passing(filter, REPLAYED_MAX))
            }
            _ => Err(Problem::bad_request(
                "Say which: {\"ids\": [...]}, {\"reason\": \"...\"}, {\"service\": \"...\"} or {\"all\": true}.",
            )),
        }
    }
}

/// What a replay has done.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReplayedBody {
    /// Published, acknowledged by the broker, and deleted.
    replayed: u64,
    /// Refused by the broker; they are kept.
    failed: u64,
}

/// Publishes dead letters again, each to its own topic, and deletes those that the broker took.
///
/// At most 10,000 a request, the oldest first. What is still refused comes back as a new dead letter.
#[utoipa::path(post, path = "/api/v1/dead-letters/replay", tag = "dead letters",
    request_body = ReplayBody, security(("token" = [])),
    responses((status = 200, body = ReplayedBody), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem), (status = 408, body = Problem), (status = 409, body = Problem), (status = 413, body = Problem), (status = 415, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn replay(
    request: HttpRequest,
    payload: web::Payload,
    api: web::Data<Api>,
) -> Answer {
    api.guard.write(&request)?;
    let chosen = typed::<ReplayBody>(&request, payload).await?.chosen()?;
    // Two at once would publish the same letters twice.
    let Ok(_turn) = api.replaying.try_lock() else {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "/problems/replay-running",
            "A replay is under way",
            "Nothing was published. Try again when the other is done.",
        ));
    };
    let session = api
        .tracker
        .send(Ask::new(|tracker, _| tracker.session.clone()))
        .await?
        .ok_or_else(Problem::stopping)?;
    let replayed = replay::replay(api.store.as_ref(), &session, chosen, PATIENCE).await;
    let replayed = replayed.map_err(failed)?;
    Ok(HttpResponse::Ok().json(ReplayedBody {
        replayed: replayed.replayed,
        failed: replayed.failed,
    }))
}

fn failed(error: ReplayError) -> Problem {
    match error {
        ReplayError::Store(error) => error.into(),
        ReplayError::Unknown(id) => Problem::not_found(format!(
            "There is no dead letter {id}; those before it in the list may have been published."
        )),
        ReplayError::Unacknowledged { patience } => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "/problems/broker",
            "The broker did not acknowledge in time",
            format!(
                "What it did not acknowledge within {patience:?} is kept; try again when it is back."
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_says_exactly_which() {
        let chosen = |text: &str| serde_json::from_str::<ReplayBody>(text).unwrap().chosen();
        let id = "019aaf0e-5b1c-7c3e-8e55-0c3d8e0c4e11";
        assert!(matches!(
            chosen(&format!(r#"{{"ids":["{id}"]}}"#)),
            Ok(Chosen::Ids(_))
        ));
        assert!(matches!(
            chosen(r#"{"reason":"malformed"}"#),
            Ok(Chosen::Passing(..))
        ));
        assert!(matches!(chosen(r#"{"all":true}"#), Ok(Chosen::Passing(..))));
        for bad in [
            "{}",
            r#"{"ids":[]}"#,
            r#"{"all":true,"reason":"x"}"#,
            r#"{"reason":"a\u0000"}"#,
        ] {
            assert!(chosen(bad).is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<ReplayBody>(r#"{"id":"x"}"#).is_err());
    }
}
