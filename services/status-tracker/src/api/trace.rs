//! The span of each request to the API, in the trace that its caller names.

use std::borrow::Cow;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::HeaderMap;
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage as _, HttpRequest, web};
use fleet_shared::session::{Publish, PublishError, Session};
use fleet_shared::telemetry::{SpanKind, TRACEPARENT, TRACESTATE, TraceContext};

use super::Api;

/// Begins the span of a request and passes its context on with the request.
pub(super) async fn request<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let is_api = request.path().starts_with("/api/");
    let tracer = request
        .app_data::<web::Data<Api>>()
        .map(|api| api.tracer.clone());
    let Some(tracer) = tracer.filter(|_| is_api) else {
        return next.call(request).await;
    };
    let caller = caller(request.headers());
    let method = method(&request);
    // Which route it is is known once it was found.
    let mut span = tracer.span(SpanKind::Server, caller.as_ref(), || method.into());
    if let Some(context) = span.context() {
        request.extensions_mut().insert(context.clone());
    }
    if !span.is_recording() {
        return next.call(request).await;
    }
    span.set("http.request.method", method);
    span.set("url.path", request.path().to_owned());
    span.set("url.scheme", "http");
    let answered = span.scope(next.call(request)).await;
    let (status, route) = match &answered {
        Ok(answer) => (answer.status(), answer.request().match_pattern()),
        Err(error) => (error.as_response_error().status_code(), None),
    };
    span.set("http.response.status_code", i64::from(status.as_u16()));
    if let Some(route) = route {
        span.rename(format!("{method} {route}"));
        span.set("http.route", route);
    }
    if status.is_server_error() {
        span.fail(status.as_str().to_owned(), status.to_string());
    }
    answered
}

/// A method the field knows, or `_OTHER`: names of spans are of a closed set.
fn method(request: &ServiceRequest) -> &'static str {
    match request.method().as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        "PATCH" => "PATCH",
        _ => "_OTHER",
    }
}

fn caller(headers: &HeaderMap) -> Option<TraceContext> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    TraceContext::parse(header(TRACEPARENT)?, header(TRACESTATE)).ok()
}

/// Publishes as part of the trace of `request`.
pub(super) async fn publish(
    api: &Api,
    request: &HttpRequest,
    session: &Session,
    publish: Publish,
) -> Result<(), PublishError> {
    let caller = request.extensions().get::<TraceContext>().cloned();
    let mut span = api.tracer.send(&publish.topic, caller.as_ref());
    let publish = publish.trace(span.context());
    let published = span.scope(session.publish(publish)).await;
    if let Err(error) = &published {
        let kind: Cow<'static, str> = error.kind().into();
        span.fail(kind, error.to_string());
    }
    published
}
