//! Who may do what, and how often.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use actix_web::http::header::AUTHORIZATION;
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;

use super::problem::Problem;

/// Writes a second in the long run, and at once.
const WRITES_PER_SECOND: f64 = 20.0;
const WRITES_BURST: f64 = 100.0;

/// Lets requests pass, or not.
pub(crate) struct Guard {
    token: Option<SecretString>,
    reads_too: bool,
    writes: Mutex<(Instant, f64)>,
}

impl Guard {
    pub(crate) fn new(token: Option<SecretString>, reads_too: bool) -> Self {
        Self {
            token,
            reads_too,
            writes: Mutex::new((Instant::now(), WRITES_BURST)),
        }
    }

    pub(crate) fn can_write(&self) -> bool {
        self.token.is_some()
    }

    /// Whether the token that the request brings is right.
    pub(crate) fn authorized(&self, request: &HttpRequest) -> bool {
        self.check(request).is_ok()
    }

    pub(crate) fn read(&self, request: &HttpRequest) -> Result<(), Problem> {
        if self.reads_too {
            self.check(request)
        } else {
            Ok(())
        }
    }

    pub(crate) fn write(&self, request: &HttpRequest) -> Result<(), Problem> {
        self.check(request)?;
        let now = Instant::now();
        // Nothing that is done under the lock panics.
        let mut writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, left) = *writes;
        let left =
            (left + now.duration_since(since).as_secs_f64() * WRITES_PER_SECOND).min(WRITES_BURST);
        let allowed = left >= 1.0;
        *writes = (now, if allowed { left - 1.0 } else { left });
        if allowed {
            return Ok(());
        }
        Err(Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "/problems/too-many-writes",
            "Too many writes",
            "Nothing was changed. 20 writes a second are taken; try again in a second.",
        ))
    }

    fn check(&self, request: &HttpRequest) -> Result<(), Problem> {
        let Some(token) = &self.token else {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "/problems/read-only",
                "This replica answers reads only",
                "Nothing was changed. Start it with API_TOKEN or API_TOKEN_FILE to allow writes.",
            ));
        };
        let given = request.headers().get(AUTHORIZATION);
        let given = given.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let right = given.is_some_and(|given| given.ct_eq(token.expose_secret().as_bytes()).into());
        if right {
            return Ok(());
        }
        Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "/problems/token",
            "The token is missing or wrong",
            "Nothing was changed. Send the API token as `Authorization: Bearer TOKEN`.",
        ))
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn writes_need_the_token_and_reads_only_when_told() {
        let request = |token: &str| {
            TestRequest::default()
                .insert_header((AUTHORIZATION, format!("Bearer {token}")))
                .to_http_request()
        };
        let guard = Guard::new(Some("secret".into()), false);
        assert!(guard.write(&request("secret")).is_ok());
        assert!(guard.write(&request("secre")).is_err());
        assert!(
            guard
                .write(&TestRequest::default().to_http_request())
                .is_err()
        );
        assert!(guard.read(&request("wrong")).is_ok());
        assert!(
            Guard::new(Some("secret".into()), true)
                .read(&request("wrong"))
                .is_err()
        );
        assert!(Guard::new(None, false).write(&request("")).is_err());
    }

    #[test]
    fn a_flood_of_writes_is_refused() {
        let guard = Guard::new(Some("secret".into()), false);
        let request = TestRequest::default()
            .insert_header((AUTHORIZATION, "Bearer secret"))
            .to_http_request();
        let taken = (0..1_000).filter(|_| guard.write(&request).is_ok()).count();
        assert!((100..200).contains(&taken), "{taken}");
    }
}
