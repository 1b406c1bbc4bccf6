//! HTTP requests and what their answers mean.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::{Client, redirect};
use rustls::ClientConfig;

use super::SendError;
use super::request::Request;
use crate::notify::retry::{Response, retry_after};

/// Longest time for a connection to be there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What of a receiver's answer is kept to explain by, in bytes.
const EXCERPT_BYTES_MAX: usize = 300;

pub(super) fn client(tls: ClientConfig) -> Result<Client, SendError> {
    Client::builder()
        .tls_backend_preconfigured(tls)
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(super::SEND_TIMEOUT)
        // A redirect would take the content where nobody has sent it.
        .redirect(redirect::Policy::none())
        .user_agent(concat!("mqtt-fleet-alerting/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| SendError::refused(chain(error)))
}

pub(super) async fn send(
    client: &Client,
    request: Request,
    traceparent: Option<&str>,
    id: &str,
    now: Timestamp,
) -> Result<(), SendError> {
    let mut post = client
        .post(&request.url)
        .header("content-type", request.content_type)
        .header("idempotency-key", id)
        .body(request.body);
    for (name, value) in request.headers {
        post = post.header(name, value);
    }
    if let Some(traceparent) = traceparent {
        post = post.header("traceparent", traceparent);
    }
    if let Some((user, password)) = request.basic_auth {
        post = post.basic_auth(user, Some(password));
    }
    let mut answer = post.send().await.map_err(|error| {
        // The URL may be a secret, as Slack's is.
        let error = error.without_url();
        if error.is_builder() {
            SendError::refused(chain(error))
        } else {
            SendError::later(chain(error))
        }
    })?;
    let status = answer.status();
    let wait = answer.headers().get("retry-after");
    let wait = wait.and_then(|value| retry_after(value.to_str().ok()?, now));
    let response = Response::of_status(status.as_u16(), wait);
    if response == Response::Taken {
        return Ok(());
    }
    // One chunk is enough for a sentence, and bounds what is read.
    let said = answer.chunk().await.ok().flatten().unwrap_or_default();
    let said = String::from_utf8_lossy(&said[..said.len().min(EXCERPT_BYTES_MAX)]);
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let separator = if said.is_empty() { "" } else { ": " };
    Err(SendError {
        what: format!("the receiver answered {status}{separator}{said}"),
        response,
    })
}

fn chain(error: reqwest::Error) -> String {
    format!("{:#}", anyhow::Error::new(error))
}
