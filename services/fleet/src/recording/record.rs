//! `fleet record`: keeps what goes through a broker in a file.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::prelude::*;
use anyhow::Context as _;
use fleet_shared::config::{ConfigError, LogArgs, MqttArgs, duration};
use fleet_shared::model::to_micros;
use fleet_shared::service::Host;
use fleet_shared::session::{
    ConnectionError, ConnectionEvent, Inbound, QoS, Retained, Session, Stop, Subscription,
};
use fleet_shared::topic::TopicFilter;
use indicatif::{HumanBytes, HumanCount, ProgressBar};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::format::{Gap, Header, Line, Recorded};
use super::writer::Writer;
use crate::operator::link::{is_final, unusable};
use crate::place::Output;

/// The metric label of what is recorded, whatever the filters are.
const LABEL: &str = "recorded";
/// Messages that the broker has in flight to the recorder. With the size of a packet it bounds what
/// is in memory.
const RECEIVE_MAXIMUM: u16 = 1_000;
/// How long the broker keeps what comes while the connection is lost.
const SESSION_EXPIRY: Duration = Duration::from_secs(300);
/// What was appended is on the disk after so long.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// How often the progress line is drawn.
const TICK: Duration = Duration::from_millis(200);
/// Longest time for what the broker still has to deliver; below the time that a command has to end.
const DRAIN: Duration = Duration::from_secs(3);

const EXAMPLES: &str = "\
Each message is one line of JSON, as docs/recording.md describes it. A message is acknowledged to the
broker when it is in the file, so a recorder that is killed loses none that was acknowledged; it
leaves at most a torn last line, which the next recording into the same file cuts off.

Examples:
  fleet record 'sensors/#' -o day.jsonl                      # until Ctrl-C
  fleet record 'sensors/#' 'devices/+/status' -o day.jsonl --duration 1h
  fleet record '#' -o all.jsonl --no-retained --mqtt-url mqtts://broker.example:8883
  fleet replay day.jsonl --speed 10                          # and say it again";

/// Records messages of any broker to a file.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
#[command(mut_arg("log", |arg| arg.default_value("warn")))]
pub struct RecordArgs {
    /// What to record: topic filters such as sensors/#.
    #[arg(value_name = "FILTER", required = true)]
    pub filters: Vec<String>,
    /// The file; an existing recording is appended to.
    #[arg(short = 'o', long = "file", value_name = "FILE")]
    pub file: PathBuf,
    /// Ends the recording after this time; without it, Ctrl-C does.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Ends the recording after so many messages.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Highest guarantee at which the broker delivers.
    #[arg(long, value_name = "0|1|2", default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// Leaves out what was retained before the recording.
    #[arg(long)]
    pub no_retained: bool,
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

/// What was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
struct Summary {
    messages: u64,
    bytes: u64,
    gaps: u64,
    duration_seconds: f64,
}

/// The command.
///
/// # Errors
/// When a filter is none, the file cannot be written, or the broker refuses.
pub async fn run(args: RecordArgs, host: Host) -> anyhow::Result<ExitCode> {
    for filter in &args.filters {
        TopicFilter::parse(filter.as_str())
            .map_err(|error| ConfigError::value("FILTER", filter, error.to_string()))?;
    }
    let file = |error: std::io::Error| {
        ConfigError::value("--file", args.file.display(), error.to_string())
    };
    let mut writer = Writer::open(&args.file).map_err(file)?;
    let header = Header::new(
        args.mqtt.mqtt_url.to_string(),
        args.filters.clone(),
        to_micros(Timestamp::now()),
    );
    writer.append(&[Line::Header(header)]).map_err(file)?;
    let (state, mut watched) = watch::channel(State::Recording);
    let tape = Arc::new(Tape {
        kept: Mutex::new(Kept {
            writer,
            summary: Summary::default(),
            lost: None,
            seen: false,
        }),
        count: args.count.unwrap_or(u64::MAX),
        state,
    });
    let session = connect(&args, &host, &tape)?;
    let progress = Progress::start(&args, Arc::clone(&tape));
    let began = Instant::now();
    let deadline = args.duration.map(|duration| began + duration);
    let end = async {
        match deadline {
            Some(deadline) => sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    };
    let synced = async {
        loop {
            tokio::time::sleep(SYNC_EVERY).await;
            let file = Arc::clone(&tape);
            let synced = blocking(move || file.lock().writer.sync()).await;
            if let Err(error) = synced {
                tape.fail(format!("writing it: {error}"));
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = host.stopping() => {}
        () = end => {}
        () = synced => {}
        _ = watched.wait_for(|state| *state != State::Recording) => {}
    }
    drop(progress);
    session.stop(Stop::EndSession, DRAIN).await;
    let mut summary = {
        let mut kept = tape.lock();
        kept.writer.sync().map_err(file)?;
        Summary {
            bytes: kept.writer.bytes,
            ..kept.summary
        }
    };
    summary.duration_seconds = began.elapsed().as_secs_f64();
    let state = watched.borrow().clone();
    if let State::Failed(reason) = state {
        anyhow::bail!(
            "the recording {} ends after {} messages: {reason}",
            args.file.display(),
            summary.messages
        );
    }
    let text = match args.output {
        Output::Json => serde_json::to_string(&summary)?,
        Output::Text => format!(
            "recorded {} messages, {} in {}{}",
            HumanCount(summary.messages),
            HumanBytes(summary.bytes),
            args.file.display(),
            match summary.gaps {
                0 => String::new(),
                gaps => format!("; the connection was lost {gaps} times, which stands in the file"),
            }
        ),
    };
    writeln!(std::io::stdout(), "{text}").context("writing the summary")?;
    Ok(ExitCode::SUCCESS)
}

fn connect(args: &RecordArgs, host: &Host, tape: &Arc<Tape>) -> anyhow::Result<Session> {
    let mut options = args.mqtt.options("fleet-record", host.instance())?;
    if args.mqtt.mqtt_client_id.is_none() {
        // Two recorders on one machine must not take the session from each other.
        options.client_id = format!("{}-{}", options.client_id, std::process::id()).into();
    }
    options.clean_start = true;
    options.session_expiry = SESSION_EXPIRY;
    options.receive_maximum = options.receive_maximum.min(RECEIVE_MAXIMUM);
    let qos = QoS::try_from(args.qos).map_err(anyhow::Error::msg)?;
    for filter in &args.filters {
        options.subscriptions.push(Subscription {
            retained: if args.no_retained {
                Retained::Never
            } else {
                Retained::Always
            },
            ..Subscription::new(filter.as_str(), qos).label(LABEL)
        });
    }
    let recorder = Recorder {
        tape: Arc::clone(tape),
        session: None,
        mqtt: args.mqtt.clone(),
    }
    .start();
    let session = Session::start(
        options,
        host.metrics(),
        recorder.clone().recipient(),
        recorder.clone().recipient(),
    );
    // The mailbox is empty: nothing can come before the session is known.
    recorder.try_send(Hold(session.clone()))?;
    Ok(session)
}

/// How far a recording is.
#[derive(Clone, Debug, PartialEq)]
enum State {
    Recording,
    /// As many messages as were asked for are in the file.
    Complete,
    Failed(String),
}

/// The file, written by one batch at a time.
struct Tape {
    kept: Mutex<Kept>,
    count: u64,
    state: watch::Sender<State>,
}

struct Kept {
    writer: Writer,
    summary: Summary,
    /// When the connection was lost, after it had been there.
    lost: Option<Timestamp>,
    seen: bool,
}

impl Tape {
    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        // The file and its count change together, so a panic elsewhere does not spoil them.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, reason: String) {
        self.state.send_if_modified(|state| {
            let first = *state == State::Recording;
            if first {
                *state = State::Failed(reason);
            }
            first
        });
    }

    /// Appends a batch; whether its messages may be acknowledged.
    fn keep(&self, mut messages: Vec<Recorded>) -> bool {
        let mut kept = self.lock();
        if matches!(*self.state.borrow(), State::Failed(_)) {
            return false;
        }
        let left = self.count.saturating_sub(kept.summary.messages);
        messages.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        let lines: Vec<_> = messages.into_iter().map(Line::Message).collect();
        if let Err(error) = kept.writer.append(&lines) {
            self.fail(format!("writing it: {error}"));
            return false;
        }
        kept.summary.messages += lines.len() as u64;
        if kept.summary.messages >= self.count {
            self.state.send_if_modified(|state| {
                let first = *state == State::Recording;
                if first {
                    *state = State::Complete;
                }
                first
            });
        }
        true
    }

    fn back(&self, session_kept: bool) {
        let mut kept = self.lock();
        kept.seen = true;
        if let Some(gap) = kept.lost.take() {
            kept.summary.gaps += 1;
            let until = to_micros(Timestamp::now());
            let line = Line::Gap(Gap {
                gap,
                until,
                session_kept,
            });
            if let Err(error) = kept.writer.append(&[line]) {
                self.fail(format!("writing it: {error}"));
            }
        }
    }

    /// Whether there ever was a connection.
    fn seen(&self) -> bool {
        self.lock().seen
    }

    fn gone(&self, error: &ConnectionError) {
        let mut kept = self.lock();
        if kept.seen && kept.lost.is_none() {
            kept.lost = Some(to_micros(Timestamp::now()));
        }
        tracing::warn!(%error, "not connected");
    }
}

/// Takes batches off the session; the next comes when the last is in the file.
struct Recorder {
    tape: Arc<Tape>,
    session: Option<Session>,
    mqtt: MqttArgs,
}

impl Actor for Recorder {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "()")]
struct Hold(Session);

impl Handler<Hold> for Recorder {
    type Result = ();

    fn handle(&mut self, Hold(session): Hold, _: &mut Self::Context) {
        self.session = Some(session);
    }
}

impl Handler<Inbound> for Recorder {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, inbound: Inbound, _: &mut Self::Context) -> Self::Result {
        let at = to_micros(Timestamp::now());
        let tickets = inbound.messages.iter().filter_map(|message| message.ticket);
        let tickets: Vec<_> = tickets.collect();
        let messages: Vec<_> = inbound
            .messages
            .iter()
            .map(|message| Recorded::new(message, at))
            .collect();
        let (tape, session) = (Arc::clone(&self.tape), self.session.clone());
        Box::pin(async move {
            let kept = blocking(move || Ok(tape.keep(messages))).await;
            if let (Ok(true), Some(session)) = (kept, session) {
                session.acknowledge(tickets);
            }
        })
    }
}

impl Handler<ConnectionEvent> for Recorder {
    type Result = ();

    fn handle(&mut self, event: ConnectionEvent, _: &mut Self::Context) {
        match event {
            ConnectionEvent::Up {
                session_present, ..
            } => self.tape.back(session_present),
            ConnectionEvent::Down { error, .. } if !self.tape.seen() && is_final(&error) => {
                self.tape.fail(unusable(&error, &self.mqtt).to_string());
            }
            ConnectionEvent::Down { error, .. } => self.tape.gone(&error),
            ConnectionEvent::Failed { error } => {
                self.tape.fail(unusable(&error, &self.mqtt).to_string());
            }
        }
    }
}

/// Runs what waits for the disk on a thread that may wait.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    actix_rt::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

/// The progress line, on a terminal only; gone when it is dropped.
struct Progress {
    bar: ProgressBar,
    task: actix_rt::task::JoinHandle<()>,
}

impl Progress {
    fn start(args: &RecordArgs, tape: Arc<Tape>) -> Self {
        let bar = match args.output {
            Output::Text => ProgressBar::new_spinner(),
            Output::Json => ProgressBar::hidden(),
        };
        let task = actix_rt::spawn({
            let bar = bar.clone();
            async move {
                while !bar.is_hidden() {
                    let (messages, bytes) = {
                        let kept = tape.lock();
                        (kept.summary.messages, kept.writer.bytes)
                    };
                    bar.set_message(format!(
                        "{} messages, {}; Ctrl-C ends the recording",
                        HumanCount(messages),
                        HumanBytes(bytes)
                    ));
                    bar.tick();
                    tokio::time::sleep(TICK).await;
                }
            }
        });
        Self { bar, task }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.task.abort();
        self.bar.finish_and_clear();
    }
}
