//! What `fleet up` shows: a picture on a terminal, one line of JSON an interval elsewhere.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use fleet_shared::config::format_duration;
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;

use super::census::Census;

/// How often the picture is drawn.
const REDRAW: Duration = Duration::from_millis(250);
/// Time over which the picture's rate is taken: devices that say something every few seconds show as
/// a steady rate, and one that has ended is seen soon. At the pace of the picture that is 41 samples.
const RATE_OVER: Duration = Duration::from_secs(10);

/// What stays the same in a run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Facts {
    /// The broker's URL, without credentials.
    pub(crate) broker: String,
    /// The URL of API and dashboard.
    pub(crate) http: String,
    /// The URL of probes and metrics, unless they are off.
    pub(crate) admin: Option<String>,
    /// Where store and ledger are.
    pub(crate) data_dir: String,
    /// Whether the embedded broker asks for TLS and accounts.
    pub(crate) secure: bool,
    /// Devices that are to connect.
    pub(crate) devices: u32,
    /// Ingest workers.
    pub(crate) workers: u16,
    /// How this program was called, for commands to try.
    #[serde(skip)]
    pub(crate) program: String,
}

/// One line of JSON.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'a> {
    /// The first line: everything is up.
    Started {
        at: Timestamp,
        listening: &'a str,
        #[serde(flatten)]
        facts: &'a Facts,
    },
    /// Every interval.
    Summary {
        at: Timestamp,
        broker: &'a str,
        devices_connected: u64,
        readings_stored: u64,
        readings_per_second: f64,
        duplicates: u64,
        conflicts: u64,
        dead_letters: u64,
        alerts_fired: u64,
        alerts_resolved: u64,
        /// Messages made durable by each worker.
        ingest: &'a [u64],
        delivery_p50_seconds: Option<f64>,
        delivery_p99_seconds: Option<f64>,
    },
    /// The last line.
    Ended {
        at: Timestamp,
        #[serde(flatten)]
        end: &'a End,
    },
}

/// What a run has come to.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct End {
    /// Readings that the devices published.
    pub(crate) published: u64,
    /// Those that the broker has acknowledged: QoS 1 and 2.
    pub(crate) acknowledged: u64,
    /// Those that did not reach the broker.
    pub(crate) failed: u64,
    /// New rows.
    pub(crate) stored: u64,
    /// Readings that were stored before.
    pub(crate) duplicates: u64,
    /// Readings whose key was stored with another value.
    pub(crate) conflicts: u64,
    /// Messages that are no readings.
    pub(crate) dead_letters: u64,
    /// Alerts that began.
    pub(crate) alerts_fired: u64,
    /// Alerts that ended.
    pub(crate) alerts_resolved: u64,
}

/// Shows a run on standard output.
pub(crate) struct View {
    facts: Facts,
    form: Form,
    meter: Meter,
}

enum Form {
    Picture(ProgressBar),
    Lines { interval: Duration, closed: bool },
}

impl View {
    /// A picture when standard output is a terminal, else lines every `interval`.
    pub(crate) fn new(facts: Facts, interval: Duration) -> Self {
        let form = if std::io::stdout().is_terminal() {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
            bar.set_style(
                ProgressStyle::with_template("{msg}").expect("the template is a literal"),
            );
            Form::Picture(bar)
        } else {
            Form::Lines {
                interval,
                closed: false,
            }
        };
        let meter = match form {
            Form::Picture(_) => Meter::new(RATE_OVER),
            Form::Lines { .. } => Meter::new(Duration::ZERO),
        };
        Self { facts, form, meter }
    }

    /// How often [`View::show`] is to be called.
    pub(crate) fn interval(&self) -> Duration {
        match self.form {
            Form::Picture(_) => REDRAW,
            Form::Lines { interval, .. } => interval,
        }
    }

    /// Everything is up.
    pub(crate) fn started(&mut self, at: Timestamp) {
        let line = match &self.form {
            Form::Picture(_) => hints(&self.facts, at),
            Form::Lines { .. } => {
                let listening = self.facts.broker.as_str();
                json(&Line::Started {
                    at,
                    listening,
                    facts: &self.facts,
                })
            }
        };
        self.write(&line);
    }

    /// Shows the numbers.
    pub(crate) fn show(&mut self, census: &Census, at: Timestamp, now: Instant) {
        let rate = self.meter.rate(census.stored, now);
        let line = match &self.form {
            Form::Picture(bar) => {
                bar.set_message(picture(&self.facts, census, rate));
                bar.tick();
                return;
            }
            Form::Lines { .. } => json(&Line::Summary {
                at,
                broker: &self.facts.broker,
                devices_connected: census.devices_connected,
                readings_stored: census.stored,
                readings_per_second: (rate * 10.0).round() / 10.0,
                duplicates: census.duplicates,
                conflicts: census.conflicts,
                dead_letters: census.dead_letters,
                alerts_fired: census.alerts_fired,
                alerts_resolved: census.alerts_resolved,
                ingest: &census.workers,
                delivery_p50_seconds: census.delivery.map(|[p50, _]| p50),
                delivery_p99_seconds: census.delivery.map(|[_, p99]| p99),
            }),
        };
        self.write(&line);
    }

    /// Everything is stopped.
    pub(crate) fn ended(&mut self, end: &End, at: Timestamp) {
        let line = match &self.form {
            Form::Picture(bar) => {
                bar.abandon();
                verdict(&self.facts, end)
            }
            Form::Lines { .. } => json(&Line::Ended { at, end }),
        };
        self.write(&line);
    }

    /// Writes as long as somebody reads: a closed pipe must not stop the fleet.
    fn write(&mut self, text: &str) {
        if let Form::Lines { closed: true, .. } = self.form {
            return;
        }
        let mut out = std::io::stdout();
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        if let Err(error) = written {
            tracing::warn!(%error, "standard output is gone; the fleet goes on without a summary");
            if let Form::Lines { closed, .. } = &mut self.form {
                *closed = true;
            }
        }
    }
}

fn json(line: &Line<'_>) -> String {
    serde_json::to_string(line).expect("numbers, texts and timestamps always serialize") + "\n"
}

/// Readings a second over a window that moves with time.
struct Meter {
    over: Duration,
    /// What was counted when: the last one from before the window, and those in it.
    samples: VecDeque<(Instant, u64)>,
}

impl Meter {
    /// Over the time since the sample before, where `over` is zero.
    fn new(over: Duration) -> Self {
        let samples = VecDeque::new();
        Self { over, samples }
    }

    /// The rate with this sample: what came in the window, by the time from its first sample.
    fn rate(&mut self, count: u64, now: Instant) -> f64 {
        self.samples.push_back((now, count));
        while self.samples.len() > 2 && now - self.samples[1].0 >= self.over {
            self.samples.pop_front();
        }
        let (since, before) = self.samples[0];
        let period = now - since;
        if period.is_zero() {
            return 0.0;
        }
        count.saturating_sub(before) as f64 / period.as_secs_f64()
    }
}

fn hints(facts: &Facts, at: Timestamp) -> String {
    let Facts {
        broker,
        http,
        admin,
        data_dir,
        program,
        ..
    } = facts;
    let admin = match admin {
        Some(admin) => format!("admin     {admin}  (/livez, /readyz, /metrics)\n"),
        None => String::new(),
    };
    let address = broker
        .split_once("://")
        .map_or(broker.as_str(), |(_, address)| address);
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "1883"));
    let host = host.trim_matches(['[', ']']);
    let token = crate::place::token_file(Path::new(data_dir));
    let token = token.display();
    let (as_client, as_fleet) = match facts.secure {
        false => (String::new(), String::new()),
        true => (
            super::secure::for_mosquitto(Path::new(data_dir)),
            super::secure::for_fleet(Path::new(data_dir)),
        ),
    };
    let to =
        format!("mosquitto_pub -h {host} -p {port}{as_client} -q 1 -t sensors/attic/temperature");
    format!(
        "listening {broker}\n\
         dashboard {http}  (to change something: the token in {token})\n\
         {admin}\n\
         Try from another terminal, and Ctrl-C here to stop:\n  \
         {to} -m '{{\"sensor_id\":\"mine\",\"type\":\"temperature\",\"value\":21.5,\
         \"unit\":\"celsius\",\"location\":\"attic\",\"timestamp\":\"{at:.0}\"}}'\n  \
         {to} -m 'not a reading'\n  \
         {program} dead-letters list --data-dir {data_dir}\n  \
         {program} verify --data-dir {data_dir} --wait 5s\n  \
         {program} devices --api-url {http}\n  \
         {program} tail 'alerts/#' --mqtt-url {broker}{as_fleet}\n  \
         {program} request sensor-001 ping --mqtt-url {broker}{as_fleet}\n\n"
    )
}

fn picture(facts: &Facts, census: &Census, rate: f64) -> String {
    let total: u64 = census.workers.iter().sum();
    let shares: Vec<_> = census
        .workers
        .iter()
        .enumerate()
        .map(|(number, count)| {
            let share = 100.0 * *count as f64 / total.max(1) as f64;
            format!("worker {number} {share:.0} %")
        })
        .collect();
    let delivery = match census.delivery {
        Some([p50, p99]) => format!("half within {}, 99 % within {}", brief(p50), brief(p99)),
        None => "nothing yet".to_owned(),
    };
    format!(
        "broker    {}\n\
         devices   {} of {} connected\n\
         readings  {} stored, {rate:.1}/s\n\
         others    {} duplicates, {} conflicts, {} dead letters\n\
         ingest    {}\n\
         delivery  {delivery}\n\
         alerts    {} fired, {} resolved",
        facts.broker,
        HumanCount(census.devices_connected),
        HumanCount(u64::from(facts.devices)),
        HumanCount(census.stored),
        HumanCount(census.duplicates),
        HumanCount(census.conflicts),
        HumanCount(census.dead_letters),
        shares.join(", "),
        HumanCount(census.alerts_fired),
        HumanCount(census.alerts_resolved),
    )
}

fn brief(seconds: f64) -> String {
    format_duration(Duration::from_millis((seconds * 1_000.0).ceil() as u64))
}

fn verdict(facts: &Facts, end: &End) -> String {
    format!(
        "\n{} readings published, {} acknowledged (QoS 1 and 2), {} failed\n\
         {} stored, {} duplicates, {} conflicts, {} dead letters\n\
         proof: {} verify --data-dir {}\n",
        HumanCount(end.published),
        HumanCount(end.acknowledged),
        HumanCount(end.failed),
        HumanCount(end.stored),
        HumanCount(end.duplicates),
        HumanCount(end.conflicts),
        HumanCount(end.dead_letters),
        facts.program,
        facts.data_dir,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            broker: "mqtt://127.0.0.1:1883".to_owned(),
            http: "http://127.0.0.1:8080".to_owned(),
            admin: Some("http://127.0.0.1:9100".to_owned()),
            data_dir: "data".to_owned(),
            secure: false,
            devices: 10,
            workers: 2,
            program: "fleet".to_owned(),
        }
    }

    fn census() -> Census {
        Census {
            devices_connected: 9,
            stored: 12_345,
            duplicates: 1,
            conflicts: 2,
            dead_letters: 3,
            alerts_fired: 4,
            alerts_resolved: 2,
            workers: vec![6_000, 6_351],
            delivery: Some([0.0042, 0.0611]),
        }
    }

    const END: End = End {
        published: 1_200,
        acknowledged: 1_000,
        failed: 0,
        stored: 1_200,
        duplicates: 0,
        conflicts: 0,
        dead_letters: 1,
        alerts_fired: 4,
        alerts_resolved: 2,
    };

    #[test]
    fn a_terminal_shows_hints_a_picture_and_a_verdict() {
        let shown = [
            hints(&facts(), Timestamp::UNIX_EPOCH),
            picture(&facts(), &census(), 1_234.56),
            verdict(&facts(), &END),
        ];
        insta::assert_snapshot!(shown.join("\n-----\n"));
    }

    #[test]
    fn the_hint_for_a_reading_is_a_reading() {
        let hints = hints(&facts(), Timestamp::UNIX_EPOCH);
        let payload = hints.split('\'').nth(1).unwrap();
        fleet_shared::model::SensorReading::parse(
            payload.as_bytes(),
            &fleet_shared::model::Limits::default(),
        )
        .unwrap();
    }

    #[test]
    fn a_pipe_gets_lines_of_json() {
        let at = Timestamp::UNIX_EPOCH;
        let facts = facts();
        let lines = json(&Line::Started {
            at,
            listening: &facts.broker,
            facts: &facts,
        }) + &json(&Line::Ended { at, end: &END });
        insta::assert_snapshot!(lines);
    }

    #[test]
    fn the_rate_follows_what_came_in_the_last_ten_seconds() {
        let mut meter = Meter::new(Duration::from_secs(10));
        let start = Instant::now();
        let mut rate = |count, ms| {
            let rate = meter.rate(count, start + Duration::from_millis(ms));
            (rate * 100.0).round() / 100.0
        };
        let told = [
            // Of one look nothing follows; from the second on it is told, also before the window is
            // full.
            rate(1, 0),
            rate(2, 500),
            rate(20, 2_000),
            // Ten a second from here on.
            rate(100, 10_000),
            rate(150, 15_000),
            rate(200, 20_000),
            // Nothing comes any more: half of the window has passed, then all of it.
            rate(200, 25_000),
            rate(200, 30_000),
            rate(200, 40_000),
        ];
        assert_eq!(told, [0.0, 2.0, 9.5, 9.9, 10.0, 10.0, 5.0, 0.0, 0.0]);
    }

    #[test]
    fn a_meter_without_a_window_tells_of_the_time_since_the_last_look() {
        let mut meter = Meter::new(Duration::ZERO);
        let start = Instant::now();
        let looks = [(100, 0), (150, 1_000), (150, 2_000), (250, 2_500)];
        let told = looks.map(|(count, ms)| meter.rate(count, start + Duration::from_millis(ms)));
        assert_eq!(told, [0.0, 50.0, 0.0, 200.0]);
    }

    #[test]
    fn a_meter_keeps_no_more_than_its_window() {
        let mut meter = Meter::new(RATE_OVER);
        let start = Instant::now();
        for look in 0..10_000_u32 {
            meter.rate(u64::from(look), start + REDRAW * look);
        }
        assert_eq!(meter.samples.len(), 41);
    }
}
