//! Topics with too many levels, which nobody may publish to.
//!
//! The library asks how deep a filter is, and never how deep a topic is. Retained messages it keeps in a tree
//! that it walks by recursion, level by level: a topic of 65,535 slashes would take the stack of the thread,
//! and with it the process.

use rmqtt::codec::v5::PublishAckReason;
use rmqtt::hook::{Handler, HookResult, Parameter, Priority, ReturnType};
use rmqtt::types::{AuthResult, ConnectInfo, LastWill, PublishAclResult, PublishResult};

use super::MAX_TOPIC_LEVELS;

/// Before everybody else who is asked.
pub(super) const FIRST: Priority = 1_000;

/// Refuses them, at whatever level of the broker's security.
#[derive(Clone, Copy, Debug)]
pub(super) struct Depth {
    /// Whether others are asked about who connects. Without them everybody is let in: the library's own
    /// way to do so asks nobody, not even about wills.
    pub(super) guarded: bool,
}

#[async_trait::async_trait]
impl Handler for Depth {
    async fn hook(&self, question: &Parameter, so_far: Option<HookResult>) -> ReturnType {
        match question {
            Parameter::ClientAuthenticate(info) if is_will_too_deep(info) => {
                let client_id = info.client_id();
                tracing::warn!(%client_id, "a client is not let in: its will's topic is too deep");
                let refused = HookResult::AuthResult(AuthResult::NotAuthorized);
                (false, Some(refused))
            }
            Parameter::ClientAuthenticate(_) if !self.guarded => {
                let allowed = HookResult::AuthResult(AuthResult::Allow(false, None));
                (false, Some(allowed))
            }
            Parameter::MessagePublishCheckAcl(session, publish) if is_too_deep(&publish.topic) => {
                let client_id = &session.id.client_id;
                tracing::warn!(%client_id, "refused: the topic of a message is too deep");
                (false, Some(HookResult::PublishAclResult(refused())))
            }
            _ => (true, so_far),
        }
    }
}

fn is_will_too_deep(info: &ConnectInfo) -> bool {
    info.last_will().is_some_and(|will| match will {
        LastWill::V3(will) => is_too_deep(&will.topic),
        LastWill::V5(will) => is_too_deep(&will.topic),
    })
}

fn is_too_deep(topic: &str) -> bool {
    topic.split('/').nth(MAX_TOPIC_LEVELS).is_some()
}

fn refused() -> PublishAclResult {
    let reason = format!("a topic has at most {MAX_TOPIC_LEVELS} levels");
    PublishAclResult(PublishResult::reason_code(
        PublishAckReason::TopicNameInvalid,
        Some(reason.into()),
        false,
    ))
}
