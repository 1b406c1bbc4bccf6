//! `fleet certs`: a certificate authority for development, and what it signs.
//!
//! Every certificate is a file of its own with its key beside it. What is there and still good is
//! left alone; a new authority is added in front of the old one, so that both are trusted while
//! certificates are being replaced.

mod authority;
mod command;
mod plan;

pub use authority::{Authority, CertError, Facts};
pub use command::{CertsArgs, make, run};
pub use plan::{Decision, Purpose, Wanted, decide};
