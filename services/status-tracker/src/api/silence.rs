//! Silences: what nobody wants to hear of for a while.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use fleet_shared::topic::Excerpt;
use fleet_store::{MatchOp, Matcher, SILENCES_MAX, Silence};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use super::alert::name;
use super::answer::{Answer, Page, json, storable};
use super::problem::Problem;
use super::request::typed;

/// Conditions of a silence.
const MATCHERS_MAX: usize = 20;

/// Longest value of a condition, in bytes: regular expressions are compiled from it.
const VALUE_BYTES_MAX: usize = 1_024;

/// A silence: alerts that all matchers hold for are not notified between its start and its end.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SilenceBody {
    id: Uuid,
    matchers: Vec<MatcherBody>,
    #[schema(value_type = String, format = DateTime)]
    starts_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    ends_at: Timestamp,
    created_by: String,
    comment: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// Whether it is in force now.
    active: bool,
}

/// A condition on a label of an alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MatcherBody {
    /// `rule`, `severity`, `sensor_id`, `location`, `type`, or a label of the rule.
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// How it is compared.
    #[serde(default)]
    op: Op,
    /// With what; for `=~` and `!~` a regular expression that matches the whole value.
    value: String,
}

/// How a label is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
enum Op {
    /// The same text.
    #[default]
    #[serde(rename = "=")]
    Equal,
    /// Another text.
    #[serde(rename = "!=")]
    NotEqual,
    /// The regular expression matches.
    #[serde(rename = "=~")]
    Matches,
    /// It does not.
    #[serde(rename = "!~")]
    MatchesNot,
}

impl From<Op> for MatchOp {
    fn from(op: Op) -> Self {
        match op {
            Op::Equal => Self::Equal,
            Op::NotEqual => Self::NotEqual,
            Op::Matches => Self::Matches,
            Op::MatchesNot => Self::MatchesNot,
        }
    }
}

impl From<MatchOp> for Op {
    fn from(op: MatchOp) -> Self {
        match op {
            MatchOp::Equal => Self::Equal,
            MatchOp::NotEqual => Self::NotEqual,
            MatchOp::Matches => Self::Matches,
            MatchOp::MatchesNot => Self::MatchesNot,
        }
    }
}

impl SilenceBody {
    fn of(silence: Silence, now: Timestamp) -> Self {
        let matchers = silence.matchers.iter();
        Self {
            id: silence.id,
            matchers: matchers
                .map(|matcher| MatcherBody {
                    name: matcher.name.clone(),
                    op: matcher.op.into(),
                    value: matcher.value.clone(),
                })
                .collect(),
            starts_at: silence.starts_at,
            ends_at: silence.ends_at,
            active: silence.is_active(now),
            created_by: silence.created_by,
            comment: silence.comment,
            created_at: silence.created_at,
        }
    }
}

/// Silences that have not ended, the oldest first; all on one page.
#[utoipa::path(get, path = "/api/v1/silences", tag = "alerts",
    responses((status = 200, body = Page<SilenceBody>), (status = 304, description = "As before"), (status = 401, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn list(request: HttpRequest, api: web::Data<Api>) -> Answer {
    api.guard.read(&request)?;
    let now = Timestamp::now();
    let alerts = api.alerts.clone();
    let read = async move { alerts.silences(now).await };
    let silences = api.history.read(&request, 1.0, read).await?;
    let items = silences
        .into_iter()
        .map(|it| SilenceBody::of(it, now))
        .collect();
    let next_cursor = None;
    json(&request, &Page { items, next_cursor })
}

/// A silence to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewSilenceBody {
    /// All have to hold; at least one.
    #[schema(min_items = 1, max_items = 20)]
    matchers: Vec<MatcherBody>,
    /// Now if it is absent.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    starts_at: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    ends_at: Timestamp,
    /// Who wishes it; `api` if it is absent.
    #[serde(default)]
    #[schema(max_length = 200)]
    created_by: Option<String>,
    /// Why.
    #[serde(default)]
    #[schema(max_length = 1000)]
    comment: String,
}

impl NewSilenceBody {
    /// Checked, with an id and a time of its own.
    fn silence(self, now: Timestamp) -> Result<Silence, Problem> {
        let bad = |detail: String| Err(Problem::bad_request(detail));
        if !(1..=MATCHERS_MAX).contains(&self.matchers.len()) {
            let count = self.matchers.len();
            return bad(format!(
                "There are {count} matchers: give 1 to {MATCHERS_MAX}."
            ));
        }
        let mut matchers = Vec::with_capacity(self.matchers.len());
        for matcher in self.matchers {
            let label = name(&matcher.name, "name of a matcher")?;
            if matcher.value.len() > VALUE_BYTES_MAX || !storable(&matcher.value) {
                return bad(format!(
                    "The value of `{label}` must have at most {VALUE_BYTES_MAX} bytes, none of them NUL."
                ));
            }
            let op = MatchOp::from(matcher.op);
            if matches!(op, MatchOp::Matches | MatchOp::MatchesNot)
                && let Err(error) = regex(&matcher.value)
            {
                return bad(format!(
                    "`{}` is no regular expression: {error}",
                    matcher.value
                ));
            }
            matchers.push(Matcher {
                name: label,
                op,
                value: matcher.value,
            });
        }
        let starts_at = self.starts_at.unwrap_or(now);
        if starts_at < Timestamp::UNIX_EPOCH || self.ends_at <= starts_at || self.ends_at <= now {
            return bad("ends_at must be in the future, and after starts_at.".to_owned());
        }
        if self.comment.chars().count() > 1_000 || !storable(&self.comment) {
            return bad("comment must have at most 1000 characters, none of them NUL.".to_owned());
        }
        Ok(Silence {
            id: Uuid::now_v7(),
            matchers,
            starts_at,
            ends_at: self.ends_at,
            created_by: name(self.created_by.as_deref().unwrap_or("api"), "created_by")?,
            comment: self.comment,
            created_at: now,
        })
    }
}

/// Compiled as alerting will: bounded, and for the whole value.
fn regex(value: &str) -> Result<regex::Regex, regex::Error> {
    regex::RegexBuilder::new(&format!("^(?:{value})$"))
        .size_limit(1 << 20)
        .build()
}

/// Keeps matching alerts from being notified until an end. They stay in the list.
#[utoipa::path(post, path = "/api/v1/silences", tag = "alerts",
    request_body = NewSilenceBody, security(("token" = [])),
    responses((status = 201, body = SilenceBody), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem), (status = 408, body = Problem), (status = 409, body = Problem), (status = 413, body = Problem), (status = 415, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn create(
    request: HttpRequest,
    payload: web::Payload,
    api: web::Data<Api>,
) -> Answer {
    api.guard.write(&request)?;
    let now = Timestamp::now();
    let silence = typed::<NewSilenceBody>(&request, payload)
        .await?
        .silence(now)?;
    if !api.alerts.create_silence(&silence).await? {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "/problems/too-many-silences",
            "There are too many silences",
            format!("Nothing was changed. {SILENCES_MAX} are kept; delete some first."),
        ));
    }
    Ok(HttpResponse::Created().json(SilenceBody::of(silence, now)))
}

/// Ends a silence.
#[utoipa::path(delete, path = "/api/v1/silences/{id}", tag = "alerts", params(("id" = Uuid, Path)), security(("token" = [])),
    responses((status = 204, description = "It is gone"), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn delete(
    request: HttpRequest,
    id: web::Path<String>,
    api: web::Data<Api>,
) -> Answer {
    api.guard.write(&request)?;
    let id: Uuid = id.parse().map_err(|_| {
        let id = Excerpt::new(&id);
        Problem::bad_request(format!(
            "id is `{id}`: give the id of a silence, a UUID; see /api/v1/silences."
        ))
    })?;
    if api.alerts.delete_silence(id).await? {
        return Ok(HttpResponse::NoContent().finish());
    }
    Err(Problem::not_found(format!("There is no silence {id}.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silence(text: &str) -> Result<Silence, Problem> {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let body: NewSilenceBody = serde_json::from_str(text).unwrap();
        body.silence(now)
    }

    #[test]
    fn a_silence_begins_now_and_ends_later() {
        let made = silence(
            r#"{"matchers":[{"name":"rule","value":"R"}],"ends_at":"2026-01-01T01:00:00Z"}"#,
        )
        .unwrap();
        assert_eq!(made.starts_at, made.created_at);
        assert_eq!(
            (made.matchers[0].op, made.created_by.as_str()),
            (MatchOp::Equal, "api")
        );
    }

    #[test]
    fn a_silence_that_cannot_be_meant_is_refused() {
        for bad in [
            r#"{"matchers":[],"ends_at":"2026-01-01T01:00:00Z"}"#,
            r#"{"matchers":[{"name":"rule","value":"R"}],"ends_at":"2025-01-01T01:00:00Z"}"#,
            r#"{"matchers":[{"name":"","value":"R"}],"ends_at":"2026-01-01T01:00:00Z"}"#,
            r#"{"matchers":[{"name":"rule","op":"=~","value":"("}],"ends_at":"2026-01-01T01:00:00Z"}"#,
            r#"{"matchers":[{"name":"rule","value":"R"}],"starts_at":"2026-01-01T02:00:00Z","ends_at":"2026-01-01T01:00:00Z"}"#,
        ] {
            assert!(silence(bad).is_err(), "{bad}");
        }
    }
}
