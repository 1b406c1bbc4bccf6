//! The session on which the bridge publishes: commands and dead letters.
//!
//! It is another than the intake's, which may not be read while Kafka is away or slow: there the
//! broker's acknowledgements of these publishes might not be seen.

use actix::prelude::*;
use fleet_shared::health::Observe;
use fleet_shared::member::{GetSession, Link};
use fleet_shared::session::{ConnectionEvent, Inbound, Options, Session, Ticket};
use fleet_shared::telemetry::Metrics;
use tokio::sync::mpsc;

use crate::error::BridgeError;

/// Owns the session; takes nothing.
pub(crate) struct Outlet {
    options: Options,
    registry: Metrics,
    link: Link,
    failures: mpsc::UnboundedSender<BridgeError>,
    session: Option<Session>,
}

impl Outlet {
    pub(crate) fn new(
        options: Options,
        registry: Metrics,
        link: Link,
        failures: mpsc::UnboundedSender<BridgeError>,
    ) -> Self {
        Self {
            options,
            registry,
            link,
            failures,
            session: None,
        }
    }
}

impl Actor for Outlet {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.session = Some(Session::start(
            self.options.clone(),
            &self.registry,
            ctx.address().recipient(),
            ctx.address().recipient(),
        ));
    }
}

impl Handler<Inbound> for Outlet {
    type Result = ();

    /// It has no subscriptions; what an older session of this client id had is not for us.
    fn handle(&mut self, inbound: Inbound, _: &mut Self::Context) {
        let tickets: Vec<Ticket> = inbound.messages.iter().filter_map(|m| m.ticket).collect();
        if let Some(session) = &self.session
            && !tickets.is_empty()
        {
            session.acknowledge(tickets);
        }
    }
}

impl Handler<ConnectionEvent> for Outlet {
    type Result = ();

    fn handle(&mut self, event: ConnectionEvent, _: &mut Self::Context) {
        if let Some(source) = self.link.changed(&event) {
            // The receiver is gone only when the service is ending anyway.
            drop(self.failures.send(BridgeError::Session {
                client_id: self.options.client_id.to_string(),
                source,
            }));
        }
    }
}

impl Handler<Observe> for Outlet {
    type Result = ResponseFuture<serde_json::Value>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        let state = serde_json::json!({ "client_id": self.options.client_id.to_string() });
        Observe::answer(state, self.session.clone())
    }
}

impl Handler<GetSession> for Outlet {
    type Result = MessageResult<GetSession>;

    fn handle(&mut self, _: GetSession, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.session.clone())
    }
}
