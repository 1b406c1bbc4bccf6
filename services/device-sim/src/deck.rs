//! The devices of one thread.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use fleet_shared::health::Observe;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::device::{Device, Way};
use crate::identity::Identity;
use crate::run::Run;
use crate::schedule::Plan;
use crate::timetable::Timetable;

/// Devices that may wait to be started; whoever starts them waits beyond.
const MAILBOX: usize = 256;
/// Devices that are called before the connections get their turn.
const TURN: u32 = 256;
/// Devices whose state `/debug/actors` shows.
const DEVICES_SHOWN: usize = 20;

/// Starts the devices of its thread, tells them when they have something to do, and ends them.
pub(crate) struct Deck {
    run: Arc<Run>,
    timetable: Rc<Timetable>,
    /// By their numbers in the timetable.
    devices: Rc<RefCell<Vec<Rc<Device>>>>,
}

/// One more device.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Launch {
    /// Who it is.
    pub(crate) identity: Identity,
    /// What it says.
    pub(crate) plan: Plan,
    /// When it is switched on, since the start of the run.
    pub(crate) offset: Duration,
    /// How it gets to the broker.
    pub(crate) way: Way,
}

/// All devices say goodbye, disconnect and end.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Finish {
    /// Longest time for the acknowledgements of what is in flight.
    pub(crate) limit: Duration,
}

impl Deck {
    pub(crate) fn new(run: Arc<Run>) -> Self {
        Self {
            run,
            timetable: Rc::default(),
            devices: Rc::default(),
        }
    }
}

impl Actor for Deck {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        let (run, timetable) = (Arc::clone(&self.run), Rc::clone(&self.timetable));
        let devices = Rc::clone(&self.devices);
        ctx.spawn(async move { call(&run, &timetable, &devices).await }.into_actor(self));
    }
}

/// Calls devices when they are due, for ever.
async fn call(run: &Run, timetable: &Timetable, devices: &RefCell<Vec<Rc<Device>>>) {
    loop {
        let mut called = 0;
        while let Some(number) = timetable.take(run.elapsed()) {
            let device = devices.borrow().get(number as usize).map(Rc::clone);
            if let Some(device) = device {
                device.advance();
            }
            called += 1;
            if called % TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
        timetable.wait(|| run.elapsed()).await;
    }
}

impl Handler<Launch> for Deck {
    type Result = ();

    fn handle(&mut self, launch: Launch, _: &mut Self::Context) {
        let device = Device::start(
            launch.identity,
            launch.plan,
            launch.offset,
            launch.way,
            Arc::clone(&self.run),
            Rc::clone(&self.timetable),
        );
        self.devices.borrow_mut().push(device);
    }
}

impl Handler<Observe> for Deck {
    type Result = ResponseFuture<Value>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        let devices = self.devices.borrow();
        let shown = devices.iter().take(DEVICES_SHOWN);
        let observed = json!({
            "devices": devices.len(),
            "first": shown.map(|device| device.observed()).collect::<Vec<_>>(),
        });
        Box::pin(std::future::ready(observed))
    }
}

impl Handler<Finish> for Deck {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, Finish { limit }: Finish, _: &mut Self::Context) -> Self::Result {
        let devices = self.devices.take();
        let finished = async move {
            join_all(devices.iter().map(|device| device.finish(limit))).await;
        };
        Box::pin(finished.into_actor(self).map(|(), _, ctx| ctx.stop()))
    }
}
