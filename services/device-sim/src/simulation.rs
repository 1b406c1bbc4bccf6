//! A run from its first connection to its last acknowledgement.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use anyhow::Context as _;
use fleet_shared::config::ConfigError;
use fleet_shared::health::{Check, Health, Watched};
use fleet_shared::model::to_micros;
use fleet_shared::service::Host;
use fleet_shared::session::Options;
use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::sync::Semaphore;

use crate::chaos::Chaos;
use crate::credentials::Credentials;
use crate::crew::Crew;
use crate::deck::{Deck, Finish, Launch};
use crate::device::{RECEIVE_MAXIMUM, WINDOW, Way};
use crate::ledger::Ledger;
use crate::progress::{Progress, Summary, reachable};
use crate::run::Run;
use crate::scenario::Scenario;
use crate::stall::Stall;
use crate::tally::Count;

/// How often the progress line, the readiness check and the stall are looked at.
const TICK: Duration = Duration::from_millis(200);
/// Longest time for the goodbyes of a run that is over: nothing is in flight any more.
const GOODBYE: Duration = Duration::from_secs(5);
/// Connections that are opened at once: fewer than Mosquitto has room for in its queue.
const CONNECTING_MAX: usize = 64;
/// Publishes of a device beyond its window: births, goodbyes, one telemetry, and two for each request
/// that the broker may have in flight to it.
const OUTBOX_SPARE: usize = 17 + 2 * RECEIVE_MAXIMUM as usize;

/// Why a run is over.
enum End {
    /// All schedules were said and all of it settled.
    Done,
    /// Somebody asked for it.
    Stopped,
    /// Nothing was acknowledged for too long.
    Stalled,
    /// The ledger cannot be written.
    LedgerFailed,
}

/// Runs a scenario against the broker of `options` and prints the summary.
///
/// Ends by itself when the scenario has an end and everything is acknowledged, or when `host` is
/// stopping. Readings that failed, that were not acknowledged before the stall timeout, or that
/// could not be entered in the ledger, are an error; settings that make no sense are a
/// [`ConfigError`].
pub async fn simulate(scenario: Scenario, options: Options, host: Host) -> anyhow::Result<Summary> {
    let seed = scenario.seed.unwrap_or_else(rand::random);
    let start = to_micros(scenario.start_time.unwrap_or_else(Timestamp::now));
    let crew = scenario.crew(seed, start)?;
    let chaos = scenario.chaos(seed)?;
    let credentials = Credentials::open(
        scenario.device_passwords.as_deref(),
        scenario.device_certs.as_deref(),
    )?;
    let ledger = open_ledger(&scenario)?;
    let broker = options.broker.to_string();
    tracing::info!(devices = crew.len(), seed, broker, "simulation started");

    let run = Arc::new(Run::new(
        start,
        crew.is_paced(),
        host.metrics(),
        host.tracer().clone(),
        ledger.clone(),
    ));
    let mut simulation = Simulation::new(
        &scenario,
        crew,
        chaos,
        options,
        credentials,
        Arc::clone(&run),
    );
    let end = simulation.run(&scenario, &host).await;
    let elapsed = run.origin.elapsed();
    let before = run.tally.count();
    simulation.finish(&end, &host).await;
    let closed = match ledger {
        Some(ledger) => actix_rt::task::spawn_blocking(move || ledger.close()).await?,
        None => Ok(()),
    };

    let count = run.tally.count();
    let given_up = count.outstanding() + (count.failed - before.failed);
    let devices = simulation.crew.len();
    let ramp = Duration::from_secs(devices as u64) / scenario.connect_rate;
    let schedule = simulation
        .crew
        .schedule_end()
        .map_or(elapsed, |end| end.min(elapsed));
    let asked_rate = simulation.crew.asked_rate();
    let asked = asked_rate.map(|rate| (rate, rate * reachable(ramp, schedule)));
    let summary = Summary::new(devices, asked, &run, elapsed);
    summary
        .print(scenario.output, &mut std::io::stdout().lock())
        .context("writing the summary")?;
    closed?;
    match end {
        End::Stalled => anyhow::bail!(
            "the broker at {broker} has acknowledged nothing for {:?} and {} of {} readings wait; \
             see whether it runs, or raise --stall-timeout (SIM_STALL_TIMEOUT)",
            scenario.stall_timeout,
            before.outstanding(),
            before.published,
        ),
        End::Done if count.failed > 0 => anyhow::bail!(
            "{} of {} readings failed; the log says why",
            count.failed,
            count.published,
        ),
        End::Stopped if given_up > 0 => {
            tracing::warn!(
                readings = given_up,
                "stopped before these were acknowledged; they are not in the ledger"
            );
        }
        End::Done | End::Stopped | End::LedgerFailed => {}
    }
    Ok(summary)
}

fn open_ledger(scenario: &Scenario) -> Result<Option<Ledger>, ConfigError> {
    let open = |path: &std::path::PathBuf| {
        Ledger::open(path).map_err(|error| {
            ConfigError::value(
                "--ledger (SIM_LEDGER)",
                path.display(),
                crate::run::chain(&error),
            )
        })
    };
    scenario.ledger.as_ref().map(open).transpose()
}

/// The devices of a run, on their threads.
struct Simulation {
    crew: Crew,
    chaos: Option<Chaos>,
    options: Arc<Options>,
    credentials: Credentials,
    run: Arc<Run>,
    arbiters: Vec<Arbiter>,
    watched: Vec<Watched>,
    decks: Vec<Addr<Deck>>,
}

impl Simulation {
    fn new(
        scenario: &Scenario,
        crew: Crew,
        chaos: Option<Chaos>,
        mut options: Options,
        credentials: Credentials,
        run: Arc<Run>,
    ) -> Self {
        // With one thread the devices live on that of the caller.
        let arbiters = match scenario.threads(crew.len()) {
            1 => Vec::new(),
            threads => (0..threads).map(|_| Arbiter::new()).collect(),
        };
        options.outbox_max = WINDOW as usize + OUTBOX_SPARE;
        options.connect_gate = Some(Arc::new(Semaphore::new(CONNECTING_MAX)));
        let decks = if arbiters.is_empty() {
            vec![Deck::new(Arc::clone(&run)).start()]
        } else {
            let deck = |arbiter: &Arbiter| {
                let run = Arc::clone(&run);
                Deck::start_in_arbiter(&arbiter.handle(), move |_| Deck::new(run))
            };
            arbiters.iter().map(deck).collect()
        };
        Self {
            crew,
            chaos,
            options: Arc::new(options),
            credentials,
            run,
            arbiters,
            watched: Vec::new(),
            decks,
        }
    }

    /// Starts the devices and waits for the end.
    async fn run(&mut self, scenario: &Scenario, host: &Host) -> End {
        let schedule_end = self.crew.schedule_end();
        let mut watch = Watch {
            run: Arc::clone(&self.run),
            check: host.health().check("devices"),
            devices: self.crew.len(),
            progress: Progress::new(scenario.output, self.crew.len()),
            schedule_end: schedule_end.unwrap_or(Duration::MAX),
            stall: Stall::new(schedule_end, scenario.stall_timeout),
            connected: None,
        };
        let end = tokio::select! {
            biased;
            () = host.stopping() => End::Stopped,
            end = watch.end() => end,
            () = self.start(scenario, host.health()) => End::Stopped,
        };
        watch.progress.clear();
        end
    }

    /// Starts one device after the other at the connect rate, then waits for ever.
    async fn start(&mut self, scenario: &Scenario, health: &Health) {
        for (index, arbiter) in self.arbiters.iter().enumerate() {
            let turns = health.event_loop(format!("devices-{index}"), arbiter.handle());
            self.watched.push(turns);
        }
        for (index, deck) in self.decks.iter().enumerate() {
            let shown = health.actor(format!("devices-{index}"), deck.clone().recipient());
            self.watched.push(shown);
        }
        for index in 0..self.crew.len() {
            let offset = Duration::from_secs(index as u64) / scenario.connect_rate;
            tokio::time::sleep_until(self.run.origin + offset).await;
            let (identity, plan) = self.crew.device(index, offset, self.chaos.as_ref());
            let source = scenario.source.as_ref();
            let launch = Launch {
                identity,
                plan,
                offset,
                way: Way {
                    options: Arc::clone(&self.options),
                    credentials: self.credentials.clone(),
                    source: source.and_then(|sources| sources.of(index)),
                },
            };
            let deck = &self.decks[index % self.decks.len()];
            if let Err(error) = deck.send(launch).await {
                tracing::error!(%error, "a device cannot be started");
            }
        }
        std::future::pending().await
    }

    /// Ends all devices, with time for the acknowledgements of what is in flight.
    async fn finish(&mut self, end: &End, host: &Host) {
        let limit = match end {
            End::Stopped => host.drain_timeout().mul_f64(0.8),
            End::Done | End::Stalled | End::LedgerFailed => GOODBYE,
        };
        let decks = self.decks.drain(..);
        let finished = join_all(decks.map(|deck| async move { deck.send(Finish { limit }).await }));
        for error in finished.await.into_iter().filter_map(Result::err) {
            tracing::debug!(%error, "devices had ended before they were told to");
        }
        self.watched.clear();
        for arbiter in self.arbiters.drain(..) {
            arbiter.stop();
        }
    }
}

/// Looks at a run until it is over.
struct Watch {
    run: Arc<Run>,
    check: Check,
    devices: usize,
    schedule_end: Duration,
    progress: Progress,
    stall: Stall,
    connected: Option<u64>,
}

impl Watch {
    async fn end(&mut self) -> End {
        loop {
            let count = self.run.tally.count();
            let elapsed = self.run.origin.elapsed();
            self.progress.show(&count, elapsed);
            self.tell_health(&count);
            if self.run.ledger_failed() {
                return End::LedgerFailed;
            }
            // Devices stay connected to the end of a schedule, even when there is no more to say.
            let left = self.schedule_end.saturating_sub(elapsed);
            if count.finished == self.devices as u64 && left.is_zero() {
                return End::Done;
            }
            if self.stall.is_stalled(&count, elapsed) {
                return End::Stalled;
            }
            let pause = if left.is_zero() { TICK } else { left.min(TICK) };
            tokio::select! {
                () = self.run.finished.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn tell_health(&mut self, count: &Count) {
        if self.connected == Some(count.connected) {
            return;
        }
        self.connected = Some(count.connected);
        if count.connected == self.devices as u64 {
            self.check.up();
        } else {
            self.check.down(format!(
                "{} of {} devices are connected",
                count.connected, self.devices
            ));
        }
    }
}
