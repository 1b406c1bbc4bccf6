//! Notifications to real receivers: an HTTP server that fails, stalls and recovers, a mail server, an
//! Alertmanager; across kills and with a standby.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleet_shared::session::{Publish, QoS, Subscription};
use fleet_tests::{
    Acknowledge, Client, Mosquitto, Posted, Process, Program, Receiver, Reply, TempDir, binary,
    eventually, free_port, get, options,
};
use jiff::Timestamp;
use ring::hmac;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

const RULES: &str = "
groups:
  - name: test
    rules:
      - { alert: TemperatureHigh, type: temperature, when: value > 30, severity: critical }
";

const SECRET: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

pub(crate) struct Scene {
    broker: Mosquitto,
    client: Client,
    receiver: Receiver,
    dir: TempDir,
}

impl Scene {
    /// With a tree of routes below receivers `hook`, `other` and `phone` of one HTTP server.
    pub(crate) async fn new(route: &str, more: &str) -> Self {
        let broker = Mosquitto::start().await;
        let mut options = options(broker.addr(), "listener");
        let filter = "fleet/dead-letter/alerting";
        options.subscriptions = vec![Subscription::new(filter, QoS::AtLeastOnce)];
        let client = Client::connected(options, Acknowledge::AtOnce).await;
        let receiver = Receiver::start().await;
        let scene = Self {
            broker,
            client,
            receiver,
            dir: TempDir::new().unwrap(),
        };
        scene.write("secret", &format!("whsec_{SECRET}\n"));
        scene.write("token", "t0ken\n");
        scene.write("rules.yaml", RULES);
        let dir = scene.dir.path().display();
        let url = |path| scene.receiver.url(path);
        let routes = format!(
            "receivers:\n\
             \x20 - {{ name: hook, webhook_configs: [{{ url: '{}', secret_file: '{dir}/secret' }}] }}\n\
             \x20 - {{ name: other, webhook_configs: [{{ url: '{}' }}] }}\n\
             \x20 - {{ name: phone, sms_configs: [{{ api_url: '{}', account_sid: AC1, auth_token_file: '{dir}/token', from: '+4930111111', to: ['+4930222222'] }}] }}\n\
             {more}\nroute:\n  group_wait: 0s\n  group_interval: 1s\n  group_by: ['...']\n{route}\n",
            url("/hook"),
            url("/other"),
            url(""),
        );
        scene.write("routes.yaml", &routes);
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn database(&self) -> String {
        format!("sqlite://{}", self.path("fleet.db").display())
    }

    fn program(&self, id: &str) -> Program {
        Program::service("alerting")
            .env("MQTT_URL", self.broker.url())
            .env("DATABASE_URL", self.database())
            .flag("--mqtt-client-id", id)
            .flag("--lease", "2s")
            .flag("--rules", self.path("rules.yaml").display())
            .flag("--routes", self.path("routes.yaml").display())
    }

    pub(crate) async fn start(&self, id: &str) -> Process {
        let mut process = self.program(id).start();
        process.ready(PATIENCE).await;
        process
    }

    pub(crate) async fn reading(&self, sensor: &str, value: f64) {
        let reading = json!({
            "sensor_id": sensor, "type": "temperature", "value": value, "unit": "celsius",
            "location": "lab", "timestamp": Timestamp::now(),
        });
        let publish = Publish::new(
            "sensors/lab/temperature",
            "sensors/{location}/temperature",
            reading.to_string(),
        );
        self.client.session.publish(publish).await.unwrap();
    }

    /// Runs `fleet alerts` and gives what it prints.
    pub(crate) async fn alerts(&self, arguments: &[&str]) -> String {
        let mut program = Program::new("fleet").arg("alerts");
        for argument in arguments {
            program = program.arg(argument);
        }
        let mut process = program.env("DATABASE_URL", self.database()).start();
        assert_eq!(process.exit(PATIENCE).await, 0, "{}", process.stderr());
        process.stdout()
    }

    /// What came on `path` about `sensor`: id and status of each.
    fn told(&self, path: &str, sensor: &str) -> Vec<(String, String)> {
        let about = |posted: &Posted| {
            let body: Value = serde_json::from_str(&posted.body).ok()?;
            let alerts = body["data"]["notification"]["alerts"].as_array()?.clone();
            let alert = alerts.into_iter().find(|it| it["sensor_id"] == sensor)?;
            let status = alert["status"].as_str()?.to_owned();
            Some((posted.header("webhook-id").to_owned(), status))
        };
        self.receiver
            .posted(path)
            .iter()
            .filter_map(about)
            .collect()
    }

    async fn until_told(&self, path: &str, sensor: &str, count: usize) -> Vec<(String, String)> {
        let what = format!("{path} is told {count} times of {sensor}");
        eventually(PATIENCE, &what, async || {
            let told = self.told(path, sensor);
            if told.len() >= count {
                Ok(told)
            } else {
                Err(told)
            }
        })
        .await
    }
}

fn is_signed(posted: &Posted) -> bool {
    let (id, at) = (
        posted.header("webhook-id"),
        posted.header("webhook-timestamp"),
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(SECRET).unwrap());
    let signed = format!("{id}.{at}.{}", posted.body);
    let signature = posted.header("webhook-signature").strip_prefix("v1,");
    let signature = STANDARD.decode(signature.unwrap_or_default()).unwrap();
    let at: i64 = at.parse().unwrap();
    hmac::verify(&key, signed.as_bytes(), &signature).is_ok()
        && (Timestamp::now().as_second() - at).abs() < 120
}

#[actix::test]
async fn a_receiver_that_fails_stalls_and_recovers_is_told_and_holds_up_nobody() {
    let route = "  receiver: hook\n  routes:\n    - { receiver: hook, continue: true }\n    \
                 - { receiver: phone, continue: true }\n    - { receiver: other }\n";
    let scene = Scene::new(route, "").await;
    let plan = [Reply::RetryAfter(503, 1), Reply::Stall];
    scene.receiver.plan("/hook", plan);
    let process = scene.start("alerting-a").await;
    scene.reading("s1", 31.0).await;
    scene.until_told("/other", "s1", 1).await;
    let sms = "/2010-04-01/Accounts/AC1/Messages.json";
    let taken = eventually(PATIENCE, "an SMS", async || {
        scene.receiver.posted(sms).pop().ok_or("none")
    });
    let taken = taken.await;
    assert!(
        taken
            .body
            .starts_with("To=%2B4930222222&From=%2B4930111111&Body=")
    );
    let basic = STANDARD.encode("AC1:t0ken");
    assert_eq!(taken.header("authorization"), format!("Basic {basic}"));
    assert!(
        scene.told("/hook", "s1").len() < 3,
        "the others did not wait for it"
    );

    let told = scene.until_told("/hook", "s1", 3).await;
    assert!(told.iter().all(|(id, _)| *id == told[0].0), "{told:?}");
    assert!(scene.receiver.posted("/hook").iter().all(is_signed));
    eventually(PATIENCE, "three attempts are counted", async || {
        let metrics = process.metrics().await.map_err(|error| error.to_string())?;
        let of = |outcome| {
            let labels = [("channel", "webhook"), ("outcome", outcome)];
            metrics.sum("alerting_notifications_total", &labels)
        };
        match (of("failed"), of("sent")) {
            (2.0, 2.0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;

    let list = scene.alerts(&["list", "--output", "json"]).await;
    let alert: Value = serde_json::from_str(&list).unwrap();
    let id = alert["alert_id"].as_str().unwrap();
    let story = scene.alerts(&["explain", id, "--output", "json"]).await;
    let story: Value = serde_json::from_str(&story).unwrap();
    let story = &story["explanation"];
    assert_eq!(story["inputs"][0]["detail"]["reading"]["value"], 31.0);
    assert_eq!(story["routes"][0]["kind"], "routed");
    let messages = story["notifications"].as_array().unwrap();
    let hook = messages.iter().find(|it| it["channel"] == "hook/webhook/0");
    let attempts = hook.unwrap()["attempts"].as_array().unwrap();
    let outcomes: Vec<&str> = attempts
        .iter()
        .map(|it| it["outcome"].as_str().unwrap())
        .collect();
    assert_eq!(outcomes, ["failed", "failed", "sent"]);
    assert!(
        scene
            .alerts(&["explain", id])
            .await
            .contains("the receiver answered 503")
    );
}

#[actix::test]
async fn a_kill_between_sending_and_noting_sends_again_under_the_same_name() {
    let scene = Scene::new("  receiver: hook\n", "").await;
    let mut process = scene
        .program("alerting-a")
        .flag("--fault-point", "notified")
        .start();
    process.ready(PATIENCE).await;
    scene.reading("s1", 31.0).await;
    assert_eq!(process.exit(PATIENCE).await, 137);
    assert_eq!(scene.told("/hook", "s1").len(), 1);
    let _process = scene.start("alerting-a").await;
    let told = scene.until_told("/hook", "s1", 2).await;
    assert_eq!(told[0], told[1]);
    // Nothing is left: what comes next is the end.
    scene.reading("s1", 20.0).await;
    let told = scene.until_told("/hook", "s1", 3).await;
    assert_eq!(told[2].1, "resolved");
    assert_ne!(told[2].0, told[0].0);
}

#[actix::test]
async fn a_standby_takes_over_and_tells_nobody_twice() {
    let scene = Scene::new("  receiver: hook\n", "").await;
    let mut first = scene.start("alerting-a").await;
    let _second = scene.start("alerting-b").await;
    scene.reading("s1", 31.0).await;
    scene.until_told("/hook", "s1", 1).await;
    // Noted by now: an end is told only after that.
    scene.reading("s2", 31.0).await;
    scene.until_told("/hook", "s2", 1).await;
    scene.reading("s2", 20.0).await;
    scene.until_told("/hook", "s2", 2).await;
    first.kill();
    scene.reading("s3", 31.0).await;
    scene.until_told("/hook", "s3", 1).await;
    scene.reading("s1", 20.0).await;
    scene.until_told("/hook", "s1", 2).await;
    let statuses = |sensor| {
        let told = scene.told("/hook", sensor).into_iter();
        told.map(|(_, status)| status).collect::<Vec<_>>()
    };
    assert_eq!(statuses("s1"), ["firing", "resolved"]);
    assert_eq!(statuses("s2"), ["firing", "resolved"]);
    assert_eq!(statuses("s3"), ["firing"]);
}

#[actix::test]
async fn a_silence_keeps_quiet_until_its_end_and_what_is_refused_is_a_dead_letter() {
    let scene = Scene::new("  receiver: hook\n", "").await;
    scene.receiver.plan("/hook", [Reply::Status(404)]);
    let _process = scene.start("alerting-a").await;
    let arguments = [
        "silence",
        "sensor_id=s1",
        "--for",
        "8s",
        "--comment",
        "a test",
    ];
    let silence = scene
        .alerts(&[&arguments[..], &["--output", "json"]].concat())
        .await;
    let silence: Value = serde_json::from_str(&silence).unwrap();
    scene.reading("s1", 31.0).await;
    scene.reading("s2", 31.0).await;
    // The first notification is refused for good.
    let letter = eventually(PATIENCE, "a dead letter", async || {
        scene.client.received().pop().ok_or("none")
    });
    let letter = letter.await;
    assert!(String::from_utf8_lossy(&letter.payload).contains("\"sensor_id\":\"s2\""));
    assert_eq!(scene.told("/hook", "s1").len(), 0);
    assert!(scene.alerts(&["silences"]).await.contains("a test"));
    let told = scene.until_told("/hook", "s1", 1).await;
    let end: Timestamp = silence["ends_at"].as_str().unwrap().parse().unwrap();
    assert!(Timestamp::now() >= end, "{told:?}");

    let list = scene.alerts(&["list", "--output", "json"]).await;
    let alerts: Vec<Value> = list
        .lines()
        .map(|it| serde_json::from_str(it).unwrap())
        .collect();
    let id_of = |sensor: &str| {
        let found = alerts.iter().find(|it| it["sensor_id"] == sensor);
        found.unwrap()["alert_id"].as_str().unwrap().to_owned()
    };
    let story = scene.alerts(&["explain", &id_of("s1")]).await;
    assert!(story.contains(silence["id"].as_str().unwrap()), "{story}");
    let refused = scene.alerts(&["explain", &id_of("s2")]).await;
    assert!(refused.contains("given_up"), "{refused}");
    let taken = scene
        .alerts(&["acknowledge", &id_of("s1"), "--by", "ada"])
        .await;
    assert!(taken.contains("acknowledged") && taken.contains("by ada"));
}

#[actix::test]
async fn groups_that_share_a_database_tell_people_once() {
    let scene = Scene::new("  receiver: hook\n", "").await;
    let mut processes = Vec::new();
    for (group, filter) in [("north", "sensors/lab/#"), ("south", "sensors/yard/#")] {
        let program = scene.program(&format!("alerting-{group}"));
        let program = program.flag("--group", group).flag("--filter", filter);
        let mut process = program.start();
        process.ready(PATIENCE).await;
        processes.push(process);
    }
    for value in [31.0, 20.0] {
        scene.reading("s1", value).await;
        let count = if value > 30.0 { 1 } else { 2 };
        scene.until_told("/hook", "s1", count).await;
    }
    // Whichever of the two tells people, the other one takes over.
    processes.remove(0).terminate();
    processes.remove(0).terminate();
    let _process = scene.start("alerting-c").await;
    scene.reading("s2", 31.0).await;
    scene.until_told("/hook", "s2", 1).await;
    assert_eq!(scene.told("/hook", "s1").len(), 2);
    assert_eq!(scene.told("/hook", "s2").len(), 1);
}

#[actix::test]
async fn changed_routes_are_taken_and_bad_ones_refused() {
    let scene = Scene::new("  receiver: hook\n", "").await;
    let process = scene.start("alerting-a").await;
    let good = std::fs::read_to_string(scene.path("routes.yaml")).unwrap();
    let reloads = async |outcome: &str| {
        eventually(PATIENCE, &format!("a file is {outcome}"), async || {
            let metrics = process.metrics().await.map_err(|error| error.to_string())?;
            match metrics.sum("alerting_reloads_total", &[("outcome", outcome)]) {
                1.0 => Ok(()),
                other => Err(other.to_string()),
            }
        })
        .await;
    };
    scene.write(
        "routes.yaml",
        &good.replace("  receiver: hook", "  receiver: nobody"),
    );
    reloads("refused").await;
    scene.reading("s1", 31.0).await;
    scene.until_told("/hook", "s1", 1).await;
    scene.write(
        "routes.yaml",
        &good.replace("  receiver: hook", "  receiver: other"),
    );
    reloads("taken").await;
    scene.reading("s2", 31.0).await;
    scene.until_told("/other", "s2", 1).await;
    assert_eq!(scene.told("/hook", "s2").len(), 0);
}

/// A tool that `tests/install-tools` puts beside the build.
fn tool(path: &str) -> PathBuf {
    let target = binary("fleet");
    let target = target.parent().and_then(|debug| debug.parent()).unwrap();
    let path = target.join("test-tools").join(path);
    assert!(
        path.exists(),
        "{} is not there: run `make test` once, or tests/install-tools",
        path.display()
    );
    path
}

#[actix::test]
async fn a_mail_server_gets_a_mail() {
    let port = free_port();
    let more = format!(
        "  - {{ name: mail, email_configs: [{{ to: [ada@example.org, bob@example.org], from: fleet@example.org, smarthost: '127.0.0.1:{port}', tls: none }}] }}"
    );
    let scene = Scene::new("  receiver: mail\n", &more).await;
    let mails = scene.path("mails");
    let _server = Program::new(&tool("aiosmtpd/bin/python").display().to_string())
        .arg("-m")
        .arg("aiosmtpd")
        .arg("-n")
        .flag("-l", format!("127.0.0.1:{port}"))
        .flag("-c", "aiosmtpd.handlers.Mailbox")
        .arg(&mails)
        .start();
    let _process = scene.start("alerting-a").await;
    scene.reading("s1", 31.0).await;
    let mail = eventually(PATIENCE, "a mail", async || {
        let folder = std::fs::read_dir(mails.join("new"));
        let mut files = folder.map_err(|error| error.to_string())?;
        let file = files
            .next()
            .ok_or("none")?
            .map_err(|error| error.to_string())?;
        std::fs::read_to_string(file.path()).map_err(|error| error.to_string())
    })
    .await;
    for line in [
        "Subject: [FIRING] critical: TemperatureHigh in lab",
        "From: fleet@example.org",
        "X-RcptTo: ada@example.org, bob@example.org",
        "X-Fleet-Notification: msg_",
        "FIRING critical TemperatureHigh: TemperatureHigh: s1 is at 31",
    ] {
        assert!(mail.contains(line), "{line} is not in\n{mail}");
    }
}

#[actix::test]
async fn an_alertmanager_knows_what_fires_and_that_it_ended() {
    let port = free_port();
    let more =
        format!("  - {{ name: am, alertmanager_configs: [{{ url: 'http://127.0.0.1:{port}' }}] }}");
    let scene = Scene::new("  receiver: am\n", &more).await;
    scene.write(
        "alertmanager.yaml",
        "route: { receiver: none }\nreceivers: [{ name: none }]\n",
    );
    let _alertmanager = Program::new("/usr/bin/prometheus-alertmanager")
        .arg(format!(
            "--config.file={}",
            scene.path("alertmanager.yaml").display()
        ))
        .arg(format!("--storage.path={}", scene.path("am").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .arg("--cluster.listen-address=")
        .start();
    let _process = scene.start("alerting-a").await;
    scene.reading("s1", 31.0).await;
    let addr = ([127, 0, 0, 1], port).into();
    let known = async || -> Result<Vec<Value>, String> {
        let (_, body) = get(addr, "/api/v2/alerts")
            .await
            .map_err(|error| error.to_string())?;
        serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))
    };
    let alert = eventually(PATIENCE, "the alert is there", async || {
        known().await?.pop().ok_or_else(|| "none".to_owned())
    })
    .await;
    assert_eq!(alert["labels"]["alertname"], "TemperatureHigh");
    assert_eq!(alert["labels"]["sensor_id"], "s1");
    assert_eq!(
        alert["annotations"]["summary"],
        "TemperatureHigh: s1 is at 31.0 celsius"
    );
    scene.reading("s1", 20.0).await;
    eventually(PATIENCE, "the alert is gone", async || {
        let alerts = known().await?;
        if alerts.is_empty() {
            Ok(())
        } else {
            Err(format!("{alerts:?}"))
        }
    })
    .await;
}
