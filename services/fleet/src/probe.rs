//! `fleet probe`: does a reading get all the way, from a publish at the broker to the API?

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use fleet_shared::config::{LogArgs, MqttArgs, duration};
use fleet_shared::model::SensorReading;
use fleet_shared::service::Host;
use fleet_shared::session::{Publish, Retry};
use fleet_shared::topic;
use jiff::{Timestamp, ToSpan as _};
use serde_json::Value;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::api::{Api, ApiArgs};
use crate::operator::Operator;

/// The topic of all probes: operators can tell them from readings, and delete them.
const LOCATION: &str = "probe";
const KIND: &str = "probe";
/// Pause between two looks at the API.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// A full outbox is tried again so often.
const RETRY: Retry = Retry {
    attempts: 20,
    first: Duration::from_millis(20),
    max: Duration::from_secs(1),
};

const EXAMPLES: &str = "\
The readings are of a sensor of their own, `probe-…`, on sensors/probe/probe. What is found is
compared in number and in values. Exit codes: 0 all were found, 1 not in time, 2 wrong usage.

Examples:
  fleet probe                                              # the fleet of `fleet up`
  fleet probe --mqtt-url mqtt://broker:1883 --api-url http://status-tracker:8080 --readings 100";

/// Publishes readings through the broker and finds them by the API.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
#[command(mut_arg("log", |arg| arg.default_value("warn")))]
pub struct ProbeArgs {
    /// Readings to publish, at QoS 1.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub readings: u16,
    /// Longest wait for all of it, including services that are coming up.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub timeout: Duration,
    /// Where they are found.
    #[command(flatten)]
    pub api: ApiArgs,
    /// Where they go.
    #[command(flatten)]
    pub mqtt: MqttArgs,
    /// What is logged, and how.
    #[command(flatten)]
    pub logs: LogArgs,
}

/// What the API says of the sensor.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Found {
    count: u64,
    sum: f64,
}

impl Found {
    /// The buckets of an answer, added up.
    fn of(answer: &Value) -> Self {
        let points = answer["points"].as_array().map_or(&[][..], Vec::as_slice);
        points.iter().fold(Self::default(), |found, point| {
            let count = point["count"].as_u64().unwrap_or_default();
            Self {
                count: found.count + count,
                sum: found.sum + count as f64 * point["mean"].as_f64().unwrap_or_default(),
            }
        })
    }

    /// Whether these are the readings 1, 2, … `readings`, each once.
    fn is_all(self, readings: u16) -> bool {
        let sum = f64::from(readings) * (f64::from(readings) + 1.0) / 2.0;
        self.count == u64::from(readings) && (self.sum - sum).abs() < 1e-6 * sum
    }
}

/// Reading `number` of the probe: a value of its own and a time of its own, a second apart.
fn reading(sensor: &str, number: u16, readings: u16, now: Timestamp) -> SensorReading {
    let age = i64::from(readings - number);
    SensorReading {
        sensor_id: sensor.to_owned(),
        kind: KIND.to_owned(),
        value: f64::from(number),
        unit: String::new(),
        location: LOCATION.to_owned(),
        timestamp: now.checked_sub(age.seconds()).unwrap_or(now),
        battery_percent: None,
        quality: None,
    }
}

/// The command.
///
/// # Errors
/// When the broker cannot be used, or the readings are not found in time.
pub async fn run(args: ProbeArgs, host: Host) -> anyhow::Result<ExitCode> {
    let api = Api::new(&args.api)?;
    let sensor = format!("probe-{}", Uuid::now_v7());
    let outcome = tokio::select! {
        outcome = probe(&args, &host, &api, &sensor) => outcome,
        () = host.stopping() => Err(anyhow::anyhow!("interrupted")),
    };
    outcome.map(|()| ExitCode::SUCCESS)
}

async fn probe(args: &ProbeArgs, host: &Host, api: &Api, sensor: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    let deadline = began + args.timeout;
    let operator = Operator::connect("probe", &args.mqtt, host, Some(args.timeout), |_| {
        Vec::new()
    })
    .await?;
    say(&format!("connected to {}", args.mqtt.mqtt_url))?;
    let published = tokio::time::timeout_at(deadline, publish(args, &operator, sensor)).await;
    operator.leave().await;
    published.with_context(|| {
        format!(
            "the broker did not acknowledge within {:?}; see how it is",
            args.timeout
        )
    })??;
    say(&format!(
        "published {} readings of {sensor}, all acknowledged, after {:.1?}",
        args.readings,
        began.elapsed()
    ))?;
    loop {
        let seen = look(api, sensor).await;
        let reason = match seen {
            Ok(found) if found.is_all(args.readings) => break,
            Ok(found) => anyhow::anyhow!(
                "the API knows {} of {} readings of {sensor}; see whether ingest is ready and stores",
                found.count,
                args.readings
            ),
            Err(error) => error,
        };
        if Instant::now() >= deadline {
            return Err(reason.context(format!("not found within {:?}", args.timeout)));
        }
        sleep(LOOK_AGAIN).await;
    }
    say(&format!(
        "found all {} by the API, {:.1?} after the start",
        args.readings,
        began.elapsed()
    ))
}

async fn publish(args: &ProbeArgs, operator: &Operator, sensor: &str) -> anyhow::Result<()> {
    let now = Timestamp::now();
    for number in 1..=args.readings {
        let reading = reading(sensor, number, args.readings, now);
        let topic = reading.topic();
        let label = topic::label(&topic);
        // Nobody subscribed is no success: the broker would acknowledge and drop it.
        let publish = Publish::new(topic, label, reading.to_json()).expect_subscriber();
        operator
            .session
            .publish_retrying(publish, RETRY)
            .await
            .with_context(|| format!("publishing reading {number} of {}", args.readings))?;
    }
    Ok(())
}

async fn look(api: &Api, sensor: &str) -> anyhow::Result<Found> {
    let answer = api.get(&["sensors", sensor, "readings"], &[]).await?;
    Ok(Found::of(&answer))
}

fn say(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}").context("writing to standard output")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_readings_each_once_are_found() {
        let answer = json!({"points": [{"count": 2, "mean": 1.5}, {"count": 1, "mean": 3.0}]});
        assert!(Found::of(&answer).is_all(3));
    }

    #[test]
    fn fewer_more_and_other_readings_are_not_all() {
        for points in [
            json!([]),
            json!([{"count": 2, "mean": 1.5}]),
            json!([{"count": 4, "mean": 1.75}]),
            json!([{"count": 3, "mean": 2.5}]),
        ] {
            assert!(!Found::of(&json!({"points": points})).is_all(3), "{points}");
        }
        assert!(!Found::of(&Value::Null).is_all(3));
    }

    #[test]
    fn readings_are_valid_and_differ_in_time() {
        let now = Timestamp::now();
        let (first, last) = (
            reading("probe-a", 1, 20, now),
            reading("probe-a", 20, 20, now),
        );
        assert!(first.validate().is_ok());
        assert!(first.check_topic(&first.topic()).is_ok());
        assert_eq!(last.timestamp, now);
        assert_eq!(now.duration_since(first.timestamp).as_secs(), 19);
    }
}
