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

/// How often an address may ask.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// For ever, in a second.
    per_second: f64,
    /// At once after a while without any.
    burst: f64,
}

/// Of any requests; the dashboard makes fewer than one a second, and a proxy in front is one address.
const REQUESTS: Rate = Rate {
    per_second: 1_000.0,
    burst: 5_000.0,
};

/// Of requests that read the store. One takes it about ten milliseconds at most, so an address has a
/// fifth of a second of its only reader in each. The page of a device with the 100 sensors that it
/// shows at most makes 201 of them at once, any other fewer than ten.
pub(super) const READS: Rate = Rate {
    per_second: 20.0,
    burst: 300.0,
};

/// Addresses that are kept account of. When there are more, those that have their full burst again
/// are forgotten; if that does not help, new ones share one account.
const ADDRESSES_MAX: usize = 10_000;

/// They are forgotten at most so often.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// The accounts of all addresses.
#[derive(Debug)]
pub(crate) struct Rates {
    rate: Rate,
    state: Mutex<State>,
}

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
    fn refilled(self, rate: Rate, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.at);
        (self.left + since.as_secs_f64() * rate.per_second).min(rate.burst)
    }
}

impl Default for Rates {
    fn default() -> Self {
        Self::new(REQUESTS)
    }
}

impl Rates {
    pub(super) fn new(rate: Rate) -> Self {
        Self {
            rate,
            state: Mutex::default(),
        }
    }

    /// Takes a request off an address's account, as `cost` common ones; how long to wait when there
    /// is not enough left.
    pub(super) fn take(&self, from: IpAddr, cost: f64, now: Instant) -> Result<(), Duration> {
        let rate = self.rate;
        // Each entry is whole between any two operations.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { accounts, swept } = &mut *state;
        let is_due = swept.is_none_or(|at| now.saturating_duration_since(at) >= SWEEP_EVERY);
        if accounts.len() >= ADDRESSES_MAX && !accounts.contains_key(&from) && is_due {
            *swept = Some(now);
            accounts.retain(|_, account| account.refilled(rate, now) < rate.burst);
        }
        let from = match accounts.len() >= ADDRESSES_MAX && !accounts.contains_key(&from) {
            true => IpAddr::from([0, 0, 0, 0]),
            false => from,
        };
        let full = Account {
            left: rate.burst,
            at: now,
        };
        let account = accounts.entry(from).or_insert(full);
        let left = account.refilled(rate, now);
        *account = Account {
            left: if left < cost { left } else { left - cost },
            at: now,
        };
        match left < cost {
            true => Err(Duration::from_secs_f64((cost - left) / rate.per_second)),
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
        && rates.take(from, 1.0, Instant::now()).is_err()
    {
        let Rate { per_second, burst } = REQUESTS;
        let answer = too_many(format!(
            "An address may ask {per_second} times a second, and {burst} times at once"
        ));
        let answer = answer.error_response();
        return Ok(request.into_response(answer).map_into_right_body());
    }
    Ok(next.call(request).await?.map_into_left_body())
}

/// An address asks too often; `rule` says what it may do.
pub(super) fn too_many(rule: impl std::fmt::Display) -> Problem {
    Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        "/problems/too-many-requests",
        "Too many requests",
        format!("Nothing was done. {rule}; try again in a second."),
    )
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
                .filter(|_| rates.take(address(1), 1.0, now).is_ok())
                .count()
        };
        assert_eq!(served(10_000, now), 5_000);
        assert!(rates.take(address(1), 1.0, now).unwrap_err() <= Duration::from_millis(1));
        assert!(rates.take(address(2), 1.0, now).is_ok());
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
                rates.take(address(number), 1.0, now).is_ok(),
                number <= 10_000 + 5_000
            );
        }
        assert!(rates.state.lock().unwrap().accounts.len() <= ADDRESSES_MAX + 1);
        let later = now + Duration::from_secs(10);
        assert!(rates.take(address(40_000), 1.0, later).is_ok());
        assert!(rates.state.lock().unwrap().accounts.len() < 10);
    }
}
