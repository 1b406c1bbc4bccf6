//! Server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_ENCODING};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::Api;
use super::answer::Answer;
use super::problem::Problem;
use crate::event::{Event, Hub};

/// Streams at once; each may hold as many events as are kept.
pub(super) const STREAMS_MAX: usize = 256;

/// A comment after so much quiet, so that nobody on the way takes the stream for dead.
const QUIET_MAX: Duration = Duration::from_secs(15);

struct Feed {
    hub: Hub,
    ready: Vec<u8>,
    events: Receiver<Event>,
    _permit: OwnedSemaphorePermit,
}

/// Live events: `summary` every second, `device`, `removed`, `alert` and a sample of `reading`;
/// `acknowledged` when somebody took note of an alert; `reset` says that more happened than was told,
/// so everything is to be read anew.
#[utoipa::path(get, path = "/api/v1/events", tag = "fleet", params(("Last-Event-ID" = Option<String>, Header, description = "Go on behind this event")),
    responses((status = 200, description = "A stream that does not end", content_type = "text/event-stream"), (status = 401, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn events(request: HttpRequest, api: web::Data<Api>) -> Answer {
    api.guard.read(&request)?;
    let permit = Arc::clone(&api.streams).try_acquire_owned();
    let permit = permit.map_err(|_| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "/problems/too-many-streams",
            "Too many listeners",
            format!("{STREAMS_MAX} listen already; ask another replica."),
        )
    })?;
    let last = request.headers().get("Last-Event-ID");
    let listener = api.hub.listen(last.and_then(|id| id.to_str().ok()));
    let mut ready = b"retry: 2000\n\n".to_vec();
    match &listener.missed {
        Some(missed) => missed
            .iter()
            .for_each(|event| frame(&api.hub, event, &mut ready)),
        None => ready.extend_from_slice(b"event: reset\ndata: {}\n\n"),
    }
    let feed = Feed {
        hub: api.hub.clone(),
        ready,
        events: listener.events,
        _permit: permit,
    };
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((CACHE_CONTROL, "no-store"))
        // Compression would hold events back.
        .insert_header((CONTENT_ENCODING, "identity"))
        .streaming(stream::unfold(feed, next)))
}

async fn next(mut feed: Feed) -> Option<(Result<Bytes, Infallible>, Feed)> {
    if feed.ready.is_empty() {
        match tokio::time::timeout(QUIET_MAX, feed.events.recv()).await {
            Ok(Ok(event)) => frame(&feed.hub, &event, &mut feed.ready),
            // It was too slow; what it missed is gone, and it goes on with what is kept.
            Ok(Err(RecvError::Lagged(_))) => {
                feed.ready.extend_from_slice(b"event: reset\ndata: {}\n\n");
            }
            Ok(Err(RecvError::Closed)) => return None,
            Err(_) => feed.ready.extend_from_slice(b": quiet\n\n"),
        }
    }
    let chunk = Bytes::from(std::mem::take(&mut feed.ready));
    Some((Ok(chunk), feed))
}

fn frame(hub: &Hub, event: &Event, out: &mut Vec<u8>) {
    // The data is JSON on one line.
    let text = format!(
        "id: {}\nevent: {}\ndata: {}\n\n",
        hub.id(event.number),
        event.name,
        event.data
    );
    out.extend_from_slice(text.as_bytes());
}
