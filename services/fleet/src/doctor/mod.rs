//! `fleet doctor`: can the fleet's guarantees hold on this broker? Found out by doing.

mod delivery;
mod finding;
mod presence;
mod sharing;
mod wire;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use fleet_shared::config::{LogArgs, MqttArgs};
use fleet_shared::service::Host;
use fleet_shared::session::Options;
use serde::Serialize;
use uuid::Uuid;

use crate::place::Output;
use wire::{Connect, Wire};

pub use finding::{Finding, Status};

/// How often a broker that is busy is asked again, and after which pause.
const BUSY_MAX: u32 = 10;
const BUSY_PAUSE: Duration = Duration::from_millis(300);

/// Silence after which nothing more is expected.
const QUIET: Duration = Duration::from_millis(700);

/// Longest time of one check. The slowest sends some thousand messages, or waits for a will; ten checks
/// are over within four minutes on a broker that never answers, and within twenty seconds on others.
const CHECK_MAX: Duration = Duration::from_secs(25);

const EXAMPLES: &str = "\
Exit codes: 0 every guarantee can hold, 1 one cannot, 2 wrong usage.

Nothing is changed on the broker: topics and client ids are new ones, what is retained is cleared,
and sessions are ended. It publishes some thousand small messages. An account needs fleet/doctor/#
and $share/fleet-doctor/fleet/doctor/#, as that of an operator by `fleet accounts` has.

Examples:
  fleet doctor                                          # the broker on localhost
  fleet doctor --mqtt-url mqtts://broker:8883 --mqtt-username ingest --mqtt-password-file FILE
  fleet doctor --output json | jq '.checks[] | select(.status != \"ok\")'";

/// Checks whether a broker can carry the fleet, by doing what the fleet does, and says what to set.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
#[command(mut_arg("log", |arg| arg.default_value("warn")))]
pub struct DoctorArgs {
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
    /// The broker.
    #[command(flatten)]
    pub mqtt: MqttArgs,
    /// What is logged, and how.
    #[command(flatten)]
    pub logs: LogArgs,
}

/// What all checks found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The broker.
    pub broker: String,
    /// Whether every guarantee of the fleet can hold.
    pub holds: bool,
    /// One of each check, in order.
    pub checks: Vec<Finding>,
}

impl Report {
    fn verdict(&self) -> String {
        let verdict = if self.holds {
            "every guarantee of the fleet can hold"
        } else {
            "not every guarantee of the fleet can hold"
        };
        format!("\n{}: {verdict}\n", self.broker)
    }
}

fn lines(finding: &Finding) -> String {
    let mut text = format!(
        "{:<4}  {:<20} {} — {}\n",
        finding.status.as_str(),
        finding.check,
        finding.found,
        finding.means
    );
    for (broker, setting) in [("Mosquitto", finding.mosquitto), ("EMQX", finding.emqx)] {
        if let Some(setting) = setting {
            text += &format!("{:<27}{broker}: {setting}\n", "");
        }
    }
    text
}

/// What the checks work with.
struct Clinic {
    options: Options,
    /// In every topic and client id of this run.
    unique: String,
}

/// The group of every run: the rules of accounts name groups, so one of a run's own would be granted
/// to nobody. Runs do not meet in it, because a group is one of its filter (MQTT 5, section 4.8.2),
/// and the topics are a run's own.
const GROUP: &str = "fleet-doctor";

impl Clinic {
    fn shared(&self, name: &str) -> String {
        format!("$share/{GROUP}/{}", self.topic(name))
    }

    fn topic(&self, name: &str) -> String {
        format!("fleet/doctor/{}/{name}", self.unique)
    }

    fn connect(&self, name: &str) -> Connect {
        Connect::new(format!("{}-{name}", self.unique))
    }

    async fn open(&self, name: &str) -> io::Result<Wire> {
        self.open_as(&self.connect(name)).await
    }

    async fn open_as(&self, connect: &Connect) -> io::Result<Wire> {
        for attempt in 0.. {
            let wire = Wire::open(&self.options, connect).await?;
            match wire.connack.code {
                0 => return Ok(wire),
                // Unavailable and busy: it may be another moment's answer (section 3.2.2.2).
                0x88 | 0x89 if attempt < BUSY_MAX => tokio::time::sleep(BUSY_PAUSE).await,
                code => {
                    return Err(io::Error::other(format!(
                        "the broker refused a connection with 0x{code:02x}"
                    )));
                }
            }
        }
        Err(io::Error::other("the broker is busy"))
    }
}

type Check<'a> = Pin<Box<dyn Future<Output = io::Result<Finding>> + 'a>>;

/// The command.
///
/// # Errors
/// When a setting cannot be used, or it is interrupted.
pub async fn run(args: DoctorArgs, host: Host) -> anyhow::Result<ExitCode> {
    let options = args.mqtt.options("fleet-doctor", host.instance())?;
    let clinic = Clinic {
        options,
        unique: format!("fleet-doctor-{}", Uuid::now_v7().simple()),
    };
    let told = |finding: &Finding| match args.output {
        // As it is found: the whole takes a while.
        Output::Text => write_out(&lines(finding)),
        Output::Json => Ok(()),
    };
    let checks = tokio::select! {
        checks = examine(&clinic, told) => checks?,
        () = host.stopping() => anyhow::bail!("interrupted; sessions of the checks end by themselves within an hour"),
    };
    let report = Report {
        broker: args.mqtt.mqtt_url.to_string(),
        holds: checks.iter().all(|check| check.status != Status::Fail),
        checks,
    };
    match args.output {
        Output::Text => write_out(&report.verdict())?,
        Output::Json => write_out(&(serde_json::to_string(&report)? + "\n"))?,
    }
    Ok(ExitCode::from(u8::from(!report.holds)))
}

fn write_out(text: &str) -> anyhow::Result<()> {
    std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes()).context("writing the answer")
}

/// Every check in turn; the rest is left out when the broker cannot be talked to.
async fn examine(
    clinic: &Clinic,
    told: impl Fn(&Finding) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Finding>> {
    let first = delivery::mqtt5(clinic).await;
    told(&first)?;
    let mut findings = vec![first];
    if findings[0].status == Status::Fail {
        return Ok(findings);
    }
    let checks: [(&'static str, Check<'_>); 10] = [
        ("QoS 2", Box::pin(delivery::qos2(clinic))),
        ("retained messages", Box::pin(delivery::retained(clinic))),
        ("shared subscription", Box::pin(sharing::strategy(clinic))),
        ("dead member", Box::pin(sharing::dead_member(clinic))),
        ("persistent session", Box::pin(delivery::session(clinic))),
        (
            "receive maximum",
            Box::pin(delivery::receive_maximum(clinic)),
        ),
        ("maximum packet", Box::pin(delivery::packet(clinic))),
        ("last will", Box::pin(presence::will(clinic))),
        ("takeover", Box::pin(presence::takeover(clinic))),
        ("ACL", Box::pin(presence::acl(clinic))),
    ];
    let clock: (&'static str, Check<'_>) = ("clock", Box::pin(delivery::clock(clinic)));
    for (name, check) in checks.into_iter().chain([clock]) {
        let problem = match tokio::time::timeout(CHECK_MAX, check).await {
            Ok(Ok(finding)) => {
                told(&finding)?;
                findings.push(finding);
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("it took more than {} s", CHECK_MAX.as_secs()),
        };
        let finding = Finding::new(
            name,
            Status::Fail,
            format!("could not be done: {problem}"),
            "what this check is about cannot be relied on",
        );
        told(&finding)?;
        findings.push(finding);
    }
    Ok(findings)
}
