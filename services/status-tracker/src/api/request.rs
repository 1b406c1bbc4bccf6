//! Bodies of requests: bounded in size, time and form.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpRequest, web};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::problem::Problem;

/// Largest body of a request, in bytes; as large as a configuration may be.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Longest wait for all of a body.
const BODY_LIMIT: Duration = Duration::from_secs(10);

/// The body as JSON; `null` if there is none.
pub(super) async fn body(request: &HttpRequest, payload: web::Payload) -> Result<Value, Problem> {
    let bytes = tokio::time::timeout(BODY_LIMIT, read(payload)).await;
    let bytes = bytes.map_err(|_| {
        Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "/problems/slow-body",
            "The body did not come in time",
            format!("Nothing was changed. All of it has to come within {BODY_LIMIT:?}."),
        )
    })??;
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    expect_json(request)?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Problem::bad_request(format!("The body is not JSON: {error}.")))
}

/// The body as what is expected.
pub(super) async fn typed<T: DeserializeOwned>(
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<T, Problem> {
    let value = match body(request, payload).await? {
        Value::Null => Value::Object(serde_json::Map::new()),
        value => value,
    };
    serde_json::from_value(value)
        .map_err(|error| Problem::bad_request(format!("The body is not as expected: {error}.")))
}

async fn read(mut payload: web::Payload) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| Problem::bad_request(error.to_string()))?;
        if bytes.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "/problems/too-large",
                "The body is too large",
                format!("Nothing was changed. At most {BODY_BYTES_MAX} bytes are taken."),
            ));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// JSON, by whatever name; or no type, or the one that `curl -d` sends unless told otherwise.
fn expect_json(request: &HttpRequest) -> Result<(), Problem> {
    let Some(given) = request.headers().get(CONTENT_TYPE) else {
        return Ok(());
    };
    let given = String::from_utf8_lossy(given.as_bytes()).to_ascii_lowercase();
    let kind = given.split(';').next().unwrap_or_default().trim();
    let json = kind == "application/json"
        || (kind.starts_with("application/") && kind.ends_with("+json"))
        || kind == "application/x-www-form-urlencoded";
    if json {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "/problems/media-type",
        "The body is of another type",
        format!("Nothing was changed. It is `{kind}`; send application/json."),
    ))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn json_is_taken_by_any_name_and_nothing_else() {
        for (kind, taken) in [
            ("application/json", true),
            ("application/json; charset=utf-8", true),
            ("Application/Merge-Patch+JSON", true),
            ("application/x-www-form-urlencoded", true),
            ("text/plain", false),
            ("application/xml", false),
            ("image/svg+json", false),
            ("", false),
        ] {
            let request = TestRequest::default().insert_header((CONTENT_TYPE, kind));
            let answer = expect_json(&request.to_http_request());
            assert_eq!(answer.is_ok(), taken, "{kind}");
        }
        assert!(expect_json(&TestRequest::default().to_http_request()).is_ok());
    }
}
