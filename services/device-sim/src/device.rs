//! One device: it does what its plan says, when it says so, over its own connection.
//!
//! Thousands of devices share a thread, so a device is no actor: the [`Timetable`] of its thread
//! tells it when it has something to do, and its session calls it.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use fleet_shared::session::{
    ConnectionEvent, LocalSession, Message, Options, Owner, Publish, PublishError, QoS, Stop,
    Subscription, Trouble, WillSource,
};
use fleet_shared::telemetry::Span;
use fleet_shared::topic::{FleetTopic, templates};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::configuration::{self, Configuration};
use crate::credentials::Credentials;
use crate::flight::{Flight, Sent};
use crate::identity::{Condition, Identity};
use crate::ledger::{LinkFault, OpenReason};
use crate::request::{self, Call, Recent, Refusal, Request};
use crate::run::Run;
use crate::schedule::{Action, Intervals, Plan, Step};
use crate::tally::{Link, Outcome};
use crate::timetable::Timetable;

/// Publishes of a device that the broker has not acknowledged yet. The device waits for one of
/// them before it sends the next: a slow broker makes it late, not large. One publish in flight
/// holds less than 1 kB, and a thousand fill a link of 10,000 readings a second and 100 ms.
pub(crate) const WINDOW: u32 = 1_000;
/// Signal strength, in dBm, that a device has before its schedule says another.
const SIGNAL_STRENGTH: i32 = -40;
/// Longest wait for the end of a session without a connection.
const UNHEARD: Duration = Duration::from_secs(1);
/// Longest time for what is in flight before a device reboots.
const SHUTDOWN: Duration = Duration::from_secs(5);
/// Requests that the broker may have in flight to a device. A device answers at once, and
/// remembers more.
pub(crate) const RECEIVE_MAXIMUM: u16 = 16;
/// The token of what is no step of the plan: births, goodbyes, answers. It is counted only.
const ASIDE: u64 = u64::MAX;
/// The token of telemetry, which is counted only.
const TELEMETRY: u64 = u64::MAX - 1;

/// How a device gets to the broker.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    /// What all devices have in common.
    pub(crate) options: Arc<Options>,
    /// What each proves its identity with.
    pub(crate) credentials: Credentials,
    /// The local address it connects from.
    pub(crate) source: Option<IpAddr>,
}

/// What a device is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It follows its plan.
    There,
    /// It was cut off, or is switched off, and comes back when the timetable calls it.
    Away { clean_start: bool, rebooting: bool },
    /// It says goodbye before a reboot.
    Leaving,
    /// It has been told to end.
    Stopping,
}

/// A simulated device.
pub(crate) struct Device {
    me: Weak<Self>,
    identity: Identity,
    way: Way,
    run: Arc<Run>,
    timetable: Rc<Timetable>,
    /// Its number in the timetable.
    number: u32,
    state: RefCell<State>,
}

struct State {
    plan: Plan,
    /// A step that was drawn and could not be taken yet.
    next: Option<Step>,
    session: Option<LocalSession>,
    flight: Flight,
    /// What is to be published again when the device is back.
    lost: Vec<Sent>,
    link: Link,
    session_id: Uuid,
    signal_strength: i32,
    /// Whether telemetry waits in the session: there is room for one.
    telemetry_waits: bool,
    /// When it was switched on, since the start of the run.
    booted: Duration,
    configuration: Configuration,
    /// Whether it has reported its configuration since it was switched on.
    reported: bool,
    recent: Recent,
    phase: Phase,
    /// Until when its connection is in trouble, and in which.
    trouble: Option<(Duration, Trouble)>,
    /// Whether the plan goes on when something of the flight is settled.
    waits: Waits,
    finished: bool,
}

/// What of its flight a device waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    /// Nothing.
    Nothing,
    /// Room for one more.
    Room,
    /// The last one: its plan is over.
    TheLast,
}

impl Device {
    /// A device that goes its `way` to the broker, switched on `offset` after the start of the run.
    pub(crate) fn start(
        identity: Identity,
        plan: Plan,
        offset: Duration,
        way: Way,
        run: Arc<Run>,
        timetable: Rc<Timetable>,
    ) -> Rc<Self> {
        let number = timetable.enroll();
        run.tally.device_started();
        let device = Rc::new_cyclic(|me| Self {
            me: me.clone(),
            identity,
            way,
            run,
            timetable,
            number,
            state: RefCell::new(State {
                plan,
                next: None,
                session: None,
                flight: Flight::default(),
                lost: Vec::new(),
                link: Link::Connecting,
                session_id: Uuid::nil(),
                signal_strength: SIGNAL_STRENGTH,
                telemetry_waits: false,
                booted: offset,
                configuration: Configuration::default(),
                reported: false,
                recent: Recent::default(),
                phase: Phase::There,
                trouble: None,
                waits: Waits::Nothing,
                finished: false,
            }),
        });
        {
            let state = &mut *device.state.borrow_mut();
            device.connect(state, false);
            device.follow_plan(state);
        }
        device
    }

    /// Opens the session. A device that was cut off has forgotten which packet identifiers it had
    /// in use, so the broker has to forget them too: it starts clean.
    fn connect(&self, state: &mut State, clean_start: bool) {
        let mut options = (*self.way.options).clone();
        options.client_id = self.identity.id.as_ref().into();
        self.way.credentials.apply(&self.identity.id, &mut options);
        options.source = self.way.source;
        options.clean_start |= clean_start;
        options.receive_maximum = options.receive_maximum.min(RECEIVE_MAXIMUM);
        options.subscriptions = self.subscriptions();
        options.will = Some(WillSource::new({
            let (identity, run) = (self.identity.clone(), Arc::clone(&self.run));
            move |session_id| identity.will(session_id, run.now())
        }));
        let owner: Weak<dyn Owner> = self.me.clone();
        state.telemetry_waits = false;
        state.session = Some(LocalSession::start(options, &self.run.metrics, owner));
    }

    /// Requests and configuration. Neither is one series a device.
    fn subscriptions(&self) -> Vec<Subscription> {
        let id = &self.identity.id;
        let subscription =
            |filter: String, label| Subscription::new(filter, QoS::AtLeastOnce).label(label);
        vec![
            subscription(request::filter(id), templates::DEVICE_COMMAND),
            subscription(configuration::filter(id), templates::DEVICE_CONFIG),
        ]
    }

    /// How it is, for `/debug/actors`.
    pub(crate) fn observed(&self) -> Value {
        let state = self.state.borrow();
        json!({
            "device_id": *self.identity.id,
            "link": format!("{:?}", state.link).to_lowercase(),
            "phase": format!("{:?}", state.phase).to_lowercase(),
            "in_flight": state.flight.len(),
        })
    }

    /// Does what is due.
    pub(crate) fn advance(&self) {
        let state = &mut *self.state.borrow_mut();
        match state.phase {
            Phase::There => self.follow_plan(state),
            Phase::Away {
                clean_start,
                rebooting,
            } => self.come_back(state, clean_start, rebooting),
            Phase::Leaving | Phase::Stopping => {}
        }
    }

    /// Hands over what is due and has room in the window, in order, and says when to go on.
    fn follow_plan(&self, state: &mut State) {
        state.waits = Waits::Nothing;
        if let Some((until, trouble)) = state.trouble
            && until <= self.run.elapsed()
        {
            state.trouble = None;
            match (trouble, &state.session) {
                // By now the broker may have noticed.
                (Trouble::HalfOpen, _) => return self.vanish(state, until, Duration::ZERO),
                (_, Some(session)) => session.disturb(Trouble::None),
                (_, None) => {}
            }
        }
        let next = self.hand_over(state);
        if state.phase == Phase::There {
            let until = state.trouble.map(|(until, _)| until);
            if let Some(due) = [next, until].into_iter().flatten().min() {
                self.timetable.plan(self.number, due);
            }
        }
    }

    /// Hands over what is due; when the next step is.
    fn hand_over(&self, state: &mut State) -> Option<Duration> {
        loop {
            let now = self.run.elapsed();
            let step = match state.next.take() {
                Some(step) => Some(step),
                None => match state.plan.due() {
                    Some(due) if due > now => return Some(due),
                    Some(_) => state.plan.next(),
                    None => None,
                },
            };
            let Some(step) = step else {
                self.wait_for_the_last(state);
                return None;
            };
            if step.due > now {
                return Some(state.next.insert(step).due);
            }
            match &step.action {
                Action::Drop { away } => {
                    let id = &self.identity.id;
                    self.run.link_fault(id, LinkFault::Dropped, now, *away);
                    self.vanish(state, now, *away);
                    return None;
                }
                Action::HalfOpen { lasts } => {
                    self.disturb(state, now, *lasts, Trouble::HalfOpen, LinkFault::HalfOpen);
                }
                Action::SlowReader { lasts, pause } => {
                    let trouble = Trouble::SlowReader { pause: *pause };
                    self.disturb(state, now, *lasts, trouble, LinkFault::SlowReader);
                }
                Action::Withhold(measurement) => self.run.withheld(measurement),
                _ if state.flight.len() >= WINDOW => {
                    state.next = Some(step);
                    state.waits = Waits::Room;
                    return None;
                }
                action => {
                    let handed_over = self.run.hand_over(step.due, now, action);
                    let (due, report) = (step.due, battery_of(action));
                    self.send(
                        state,
                        Sent {
                            step,
                            handed_over,
                            span: None,
                        },
                    );
                    if let Some(battery_percent) = report {
                        self.say_telemetry(state, due, battery_percent);
                    }
                }
            }
        }
    }

    /// Makes the connection a bad one for a while. A device is in one trouble at a time.
    fn disturb(
        &self,
        state: &mut State,
        now: Duration,
        lasts: Duration,
        trouble: Trouble,
        fault: LinkFault,
    ) {
        if state.trouble.is_some() || state.link != Link::Connected {
            return;
        }
        if let Some(session) = &state.session {
            session.disturb(trouble);
            state.trouble = Some((now.saturating_add(lasts), trouble));
            let id = &self.identity.id;
            self.run.link_fault(id, fault, now, lasts);
        }
    }

    /// Ends what trouble there is.
    fn untrouble(&self, state: &mut State) {
        if let (Some(_), Some(session)) = (state.trouble.take(), &state.session) {
            session.disturb(Trouble::None);
        }
    }

    /// The plan is over; the device has finished when nothing is on its way any more.
    fn wait_for_the_last(&self, state: &mut State) {
        if !state.flight.is_empty() || !state.lost.is_empty() {
            state.waits = Waits::TheLast;
        } else if !state.finished {
            state.finished = true;
            self.run.device_finished();
        }
    }

    fn send(&self, state: &mut State, mut sent: Sent) {
        let publish = match &sent.step.action {
            Action::Measure(measurement) => measurement.publish(),
            Action::Wrong(wrong) => wrong.publish(),
            Action::Report {
                signal_strength, ..
            } => {
                state.signal_strength = *signal_strength;
                self.status(state, true, sent.step.due)
            }
            Action::Withhold(_)
            | Action::Drop { .. }
            | Action::HalfOpen { .. }
            | Action::SlowReader { .. } => return,
        };
        let span = self.span(&publish);
        let publish = publish.trace(span.context());
        sent.span = Some(span);
        let token = state.flight.insert(sent);
        let Some(session) = &state.session else {
            return;
        };
        if let Err(error) = session.submit(publish, token)
            && let Some(sent) = state.flight.take(token)
        {
            self.settle(&sent, Err(error));
        }
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

    /// Vanishes without DISCONNECT, and connects again after `away`.
    fn vanish(&self, state: &mut State, now: Duration, away: Duration) {
        // The session ends without a word when it is dropped; what it had was not acknowledged.
        state.session = None;
        state.trouble = None;
        let lost = state.flight.take_all();
        state.lost.extend(lost);
        self.link(state, Link::Connecting);
        state.phase = Phase::Away {
            clean_start: true,
            rebooting: false,
        };
        self.timetable.plan(self.number, now.saturating_add(away));
    }

    /// Says goodbye, disconnects and starts over after `away`. The broker keeps the session: what
    /// is asked of the device meanwhile waits for it.
    fn reboot(&self, state: &mut State, away: Duration) {
        state.phase = Phase::Leaving;
        self.untrouble(state);
        self.timetable.cancel(self.number);
        let (farewell, me) = (self.farewell(state, SHUTDOWN), self.me.clone());
        actix::spawn(async move {
            let complete = farewell.await;
            let Some(device) = me.upgrade() else { return };
            let state = &mut *device.state.borrow_mut();
            if state.phase == Phase::Leaving {
                state.session = None;
                device.link(state, Link::Connecting);
                state.phase = Phase::Away {
                    clean_start: !complete,
                    rebooting: true,
                };
                let back = device.run.elapsed().saturating_add(away);
                device.timetable.plan(device.number, back);
            }
        });
    }

    /// Connects again, and publishes what was not acknowledged before it went.
    fn come_back(&self, state: &mut State, clean_start: bool, rebooting: bool) {
        state.phase = Phase::There;
        if rebooting {
            let now = self.run.elapsed();
            state.booted = now;
            // What a device was told by command does not outlive a restart; what it is configured
            // to be comes with the subscription again.
            state.configuration = Configuration::default();
            state.reported = false;
            state.plan.set_intervals(now, Intervals::default());
        }
        self.connect(state, clean_start);
        for sent in std::mem::take(&mut state.lost) {
            self.send(state, sent);
        }
        self.follow_plan(state);
    }

    /// Says goodbye and disconnects, when what is in flight has its acknowledgement or `limit` has
    /// passed. Whether all of it was acknowledged.
    fn farewell(&self, state: &State, limit: Duration) -> impl Future<Output = bool> + use<> {
        // Without a connection nothing is acknowledged and nobody hears a goodbye.
        let limit = match (&state.session, state.link) {
            (Some(session), Link::Connected) => {
                let goodbye = self.status(state, false, self.run.elapsed());
                self.say(session, goodbye);
                limit
            }
            _ => limit.min(UNHEARD),
        };
        let stopped = state
            .session
            .as_ref()
            .map(|session| session.stop(Stop::KeepSession, limit));
        async move {
            match stopped {
                Some(stopped) => stopped.await,
                None => true,
            }
        }
    }

    /// Says goodbye, disconnects and ends: what is in flight gets its acknowledgement first, if
    /// that comes within `limit`.
    pub(crate) async fn finish(&self, limit: Duration) {
        let farewell = {
            let state = &mut *self.state.borrow_mut();
            state.phase = Phase::Stopping;
            self.untrouble(state);
            self.timetable.cancel(self.number);
            self.farewell(state, limit)
        };
        if !farewell.await {
            tracing::debug!(
                device = &*self.identity.id,
                "the session ended with publishes in flight"
            );
        }
        let state = &mut *self.state.borrow_mut();
        state.session = None;
        let left = state.flight.take_all();
        for sent in state.lost.drain(..).chain(left) {
            self.settle(&sent, Err(PublishError::Stopped));
        }
        self.link(state, Link::Stopped);
    }

    /// Publishes something that is no step of the plan.
    fn say(&self, session: &LocalSession, publish: Publish) {
        if let Err(error) = session.submit(publish, ASIDE) {
            aside_settled(&self.run, QoS::AtLeastOnce, Err(error));
        }
    }

    /// Publishes what the device measures of itself. It is of use at once or never, so it is left out
    /// without a connection, or when that is so slow that the one before it still waits.
    fn say_telemetry(&self, state: &mut State, at: Duration, battery_percent: Option<u8>) {
        let (Some(session), Link::Connected) = (&state.session, state.link) else {
            return;
        };
        if state.telemetry_waits {
            return;
        }
        let condition = self.condition(state, at);
        let Some(publish) = self.identity.telemetry(&condition, battery_percent) else {
            return;
        };
        match session.submit(publish, TELEMETRY) {
            Ok(()) => state.telemetry_waits = true,
            Err(error) => aside_settled(&self.run, QoS::AtMostOnce, Err(error)),
        }
    }

    /// The status at a time since the start of the run.
    fn status(&self, state: &State, online: bool, at: Duration) -> Publish {
        self.identity.status(online, &self.condition(state, at))
    }

    /// How the device is at a time since the start of the run.
    fn condition(&self, state: &State, at: Duration) -> Condition {
        Condition {
            now: self.run.time_of(at),
            uptime: at.saturating_sub(state.booted),
            signal_strength: state.signal_strength,
            session_id: state.session_id,
        }
    }

    fn link(&self, state: &mut State, to: Link) {
        if state.link != to {
            self.run.tally.link_changed(state.link, to);
            state.link = to;
        }
    }

    /// Counts a step and enters it in the ledger.
    fn settle(&self, sent: &Sent, result: Result<(), PublishError>) {
        let run = &self.run;
        match &sent.step.action {
            Action::Measure(measurement) => {
                let qos = measurement.sensor.channel.qos;
                let outcome = outcome_of(run, &result);
                match result {
                    Ok(()) if qos == QoS::AtMostOnce => {
                        run.left_open(measurement, OpenReason::Sent);
                    }
                    Ok(()) => run.acknowledged(measurement, sent.handed_over),
                    Err(PublishError::Stopped) => run.left_open(measurement, OpenReason::GivenUp),
                    Err(_) => {}
                }
                run.tally.reading_settled(qos, outcome);
            }
            Action::Wrong(wrong) => {
                let outcome = outcome_of(run, &result);
                if result.is_ok() {
                    run.wrong_acknowledged(wrong);
                }
                run.tally.status_settled(wrong.qos(), outcome);
            }
            Action::Report { .. } => aside_settled(run, QoS::AtLeastOnce, result),
            // These publish nothing that is settled here.
            Action::Withhold(_)
            | Action::Drop { .. }
            | Action::HalfOpen { .. }
            | Action::SlowReader { .. } => {}
        }
    }

    /// What came on a topic of this device, and an answer if one is wanted.
    fn take(&self, state: &mut State, message: &Message) {
        let own = |id: &str| *id == *self.identity.id;
        match FleetTopic::parse(&message.topic) {
            Some(FleetTopic::DeviceCommand { device_id, command }) if own(device_id) => {
                self.asked(state, command, message);
            }
            Some(FleetTopic::DeviceConfig { device_id }) if own(device_id) => {
                self.configure(state, Configuration::read(&message.payload));
            }
            // What an earlier owner of the client id has subscribed to.
            _ => {}
        }
    }

    fn asked(&self, state: &mut State, command: &str, message: &Message) {
        let call = Call::read(command, message);
        let request = Request::parse(command, &call.arguments);
        let name = request.as_ref().map_or("refused", |request| request.name());
        let repeated = state.recent.is_repeated(&call, message.dup);
        let reboot = match request {
            Ok(Request::Reboot { away }) if !repeated => Some(away),
            _ => None,
        };
        let answered = request.and_then(|request| self.carry_out(state, request));
        let outcome = match (&answered, repeated) {
            (Err(_), _) => "refused",
            (Ok(_), true) => "repeated",
            (Ok(_), false) => "done",
        };
        self.run.tally.request(name, outcome);
        let body = answered.unwrap_or_else(|refusal| refusal.to_json());
        if let (Some(answer), Some(session)) = (call.answer(&body), &state.session) {
            self.say(session, answer);
        }
        if let Some(away) = reboot
            && state.phase == Phase::There
        {
            // The answer goes out first: the session ends when all that waits is sent.
            self.reboot(state, away);
        }
    }

    /// Does what is asked, except for a reboot, which comes after its answer.
    fn carry_out(&self, state: &mut State, request: Request) -> Result<Value, Refusal> {
        let now = self.run.elapsed();
        let uptime_seconds = now.saturating_sub(state.booted).as_secs();
        Ok(match request {
            Request::Ping => json!({"pong": true, "uptime_seconds": uptime_seconds}),
            Request::Identify => json!({
                "device_id": *self.identity.id,
                "firmware_version": *self.identity.firmware,
                "session_id": state.session_id,
                "uptime_seconds": uptime_seconds,
                "signal_strength": state.signal_strength,
            }),
            Request::Reboot { away } => json!({"rebooting": true, "delay_ms": away.as_millis()}),
            Request::SetInterval(pause) => {
                let mut configuration = state.configuration.clone();
                configuration.intervals.readings = Some(pause);
                if !state.plan.set_intervals(now, configuration.intervals) {
                    return Err(Refusal::FixedSchedule);
                }
                self.configure(state, configuration);
                json!({"interval_ms": pause.as_millis()})
            }
        })
    }

    /// Takes a configuration over and reports it.
    fn configure(&self, state: &mut State, mut configuration: Configuration) {
        let now = self.run.elapsed();
        if !state.plan.set_intervals(now, configuration.intervals) {
            configuration = configuration.fixed("a replay keeps the times of its file");
        }
        state.configuration = configuration;
        self.report_configuration(state);
        if state.phase == Phase::There {
            self.follow_plan(state);
        }
    }

    fn report_configuration(&self, state: &mut State) {
        state.reported = true;
        if let Some(session) = &state.session {
            self.say(session, state.configuration.report(&self.identity.id));
        }
    }
}

impl Owner for Device {
    fn settled(&self, token: u64, outcome: Result<(), PublishError>) {
        if token == ASIDE {
            return aside_settled(&self.run, QoS::AtLeastOnce, outcome);
        }
        let state = &mut *self.state.borrow_mut();
        if token == TELEMETRY {
            state.telemetry_waits = false;
            return aside_settled(&self.run, QoS::AtMostOnce, outcome);
        }
        let Some(mut sent) = state.flight.take(token) else {
            return;
        };
        if let Some(mut span) = sent.span.take() {
            if let Err(error) = &outcome {
                span.fail(error.kind(), error.to_string());
            }
            span.end();
        }
        match outcome {
            // The session has ended, and the device comes back or accounts for it.
            Err(PublishError::Stopped) => state.lost.push(sent),
            outcome => self.settle(&sent, outcome),
        }
        let goes_on = match state.waits {
            Waits::Nothing => false,
            Waits::Room => true,
            Waits::TheLast => state.flight.is_empty() && state.lost.is_empty(),
        };
        if goes_on && state.phase == Phase::There {
            self.follow_plan(state);
        }
    }

    /// What was dealt with is acknowledged, and what nobody here knows too, or else the broker
    /// would keep and send it again for ever.
    fn received(&self, messages: Vec<Message>) {
        let state = &mut *self.state.borrow_mut();
        for message in &messages {
            if state.phase != Phase::Stopping {
                self.take(state, message);
            }
        }
        if let Some(session) = &state.session {
            let tickets: Vec<_> = messages.iter().filter_map(|it| it.ticket).collect();
            session.acknowledge(&tickets);
        }
    }

    fn changed(&self, event: ConnectionEvent) {
        let state = &mut *self.state.borrow_mut();
        match event {
            ConnectionEvent::Up { connection_id, .. } => {
                let now = self.run.elapsed();
                if state.session_id.is_nil() {
                    self.run.tally.connected_first(now);
                }
                state.session_id = connection_id;
                self.link(state, Link::Connected);
                if let (Phase::There, Some(session)) = (state.phase, &state.session) {
                    self.say(session, self.status(state, true, now));
                    // What an earlier run of this device has left there must not be taken for the
                    // truth. A configuration that is retained has come by now, and was reported.
                    if !state.reported {
                        self.report_configuration(state);
                    }
                }
            }
            ConnectionEvent::Down { error, retry_in } => {
                self.link(state, Link::Connecting);
                self.run
                    .link_lost(&self.identity.id, &error, Some(retry_in));
            }
            ConnectionEvent::Failed { error } => {
                self.link(state, Link::Stopped);
                self.run.link_lost(&self.identity.id, &error, None);
            }
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.run.tally.device_gone(self.state.borrow().link);
    }
}

/// What became of a publish; a failure is logged.
fn outcome_of(run: &Run, result: &Result<(), PublishError>) -> Outcome {
    match result {
        Ok(()) => Outcome::Done,
        Err(error) => {
            run.publish_failed(error);
            Outcome::Failed
        }
    }
}

/// Counts what is no reading.
fn aside_settled(run: &Run, qos: QoS, result: Result<(), PublishError>) {
    let outcome = outcome_of(run, &result);
    run.tally.status_settled(qos, outcome);
}

/// The battery that a report tells of, if the action is one.
fn battery_of(action: &Action) -> Option<Option<u8>> {
    match action {
        Action::Report {
            battery_percent, ..
        } => Some(*battery_percent),
        _ => None,
    }
}
