//! What a client may do.

use actix_web::{HttpRequest, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::answer::{Answer, json};
use super::problem::Problem;

/// What a client may do.
#[derive(Debug, Serialize, ToSchema)]
struct Access {
    /// Whether this replica takes writes at all.
    writes: bool,
    /// Whether the token that was sent, if any, is right.
    authorized: bool,
}

/// What may be done with the token that is sent.
#[utoipa::path(get, path = "/api/v1/access", tag = "fleet",
    responses((status = 200, body = Access), (status = 304, description = "As before"), (status = 429, body = Problem)))]
pub(super) async fn access(request: HttpRequest, api: web::Data<Api>) -> Answer {
    let access = Access {
        writes: api.guard.can_write(),
        authorized: api.guard.authorized(&request)?,
    };
    json(&request, &access)
}
