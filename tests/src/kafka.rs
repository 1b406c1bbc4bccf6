//! A real Kafka.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tempfile::TempDir;

use crate::certificate::Issued;
use crate::process::{exit_code, signal};
use crate::{eventually, free_port, log};

/// Longest time for a start: a Java program on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Limit of one question to it.
const ANSWER: Duration = Duration::from_secs(10);

/// Name and password of the one account.
pub const ACCOUNT: (&str, &str) = ("bridge", "a-secret");

/// A Kafka of one node on a free port of 127.0.0.1, with its files in a directory of its own.
///
/// It creates no topic by itself. What it has acknowledged survives every end of it, as it was
/// written to the kernel.
#[derive(Debug)]
pub struct Kafka {
    dir: TempDir,
    port: u16,
    tls_port: u16,
    sasl_port: u16,
    controller: u16,
    child: Option<Child>,
}

/// A record as a consumer finds it.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields are those of a Kafka record")]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<String>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, String)>,
}

impl Record {
    /// The first header of that name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl Kafka {
    /// Makes one and starts it.
    pub async fn start() -> Self {
        Self::with(None).await
    }

    /// One that has TLS listeners besides, which show this certificate. One takes nobody whose
    /// certificate is not by an authority in `trusted` (PEM), the other nobody but [`ACCOUNT`], by
    /// PLAIN and SCRAM-SHA-512.
    pub async fn secure(identity: &Issued, trusted: &str) -> Self {
        Self::with(Some((identity, trusted))).await
    }

    async fn with(tls: Option<(&Issued, &str)>) -> Self {
        for _ in 0..5 {
            let mut kafka = Self {
                dir: TempDir::with_prefix("kafka-").expect("a temporary directory"),
                port: free_port(),
                tls_port: free_port(),
                sasl_port: free_port(),
                controller: free_port(),
                child: None,
            };
            if let Some((identity, trusted)) = tls {
                kafka.identify(identity, trusted);
            }
            kafka.format(tls.is_some());
            if kafka.spawn().await.is_ok() {
                return kafka;
            }
        }
        panic!("Kafka does not start; its log is above");
    }

    /// What its next start shows and trusts at the TLS listener.
    pub fn identify(&self, identity: &Issued, trusted: &str) {
        let both = format!("{}{}", identity.key, identity.certificate);
        for (name, text) in [("identity.pem", both.as_str()), ("trusted.pem", trusted)] {
            fs::write(self.dir.path().join(name), text).expect("the temporary directory is ours");
        }
    }

    fn format(&self, tls: bool) {
        let (port, controller) = (self.port, self.controller);
        let at = |name: &str| self.dir.path().join(name).display().to_string();
        let (mut listens, mut shown, mut how) = (String::new(), String::new(), String::new());
        let (user, password) = ACCOUNT;
        let security = "org.apache.kafka.common.security";
        if tls {
            let (tls, sasl) = (self.tls_port, self.sasl_port);
            listens = format!("SSL://127.0.0.1:{tls},SASL_SSL://127.0.0.1:{sasl},");
            shown = format!(",SSL://localhost:{tls},SASL_SSL://localhost:{sasl}");
            how = format!(
                "inter.broker.listener.name=PLAINTEXT\n\
                 ssl.client.auth=required\n\
                 ssl.keystore.type=PEM\n\
                 ssl.keystore.location={}\n\
                 ssl.truststore.type=PEM\n\
                 ssl.truststore.location={}\n\
                 sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512\n\
                 listener.name.sasl_ssl.plain.sasl.jaas.config={security}.plain.PlainLoginModule required user_{user}=\"{password}\";\n\
                 listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={security}.scram.ScramLoginModule required;\n",
                at("identity.pem"),
                at("trusted.pem")
            );
        }
        let settings = format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},{listens}CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}{shown}\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT\n\
             log.dirs={}\n\
             auto.create.topics.enable=false\n\
             offsets.topic.num.partitions=3\n\
             offsets.topic.replication.factor=1\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n\
             log.retention.ms=-1\n\
             {how}",
            at("data")
        );
        fs::write(self.settings(), settings).expect("the temporary directory is writable");
        let made = self
            .java("kafka.tools.StorageTool")
            .args(["format", "-t", "bXF0dC1mbGVldC10ZXN0cw", "-c"])
            .arg(self.settings())
            .arg("--add-scram")
            .arg(format!("SCRAM-SHA-512=[name={user},password={password}]"))
            .output()
            .expect("Java was found");
        assert!(
            made.status.success(),
            "Kafka's storage: {}",
            String::from_utf8_lossy(&made.stderr)
        );
    }

    fn settings(&self) -> PathBuf {
        self.dir.path().join("server.properties")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("kafka.log")
    }

    fn java(&self, class: &str) -> Command {
        let mut command = Command::new("java");
        command
            .args(["-Xms128m", "-Xmx512m", "-XX:+UseSerialGC"])
            .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
            .arg("-cp")
            .arg(jars().join("*"))
            .arg(class)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    async fn spawn(&mut self) -> Result<(), String> {
        let log = File::options().create(true).append(true).open(self.log());
        let child = self
            .java("kafka.Kafka")
            .arg(self.settings())
            .stderr(log.expect("the temporary directory is writable"))
            .spawn()
            .expect("Java was found");
        let child = self.child.insert(child);
        let port = self.port;
        let listening = eventually(PATIENCE, "Kafka listens", async || {
            match child.try_wait().expect("our own child") {
                Some(status) => Ok(Err(format!("Kafka ended with {status}"))),
                None => TcpStream::connect(("127.0.0.1", port)).map(|_| Ok(())),
            }
        });
        let started = listening.await;
        if started.is_err() {
            self.child = None;
        }
        started
    }

    /// Its `KAFKA_BROKERS`.
    #[must_use]
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `KAFKA_BROKERS` of its TLS listener, by the name that its certificate should bear.
    #[must_use]
    pub fn tls_brokers(&self) -> String {
        format!("localhost:{}", self.tls_port)
    }

    /// The same of the one that asks for an account.
    #[must_use]
    pub fn sasl_brokers(&self) -> String {
        format!("localhost:{}", self.sasl_port)
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.brokers())
            .set("reconnect.backoff.max.ms", "500");
        config
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().expect("Kafka runs").id()
    }

    /// Ends it as a crash does (SIGKILL).
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself: then there is nothing to kill.
            child.kill().ok();
            child.wait().expect("our own child");
        }
    }

    /// Ends it as an operator does (SIGTERM) and waits.
    pub async fn terminate(&mut self) {
        signal(self.pid(), Signal::SIGTERM);
        let child = self.child.as_mut().expect("Kafka runs");
        exit_code(child, PATIENCE, "Kafka").await;
        self.child = None;
    }

    /// Starts it again on the same port with the same files.
    pub async fn start_again(&mut self) {
        assert!(self.child.is_none(), "Kafka still runs");
        self.spawn().await.expect("Kafka starts again");
    }

    /// Stops its execution (SIGSTOP): connections stay open, nothing is answered.
    pub fn pause(&self) {
        signal(self.pid(), Signal::SIGSTOP);
    }

    /// Lets it go on after [`Kafka::pause`].
    pub fn resume(&self) {
        signal(self.pid(), Signal::SIGCONT);
    }

    /// Creates a topic with these settings.
    pub async fn create(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        let admin: AdminClient<DefaultClientContext> = self.config().create().expect("settings");
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let new = settings
            .iter()
            .fold(new, |new, (key, value)| new.set(key, value));
        let made = admin.create_topics([&new], &AdminOptions::new()).await;
        made.expect("Kafka answers")[0]
            .as_ref()
            .expect("a new topic");
    }

    /// Puts a record into a topic and waits until Kafka has it.
    pub fn put(&self, topic: &str, key: Option<&str>, value: &str) {
        let producer: ThreadedProducer<DefaultProducerContext> =
            self.config().create().expect("settings");
        let mut record = BaseRecord::<str, str>::to(topic).payload(value);
        record.key = key;
        producer.send(record).expect("an empty queue");
        producer.flush(ANSWER).expect("Kafka takes it");
    }

    /// How many records a topic has; none while it does not answer or has no such topic.
    #[must_use]
    pub fn count(&self, topic: &str) -> Option<u64> {
        let consumer: BaseConsumer = self.config().create().expect("settings");
        let ends = self.ends(&consumer, topic)?;
        ends.iter()
            .map(|(_, low, high)| u64::try_from(high - low).ok())
            .sum()
    }

    fn ends(&self, consumer: &BaseConsumer, topic: &str) -> Option<Vec<(i32, i64, i64)>> {
        let metadata = consumer.fetch_metadata(Some(topic), ANSWER).ok()?;
        let topic_metadata = metadata.topics().first().filter(|t| t.error().is_none())?;
        let partitions = topic_metadata.partitions().iter();
        partitions
            .map(|partition| {
                let (low, high) = consumer
                    .fetch_watermarks(topic, partition.id(), ANSWER)
                    .ok()?;
                Some((partition.id(), low, high))
            })
            .collect()
    }

    /// Every record that a topic has now, in the order of each partition.
    #[must_use]
    pub fn records(&self, topic: &str) -> Vec<Record> {
        let mut config = self.config();
        config
            .set("group.id", "tests")
            .set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create().expect("settings");
        let ends = self.ends(&consumer, topic).expect("Kafka answers");
        let mut assigned = TopicPartitionList::new();
        for (partition, ..) in &ends {
            assigned
                .add_partition_offset(topic, *partition, Offset::Beginning)
                .expect("an offset of its kind");
        }
        consumer.assign(&assigned).expect("partitions of the topic");
        let mut missing: i64 = ends.iter().map(|(_, low, high)| high - low).sum();
        let mut records = Vec::new();
        while missing > 0 {
            let record = consumer.poll(PATIENCE).expect("what the topic has comes");
            let record = record.expect("a record");
            missing -= 1;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let headers = record.headers().map(|headers| {
                let pairs = headers.iter();
                pairs
                    .map(|header| {
                        (
                            header.key.to_owned(),
                            text(header.value.unwrap_or_default()),
                        )
                    })
                    .collect()
            });
            records.push(Record {
                partition: record.partition(),
                offset: record.offset(),
                key: record.key().map(text),
                value: record.payload().map(<[u8]>::to_vec),
                headers: headers.unwrap_or_default(),
            });
        }
        records
    }

    /// The offset that a group has committed for each partition of a topic.
    #[must_use]
    pub fn committed(&self, group: &str, topic: &str, partitions: i32) -> Vec<Option<i64>> {
        let mut config = self.config();
        let consumer: BaseConsumer = config.set("group.id", group).create().expect("settings");
        let mut asked = TopicPartitionList::new();
        for partition in 0..partitions {
            asked.add_partition(topic, partition);
        }
        let committed = consumer
            .committed_offsets(asked, ANSWER)
            .expect("Kafka answers");
        let elements = committed.elements();
        elements
            .iter()
            .map(|element| match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            })
            .collect()
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.kill();
        log::show_on_failure("kafka", [self.log().as_path()]);
    }
}

/// Where `tests/install-kafka` puts it.
#[expect(
    clippy::disallowed_methods,
    reason = "the place of the user's caches, not a setting of ours"
)]
fn jars() -> PathBuf {
    let of = |name| std::env::var_os(name).map(PathBuf::from);
    let cache = of("XDG_CACHE_HOME").or_else(|| Some(of("HOME")?.join(".cache")));
    let jars = cache.expect("HOME is set").join("mqtt-fleet/kafka-4.1.0");
    assert!(
        jars.join("complete").exists(),
        "this test needs Kafka in {}: run tests/install-kafka, or `make test`",
        jars.display()
    );
    jars
}
