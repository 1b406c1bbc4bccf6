//! Who may do what at the broker: one model, from which the rules of every broker are made.
//!
//! An [`Account`] has a list of topics that it may publish to and of filters that it may subscribe
//! to, and nothing else: what is not listed is refused. [`Account::may`] decides it; the embedded
//! broker asks that function, and the files for Mosquitto and EMQX say the same in their words.
//! The table of all of it is in docs/security.md, and a test tries every cell of it.

mod account;
mod command;
mod emqx;
mod file;
mod mosquitto;
mod password;
mod role;

pub use account::{Account, Action, covers};
pub use command::{AccountsArgs, run};
pub use emqx::{authorization, bootstrap_users};
pub use file::{Accounts, AccountsError};
pub use mosquitto::{acl_file, configuration, dynamic_security, password_file};
pub use password::{Password, Passwords, PasswordsError};
pub use role::Role;
