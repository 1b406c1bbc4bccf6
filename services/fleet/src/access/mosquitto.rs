//! The rules in Mosquitto's words: for its dynamic security plugin, and as ACL and password file.
//!
//! The plugin is the one to use. With an ACL file Mosquitto 2.0 lets anybody subscribe to anything
//! and sorts out when it delivers, so a client that joins `$share/ingest/sensors/#` without a right
//! to read takes its share of the readings away from `ingest`, and they are lost.

use std::fmt::Write as _;

use serde::Serialize;

use super::account::{shared, unshared};
use super::{Account, Accounts, Passwords, Role};

/// The configuration of the dynamic security plugin: who there is, what each may do, and that all
/// else is refused. Accounts without a password can only come with a certificate.
#[must_use]
pub fn dynamic_security(accounts: &Accounts, passwords: &Passwords) -> String {
    let file = File {
        default_acl_access: Defaults {
            publish_client_send: false,
            publish_client_receive: false,
            subscribe: false,
            // Leaving is no danger.
            unsubscribe: true,
        },
        clients: accounts
            .iter()
            .map(|account| client(account, passwords))
            .collect(),
        groups: [],
        roles: accounts.iter().map(role).collect(),
    };
    serde_json::to_string_pretty(&file).expect("texts and numbers always serialize") + "\n"
}

fn client<'a>(account: &'a Account, passwords: &'a Passwords) -> Client<'a> {
    let hashed = passwords
        .get(&account.name)
        .map(|password| password.pbkdf2());
    let (salt, iterations, password) = match hashed {
        Some((salt, iterations, hash)) => (Some(salt), Some(iterations), Some(hash)),
        None => (None, None, None),
    };
    Client {
        username: &account.name,
        clientid: (account.role == Role::Device).then_some(&account.name),
        textname: account.role.name(),
        roles: [RoleName {
            rolename: &account.name,
        }],
        password,
        salt,
        iterations,
    }
}

fn role(account: &Account) -> RoleFile<'_> {
    let rule = |acltype, topic, priority| Acl {
        acltype,
        topic,
        priority,
        allow: true,
    };
    let send = account
        .publish
        .iter()
        .map(|topic| rule("publishClientSend", topic, 0));
    let receive = account
        .subscribe
        .iter()
        .map(|filter| rule("publishClientReceive", unshared(filter), 0));
    let subscribe = account.subscribe.iter().map(|filter| {
        let priority = if shared(filter).is_some() { 2 } else { 0 };
        rule("subscribePattern", filter, priority)
    });
    // The plugin takes `#` for every group, too.
    let no_other_group = Acl {
        allow: false,
        ..rule("subscribePattern", "$share/#", 1)
    };
    let subscribe = subscribe.chain([no_other_group]);
    RoleFile {
        rolename: &account.name,
        acls: send.chain(receive).chain(subscribe).collect(),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File<'a> {
    #[serde(rename = "defaultACLAccess")]
    default_acl_access: Defaults,
    clients: Vec<Client<'a>>,
    groups: [(); 0],
    roles: Vec<RoleFile<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Defaults {
    publish_client_send: bool,
    publish_client_receive: bool,
    subscribe: bool,
    unsubscribe: bool,
}

#[derive(Serialize)]
struct Client<'a> {
    username: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    clientid: Option<&'a str>,
    textname: &'a str,
    roles: [RoleName<'a>; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    salt: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iterations: Option<u32>,
}

#[derive(Serialize)]
struct RoleName<'a> {
    rolename: &'a str,
}

#[derive(Serialize)]
struct RoleFile<'a> {
    rolename: &'a str,
    acls: Vec<Acl<'a>>,
}

#[derive(Serialize)]
struct Acl<'a> {
    acltype: &'static str,
    topic: &'a str,
    priority: i32,
    allow: bool,
}

/// The ACL file. It knows no groups: see above for what that means.
#[must_use]
pub fn acl_file(accounts: &Accounts) -> String {
    let mut text = String::from("# Made by `fleet accounts`; what is not listed is refused.\n");
    for account in accounts.iter() {
        // Writing to a string cannot fail.
        writeln!(text, "\nuser {}", account.name).ok();
        for topic in &account.publish {
            writeln!(text, "topic write {topic}").ok();
        }
        for filter in &account.subscribe {
            writeln!(text, "topic read {}", unshared(filter)).ok();
        }
    }
    text
}

/// The password file, as `mosquitto_passwd` writes it.
#[must_use]
pub fn password_file(accounts: &Accounts, passwords: &Passwords) -> String {
    let mut text = String::new();
    for account in accounts.iter() {
        if let Some(password) = passwords.get(&account.name) {
            let (salt, iterations, hash) = password.pbkdf2();
            // Writing to a string cannot fail.
            writeln!(text, "{}:$7${iterations}${salt}${hash}", account.name).ok();
        }
    }
    text
}

/// A configuration that uses the plugin and the certificates of `fleet certs`: one listener for
/// passwords, one for client certificates, and limits that do not drop what was accepted.
#[must_use]
pub fn configuration() -> &'static str {
    "# Made by `fleet accounts`. Adjust the folders, and include it or start Mosquitto with -c.\n\
     per_listener_settings false\n\
     allow_anonymous false\n\
     plugin mosquitto_dynamic_security.so\n\
     plugin_opt_config_file /etc/mosquitto/fleet/dynamic-security.json\n\
     # Instead of the plugin, without protection of shared subscriptions:\n\
     # password_file /etc/mosquitto/fleet/passwords\n\
     # acl_file /etc/mosquitto/fleet/acl\n\
     \n\
     # User name and password. SIGHUP makes Mosquitto read certificates again.\n\
     listener 8883\n\
     cafile /etc/mosquitto/certs/ca.crt\n\
     certfile /etc/mosquitto/certs/broker.crt\n\
     keyfile /etc/mosquitto/certs/broker.key\n\
     \n\
     # Client certificate: its common name is the account.\n\
     listener 8884\n\
     cafile /etc/mosquitto/certs/ca.crt\n\
     certfile /etc/mosquitto/certs/broker.crt\n\
     keyfile /etc/mosquitto/certs/broker.key\n\
     require_certificate true\n\
     use_identity_as_username true\n\
     \n\
     set_tcp_nodelay true\n\
     max_inflight_messages 0\n\
     max_queued_messages 0\n\
     max_packet_size 1048576\n\
     persistence true\n\
     persistence_location /var/lib/mosquitto/\n"
}
