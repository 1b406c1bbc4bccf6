//! What PostgreSQL's errors mean to a caller.

use std::error::Error as _;
use std::io;

use deadpool_postgres::PoolError;
use tokio_postgres::Error;

use crate::StoreError;

/// Tells by SQLSTATE whether a failure may go away by itself.
pub(super) fn classify(what: impl Into<String>, source: Error) -> StoreError {
    if is_passing(&source) {
        StoreError::transient(what, source)
    } else {
        StoreError::permanent(what, source)
    }
}

/// The same for a connection that could not be had from the pool.
pub(super) fn classify_pool(server: &str, error: PoolError) -> StoreError {
    match error {
        PoolError::Backend(source) => {
            let what = if is_passing(&source) {
                format!("cannot connect to {server}")
            } else {
                format!(
                    "{server} refuses the connection: correct DATABASE_URL or its password file, or the server's access rules"
                )
            };
            classify(what, source)
        }
        PoolError::Closed => {
            StoreError::permanent_because(format!("the store at {server} is closed"))
        }
        other => StoreError::transient(format!("no connection to {server} in time"), other),
    }
}

fn is_passing(error: &Error) -> bool {
    match error.as_db_error() {
        Some(reported) => is_passing_state(reported.code().code()),
        None => is_about_the_link(error),
    }
}

fn is_passing_state(state: &str) -> bool {
    // The classes: connection exceptions, transaction rollbacks (serialization, deadlock),
    // insufficient resources (a full disk, too many connections), operator intervention (shutdown,
    // cancelled by a timeout) and system errors; and a lock that was not to be had.
    const CLASSES: [&str; 5] = ["08", "40", "53", "57", "58"];
    CLASSES.iter().any(|class| state.starts_with(class)) || state == "55P03"
}

/// Whether the link broke or could not be made. Certificates that are not trusted come as broken links
/// too, but stay so; what is left, a missing password for one, is about the settings.
fn is_about_the_link(error: &Error) -> bool {
    let Some(broken) = io_error_below(error) else {
        return error.is_closed();
    };
    let refused = broken
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    !matches!(refused, Some(rustls::Error::InvalidCertificate(_)))
}

fn io_error_below(error: &Error) -> Option<&io::Error> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<io::Error>() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// Whether PostgreSQL refused a row for what is in it: a data exception, a broken constraint or a
/// limit, such as a key too long for an index page.
pub(super) fn is_about_a_row(error: &Error) -> bool {
    error.as_db_error().is_some_and(|reported| {
        let state = reported.code().code();
        ["22", "23", "54"]
            .iter()
            .any(|class| state.starts_with(class))
    })
}

/// Whether the connection itself is gone, so that a fresh one may do better at once.
pub(super) fn is_disconnection(error: &Error) -> bool {
    match error.as_db_error() {
        // The server says goodbye to each connection when it shuts down or crashes.
        Some(reported) => matches!(reported.code().code(), "57P01" | "57P02" | "57P03"),
        None => is_about_the_link(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_told_apart() {
        for passing in [
            "08006", "40001", "40P01", "53100", "53300", "55P03", "57014", "57P01", "58030",
        ] {
            assert!(is_passing_state(passing), "{passing}");
        }
        for lasting in [
            "28P01", "3D000", "42P01", "42501", "25006", "42P10", "55000", "0A000",
        ] {
            assert!(!is_passing_state(lasting), "{lasting}");
        }
    }
}
