//! The embedded broker's door keeper: who connects, and whether each may.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use rmqtt::acl::{AuthInfo, Permission, Rule, Topic};
use rmqtt::codec::v5::SubscribeAckReason;
use rmqtt::hook::{Handler, HookResult, Parameter, ReturnType};
use rmqtt::session::Session;
use rmqtt::types::{
    AuthResult, ConnectInfo, LastWill, PublishAclResult, Subscribe, SubscribeAclResult,
};
use secrecy::ExposeSecret as _;
use subtle::ConstantTimeEq as _;

use crate::access::{Account, Accounts, Action, Passwords};

/// The rules of a secured broker.
#[derive(Debug)]
pub struct Rules {
    /// Who there is.
    pub accounts: Accounts,
    /// Their passwords.
    pub passwords: Passwords,
}

/// Connections that came in by TLS: where each goes on to the broker from, and the common name of
/// its certificate. Others the broker does not let in.
#[derive(Clone, Debug, Default)]
pub(super) struct Peers(Arc<Mutex<HashMap<SocketAddr, Option<String>>>>);

impl Peers {
    pub(super) fn enter(&self, from: SocketAddr, common_name: Option<String>) -> Entered {
        self.lock().insert(from, common_name);
        Entered {
            peers: self.clone(),
            from,
        }
    }

    fn get(&self, from: SocketAddr) -> Option<Option<String>> {
        self.lock().get(&from).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SocketAddr, Option<String>>> {
        // A map is whole between any two of its operations.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that is known until this is dropped.
#[derive(Debug)]
pub(super) struct Entered {
    peers: Peers,
    from: SocketAddr,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.peers.lock().remove(&self.from);
    }
}

/// Answers the broker's questions.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    pub(super) rules: Arc<Rules>,
    pub(super) peers: Peers,
}

#[async_trait::async_trait]
impl Handler for Guard {
    async fn hook(&self, question: &Parameter, so_far: Option<HookResult>) -> ReturnType {
        match question {
            Parameter::ClientAuthenticate(info) => {
                let verdict = self.admit(info);
                (false, Some(HookResult::AuthResult(verdict)))
            }
            Parameter::ClientSubscribeCheckAcl(session, subscribe) => {
                let verdict = if self.may(session, Action::Subscribe, &asked(subscribe)) {
                    SubscribeAclResult::new_success(subscribe.opts.qos(), None)
                } else {
                    SubscribeAclResult::new_failure(SubscribeAckReason::NotAuthorized)
                };
                (false, Some(HookResult::SubscribeAclResult(verdict)))
            }
            Parameter::MessagePublishCheckAcl(session, publish) => {
                let verdict = if self.may(session, Action::Publish, &publish.topic) {
                    PublishAclResult::allow()
                } else {
                    PublishAclResult::rejected(false, Some("not authorized".into()))
                };
                (false, Some(HookResult::PublishAclResult(verdict)))
            }
            _ => (true, so_far),
        }
    }
}

impl Guard {
    fn admit(&self, info: &ConnectInfo) -> AuthResult {
        match self.identify(info) {
            Ok(account) => AuthResult::Allow(false, Some(mark(account))),
            Err((refused, reason)) => {
                let client_id = info.client_id();
                let user = info.username().map(ToString::to_string).unwrap_or_default();
                tracing::warn!(%client_id, user, reason, "a client is not let in");
                refused
            }
        }
    }

    fn identify(&self, info: &ConnectInfo) -> Result<&Account, (AuthResult, &'static str)> {
        let refused = |reason| (AuthResult::NotAuthorized, reason);
        let wrong = (
            AuthResult::BadUsernameOrPassword,
            "user name or password is wrong",
        );
        let certified = info
            .ipaddress()
            .and_then(|from| self.peers.get(from))
            .ok_or(refused("it did not come by TLS"))?;
        let user = info.username().map(|name| name.as_ref() as &str);
        let name = match (certified.as_deref(), user) {
            (Some(certified), None) => certified,
            (Some(certified), Some(user)) if certified == user => certified,
            (Some(_), Some(_)) => {
                return Err(refused(
                    "the user name is not its certificate's common name",
                ));
            }
            (None, Some(user)) if self.is_password(user, info) => user,
            (None, Some(_)) => return Err(wrong),
            (None, None) => return Err(refused("it has neither a certificate nor a user name")),
        };
        let Some(account) = self.rules.accounts.get(name) else {
            return Err(wrong);
        };
        if !account.may_connect_as(info.client_id()) {
            return Err(refused("the client id is not one of its account"));
        }
        let will = info.last_will();
        let will = will.as_ref().map(|will| match will {
            LastWill::V3(will) => &will.topic,
            LastWill::V5(will) => &will.topic,
        });
        if will.is_some_and(|topic| !account.may(Action::Publish, topic)) {
            return Err(refused("it may not publish to the topic of its last will"));
        }
        Ok(account)
    }

    fn is_password(&self, user: &str, info: &ConnectInfo) -> bool {
        let (Some(given), Some(known)) = (info.password(), self.rules.passwords.get(user)) else {
            return false;
        };
        let known = known.secret().expose_secret().as_bytes();
        known.ct_eq(given.as_ref()).into()
    }

    fn may(&self, session: &Session, action: Action, topic: &str) -> bool {
        let account = marked(session).and_then(|name| self.rules.accounts.get(name));
        let may = account.is_some_and(|account| account.may(action, topic));
        if !may {
            let client_id = &session.id.client_id;
            tracing::warn!(%client_id, ?action, topic, "refused: its account may not");
        }
        may
    }
}

/// What was asked for, with the group that the library has taken off.
fn asked(subscribe: &Subscribe) -> String {
    match subscribe.opts.shared_group() {
        Some(group) => format!("$share/{group}/{}", subscribe.topic_filter),
        None => subscribe.topic_filter.to_string(),
    }
}

/// The library keeps this with the session. It has no place for a name, so the name stands in a
/// rule, which none but us reads: the library's own ACL plugin is not registered.
fn mark(account: &Account) -> AuthInfo {
    AuthInfo {
        superuser: false,
        expire_at: None,
        rules: vec![Rule {
            permission: Permission::Deny,
            action: rmqtt::acl::Action::All,
            qos: None,
            retain: None,
            topic: Topic {
                eq_topic_filter: Some(account.name.clone()),
                topic_filter: None,
            },
        }],
    }
}

fn marked(session: &Session) -> Option<&str> {
    let rule = session.auth_info.as_ref()?.rules.first()?;
    rule.topic.eq_topic_filter.as_deref()
}
