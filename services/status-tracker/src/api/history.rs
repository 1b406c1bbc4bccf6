//! Requests that read the store: each costs it as much as it has to look at, and few wait at once,
//! since SQLite has one reader and who waits holds what it asked for.

use std::sync::Arc;
use std::time::Instant;

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use fleet_store::{Span, StoreError};
use tokio::sync::Semaphore;

use super::problem::Problem;
use super::rate::{self, READS, Rates};

/// Requests that run or wait: at ten milliseconds each the last has its turn within a third of a
/// second, and spans of a year, of which an address may ask one a second, within five.
const READING_MAX: usize = 32;

/// A span of so many days is looked at as long as a page of a list is: about ten milliseconds, as
/// SQLite seeks each minute of it.
const DAYS_OF_A_READ: f64 = 25.0;

/// Lets requests read the store.
#[derive(Debug)]
pub(super) struct History {
    rates: Rates,
    room: Arc<Semaphore>,
}

/// What reading a span costs, in pages of a list.
pub(super) fn cost(span: Span) -> f64 {
    1.0 + span.to.duration_since(span.from).as_secs_f64() / 86_400.0 / DAYS_OF_A_READ
}

impl History {
    pub(super) fn new() -> Self {
        Self {
            rates: Rates::new(READS),
            room: Arc::new(Semaphore::new(READING_MAX)),
        }
    }

    /// The outcome of `work`, unless the address asks too often or too many wait already.
    pub(super) async fn read<T: 'static>(
        &self,
        request: &HttpRequest,
        cost: f64,
        work: impl Future<Output = Result<T, StoreError>> + 'static,
    ) -> Result<T, Problem> {
        if let Some(from) = request.peer_addr()
            && self.rates.take(from.ip(), cost, Instant::now()).is_err()
        {
            return Err(rate::too_many(
                "An address may read what is stored 20 times a second, where a span of 25 days counts as one more",
            ));
        }
        let Ok(place) = self.room.clone().try_acquire_owned() else {
            return Err(busy());
        };
        // The store goes on with what it was asked for when the client has gone, so the place is
        // taken until then.
        let done = actix_web::rt::spawn(async move {
            let done = work.await;
            drop(place);
            done
        });
        let done = done.await.map_err(|_| Problem::stopping())?;
        Ok(done?)
    }
}

fn busy() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "/problems/too-many-reads",
        "Too many requests read the store",
        "Nothing was read. Try again in a moment, with a shorter span if it is a long one.",
    )
}

#[cfg(test)]
mod tests {
    use actix_web::ResponseError as _;
    use actix_web::test::TestRequest;
    use futures_util::FutureExt as _;
    use jiff::{Timestamp, ToSpan as _};

    use super::*;

    fn request() -> HttpRequest {
        let request = TestRequest::default().peer_addr("192.0.2.1:1".parse().unwrap());
        request.to_http_request()
    }

    fn of(hours: i64) -> f64 {
        let (from, to) = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH + hours.hours());
        cost(Span {
            from,
            to,
            points: 1,
        })
    }

    #[actix::test]
    async fn an_address_reads_long_spans_seldom_and_short_ones_often() {
        for (cost, fits) in [(of(1), 295..=300), (of(366 * 24), 19..=19)] {
            let history = History::new();
            let mut read = 0;
            while history
                .read(&request(), cost, std::future::ready(Ok(())))
                .await
                .is_ok()
            {
                read += 1;
            }
            assert!(fits.contains(&read), "{cost}: {read}");
        }
    }

    #[actix::test]
    async fn a_place_is_free_again_when_the_store_is_done_not_when_the_client_is() {
        let (history, request) = (History::new(), request());
        let (done, wait) = tokio::sync::watch::channel(());
        for _ in 0..READING_MAX {
            let mut wait = wait.clone();
            let work = async move {
                drop(wait.changed().await);
                Ok(())
            };
            // Polled once and dropped: the client has gone.
            assert!(history.read(&request, 1.0, work).now_or_never().is_none());
        }
        let next = || history.read(&request, 1.0, std::future::ready(Ok(())));
        let refused = next().await.unwrap_err();
        assert_eq!(refused.status_code(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(
            refused
                .error_response()
                .headers()
                .contains_key("retry-after")
        );
        done.send_replace(());
        while history.room.available_permits() < READING_MAX {
            tokio::task::yield_now().await;
        }
        assert!(next().await.is_ok());
    }
}
