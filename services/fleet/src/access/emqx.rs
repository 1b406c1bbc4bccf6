//! The rules in EMQX's words: an authorization file, and users to begin with.

use std::fmt::Write as _;

use super::account::unshared;
use super::{Accounts, Passwords, Role};

/// The file of an authorization source of type `file` (`acl.conf`). EMQX is to be set to
/// `no_match = deny`; the last line says it again.
///
/// EMQX looks at the filter inside of `$share/{group}/{filter}` and not at the group: give the
/// listener of devices and viewers a zone with `mqtt.shared_subscription = false`.
#[must_use]
pub fn authorization(accounts: &Accounts) -> String {
    let mut text = String::from("%% Made by `fleet accounts`; what is not listed is refused.\n");
    for account in accounts.iter() {
        let name = &account.name;
        let who = match account.role {
            Role::Device => {
                format!("{{'and', [{{username, \"{name}\"}}, {{clientid, \"{name}\"}}]}}")
            }
            _ => format!("{{username, \"{name}\"}}"),
        };
        let inner: Vec<&str> = account.subscribe.iter().map(|it| unshared(it)).collect();
        let publish: Vec<&str> = account.publish.iter().map(String::as_str).collect();
        for (action, topics) in [("publish", publish), ("subscribe", inner)] {
            if topics.is_empty() {
                continue;
            }
            let topics: Vec<_> = topics.iter().map(|topic| format!("\"{topic}\"")).collect();
            let topics = topics.join(", ");
            // Writing to a string cannot fail.
            writeln!(text, "{{allow, {who}, {action}, [{topics}]}}.").ok();
        }
    }
    text + "{deny, all}.\n"
}

/// The bootstrap file of EMQX's built-in database (`bootstrap_type = hash`, SHA-256 with the salt as
/// prefix, `user_id_type = username`).
#[must_use]
pub fn bootstrap_users(accounts: &Accounts, passwords: &Passwords) -> String {
    let mut text = String::from("user_id,password_hash,salt,is_superuser\n");
    for account in accounts.iter() {
        if let Some(password) = passwords.get(&account.name) {
            let (salt, hash) = password.sha256();
            // Writing to a string cannot fail.
            writeln!(text, "{},{hash},{salt},false", account.name).ok();
        }
    }
    text
}
