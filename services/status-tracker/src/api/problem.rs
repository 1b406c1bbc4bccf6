//! Errors as problem details, RFC 9457.

use actix_web::http::StatusCode;
use actix_web::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use fleet_store::StoreError;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// Why a request was not fulfilled: problem details, RFC 9457.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// Names the kind of problem: `/problems/…`, or `about:blank` where the status says it all.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The kind in words.
    title: &'static str,
    /// The status of the answer.
    status: u16,
    /// What failed, what did not change and what to do.
    detail: String,
    /// What the device or alerting said, when it refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    answer: Option<Value>,
}

impl Problem {
    pub(crate) fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            title,
            status: status.as_u16(),
            detail: detail.into(),
            answer: None,
        }
    }

    pub(crate) fn answer(mut self, answer: Value) -> Self {
        self.answer = Some(answer);
        self
    }

    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        let status = StatusCode::BAD_REQUEST;
        Self::new(
            status,
            "/problems/bad-request",
            "The request cannot be read",
            detail,
        )
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        let status = StatusCode::NOT_FOUND;
        Self::new(
            status,
            "/problems/not-found",
            "There is no such thing",
            detail,
        )
    }

    pub(crate) fn stopping() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "/problems/stopping",
            "This replica is stopping",
            "Nothing was changed. Ask another replica, or again in a moment.",
        )
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let chain = format!("{:#}", anyhow::Error::new(error));
        tracing::warn!(error = %chain, "a request failed because of the store");
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "/problems/store-unavailable",
            "The store did not answer",
            "Nothing was changed. Try again in a moment; the log of this replica says more.",
        )
    }
}

impl From<actix::MailboxError> for Problem {
    fn from(_: actix::MailboxError) -> Self {
        Self::stopping()
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.title, self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        if self.status == StatusCode::UNAUTHORIZED.as_u16() {
            response.insert_header((WWW_AUTHENTICATE, "Bearer"));
        }
        let passes = [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::SERVICE_UNAVAILABLE,
        ];
        if passes.iter().any(|it| it.as_u16() == self.status) {
            response.insert_header((RETRY_AFTER, "1"));
        }
        // The content type has to be set before the body, or `json` sets its own.
        response.content_type("application/problem+json").json(self)
    }
}
