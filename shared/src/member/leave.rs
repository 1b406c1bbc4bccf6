//! How a member leaves its group: nothing that it has received is lost, and nothing is left behind
//! at the broker that nobody would fetch.

use std::time::Duration;

use actix::prelude::*;
use tokio::time::Instant;

use crate::session::{Session, Stop};

/// Longest wait for the broker to send our announcement back. When it does not, the session is kept:
/// that never loses anything.
const LEAVE_MAX: Duration = Duration::from_secs(2);

/// What SIGTERM does to the broker's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Drain {
    /// End the session if another member of the group is online to take over, else keep it.
    Auto,
    /// End it: take what the broker still has for it, then let the broker forget it.
    End,
    /// Keep it: the broker queues for it until it is back or expires.
    Keep,
}

/// Announce that this member leaves; answered with whether another of the group stays, once the
/// broker has sent the announcement back.
#[derive(Debug, Message)]
#[rtype(result = "bool")]
pub struct Leave;

/// Finish everything received so far, without waiting for more; answered when it is durable.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Flush;

/// The member's session.
#[derive(Debug, Message)]
#[rtype(result = "Option<Session>")]
pub struct GetSession;

/// Takes one member out of its group, until `until` at the latest.
pub async fn leave<A>(member: Addr<A>, drain: Drain, until: Instant)
where
    A: Actor<Context = Context<A>> + Handler<Leave> + Handler<Flush> + Handler<GetSession>,
{
    let Ok(Some(session)) = member.send(GetSession).await else {
        return;
    };
    // Nothing can be said to a broker that is away, and it takes nothing: what it has for us stays
    // there, and that we are gone it tells by the last will.
    let connected = session.observe().await.connected;
    let end = connected
        && match drain {
            Drain::End => true,
            Drain::Keep => {
                others_stay(&member, until).await;
                false
            }
            Drain::Auto => others_stay(&member, until).await,
        };
    let how = if end {
        Stop::EndSession
    } else {
        // What is received so far is made durable and acknowledged first; what comes meanwhile is
        // delivered again to whoever has this client id next.
        let flush = member.send(Flush);
        if tokio::time::timeout_at(until, flush).await.is_err() {
            tracing::warn!("not everything became durable in time; the rest stays at the broker");
        }
        Stop::KeepSession
    };
    let limit = until.saturating_duration_since(Instant::now());
    let complete = session.stop(how, limit).await;
    // QoS 0 that came at the end has no second chance.
    let flushed = tokio::time::timeout_at(until, member.send(Flush))
        .await
        .is_ok();
    tracing::info!(
        session_ended = end && complete,
        complete,
        flushed,
        "member drained"
    );
}

/// Whether another member of the group is online; false when that cannot be known.
async fn others_stay<A>(member: &Addr<A>, until: Instant) -> bool
where
    A: Actor<Context = Context<A>> + Handler<Leave>,
{
    let until = until.min(Instant::now() + LEAVE_MAX);
    match tokio::time::timeout_at(until, member.send(Leave)).await {
        Ok(Ok(others)) => others,
        Ok(Err(_)) | Err(_) => false,
    }
}
