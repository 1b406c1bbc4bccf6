//! No secret leaves a program but to where it belongs.

use std::time::Duration;

use fleet::access::Accounts;
use fleet_tests::{Process, Program, eventually, free_port};

use crate::scene::Trust;

const LONG: Duration = Duration::from_secs(60);

/// Secrets that no text of a program may hold.
const SECRETS: [&str; 4] = [
    "hush-mqtt-5d1",
    "hush-token-77a",
    "hush-url-c03",
    "hush-db-e94",
];

fn search(what: &str, text: &str) {
    for secret in SECRETS {
        assert!(
            !text.contains(secret),
            "{what} holds the secret {secret}: {text}"
        );
    }
}

fn with_secrets(program: Program, port: u16) -> Program {
    program
        .env("LOG", "trace")
        .env("MQTT_URL", format!("mqtts://localhost:{port}"))
        .env("MQTT_USERNAME", "somebody")
        .env("MQTT_PASSWORD", SECRETS[0])
        .env("API_TOKEN", SECRETS[1])
        .env("DRAIN_TIMEOUT", "2s")
}

/// Every program with secrets in place, at the most talkative log level, against a broker that
/// refuses it: that is when most is told.
#[actix::test]
async fn no_secret_is_logged_or_seen_in_the_process_list() {
    let trust = Trust::of(Accounts::usual([]).unwrap());
    let broker = trust.mosquitto_with_files("").await;
    let mut running: Vec<(&str, Process)> = Vec::new();
    for name in ["device-sim", "ingest", "alerting", "status-tracker"] {
        let program = with_secrets(Program::service(name), broker.port())
            .env("HTTP_ADDR", format!("127.0.0.1:{}", free_port()))
            .env("MQTT_CA_FILE", trust.certs("ca.crt").display())
            .env("DATABASE_URL", "sqlite://fleet.db");
        running.push((name, program.start()));
    }
    for (name, process) in &mut running {
        eventually(LONG, "the program has met the broker", async || {
            let log = process.stderr();
            let met = ["refused", "not authorized", "0x87"]
                .iter()
                .any(|it| log.contains(it));
            if met {
                Ok(())
            } else {
                Err(format!("{name}: {log}"))
            }
        })
        .await;
        search(name, &process.stderr());
        search(name, &process.stdout());
        search("its command line", &process.command_line());
        process.terminate();
    }
    for (name, mut process) in running {
        process.exit(LONG).await;
        search(name, &process.stderr());
        search(name, &process.stdout());
    }
}

/// Settings that are wrong in the worst places, and help with all of them set.
#[actix::test]
async fn no_secret_is_in_help_or_in_what_is_said_of_wrong_settings() {
    for name in ["device-sim", "ingest", "alerting", "status-tracker"] {
        let database = format!("postgres://fleet:{}@127.0.0.1:1/fleet", SECRETS[3]);
        let program = |arguments: &[&str]| {
            let program = with_secrets(Program::new(name), 1)
                .env(
                    "MQTT_URL",
                    format!("mqtt://somebody:{}@127.0.0.1:1", SECRETS[2]),
                )
                .env("DATABASE_URL", &database);
            arguments
                .iter()
                .fold(program, |program, argument| program.arg(argument))
        };
        let broken_url = format!("--mqtt-url=mqtt://u:{}@host:no-port", SECRETS[2]);
        let broken_database = format!("--database-url=postgres://u:{}@h/%zz?sslmode=x", SECRETS[3]);
        for arguments in [
            &["--help"][..],
            &["--no-such-flag"],
            // The URL and the variable both hold a password.
            &[],
            &[broken_url.as_str()],
            &[broken_database.as_str()],
            &["--mqtt-ca-file=nowhere"],
        ] {
            let mut process = program(arguments).start();
            // It ends, or goes on and says what it waits for.
            eventually(LONG, "the program has said something", async || {
                let log = process.stderr();
                let warned = log.contains("WARN") || log.contains("ERROR");
                if warned || !process.is_running() {
                    Ok(())
                } else {
                    Err(log)
                }
            })
            .await;
            search(name, &process.stderr());
            search(name, &process.stdout());
        }
    }
}
