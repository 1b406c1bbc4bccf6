//! Tells that this process is there, active or standing by.

use actix::prelude::*;
use fleet_shared::health::{Check, Observe};
use fleet_shared::session::{ConnectionEvent, Inbound, Session};

use crate::status;

/// The session of the process itself: publishes its status and has its will.
pub(crate) struct Presence {
    pub(crate) instance: String,
    pub(crate) group: String,
    pub(crate) check: Check,
    pub(crate) session: Option<Session>,
}

impl Presence {
    fn publish(&self, online: bool) {
        let status = status::of(&self.instance, &self.group, online, None);
        match (&self.session, status.publish()) {
            (Some(session), Ok(publish)) => session.fire(publish, |outcome| {
                if let Err(error) = outcome {
                    tracing::warn!(%error, "the status is not published");
                }
            }),
            (_, Err(error)) => {
                tracing::warn!(instance = %self.instance, %error, "no status is published: the client id is not a topic level");
            }
            (None, Ok(_)) => {}
        }
    }
}

impl Actor for Presence {
    type Context = Context<Self>;
}

impl Handler<Inbound> for Presence {
    type Result = ();

    fn handle(&mut self, _: Inbound, _: &mut Self::Context) {}
}

impl Handler<ConnectionEvent> for Presence {
    type Result = ();

    fn handle(&mut self, event: ConnectionEvent, _: &mut Self::Context) {
        match event {
            ConnectionEvent::Up { .. } => {
                self.check.up();
                self.publish(true);
            }
            ConnectionEvent::Down { error, .. } => {
                self.check.down(format!("{:#}", anyhow::Error::new(error)));
            }
            ConnectionEvent::Failed { error } => self.check.down(error.to_string()),
        }
    }
}

impl Handler<Observe> for Presence {
    type Result = ResponseFuture<serde_json::Value>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        let state = serde_json::json!({"instance": self.instance, "group": self.group});
        Observe::answer(state, self.session.clone())
    }
}

/// The session that [`Presence`] publishes on.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Use(pub(crate) Session);

impl Handler<Use> for Presence {
    type Result = ();

    fn handle(&mut self, Use(session): Use, _: &mut Self::Context) {
        self.session = Some(session);
    }
}

/// Says good-bye: the next status is offline.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct GoodBye;

impl Handler<GoodBye> for Presence {
    type Result = ();

    fn handle(&mut self, GoodBye: GoodBye, _: &mut Self::Context) {
        self.publish(false);
    }
}
