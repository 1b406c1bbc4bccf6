//! `fleet publish`: one message, or one a line of standard input.

use std::io::BufRead as _;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use fleet_shared::config::{ConfigError, LogArgs, MqttArgs, duration};
use fleet_shared::service::Host;
use fleet_shared::session::{Properties, Publish, QoS, Retry};
use fleet_shared::topic::{self, TopicName};
use tokio::sync::mpsc;

use super::Operator;

/// Largest payload: the largest packet of a session less room for its topic and properties.
const PAYLOAD_BYTES_MAX: usize = 1024 * 1024 - 128 * 1024;
/// Lines read ahead of the broker.
const LINES_MAX: usize = 256;
/// A full outbox is tried again so often.
const RETRY: Retry = Retry {
    attempts: 20,
    first: Duration::from_millis(20),
    max: Duration::from_secs(1),
};

const EXAMPLES: &str = "\
Examples:
  fleet publish devices/sensor-001/config '{\"interval_ms\":5000}' --retain
  fleet publish devices/sensor-001/config --clear            # nothing is retained any more
  fleet publish cameras/hall/image --file hall.jpg --content-type image/jpeg
  fleet publish sensors/lab/temperature --lines < readings.jsonl";

/// Publishes, and ends when the broker has acknowledged.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
#[command(mut_arg("log", |arg| arg.default_value("warn")))]
#[command(group(clap::ArgGroup::new("what").args(["payload", "file", "lines", "clear"]).required(true)))]
pub struct PublishArgs {
    /// Topic, without wildcards.
    #[arg(value_name = "TOPIC")]
    pub topic: String,
    /// The payload.
    #[arg(value_name = "PAYLOAD")]
    pub payload: Option<String>,
    /// The payload is this file; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// A message for every line of standard input, in order.
    #[arg(long)]
    pub lines: bool,
    /// Removes the topic's retained message.
    #[arg(long)]
    pub clear: bool,
    /// The broker keeps it as the topic's last value.
    #[arg(long)]
    pub retain: bool,
    /// Delivery guarantee.
    #[arg(long, value_name = "0|1|2", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// MIME type of the payload.
    #[arg(long, value_name = "TYPE")]
    pub content_type: Option<String>,
    /// The broker drops the message if it was not delivered for so long.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub expiry: Option<Duration>,
    /// A user property; repeat it for several.
    #[arg(long, value_name = "NAME=VALUE", value_parser = property)]
    pub property: Vec<(String, String)>,
    /// The broker.
    #[command(flatten)]
    pub mqtt: MqttArgs,
    /// What is logged, and how.
    #[command(flatten)]
    pub logs: LogArgs,
}

fn property(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "a name, an equals sign and a value".to_owned())
}

impl PublishArgs {
    fn publish(&self, payload: Vec<u8>) -> Result<Publish, ConfigError> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            let remedy = format!(
                "the payload has {} bytes; {PAYLOAD_BYTES_MAX} fit into a packet",
                payload.len()
            );
            return Err(ConfigError::value("TOPIC", &self.topic, remedy));
        }
        let qos = QoS::try_from(self.qos).map_err(|error| ConfigError::setting("--qos", error))?;
        let user = self.property.iter();
        let user = user.map(|(name, value)| (name.as_str().into(), value.as_str().into()));
        let properties = Properties {
            user: user.collect(),
            content_type: self.content_type.as_deref().map(Into::into),
            message_expiry: self.expiry,
            ..Properties::default()
        };
        let publish = Publish::new(self.topic.as_str(), topic::label(&self.topic), payload)
            .qos(qos)
            .retain(self.retain || self.clear);
        Ok(match properties == Properties::default() {
            true => publish,
            false => publish.properties(properties),
        })
    }

    /// The one payload; none if there is one a line.
    fn whole(&self) -> anyhow::Result<Option<Vec<u8>>> {
        if self.lines {
            return Ok(None);
        }
        if let Some(file) = &self.file {
            let limit = PAYLOAD_BYTES_MAX as u64 + 1;
            let mut payload = Vec::new();
            let read = if file.as_os_str() == "-" {
                std::io::stdin().take(limit).read_to_end(&mut payload)
            } else {
                std::fs::File::open(file)
                    .and_then(|opened| opened.take(limit).read_to_end(&mut payload))
            };
            read.map_err(|error| {
                let remedy = format!("cannot read it ({error})");
                ConfigError::value("--file", file.display(), remedy)
            })?;
            return Ok(Some(payload));
        }
        let payload = self.payload.as_deref().unwrap_or_default();
        Ok(Some(payload.as_bytes().to_vec()))
    }
}

/// The command.
///
/// # Errors
/// If the broker cannot be used or refuses, or standard input fails.
pub async fn run(args: PublishArgs, host: Host) -> anyhow::Result<ExitCode> {
    TopicName::parse(args.topic.as_str())
        .map_err(|error| ConfigError::value("TOPIC", &args.topic, error.to_string()))?;
    // What is wrong with the payload is told before anything connects.
    let one = match args.whole()? {
        Some(payload) => Some(args.publish(payload)?),
        None => None,
    };
    let operator = Operator::connect("publish", &args.mqtt, &host, None, |_| Vec::new()).await?;
    let all = async {
        match one {
            Some(publish) => operator.session.publish_retrying(publish, RETRY).await?,
            None => lines(&args, &operator).await?,
        }
        Ok(())
    };
    let outcome = tokio::select! {
        outcome = all => outcome,
        () = host.stopping() => Err(anyhow::anyhow!(
            "interrupted before the broker had acknowledged everything"
        )),
    };
    operator.leave().await;
    let context = || format!("publishing to {}", args.topic);
    outcome.map(|()| ExitCode::SUCCESS).with_context(context)
}

/// Publishes line by line; several are under way at once, in order.
async fn lines(args: &PublishArgs, operator: &Operator) -> anyhow::Result<()> {
    let (sender, mut lines) = mpsc::channel(LINES_MAX);
    // Standard input blocks, so a thread of its own reads it; it ends with the input or the process.
    std::thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || {
            for line in std::io::stdin().lock().split(b'\n') {
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        })
        .context("starting a thread to read standard input")?;
    let mut under_way = std::collections::VecDeque::new();
    while let Some(line) = lines.recv().await {
        let mut line = line.context("reading standard input")?;
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        let session = operator.session.clone();
        let publish = args.publish(line)?;
        under_way.push_back(actix_rt::spawn(async move {
            session.publish_retrying(publish, RETRY).await
        }));
        if under_way.len() >= LINES_MAX
            && let Some(oldest) = under_way.pop_front()
        {
            oldest.await.context("publishing panicked")??;
        }
    }
    for rest in under_way {
        rest.await.context("publishing panicked")??;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_is_a_name_and_a_value() {
        assert_eq!(property("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(property("a").is_err());
    }
}
