//! One member of a group that shares a subscription.

use actix::ResponseFuture;
use jiff::Timestamp;
use tokio::sync::oneshot;

use super::{Peers, ServiceStatus};
use crate::session::{Publish, Session, Subscription, WillSource};
use crate::session::{QoS, Retained};

/// A replica's place in its group: announces it, hears of the others, and finds out whether it may
/// end its session when it leaves.
#[derive(Debug)]
pub struct Membership {
    service: &'static str,
    instance: String,
    group: String,
    peers: Peers,
    left: Option<oneshot::Sender<bool>>,
}

impl Membership {
    /// The replica `instance` (its client id) of a service.
    #[must_use]
    pub fn new(service: &'static str, instance: &str, group: &str) -> Self {
        Self {
            service,
            instance: instance.to_owned(),
            group: group.to_owned(),
            peers: Peers::new(instance, group),
            left: None,
        }
    }

    /// The subscription by which the replicas of a service hear of each other.
    #[must_use]
    pub fn subscription(service: &str) -> Subscription {
        let filter = format!("fleet/services/{service}/+/status");
        Subscription {
            retained: Retained::Always,
            ..Subscription::new(filter, QoS::AtLeastOnce)
        }
    }

    /// The last will of the replica: it tells the others when it vanishes. None if the client id
    /// cannot be a topic level.
    #[must_use]
    pub fn will(service: &str, instance: &str, group: &str) -> Option<WillSource> {
        let status = ServiceStatus::new(service, instance, true, Timestamp::now());
        status.in_group(group).will().ok()
    }

    /// Takes a message that may be a status of the service's replicas; whether it is one.
    pub fn heard(&mut self, topic: &str, payload: &[u8]) -> bool {
        let ours = topic
            .strip_prefix("fleet/services/")
            .and_then(|rest| rest.strip_prefix(self.service))
            .is_some_and(|rest| rest.starts_with('/'));
        if !ours {
            return false;
        }
        self.peers.heard(payload);
        if self.peers.leaving_seen()
            && let Some(left) = self.left.take()
        {
            // Who asked may have run out of time.
            left.send(self.peers.any_online()).ok();
        }
        true
    }

    /// Says that the replica is there: on every connect, as a will may have said otherwise.
    pub fn announce(&self, session: &Session) {
        let Some(status) = self.status(true) else {
            return;
        };
        let instance = self.instance.clone();
        session.fire(status, move |outcome| {
            if let Err(error) = outcome {
                tracing::warn!(session = %instance, %error, "the status is not published");
            }
        });
    }

    /// Says that the replica leaves; answers whether another of the group stays, once the broker
    /// has sent the announcement back.
    pub fn leave(&mut self, session: Option<Session>) -> ResponseFuture<bool> {
        let (Some(session), Some(status)) = (session, self.status(false)) else {
            return Box::pin(std::future::ready(false));
        };
        let (left, others) = oneshot::channel();
        self.left = Some(left);
        Box::pin(async move {
            if let Err(error) = session.publish(status).await {
                tracing::debug!(%error, "leaving could not be announced");
                return false;
            }
            others.await.unwrap_or(false)
        })
    }

    fn status(&self, online: bool) -> Option<Publish> {
        let status = ServiceStatus::new(self.service, &self.instance, online, Timestamp::now());
        match status.in_group(&self.group).publish() {
            Ok(publish) => Some(publish),
            Err(error) => {
                tracing::warn!(instance = %self.instance, %error, "no status is published: the client id is not a topic level");
                None
            }
        }
    }
}
