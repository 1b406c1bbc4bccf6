//! Who may do what, and how often.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use actix_web::http::StatusCode;
use actix_web::http::header::AUTHORIZATION;
use actix_web::{HttpRequest, ResponseError as _};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::problem::Problem;

/// Writes a second in the long run, and at once.
const WRITES: Rate = Rate {
    per_second: 20.0,
    burst: 100.0,
};

/// Wrong tokens a second in the long run, and at once: who guesses gets nowhere, and who has the
/// right one is not held up by it.
const WRONG_TOKENS: Rate = Rate {
    per_second: 5.0,
    burst: 50.0,
};

/// How often something may happen.
#[derive(Clone, Copy, Debug)]
struct Rate {
    per_second: f64,
    burst: f64,
}

/// What is left of a rate.
#[derive(Debug)]
struct Bucket {
    rate: Rate,
    left: Mutex<(Instant, f64)>,
}

impl Bucket {
    fn new(rate: Rate) -> Self {
        Self {
            rate,
            left: Mutex::new((Instant::now(), rate.burst)),
        }
    }

    /// Whether it may happen once more.
    fn take(&self, now: Instant) -> bool {
        // Nothing that is done under the lock panics.
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, before) = *left;
        let passed = now.saturating_duration_since(since).as_secs_f64();
        let filled = (before + passed * self.rate.per_second).min(self.rate.burst);
        let allowed = filled >= 1.0;
        *left = (now, if allowed { filled - 1.0 } else { filled });
        allowed
    }
}

/// Lets requests pass, or not.
pub(crate) struct Guard {
    /// The digest of the token: digests are of one length, so comparing them tells nothing of it.
    token: Option<[u8; 32]>,
    reads_too: bool,
    writes: Bucket,
    wrong_tokens: Bucket,
}

impl Guard {
    pub(crate) fn new(token: Option<SecretString>, reads_too: bool) -> Self {
        Self {
            token: token.map(|token| digest(token.expose_secret().as_bytes())),
            reads_too,
            writes: Bucket::new(WRITES),
            wrong_tokens: Bucket::new(WRONG_TOKENS),
        }
    }

    pub(crate) fn can_write(&self) -> bool {
        self.token.is_some()
    }

    /// Whether the token that the request brings is right; who asks too often is not told.
    pub(crate) fn authorized(&self, request: &HttpRequest) -> Result<bool, Problem> {
        match self.check(request) {
            Ok(()) => Ok(true),
            Err(problem) if problem.status_code() == StatusCode::TOO_MANY_REQUESTS => Err(problem),
            Err(_) => Ok(false),
        }
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
        if self.writes.take(Instant::now()) {
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
        if given.is_some_and(|given| is_token(given.as_bytes(), token)) {
            return Ok(());
        }
        if given.is_some() && !self.wrong_tokens.take(Instant::now()) {
            return Err(Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "/problems/too-many-wrong-tokens",
                "Too many wrong tokens",
                "Nothing was changed. The token is wrong; look for the right one before you go on.",
            ));
        }
        Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "/problems/token",
            "The token is missing or wrong",
            "Nothing was changed. Send the API token as `Authorization: Bearer TOKEN`.",
        ))
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Whether the header brings the token, compared in a time that does not depend on either.
fn is_token(header: &[u8], token: &[u8; 32]) -> bool {
    let Some((scheme, given)) = header.split_at_checked(7) else {
        return false;
    };
    scheme.eq_ignore_ascii_case(b"bearer ") && digest(given.trim_ascii()).ct_eq(token).into()
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
        for wrong in ["secre", "secrets", "", "Secret"] {
            assert!(guard.write(&request(wrong)).is_err(), "{wrong}");
        }
        let lower_case = TestRequest::default().insert_header((AUTHORIZATION, "bearer secret"));
        assert!(guard.write(&lower_case.to_http_request()).is_ok());
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

    #[test]
    fn who_guesses_is_told_to_stop_and_does_not_hold_up_others() {
        let guard = Guard::new(Some("secret".into()), false);
        let with = |token: &str| {
            TestRequest::default()
                .insert_header((AUTHORIZATION, format!("Bearer {token}")))
                .to_http_request()
        };
        let answers: Vec<_> = (0..200)
            .map(|_| {
                guard
                    .write(&with("guess"))
                    .unwrap_err()
                    .status_code()
                    .as_u16()
            })
            .collect();
        assert_eq!((answers[0], answers[199]), (401, 429));
        assert!(guard.write(&with("secret")).is_ok());
    }
}
