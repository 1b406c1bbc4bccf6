//! `fleet replay`: publishes a recording again.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::prelude::*;
use anyhow::Context as _;
use fleet_shared::config::{ConfigError, LogArgs, MqttArgs, duration};
use fleet_shared::service::Host;
use fleet_shared::session::{PublishError, Session, Stop};
use fleet_shared::topic::{TopicFilter, matches};
use indicatif::{HumanCount, ProgressBar};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::format::{Line, Lines, Recorded, RecordingError};
use super::shift::shifted;
use crate::operator::link::{Link, Teller, Watch, failed};
use crate::place::Output;

pub use device_sim::replay::Speed;

/// Publishes that the broker has not acknowledged yet; the next one waits. It bounds what is in
/// memory.
const WINDOW: u32 = 1_000;
/// A message that is published so long after it was due is late.
const LATE_AFTER: Duration = Duration::from_millis(100);
/// Without a wait for the next message others get their turn after so many.
const TURN: u64 = 64;
/// For the goodbye; everything is acknowledged by then.
const GOODBYE: Duration = Duration::from_secs(2);

const EXAMPLES: &str = "\
Messages go out in the order of the file, with the QoS, the retain flag and the properties they were
recorded with. With --shift-to-now the times inside JSON payloads (`timestamp`, `last_seen`) move
with the message; without it, payloads are published byte for byte, and a store that has them
already finds that they are there.

Examples:
  fleet replay day.jsonl                                    # at the pace it was recorded
  fleet replay day.jsonl --speed 10 --shift-to-now          # ten times as fast, as if it were now
  fleet replay day.jsonl --speed max --only 'sensors/#' --mqtt-url mqtt://other:1883";

/// Publishes a recording again, to any broker.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
#[command(mut_arg("log", |arg| arg.default_value("warn")))]
pub struct ReplayArgs {
    /// A file of `fleet record`.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// How many times as fast as recorded; `max`, or 0, as fast as the broker takes it.
    #[arg(long, value_name = "X", default_value_t = Speed::Times(1.0), allow_hyphen_values = true)]
    pub speed: Speed,
    /// Moves the times inside payloads, so that they say when it is published.
    #[arg(long)]
    pub shift_to_now: bool,
    /// Only messages on topics that match this filter; repeat it for several.
    #[arg(long, value_name = "FILTER")]
    pub only: Vec<String>,
    /// Put in front of every topic, such as copy/.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub topic_prefix: String,
    /// Longest time without an acknowledgement before the replay gives up.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
    /// Form of the summary.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
    /// The broker.
    #[command(flatten)]
    pub mqtt: MqttArgs,
    /// What is logged, and how.
    #[command(flatten)]
    pub logs: LogArgs,
}

/// What a replay has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
struct Summary {
    published: u64,
    acknowledged: u64,
    failed: u64,
    late: u64,
    duration_seconds: f64,
}

/// The command.
///
/// # Errors
/// When the file cannot be read, or the broker does not take what is in it.
pub async fn run(args: ReplayArgs, host: Host) -> anyhow::Result<ExitCode> {
    for filter in &args.only {
        TopicFilter::parse(filter.as_str())
            .map_err(|error| ConfigError::value("--only", filter, error.to_string()))?;
    }
    let lines = Lines::open(&args.file).map_err(|error| wrong_file(&args, error))?;
    // A file of something else is told before anybody connects.
    Lines::open(&args.file)
        .and_then(|mut lines| lines.next().transpose())
        .map_err(|error| wrong_file(&args, error))?;
    let (session, mut link) = connect(&args, &host)?;
    // Until the session runs, its mailbox takes a few requests only, and a burst of them is to follow.
    session.observe().await;
    let began = Instant::now();
    let replayed = tokio::select! {
        replayed = replay(&args, lines, &session) => replayed,
        error = failed(&mut link, &args.mqtt) => Err(error),
        () = host.stopping() => Err(anyhow::anyhow!("interrupted; messages up to here are published")),
    };
    session.stop(Stop::EndSession, GOODBYE).await;
    let mut summary = replayed?;
    summary.duration_seconds = began.elapsed().as_secs_f64();
    let text = match args.output {
        Output::Json => serde_json::to_string(&summary)?,
        Output::Text => format!(
            "published {} messages in {:.1} s, {} failed, {} more than 100 ms late",
            HumanCount(summary.published),
            summary.duration_seconds,
            HumanCount(summary.failed),
            HumanCount(summary.late),
        ),
    };
    writeln!(std::io::stdout(), "{text}").context("writing the summary")?;
    Ok(ExitCode::from(u8::from(summary.failed > 0)))
}

fn wrong_file(args: &ReplayArgs, error: RecordingError) -> anyhow::Error {
    let reason = format!("{:#}", anyhow::Error::new(error));
    ConfigError::value("FILE", args.file.display(), reason).into()
}

fn connect(args: &ReplayArgs, host: &Host) -> anyhow::Result<(Session, watch::Receiver<Link>)> {
    let mut options = args.mqtt.options("fleet-replay", host.instance())?;
    if args.mqtt.mqtt_client_id.is_none() {
        options.client_id = format!("{}-{}", options.client_id, std::process::id()).into();
    }
    options.clean_start = true;
    options.outbox_max = WINDOW as usize;
    let (teller, link) = Teller::new();
    let watch = Watch(teller).start();
    let session = Session::start(
        options,
        host.metrics(),
        watch.clone().recipient(),
        watch.recipient(),
    );
    Ok((session, link))
}

/// Acknowledged and failed publishes, counted where they are answered.
#[derive(Debug, Default)]
struct Outcomes {
    acknowledged: AtomicU64,
    failed: AtomicU64,
}

async fn replay(args: &ReplayArgs, lines: Lines, session: &Session) -> anyhow::Result<Summary> {
    let mut lines = lines;
    let mut pace = Pace::new(args.speed, Instant::now());
    let window = Arc::new(Semaphore::new(WINDOW as usize));
    let outcomes = Arc::new(Outcomes::default());
    let mut summary = Summary::default();
    let progress = progress(args.output);
    while let Some(line) = lines.next() {
        let Line::Message(message) = line.map_err(|error| wrong_file(args, error))? else {
            continue;
        };
        let wanted = |filter: &String| matches(filter, &message.topic);
        if !args.only.is_empty() && !args.only.iter().any(wanted) {
            continue;
        }
        if let Some(due) = pace.due(message.at) {
            sleep_until(due).await;
            summary.late += u64::from(due.elapsed() > LATE_AFTER);
        } else if summary.published % TURN == 0 {
            tokio::task::yield_now().await;
        }
        let permit = timeout(args.timeout, Arc::clone(&window).acquire_owned()).await;
        let permit = permit.with_context(|| unheard(args))??;
        let publish =
            publish(args, message).map_err(|reason| wrong_file(args, lines.wrong(reason)))?;
        let outcomes = Arc::clone(&outcomes);
        session.fire(publish, move |result| {
            settle(&outcomes, result);
            drop(permit);
        });
        summary.published += 1;
        if summary.published % TURN == 0 {
            progress.set_message(format!(
                "{} messages published",
                HumanCount(summary.published)
            ));
            progress.tick();
        }
    }
    // Each wait is for one acknowledgement more: a slow broker is no silent one.
    for free in 1..=WINDOW {
        let all = timeout(args.timeout, window.acquire_many(free)).await;
        drop(all.with_context(|| unheard(args))??);
    }
    progress.finish_and_clear();
    summary.acknowledged = outcomes.acknowledged.load(Ordering::Relaxed);
    summary.failed = outcomes.failed.load(Ordering::Relaxed);
    Ok(summary)
}

fn publish(args: &ReplayArgs, message: Recorded) -> Result<fleet_shared::session::Publish, String> {
    let moved = args.shift_to_now.then(|| {
        let by: SignedDuration = Timestamp::now().duration_since(message.at);
        message
            .payload
            .as_deref()
            .and_then(|text| shifted(text, by))
    });
    let mut message = message;
    message.topic.insert_str(0, &args.topic_prefix);
    message.publish(moved.flatten())
}

fn settle(outcomes: &Outcomes, result: Result<(), PublishError>) {
    match result {
        Ok(()) => outcomes.acknowledged.fetch_add(1, Ordering::Relaxed),
        Err(error) => {
            // Thousands may fail for one reason, which the first tells.
            let before = outcomes.failed.fetch_add(1, Ordering::Relaxed);
            // A session that was stopped is told of by whoever stopped it.
            if before == 0 && error != PublishError::Stopped {
                tracing::error!(%error, "a message was not published; further ones are counted");
            }
            before
        }
    };
}

fn unheard(args: &ReplayArgs) -> String {
    format!(
        "{} did not acknowledge within {:?}; see whether it runs, then run this again",
        args.mqtt.mqtt_url, args.timeout
    )
}

fn progress(output: Output) -> ProgressBar {
    match output {
        Output::Text => ProgressBar::new_spinner(),
        Output::Json => ProgressBar::hidden(),
    }
}

/// When each message is due.
#[derive(Debug)]
struct Pace {
    speed: Speed,
    began: Instant,
    /// The latest time that a message of the file has had; it never goes back.
    first: Option<Timestamp>,
    since: Duration,
}

impl Pace {
    fn new(speed: Speed, began: Instant) -> Self {
        Self {
            speed,
            began,
            first: None,
            since: Duration::ZERO,
        }
    }

    /// When a message recorded then is due; nothing when it goes as fast as the broker takes it. A
    /// message dated before the one in front of it is due at once.
    fn due(&mut self, at: Timestamp) -> Option<Instant> {
        let Speed::Times(times) = self.speed else {
            return None;
        };
        let first = *self.first.get_or_insert(at);
        let since = Duration::try_from(at.duration_since(first)).unwrap_or_default();
        self.since = self.since.max(since);
        let pause = Duration::try_from_secs_f64(self.since.as_secs_f64() / times).ok()?;
        self.began.checked_add(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pauses_of_the_recording_are_divided_by_the_speed() {
        let began = Instant::now();
        let due = |speed: &str, times: &[&str]| -> Vec<Option<u128>> {
            let mut pace = Pace::new(speed.parse().unwrap(), began);
            let due = |time: &&str| {
                let due = pace.due(format!("2026-01-02T03:04:{time}Z").parse().unwrap());
                due.map(|due| (due - began).as_millis())
            };
            times.iter().map(due).collect()
        };
        let times = ["05", "06.5", "06", "15"];
        assert_eq!(
            due("1", &times),
            [Some(0), Some(1_500), Some(1_500), Some(10_000)]
        );
        assert_eq!(
            due("10", &times),
            [Some(0), Some(150), Some(150), Some(1_000)]
        );
        assert_eq!(due("max", &times), [None; 4]);
    }
}
