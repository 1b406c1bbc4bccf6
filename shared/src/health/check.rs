//! Checks and the readiness they add up to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix::Recipient;
use actix_rt::ArbiterHandle;
use jiff::Timestamp;
use serde::Serialize;

use super::actor::{self, ActorStates, Known, Observe, Watched};

/// The health of a process; cheap to clone, all clones are one.
///
/// A process is ready when it has at least one check, every check is up, and it is not draining:
/// a process that has just started and registered nothing yet gets no traffic.
#[derive(Clone, Debug, Default)]
pub struct Health {
    state: Arc<Mutex<State>>,
    /// Put before the names of checks, loops and actors, where several services share the process.
    scope: Option<Arc<str>>,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct State {
    draining: bool,
    next_id: u64,
    checks: BTreeMap<u64, CheckState>,
}

/// One condition for readiness, held by whoever knows it; dropped, it no longer counts.
#[derive(Debug)]
pub struct Check {
    state: Arc<Mutex<State>>,
    id: u64,
}

/// A check at one point in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckState {
    /// What is checked.
    pub name: String,
    /// Whether it is fine.
    pub up: bool,
    /// Why it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it last went up or down.
    pub since: Timestamp,
}

/// The health at one point in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// Whether traffic may come.
    pub ready: bool,
    /// Whether the process is on its way out.
    pub draining: bool,
    /// Every check, in the order of registration.
    pub checks: Vec<CheckState>,
}

impl Health {
    /// No checks, not draining, not ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same health, for one of several services in the process: its checks are named
    /// `{service}/{check}`.
    #[must_use]
    pub fn scoped(&self, service: &str) -> Self {
        Self {
            scope: Some(service.into()),
            ..self.clone()
        }
    }

    /// Adds a condition for readiness; it starts down, as `starting`.
    #[must_use = "a dropped check no longer counts"]
    pub fn check(&self, name: impl Into<String>) -> Check {
        let name = self.named(name.into());
        let mut state = lock(&self.state);
        let id = state.next_id;
        state.next_id += 1;
        let check = CheckState {
            name,
            up: false,
            reason: Some("starting".to_owned()),
            since: Timestamp::now(),
        };
        state.checks.insert(id, check);
        Check {
            state: Arc::clone(&self.state),
            id,
        }
    }

    /// Makes liveness depend on that Arbiter's event loop, too.
    pub fn event_loop(&self, name: impl Into<String>, arbiter: ArbiterHandle) -> Watched {
        actor::watch_loop(&self.known, self.named(name.into()), arbiter)
    }

    /// Shows an actor's state in `/debug/actors`; beyond the first 64 they are only counted.
    pub fn actor(&self, name: impl Into<String>, actor: Recipient<Observe>) -> Watched {
        actor::watch_actor(&self.known, self.named(name.into()), actor)
    }

    fn named(&self, name: String) -> String {
        match &self.scope {
            Some(service) => format!("{service}/{name}"),
            None => name,
        }
    }

    pub(super) async fn stuck_loops(&self, main: &ArbiterHandle) -> Vec<String> {
        actor::stuck_loops(&self.known, main).await
    }

    pub(super) async fn actor_states(&self) -> ActorStates {
        actor::actor_states(&self.known).await
    }

    /// Makes the process not ready for the rest of its life.
    pub fn drain(&self) {
        lock(&self.state).draining = true;
    }

    /// Whether [`Health::drain`] was called.
    #[must_use]
    pub fn draining(&self) -> bool {
        lock(&self.state).draining
    }

    /// Whether traffic may come.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.snapshot().ready
    }

    /// The state of everything now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let state = lock(&self.state);
        let checks: Vec<CheckState> = state.checks.values().cloned().collect();
        Snapshot {
            ready: !state.draining && !checks.is_empty() && checks.iter().all(|check| check.up),
            draining: state.draining,
            checks,
        }
    }
}

impl Check {
    /// The condition holds.
    pub fn up(&self) {
        self.set(true, None);
    }

    /// The condition does not hold, because of `reason`: a few words for an operator.
    pub fn down(&self, reason: impl Into<String>) {
        self.set(false, Some(reason.into()));
    }

    fn set(&self, up: bool, reason: Option<String>) {
        if let Some(check) = lock(&self.state).checks.get_mut(&self.id) {
            if check.up != up {
                check.since = Timestamp::now();
            }
            check.up = up;
            check.reason = reason;
        }
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        lock(&self.state).checks.remove(&self.id);
    }
}

/// No code panics while it holds the lock, so a poisoned state is whole.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_check_is_up() {
        let health = Health::new();
        assert!(!health.ready(), "nothing is registered yet");
        let broker = health.check("mqtt");
        let store = health.check("store");
        assert_eq!(
            health.snapshot().checks[0].reason.as_deref(),
            Some("starting")
        );
        broker.up();
        assert!(!health.ready());
        store.up();
        assert!(health.ready());
        store.down("locked");
        assert!(!health.clone().ready());
        assert_eq!(
            health.snapshot().checks[1].reason.as_deref(),
            Some("locked")
        );
    }

    #[test]
    fn dropped_check_no_longer_counts() {
        let health = Health::new();
        let broker = health.check("mqtt");
        let store = health.check("mqtt");
        broker.up();
        assert!(!health.ready());
        drop(store);
        assert!(health.ready());
    }

    #[test]
    fn draining_is_never_ready() {
        let health = Health::new();
        let check = health.check("mqtt");
        check.up();
        health.drain();
        check.up();
        assert!(!health.ready());
        assert!(health.snapshot().draining);
    }

    #[test]
    fn since_changes_only_with_the_state() {
        let health = Health::new();
        let check = health.check("mqtt");
        let started = health.snapshot().checks[0].since;
        check.down("refused");
        assert_eq!(health.snapshot().checks[0].since, started);
        check.up();
        let up = health.snapshot().checks[0].since;
        assert!(up >= started);
        check.up();
        assert_eq!(health.snapshot().checks[0].since, up);
    }
}
