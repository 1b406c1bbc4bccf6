//! What a consumer does about its session's connection: log and readiness.

use std::sync::Arc;

use crate::health::Check;
use crate::session::{ConnectionError, ConnectionEvent};

/// Keeps log and readiness in step with a session's connection.
#[derive(Debug)]
pub struct Link {
    client_id: String,
    check: Check,
}

impl Link {
    /// For the session of that client id.
    #[must_use]
    pub fn new(client_id: impl Into<String>, check: Check) -> Self {
        Self {
            client_id: client_id.into(),
            check,
        }
    }

    /// Notes a change of the connection, and gives the reason when the session gave up for good.
    pub fn changed(&self, event: &ConnectionEvent) -> Option<Arc<ConnectionError>> {
        match event {
            ConnectionEvent::Up {
                session_present, ..
            } => {
                tracing::info!(session = %self.client_id, session_present, "connected to the broker");
                self.check.up();
                None
            }
            ConnectionEvent::Down { error, retry_in } => {
                let chain = format!("{:#}", anyhow::Error::new(error.clone()));
                tracing::warn!(session = %self.client_id, error = %chain, ?retry_in, "no connection to the broker");
                self.check.down(chain);
                None
            }
            ConnectionEvent::Failed { error } => {
                self.check.down(error.to_string());
                Some(error.clone())
            }
        }
    }
}
