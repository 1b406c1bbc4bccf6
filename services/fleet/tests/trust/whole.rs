//! The whole fleet with TLS, accounts and rules on Mosquitto.

use std::time::Duration;

use fleet::access::Accounts;
use fleet_shared::session::{Properties, QoS, Subscription};
use fleet_tests::{Mosquitto, Process, Program, eventually, free_port};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::scene::{Trust, connected, message, tls};

const LONG: Duration = Duration::from_secs(90);

const RULES: &str = "
groups:
  - name: test
    rules:
      - alert: TemperatureHigh
        type: temperature
        when: value > 90
        clear: value < 80
        severity: critical
";

fn service(trust: &Trust, broker: &Mosquitto, name: &str, id: &str) -> Program {
    let secret = trust
        .passwords
        .get(name)
        .unwrap()
        .secret()
        .expose_secret()
        .to_owned();
    let password = trust.write(&format!("{name}.password"), &secret);
    let database = trust.dir.path().join("fleet.db");
    Program::service(name)
        .env("MQTT_URL", format!("mqtts://localhost:{}", broker.port()))
        .env("MQTT_CA_FILE", trust.certs("ca.crt").display())
        .env("MQTT_USERNAME", name)
        .env("MQTT_PASSWORD_FILE", password.display())
        .env("MQTT_CLIENT_ID", id)
        .env("DATABASE_URL", format!("sqlite://{}", database.display()))
}

async fn ready(program: Program) -> Process {
    let mut process = program.start();
    process.ready(LONG).await;
    process
}

/// An answer of status-tracker, over HTTPS with a client certificate, by curl.
async fn ask(trust: &Trust, port: u16, path: &str, more: &[&str]) -> Value {
    let mut curl = std::process::Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "20"])
        .arg("--cacert")
        .arg(trust.certs("ca.crt"))
        .arg("--cert")
        .arg(trust.certs("accounts/operator.crt"))
        .arg("--key")
        .arg(trust.certs("accounts/operator.key"))
        .args(more)
        .arg(format!("https://localhost:{port}/api/v1{path}"));
    let output = tokio::task::spawn_blocking(move || curl.output())
        .await
        .unwrap();
    let output = output.unwrap_or_else(|error| panic!("curl: {error}; install curl"));
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

#[actix::test]
async fn the_fleet_works_with_tls_accounts_and_rules() {
    let scenario = device_sim::Scenario {
        devices: 5,
        ..Default::default()
    };
    let mut devices = scenario.locations().unwrap();
    devices.push(("oven".to_owned(), vec!["lab".to_owned()]));
    let trust = Trust::of(Accounts::usual(devices).unwrap());
    let broker = trust.mosquitto(false).await;
    trust
        .passwords
        .save(&trust.dir.path().join("passwords.csv"))
        .unwrap();
    let rules = trust.write("rules.yaml", RULES);
    let port = free_port();

    let _ingest = [
        ready(service(&trust, &broker, "ingest", "ingest-0")).await,
        ready(service(&trust, &broker, "ingest", "ingest-1")).await,
    ];
    let alerting =
        service(&trust, &broker, "alerting", "alerting-0").flag("--rules", rules.display());
    let _alerting = ready(alerting).await;
    let status = service(&trust, &broker, "status-tracker", "status-tracker-0")
        .env("HTTP_ADDR", format!("127.0.0.1:{port}"))
        .env(
            "TLS_CERT_FILE",
            trust.certs("servers/status-tracker.crt").display(),
        )
        .env(
            "TLS_KEY_FILE",
            trust.certs("servers/status-tracker.key").display(),
        )
        .env("TLS_CLIENT_CA_FILE", trust.certs("ca.crt").display())
        .env("API_TOKEN", "a-token");
    let _status = ready(status).await;

    let ledger = trust.dir.path().join("ledger.jsonl");
    let mut sim = Program::service("device-sim")
        .env("MQTT_URL", format!("mqtts://localhost:{}", broker.port()))
        .env("MQTT_CA_FILE", trust.certs("ca.crt").display())
        .flag(
            "--device-passwords",
            trust.dir.path().join("passwords.csv").display(),
        )
        .flag("--devices", 5)
        .flag("--rate", 100)
        .flag("--seed", 7)
        .flag("--ledger", ledger.display())
        .start();
    sim.ready(LONG).await;

    let reading = json!({
        "sensor_id": "oven", "type": "temperature", "value": 99.0, "unit": "celsius",
        "location": "lab", "timestamp": jiff::Timestamp::now().to_string(),
    });
    let oven = connected(trust.with_password(tls(broker.port()), "oven")).await;
    let topic = "sensors/lab/temperature";
    oven.session
        .publish(message(topic, &reading.to_string()))
        .await
        .unwrap();
    eventually(LONG, "the alert fires", async || {
        let alerts = ask(&trust, port, "/alerts", &[]).await;
        if alerts.to_string().contains("TemperatureHigh") {
            Ok(())
        } else {
            Err(alerts)
        }
    })
    .await;
    eventually(LONG, "every simulated device is online", async || {
        let device = ask(&trust, port, "/devices/sensor-005", &[]).await;
        if device["online"] == true {
            Ok(())
        } else {
            Err(device)
        }
    })
    .await;
    let refused = ask(
        &trust,
        port,
        "/devices/sensor-001/commands/ping",
        &["--request", "POST", "--data", "{}"],
    )
    .await;
    assert_eq!(refused["status"], 401, "{refused}");
    // A device of our own answers a command, where its account lets it.
    let subscription = Subscription::new("devices/oven/commands/+", QoS::AtLeastOnce);
    oven.session.subscribe(vec![subscription]).await.unwrap();
    let status = json!({
        "device_id": "oven", "online": true, "last_seen": jiff::Timestamp::now().to_string(),
        "firmware_version": "1", "signal_strength": -40, "uptime_seconds": 1,
    });
    let status = message("devices/oven/status", &status.to_string()).retain(true);
    oven.session.publish(status).await.unwrap();
    eventually(LONG, "the oven is online", async || {
        let device = ask(&trust, port, "/devices/oven", &[]).await;
        if device["online"] == true {
            Ok(())
        } else {
            Err(device)
        }
    })
    .await;
    // An operator shows a certificate, too.
    let operator = |cert: bool| {
        let program = Program::new("fleet")
            .arg("devices")
            .flag("--api-url", format!("https://localhost:{port}"))
            .flag("--api-ca-file", trust.certs("ca.crt").display());
        if cert {
            program
                .flag(
                    "--api-cert-file",
                    trust.certs("accounts/operator.crt").display(),
                )
                .flag(
                    "--api-key-file",
                    trust.certs("accounts/operator.key").display(),
                )
        } else {
            program
        }
    };
    let (code, listed) = operator(true).output(LONG).await;
    assert!(code == 0 && listed.contains("oven"), "{listed}");
    assert_ne!(operator(false).output(LONG).await.0, 0);
    let ping = [
        "--request",
        "POST",
        "--data",
        "{}",
        "--header",
        "Content-Type: application/json",
        "--header",
        "Authorization: Bearer a-token",
    ];
    let asked = ask(&trust, port, "/devices/oven/commands/ping", &ping);
    let answered = async {
        oven.received_at_least(1, LONG).await;
        let request = oven.received().remove(0).properties.unwrap();
        let response = request.response_topic.unwrap();
        assert!(response.starts_with("responses/oven/"), "{response}");
        let properties = Properties {
            correlation_data: request.correlation_data,
            ..Properties::default()
        };
        let answer = message(&response, "{\"pong\":true}").properties(properties);
        oven.session.publish(answer).await.unwrap();
    };
    let (answer, ()) = tokio::join!(asked, answered);
    assert!(answer.to_string().contains("\"pong\":true"), "{answer}");

    sim.terminate();
    assert_eq!(sim.exit(LONG).await, 0, "{}", sim.stderr());
    let database = trust.dir.path().join("fleet.db");
    let verify = Program::new("fleet")
        .arg("verify")
        .flag("--ledger", ledger.display())
        .flag("--database-url", format!("sqlite://{}", database.display()))
        .flag("--wait", "30s");
    assert_eq!(verify.output(LONG).await.0, 0);
    let logged = broker.logged();
    assert!(
        !logged.contains("denied") && !logged.contains("Denied"),
        "{logged}"
    );
}

/// What `fleet up` prints when it is not on a terminal, one line of JSON each.
fn lines(process: &Process) -> Vec<Value> {
    let output = process.stdout();
    output
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

#[actix::test]
async fn fleet_up_secure_runs_every_part_with_an_account_of_its_own() {
    let dir = fleet_tests::TempDir::new().unwrap();
    let data = dir.path().join("data");
    let mut fleet = Program::new("fleet")
        .arg("up")
        .arg("--secure")
        .flag("--data-dir", data.display())
        .flag("--mqtt-addr", "127.0.0.1:0")
        .flag("--http-addr", "127.0.0.1:0")
        .flag("--admin-addr", "off")
        .flag("--devices", 6)
        .flag("--seed", 7)
        .start();
    let broker = eventually(LONG, "readings are stored", async || {
        assert!(fleet.is_running(), "{}", fleet.stderr());
        let lines = lines(&fleet);
        let stored = lines
            .iter()
            .any(|line| line["readings_stored"].as_u64() > Some(10));
        match lines.iter().find_map(|line| line["listening"].as_str()) {
            Some(broker) if stored => Ok(broker.to_owned()),
            _ => Err(fleet.stdout()),
        }
    })
    .await;
    assert!(broker.starts_with("mqtts://"), "{broker}");
    let secure = data.join("secure");
    let operator = |arguments: &[&str]| {
        let program = Program::new("fleet")
            .env("MQTT_URL", &broker)
            .env("MQTT_CA_FILE", secure.join("certs/ca.crt").display())
            .env("MQTT_USERNAME", "operator")
            .env(
                "MQTT_PASSWORD_FILE",
                secure.join("operator.password").display(),
            );
        arguments
            .iter()
            .fold(program, |program, argument| program.arg(argument))
    };
    let tail = operator(&["tail", "sensors/#", "--count", "3"]);
    assert_eq!(tail.output(LONG).await.0, 0);
    let forbidden = operator(&["publish", "devices/sensor-001/status", "{}"]);
    assert_eq!(forbidden.output(LONG).await.0, 1);
    let nobody = Program::new("fleet")
        .env("MQTT_URL", &broker)
        .env("MQTT_CA_FILE", secure.join("certs/ca.crt").display())
        .arg("tail")
        .arg("#");
    assert_eq!(nobody.output(LONG).await.0, 1);
    let (code, told) = operator(&["doctor"]).output(LONG).await;
    assert_eq!(code, 0, "{told}");
    fleet.terminate();
    assert_eq!(fleet.exit(LONG).await, 0, "{}", fleet.stderr());
    let verify = Program::new("fleet")
        .arg("verify")
        .flag("--data-dir", data.display());
    assert_eq!(verify.output(LONG).await.0, 0);
}
