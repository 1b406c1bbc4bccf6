//! How the API answers: JSON with an entity tag, and pages of lists.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH};
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::problem::Problem;

/// Entries of a page unless asked otherwise, and at most.
const LIMIT: u32 = 100;
const LIMIT_MAX: u32 = 1_000;

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
    let known = has(request, &tag);
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

/// Whether the client says that it has what the tag names.
pub(super) fn has(request: &HttpRequest, tag: &str) -> bool {
    let given = request.headers().get(IF_NONE_MATCH);
    given
        .and_then(|given| given.to_str().ok())
        .is_some_and(|given| {
            given
                .split(',')
                .any(|it| matches!(it.trim(), it if it == tag || it == "*"))
        })
}

/// Page of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// Entries on the page.
    #[param(minimum = 1, maximum = 1000)]
    pub(super) limit: Option<u32>,
    /// `next_cursor` of the page before.
    pub(super) cursor: Option<String>,
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    /// Give it as `cursor` to get the next page; absent on the last.
    pub(crate) next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// Of one entry more than the page holds, which tells whether there is another.
    pub(super) fn of(mut items: Vec<T>, limit: u32, cursor: impl Fn(&T) -> String) -> Self {
        let more = items.len() > limit as usize;
        items.truncate(limit as usize);
        let next_cursor = if more { items.last().map(cursor) } else { None };
        Self { items, next_cursor }
    }
}

/// The number of entries that is asked for.
pub(super) fn limit(asked: Option<u32>) -> Result<u32, Problem> {
    match asked.unwrap_or(LIMIT) {
        limit @ 1..=LIMIT_MAX => Ok(limit),
        other => Err(Problem::bad_request(format!(
            "limit is {other}: give 1 to {LIMIT_MAX}"
        ))),
    }
}

/// That a cursor is none of ours.
pub(super) fn bad_cursor() -> Problem {
    Problem::bad_request("cursor is not one that this API gave")
}

/// Whether a store may be asked for it: a text with a NUL is in none, and PostgreSQL refuses the
/// question.
pub(super) fn storable(text: &str) -> bool {
    !text.contains('\0')
}
