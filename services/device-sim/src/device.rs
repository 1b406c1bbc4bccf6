//! The actor of one device: it does what its plan says, when it says so, over its own connection.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix::prelude::*;
use fleet_shared::health::Observe;
use fleet_shared::session::{
    ConnectionEvent, Done, Inbound, Options, Publish, PublishError, QoS, Session, Stop, WillSource,
};
use fleet_shared::telemetry::Span;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::identity::{Condition, Identity};
use crate::ledger::OpenReason;
use crate::run::{HandedOver, Run};
use crate::schedule::{Action, Plan, Step};
use crate::tally::{Link, Outcome};

/// Publishes of a device that the broker has not acknowledged yet. The device waits for one of
/// them before it sends the next: a slow broker makes it late, not large. One publish in flight
/// holds less than 1 kB, and a thousand fill a link of 10,000 readings a second and 100 ms.
pub(crate) const WINDOW: u32 = 1_000;
/// Signal strength, in dBm, that a device has before its schedule says another.
const SIGNAL_STRENGTH: i32 = -40;
/// A step may be due beyond what a timer can hold, so a device looks again after this time.
const LOOK_AGAIN: Duration = Duration::from_secs(3_600);
/// Longest wait for the end of a session without a connection.
const UNHEARD: Duration = Duration::from_secs(1);

/// What a device waits for.
enum Pause {
    /// For its next step, due at this time since the start of the run.
    Until(Duration),
    /// For room in its window.
    Room,
    /// For the end of an absence of this length.
    Away(Duration),
    /// For the last acknowledgement.
    End,
}

/// How a device gets to the broker.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    /// What all devices have in common.
    pub(crate) options: Arc<Options>,
    /// The local address it connects from.
    pub(crate) source: Option<IpAddr>,
    /// Whether its connection may be cut off on purpose.
    pub(crate) may_vanish: bool,
}

/// A step that was handed over and given back, because the connection was cut off on purpose.
struct Again {
    step: Step,
    handed_over: HandedOver,
    permit: OwnedSemaphorePermit,
}

/// What is to be published again; there is one while a device may be cut off.
type Lost = Arc<Mutex<Vec<Again>>>;

/// A simulated device.
pub(crate) struct Device {
    identity: Identity,
    way: Way,
    plan: Plan,
    next: Option<Step>,
    run: Arc<Run>,
    session: Option<Session>,
    lost: Option<Lost>,
    link: Link,
    session_id: Uuid,
    signal_strength: i32,
    offset: Duration,
    window: Arc<Semaphore>,
    stopping: bool,
}

/// Says goodbye, disconnects and ends the device: what is in flight gets its acknowledgement
/// first, if that comes within the limit.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Finish {
    /// Longest time for all of it.
    pub(crate) limit: Duration,
}

impl Device {
    /// A device that goes its `way` to the broker when it is started, `offset` after the run.
    pub(crate) fn new(
        identity: Identity,
        mut plan: Plan,
        offset: Duration,
        run: Arc<Run>,
        way: Way,
    ) -> Self {
        let next = plan.next();
        Self {
            lost: way.may_vanish.then(Lost::default),
            identity,
            way,
            plan,
            next,
            run,
            session: None,
            link: Link::Connecting,
            session_id: Uuid::nil(),
            signal_strength: SIGNAL_STRENGTH,
            offset,
            window: Arc::new(Semaphore::new(WINDOW as usize)),
            stopping: false,
        }
    }

    /// Opens the session. A device that was cut off has forgotten which packet identifiers it had
    /// in use, so the broker has to forget them too: it starts clean.
    fn connect(&mut self, clean_start: bool, ctx: &Context<Self>) {
        let mut options = (*self.way.options).clone();
        options.client_id = self.identity.id.as_ref().into();
        options.source = self.way.source;
        options.clean_start |= clean_start;
        options.will = Some(WillSource::new({
            let (identity, run) = (self.identity.clone(), Arc::clone(&self.run));
            move |session_id| identity.will(session_id, run.now())
        }));
        let (inbound, events) = (ctx.address().recipient(), ctx.address().recipient());
        self.session = Some(Session::start(options, &self.run.metrics, inbound, events));
    }

    /// Vanishes without DISCONNECT and connects again after `away`.
    fn vanish(&mut self, away: Duration, ctx: &mut Context<Self>) {
        let session = self.session.take();
        self.link(Link::Connecting);
        let gone = async move {
            if let Some(session) = session {
                // Nothing is to be waited for, so there is nothing that could be incomplete.
                let _all_was_said = session.stop(Stop::Abandon, Duration::ZERO).await;
            }
            tokio::time::sleep(away).await;
        };
        ctx.spawn(
            gone.into_actor(self)
                .map(|(), device, ctx| device.come_back(ctx)),
        );
    }

    /// Connects again, and publishes what was not acknowledged before it vanished.
    fn come_back(&mut self, ctx: &mut Context<Self>) {
        if self.stopping {
            return;
        }
        self.connect(true, ctx);
        let lost = self
            .lost
            .as_ref()
            .map(|lost| std::mem::take(&mut *whole(lost)));
        let batch: Vec<_> = lost
            .unwrap_or_default()
            .into_iter()
            .filter_map(|again| self.send(again.step, again.handed_over, again.permit))
            .collect();
        if let Some(session) = self.session.as_ref().filter(|_| !batch.is_empty()) {
            session.fire_all(batch);
        }
        self.advance(ctx);
    }

    /// Does what is due, then waits for the next step or, with a full window, for room in it.
    fn advance(&mut self, ctx: &mut Context<Self>) {
        if self.stopping {
            return;
        }
        // All that is due goes to the session at once, in order.
        let mut batch = Vec::new();
        let pause = self.collect(&mut batch);
        if let Some(session) = self.session.as_ref().filter(|_| !batch.is_empty()) {
            session.fire_all(batch);
        }
        match pause {
            Pause::Until(due) => {
                let wait = due.saturating_sub(self.run.origin.elapsed());
                ctx.run_later(wait.min(LOOK_AGAIN), Self::advance);
            }
            Pause::Room => self.wait_for_room(ctx),
            Pause::Away(away) => self.vanish(away, ctx),
            Pause::End => self.wait_for_the_last(ctx),
        }
    }

    /// Takes the steps that are due and have room in the window.
    fn collect(&mut self, batch: &mut Vec<(Publish, Done)>) -> Pause {
        while let Some(step) = self.next.take() {
            if step.due > self.run.origin.elapsed() {
                return Pause::Until(self.next.insert(step).due);
            }
            match step.action {
                Action::Drop { away } => {
                    self.next = self.plan.next();
                    return Pause::Away(away);
                }
                Action::Withhold(measurement) => {
                    self.run.withheld(&measurement);
                    self.next = self.plan.next();
                    continue;
                }
                _ => {}
            }
            let Ok(permit) = Arc::clone(&self.window).try_acquire_owned() else {
                self.next = Some(step);
                return Pause::Room;
            };
            let handed_over = self.run.hand_over(step.due, &step.action);
            batch.extend(self.send(step, handed_over, permit));
            self.next = self.plan.next();
        }
        Pause::End
    }

    fn wait_for_room(&self, ctx: &mut Context<Self>) {
        let room = Arc::clone(&self.window).acquire_owned().into_actor(self);
        ctx.spawn(room.map(|permit, device, ctx| {
            drop(permit);
            device.advance(ctx);
        }));
    }

    /// The plan is over; the device has finished when the whole window is free again.
    fn wait_for_the_last(&self, ctx: &mut Context<Self>) {
        let all = Arc::clone(&self.window)
            .acquire_many_owned(WINDOW)
            .into_actor(self);
        ctx.spawn(all.map(|_, device, _| device.run.device_finished()));
    }

    /// What a step publishes, if it does.
    fn send(
        &mut self,
        step: Step,
        handed_over: HandedOver,
        permit: OwnedSemaphorePermit,
    ) -> Option<(Publish, Done)> {
        let publish = match &step.action {
            Action::Measure(measurement) => measurement.publish(),
            Action::Wrong(wrong) => wrong.publish(),
            Action::Report { signal_strength } => {
                self.signal_strength = *signal_strength;
                return Some(self.report(step.due, Some(permit)));
            }
            Action::Withhold(_) | Action::Drop { .. } => return None,
        };
        let mut span = self.span(&publish);
        let publish = publish.trace(span.context());
        let (run, lost) = (Arc::clone(&self.run), self.lost.clone());
        let done = move |result: Result<(), PublishError>| {
            if let Err(error) = &result {
                span.fail(error.kind(), error.to_string());
            }
            span.end();
            match (result, lost) {
                (Err(PublishError::Stopped), Some(lost)) => whole(&lost).push(Again {
                    step,
                    handed_over,
                    permit,
                }),
                (result, _) => {
                    settled(&run, &step.action, handed_over, result);
                    drop(permit);
                }
            }
        };
        Some((publish, Box::new(done)))
    }

    /// The span of a publish, if it is traced: from now until the broker has acknowledged. It is where
    /// the trace of a reading begins.
    fn span(&self, publish: &Publish) -> Span {
        let mut span = self.run.tracer.send(&publish.topic, None);
        if span.is_recording() {
            span.set("messaging.client.id", self.identity.id.to_string());
            span.set("messaging.message.body.size", publish.payload.len() as i64);
        }
        span
    }

    /// The status as a publish. On connect it needs no permit: a full window waits for a
    /// connection, and the first message of a connection says that the device is there.
    fn report(&self, at: Duration, permit: Option<OwnedSemaphorePermit>) -> (Publish, Done) {
        let publish = self.status(true, at);
        let run = Arc::clone(&self.run);
        let done = move |result| {
            status_settled(&run, result);
            drop(permit);
        };
        (publish, Box::new(done))
    }

    /// The status at a time since the start of the run.
    fn status(&self, online: bool, at: Duration) -> Publish {
        let condition = Condition {
            now: self.run.time_of(at),
            uptime: at.saturating_sub(self.offset),
            signal_strength: self.signal_strength,
            session_id: self.session_id,
        };
        self.identity.status(online, &condition)
    }

    fn link(&mut self, to: Link) {
        if self.link != to {
            self.run.tally.link_changed(self.link, to);
            self.link = to;
        }
    }
}

impl Actor for Device {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.run.tally.device_started();
        self.connect(false, ctx);
        self.advance(ctx);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.run.tally.device_gone(self.link);
    }
}

impl Handler<ConnectionEvent> for Device {
    type Result = ();

    fn handle(&mut self, event: ConnectionEvent, _: &mut Self::Context) {
        // What is told of a connection that was cut off on purpose comes too late.
        if self.session.is_none() {
            return;
        }
        match event {
            ConnectionEvent::Up { connection_id, .. } => {
                if self.session_id.is_nil() {
                    self.run.tally.connected_first(self.run.origin.elapsed());
                }
                self.session_id = connection_id;
                self.link(Link::Connected);
                let birth = self.report(self.run.origin.elapsed(), None);
                if let (false, Some(session)) = (self.stopping, &self.session) {
                    session.fire_all(vec![birth]);
                }
            }
            ConnectionEvent::Down { error, retry_in } => {
                self.link(Link::Connecting);
                self.run
                    .link_lost(&self.identity.id, &error, Some(retry_in));
            }
            ConnectionEvent::Failed { error } => {
                self.link(Link::Stopped);
                self.run.link_lost(&self.identity.id, &error, None);
            }
        }
    }
}

impl Handler<Inbound> for Device {
    type Result = ();

    /// A device subscribes to nothing. What an earlier owner of its client id has subscribed to is
    /// acknowledged, or else the broker would keep and send it again for ever.
    fn handle(&mut self, inbound: Inbound, _: &mut Self::Context) {
        if let Some(session) = &self.session {
            let tickets = inbound
                .messages
                .into_iter()
                .filter_map(|message| message.ticket);
            session.acknowledge(tickets.collect());
        }
    }
}

impl Handler<Finish> for Device {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, finish: Finish, _: &mut Self::Context) -> Self::Result {
        self.stopping = true;
        let lost = self.lost.clone();
        let give_up = move |run: &Run| {
            for again in lost
                .iter()
                .flat_map(|lost| std::mem::take(&mut *whole(lost)))
            {
                settled(
                    run,
                    &again.step.action,
                    again.handed_over,
                    Err(PublishError::Stopped),
                );
            }
        };
        let Some(session) = self.session.clone() else {
            give_up(&self.run);
            self.link(Link::Stopped);
            return Box::pin(fut::ready(()).into_actor(self).map(|(), _, ctx| ctx.stop()));
        };
        let deadline = Instant::now() + finish.limit;
        let window = Arc::clone(&self.window);
        let run = Arc::clone(&self.run);
        // Without a connection nothing is acknowledged and nobody hears a goodbye.
        let connected = self.link == Link::Connected;
        let goodbye = connected.then(|| self.status(false, run.origin.elapsed()));
        let farewell = async move {
            if connected
                && timeout_at(deadline, window.acquire_many(WINDOW))
                    .await
                    .is_err()
            {
                tracing::debug!("no acknowledgement came within the limit");
            }
            if let Some(goodbye) = goodbye {
                match timeout_at(deadline, session.publish(goodbye)).await {
                    Ok(result) => status_settled(&run, result),
                    Err(_) => tracing::debug!("no time was left for a goodbye"),
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let left = if connected { left } else { left.min(UNHEARD) };
            if !session.stop(Stop::KeepSession, left).await {
                tracing::debug!("the session ended with publishes in flight");
            }
            give_up(&run);
        };
        Box::pin(farewell.into_actor(self).map(|(), device, ctx| {
            device.link(Link::Stopped);
            ctx.stop();
        }))
    }
}

impl Handler<Observe> for Device {
    type Result = ResponseFuture<serde_json::Value>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        let session = self.session.clone();
        let mut state = serde_json::json!({
            "link": format!("{:?}", self.link).to_lowercase(),
            "next_due_seconds": self.next.as_ref().map(|step| step.due.as_secs_f64()),
            "room_in_window": self.window.available_permits(),
            "stopping": self.stopping,
        });
        Box::pin(async move {
            if let Some(session) = session {
                state["session"] = serde_json::json!(session.observe().await);
            }
            state
        })
    }
}

/// Counts a publish and enters it in the ledger.
fn settled(run: &Run, action: &Action, handed_over: HandedOver, result: Result<(), PublishError>) {
    let outcome = match &result {
        Ok(()) => Outcome::Done,
        Err(error) => {
            run.publish_failed(error);
            Outcome::Failed
        }
    };
    match (action, result) {
        (Action::Measure(measurement), result) => {
            let qos = measurement.sensor.channel.qos;
            match result {
                Ok(()) if qos == QoS::AtMostOnce => run.left_open(measurement, OpenReason::Sent),
                Ok(()) => run.acknowledged(measurement, handed_over),
                Err(PublishError::Stopped) => run.left_open(measurement, OpenReason::GivenUp),
                Err(_) => {}
            }
            run.tally.reading_settled(qos, outcome);
        }
        (Action::Wrong(wrong), result) => {
            if result.is_ok() {
                run.wrong_acknowledged(wrong);
            }
            run.tally.status_settled(wrong.qos(), outcome);
        }
        // These publish nothing that is settled here.
        (Action::Report { .. } | Action::Withhold(_) | Action::Drop { .. }, _) => {}
    }
}

fn status_settled(run: &Run, result: Result<(), PublishError>) {
    let outcome = match result {
        Ok(()) => Outcome::Done,
        Err(error) => {
            run.publish_failed(&error);
            Outcome::Failed
        }
    };
    run.tally.status_settled(QoS::AtLeastOnce, outcome);
}

/// The list, which is whole between any two statements, so a panic elsewhere does not spoil it.
fn whole(lost: &Mutex<Vec<Again>>) -> MutexGuard<'_, Vec<Again>> {
    lost.lock().unwrap_or_else(PoisonError::into_inner)
}
