//! Parameters of a query: what cannot be read is told by its name, with what may stand there.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use fleet_shared::topic::Excerpt;
use serde::de::DeserializeOwned;
use serde_json::Value;
use utoipa::IntoParams;

use super::Api;
use super::problem::Problem;

/// The parameters of a query, for who may read.
///
/// Who may not is told that first, and not what is wrong with the query.
pub(super) struct Query<T>(T);

impl<T> Query<T> {
    pub(super) fn into_inner(self) -> T {
        self.0
    }
}

impl<T> std::ops::Deref for Query<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: DeserializeOwned + IntoParams> FromRequest for Query<T> {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let may_read = match request.app_data::<web::Data<Api>>() {
            Some(api) => api.guard.read(request),
            None => Ok(()),
        };
        ready(may_read.and_then(|()| parse(request.query_string()).map(Self)))
    }
}

fn parse<T: DeserializeOwned + IntoParams>(query: &str) -> Result<T, Problem> {
    web::Query::<T>::from_query(query)
        .map(web::Query::into_inner)
        .map_err(|error| Problem::bad_request(complaint::<T>(query, &reason(&error))))
}

/// Which parameter is to blame. Every one of ours may be absent, so each is tried alone.
fn complaint<T: DeserializeOwned + IntoParams>(query: &str, reason_of_all: &str) -> String {
    let mut seen = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let Some((name, value)) = decoded(pair) else {
            continue;
        };
        if let Err(error) = web::Query::<T>::from_query(pair) {
            let allowed = allowed::<T>(&name, &reason(&error));
            let (name, value) = (Excerpt::new(&name), Excerpt::new(&value));
            return format!("{name} is `{value}`: {allowed}; see /docs.");
        }
        if seen.contains(&name) {
            let name = Excerpt::new(&name);
            return format!("{name} is there more than once: give it once; see /docs.");
        }
        seen.push(name);
    }
    format!("The query cannot be read: {reason_of_all}; see /docs.")
}

fn decoded(pair: &str) -> Option<(String, String)> {
    let pairs = web::Query::<Vec<(String, String)>>::from_query(pair).ok()?;
    pairs.into_inner().pop()
}

/// What the parameter may be, by its description; for one of a few words, by those.
fn allowed<T: IntoParams>(name: &str, reason: &str) -> String {
    let described = T::into_params(|| None);
    let schema = described
        .iter()
        .find(|parameter| parameter.name == name)
        .and_then(|parameter| serde_json::to_value(&parameter.schema).ok())
        .unwrap_or_default();
    if let (Some(least), Some(most)) = (whole(&schema, "minimum"), whole(&schema, "maximum")) {
        return format!("give a whole number from {least} to {most}");
    }
    if schema["format"] == "date-time" {
        return "give a time such as 2026-05-04T12:00:00Z (RFC 3339)".to_owned();
    }
    match reason.split_once("expected ") {
        Some((_, words)) => format!("give {words}"),
        None => reason.to_owned(),
    }
}

fn whole(schema: &Value, key: &str) -> Option<i64> {
    let number = &schema[key];
    number
        .as_i64()
        .or_else(|| number.as_f64().map(|it| it as i64))
}

/// What the parser says, without the names of its parts.
fn reason(error: &actix_web::error::QueryPayloadError) -> String {
    use actix_web::error::QueryPayloadError;
    match error {
        QueryPayloadError::Deserialize(error) => error.to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde::Deserialize;

    use super::*;
    use crate::presence::State;

    #[derive(Debug, Deserialize, IntoParams)]
    struct Wanted {
        state: Option<State>,
        #[param(minimum = 1, maximum = 1000)]
        limit: Option<u32>,
        #[param(value_type = Option<String>, format = DateTime)]
        from: Option<Timestamp>,
    }

    #[test]
    fn what_cannot_be_read_is_told_by_name_with_what_is_allowed() {
        let wanted = parse::<Wanted>("state=online&limit=7&more=1").unwrap();
        assert_eq!((wanted.state, wanted.limit), (Some(State::Online), Some(7)));
        assert_eq!(wanted.from, None);
        for (query, detail) in [
            (
                "limit=7&state=asleep",
                "state is `asleep`: give one of `online`, `offline`, `flapping`, `unknown`; see /docs.",
            ),
            (
                "limit=many",
                "limit is `many`: give a whole number from 1 to 1000; see /docs.",
            ),
            (
                "limit=-1",
                "limit is `-1`: give a whole number from 1 to 1000; see /docs.",
            ),
            (
                "from=new%20year",
                "from is `new year`: give a time such as 2026-05-04T12:00:00Z (RFC 3339); see /docs.",
            ),
            (
                "limit=1&limit=2",
                "limit is there more than once: give it once; see /docs.",
            ),
        ] {
            let told = parse::<Wanted>(query).unwrap_err().to_string();
            assert!(told.ends_with(detail), "{query}: {told}");
        }
    }
}
