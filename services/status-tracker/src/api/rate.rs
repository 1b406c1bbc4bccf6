//! How many requests an address may make: enough for people and scripts, too few to keep the
//! service from its work or to try tokens.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::middleware::Next;
use actix_web::{ResponseError as _, web};

use super::problem::Problem;

/// Requests a second that an address may make for ever; the dashboard makes fewer than one, and a
/// proxy in front is one address.
const PER_SECOND: f64 = 1_000.0;

/// Requests that it may make at once after a while without any.
const BURST: f64 = 5_000.0;

/// Addresses that are kept account of. When there are more, those that have their full burst again
/// are forgotten; if that does not help, new ones share one account.
const ADDRESSES_MAX: usize = 10_000;

/// They are forgotten at most so often.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// The accounts of all addresses.
#[derive(Debug, Default)]
pub(crate) struct Rates(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    accounts: HashMap<IpAddr, Account>,
    swept: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Account {
    left: f64,
    at: Instant,
}

impl Account {
    fn refilled(self, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.at);
        (self.left + since.as_secs_f64() * PER_SECOND).min(BURST)
    }
}

impl Rates {
    /// Takes one request off an address's account; how long to wait when it is overdrawn.
    fn take(&self, from: IpAddr, now: Instant) -> Result<(), Duration> {
        // Each entry is whole between any two operations.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State { accounts, swept } = &mut *state;
        let is_due = swept.is_none_or(|at| now.saturating_duration_since(at) >= SWEEP_EVERY);
        if accounts.len() >= ADDRESSES_MAX && !accounts.contains_key(&from) && is_due {
            *swept = Some(now);
            accounts.retain(|_, account| account.refilled(now) < BURST);
        }
        let from = match accounts.len() >= ADDRESSES_MAX && !accounts.contains_key(&from) {
            true => IpAddr::from([0, 0, 0, 0]),
            false => from,
        };
        let full = Account {
            left: BURST,
            at: now,
        };
        let account = accounts.entry(from).or_insert(full);
        let left = account.refilled(now);
        *account = Account {
            left: if left < 1.0 { left } else { left - 1.0 },
            at: now,
        };
        match left < 1.0 {
            true => Err(Duration::from_secs_f64((1.0 - left) / PER_SECOND)),
            false => Ok(()),
        }
    }
}

/// Answers 429 to an address that asks too often, before anything else is looked at.
///
/// # Errors
/// Those of the handler.
pub(crate) async fn limit<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, actix_web::Error> {
    let from = request.peer_addr().map(|addr| addr.ip());
    let rates = request.app_data::<web::Data<Rates>>().cloned();
    if let (Some(from), Some(rates)) = (from, rates)
        && rates.take(from, Instant::now()).is_err()
    {
        let problem = Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "/problems/too-many-requests",
            "Too many requests",
            format!(
                "Nothing was done. An address may ask {PER_SECOND} times a second, and {BURST} times at once; try again in a second."
            ),
        );
        let answer = problem.error_response();
        return Ok(request.into_response(answer).map_into_right_body());
    }
    Ok(next.call(request).await?.map_into_left_body())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn a_burst_is_served_then_the_rate_and_others_are_not_touched() {
        let (rates, mut now) = (Rates::default(), Instant::now());
        let served = |count: usize, now| {
            (0..count)
                .filter(|_| rates.take(address(1), now).is_ok())
                .count()
        };
        assert_eq!(served(10_000, now), 5_000);
        assert!(rates.take(address(1), now).unwrap_err() <= Duration::from_millis(1));
        assert!(rates.take(address(2), now).is_ok());
        now += Duration::from_secs(1);
        assert_eq!(served(10_000, now), 1_000);
        now += Duration::from_secs(3_600);
        assert_eq!(served(10_000, now), 5_000);
    }

    #[test]
    fn any_number_of_addresses_is_kept_account_of_in_bounded_memory() {
        let (rates, now) = (Rates::default(), Instant::now());
        for number in 1..=30_000 {
            // The first are overdrawn when there is no room, so new ones share an account.
            assert_eq!(
                rates.take(address(number), now).is_ok(),
                number <= 10_000 + 5_000
            );
        }
        assert!(rates.0.lock().unwrap().accounts.len() <= ADDRESSES_MAX + 1);
        let later = now + Duration::from_secs(10);
        assert!(rates.take(address(40_000), later).is_ok());
        assert!(rates.0.lock().unwrap().accounts.len() < 10);
    }
}
