//! What it costs to receive a message and acknowledge it, and nothing else.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use actix::prelude::*;
use clap::Parser;
use fleet_bench::{Packets, Report, measured, tell};
use fleet_shared::session::{
    BrokerAddr, ConnectionEvent, Inbound, Options, QoS, Session, Subscription, Ticket,
};
use fleet_shared::telemetry::Metrics;
use jiff::Timestamp;

/// Feeds a consumer that only acknowledges from a stub broker: the fleet's session, then rumqttc,
/// then other clients that are here. Nothing else should run on the machine meanwhile.
#[derive(Parser)]
#[command(name = "bench-session", version)]
struct Args {
    /// Readings a run.
    #[arg(long, default_value_t = 2_000_000)]
    readings: u64,
    /// Unacknowledged readings at most.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000])]
    window: Vec<u16>,
    /// The Go program of `make bench-compare`.
    #[arg(long, value_name = "FILE")]
    paho: Option<PathBuf>,
    /// Leaves out all but the session.
    #[arg(long)]
    alone: bool,
    /// Write the figures as JSON too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Used by this program itself: be the consumer.
    #[arg(long, hide = true, value_enum)]
    consume: Option<Consumed>,
    /// Used by this program itself: the port of the broker.
    #[arg(long, hide = true, default_value_t = 0)]
    port: u16,
}

/// With what this program consumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Consumed {
    Session,
    Rumqttc,
}

#[actix::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let first = args.window.first().copied().unwrap_or(1_000);
    match args.consume {
        Some(Consumed::Session) => return session(args.port, first).await,
        Some(Consumed::Rumqttc) => return rumqttc(args.port, first).await,
        None => {}
    }
    let mut report = Report::new();
    for &window in &args.window {
        let packets = Packets::new(0..args.readings, Timestamp::now());
        let own = std::env::current_exe()?;
        let ours = |consume: &str| {
            let mut command = Command::new(&own);
            command.args(["--consume", consume, "--window", &window.to_string()]);
            move |addr: SocketAddr| {
                command.args(["--port", &addr.port().to_string()]);
                command
            }
        };
        let what = format!("session, window {window}");
        report.push(measured(what, ours("session"), &packets, window)?);
        if args.alone {
            continue;
        }
        let what = format!("rumqttc 0.25, window {window}");
        report.push(measured(what, ours("rumqttc"), &packets, window)?);
        let mosquitto = |addr: SocketAddr| {
            let mut command = Command::new("mosquitto_sub");
            command.args(["-V", "mqttv5", "-q", "1", "-t", "sensors/#"]);
            command.args(["-p", &addr.port().to_string()]);
            command.args(["-D", "connect", "receive-maximum", &window.to_string()]);
            command
        };
        if Command::new("mosquitto_sub").arg("--help").output().is_ok() {
            let what = format!("mosquitto_sub, window {window}");
            report.push(measured(what, mosquitto, &packets, window)?);
        }
        if let Some(paho) = &args.paho {
            let paho = |addr: SocketAddr| {
                let mut command = Command::new(paho);
                command.args(["-broker", &addr.to_string()]);
                command.args(["-window", &window.to_string()]);
                command
            };
            let what = format!("Paho for Go, window {window}");
            report.push(measured(what, paho, &packets, window)?);
        }
    }
    tell(args.json.as_deref(), &report, &report.table())
}

/// Acknowledges what it is handed.
struct Consumer(Option<Session>);

impl Actor for Consumer {
    type Context = Context<Self>;
}

impl Handler<Inbound> for Consumer {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, inbound: Inbound, _: &mut Self::Context) -> Self::Result {
        let tickets: Vec<Ticket> = inbound.messages.iter().filter_map(|m| m.ticket).collect();
        if let Some(session) = &self.0 {
            session.acknowledge(tickets);
        }
        Box::pin(std::future::ready(()))
    }
}

impl Handler<ConnectionEvent> for Consumer {
    type Result = ();

    fn handle(&mut self, _: ConnectionEvent, _: &mut Self::Context) {}
}

#[derive(Message)]
#[rtype(result = "()")]
struct Use(Session);

impl Handler<Use> for Consumer {
    type Result = ();

    fn handle(&mut self, Use(session): Use, _: &mut Self::Context) {
        self.0 = Some(session);
    }
}

async fn session(port: u16, window: u16) -> anyhow::Result<()> {
    let broker = BrokerAddr {
        host: "127.0.0.1".to_owned(),
        tls: false,
        port,
    };
    let mut options = Options::new(broker, "bench-session");
    options.receive_maximum = window;
    options.subscriptions = vec![Subscription::new("sensors/#", QoS::AtLeastOnce)];
    let consumer = Consumer(None).start();
    let (inbound, events) = (consumer.clone().recipient(), consumer.clone().recipient());
    let session = Session::start(options, &Metrics::new(), inbound, events);
    consumer.send(Use(session)).await?;
    std::future::pending().await
}

async fn rumqttc(port: u16, window: u16) -> anyhow::Result<()> {
    use rumqttc::v5::{AsyncClient, MqttOptions, mqttbytes};

    let mut options = MqttOptions::new("bench-rumqttc", "127.0.0.1", port);
    options.set_receive_maximum(Some(window));
    options.set_keep_alive(Duration::from_secs(30));
    let (client, mut events) = AsyncClient::new(options, 100);
    client
        .subscribe("sensors/#", mqttbytes::QoS::AtLeastOnce)
        .await?;
    loop {
        events.poll().await?;
    }
}
