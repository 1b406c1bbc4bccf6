//! Whether event loops turn, and what actors say of themselves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix::{Message, Recipient, ResponseFuture};
use actix_rt::ArbiterHandle;
use serde::Serialize;
use serde_json::Value;
use tokio::time::timeout;

use crate::session::Session;

/// Actors that are shown at most; of thousands of devices the first few say enough.
pub(super) const ACTORS_MAX: usize = 64;

/// A loop that takes so long to come round does no work either; kubelet's own limit of a second
/// usually passes first.
const LOOP_TIMEOUT: Duration = Duration::from_secs(3);

/// An actor answers at once or is busy with something that took longer than this.
const ACTOR_TIMEOUT: Duration = Duration::from_secs(1);

/// Asks an actor for its state: a small JSON object of numbers and short words, no secrets.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Value")]
pub struct Observe;

impl Observe {
    /// The answer of an actor with a session: `state`, and in it the session's own.
    #[must_use]
    pub fn answer(mut state: Value, session: Option<Session>) -> ResponseFuture<Value> {
        Box::pin(async move {
            if let Some(session) = session {
                state["session"] = serde_json::json!(session.observe().await);
            }
            state
        })
    }
}

/// An actor or event loop that is watched; dropped, it no longer is.
#[derive(Debug)]
#[must_use = "a dropped one is no longer watched"]
pub struct Watched {
    known: Arc<Mutex<Known>>,
    id: u64,
}

/// What of a process is watched.
#[derive(Debug, Default)]
pub(super) struct Known {
    next_id: u64,
    loops: BTreeMap<u64, (String, ArbiterHandle)>,
    actors: BTreeMap<u64, (String, ToObserve)>,
    /// Actors beyond those that are shown.
    others: usize,
}

struct ToObserve(Recipient<Observe>);

impl std::fmt::Debug for ToObserve {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recipient")
    }
}

/// What an actor said.
#[derive(Debug, Serialize)]
pub(super) struct ActorState {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
}

/// What all actors said.
#[derive(Debug, Serialize)]
pub(super) struct ActorStates {
    actors: Vec<ActorState>,
    /// How many more there are.
    not_shown: usize,
}

pub(super) fn watch_loop(
    known: &Arc<Mutex<Known>>,
    name: String,
    handle: ArbiterHandle,
) -> Watched {
    let mut watched = lock(known);
    let id = watched.next_id;
    watched.next_id += 1;
    watched.loops.insert(id, (name, handle));
    Watched {
        known: Arc::clone(known),
        id,
    }
}

pub(super) fn watch_actor(
    known: &Arc<Mutex<Known>>,
    name: String,
    actor: Recipient<Observe>,
) -> Watched {
    let mut watched = lock(known);
    let id = watched.next_id;
    watched.next_id += 1;
    if watched.actors.len() < ACTORS_MAX {
        watched.actors.insert(id, (name, ToObserve(actor)));
    } else {
        watched.others += 1;
    }
    Watched {
        known: Arc::clone(known),
        id,
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut watched = lock(&self.known);
        let was_shown = watched.actors.remove(&self.id).is_some();
        if watched.loops.remove(&self.id).is_none() && !was_shown {
            watched.others -= 1;
        }
    }
}

/// The loops that do not turn, `main` among them. An answer of the server's own thread would not show
/// that the others' loops turn: a task has to come round each first.
pub(super) async fn stuck_loops(known: &Arc<Mutex<Known>>, main: &ArbiterHandle) -> Vec<String> {
    let mut loops = vec![("main".to_owned(), main.clone())];
    loops.extend(lock(known).loops.values().cloned());
    let asked: Vec<_> = loops
        .into_iter()
        .map(|(name, handle)| {
            let (done, turned) = tokio::sync::oneshot::channel();
            let spawned = handle.spawn(async move {
                // The receiver is gone only if the probe gave up waiting.
                done.send(()).unwrap_or_default();
            });
            (name, spawned, turned)
        })
        .collect();
    let until = tokio::time::Instant::now() + LOOP_TIMEOUT;
    let mut stuck = Vec::new();
    for (name, spawned, turned) in asked {
        // One that has ended does not hang; whoever ended it no longer watches it in a moment.
        let turns = match tokio::time::timeout_at(until, turned).await {
            Ok(Ok(())) => true,
            Ok(Err(_)) => name != "main",
            Err(_) => false,
        };
        if !turns || (!spawned && name == "main") {
            stuck.push(name);
        }
    }
    stuck
}

/// Asks all actors at once.
pub(super) async fn actor_states(known: &Arc<Mutex<Known>>) -> ActorStates {
    let (asked, not_shown) = {
        let watched = lock(known);
        let actors = watched.actors.values();
        let asked: Vec<_> = actors
            .map(|(name, actor)| (name.clone(), actor.0.clone()))
            .collect();
        (asked, watched.others)
    };
    let answers: Vec<_> = asked
        .into_iter()
        .map(|(name, actor)| {
            let answer = actix_rt::spawn(timeout(ACTOR_TIMEOUT, actor.send(Observe)));
            (name, answer)
        })
        .collect();
    let mut actors = Vec::with_capacity(answers.len());
    for (name, answer) in answers {
        let (state, error) = match answer.await {
            Ok(Ok(Ok(state))) => (Some(state), None),
            Ok(Ok(Err(_))) => (None, Some("it has stopped")),
            Ok(Err(_)) => (None, Some("it did not answer within 1s")),
            Err(_) => (None, Some("asking it failed")),
        };
        actors.push(ActorState { name, state, error });
    }
    ActorStates { actors, not_shown }
}

/// No code panics while it holds the lock, so what is known is whole.
fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}
