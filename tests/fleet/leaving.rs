//! Services that are told to stop while their broker is away.

use std::time::Duration;

use fleet_tests::{Mosquitto, Process, Program, eventually, free_port};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

const SERVICES: [&str; 3] = ["ingest", "alerting", "status-tracker"];

fn start(service: &str, port: u16, drain: &str, data: &TempDir) -> Process {
    Program::service(service)
        .env("MQTT_URL", format!("mqtt://127.0.0.1:{port}"))
        .env("HTTP_ADDR", "127.0.0.1:0")
        .env(
            "DATABASE_URL",
            format!("sqlite://{}/fleet.db", data.path().display()),
        )
        .flag("--drain-timeout", drain)
        .start()
}

#[tokio::test]
async fn who_never_had_a_broker_has_nothing_to_wait_for() {
    for service in SERVICES {
        let data = tempfile::tempdir().unwrap();
        // Longer than anybody would wait for it, so that waiting is seen as such.
        let mut process = start(service, free_port(), "10m", &data);
        eventually(PATIENCE, "it looks for its broker", async || match process
            .admin("/readyz")
            .await
        {
            Ok((503, reasons)) if reasons.contains("mqtt") => Ok(()),
            other => Err(other),
        })
        .await;
        process.terminate();
        assert_eq!(
            process.exit(PATIENCE).await,
            0,
            "{service}: {}",
            process.stderr()
        );
    }
}

#[tokio::test]
async fn who_lost_its_broker_ends_within_the_drain_timeout() {
    for service in SERVICES {
        let data = tempfile::tempdir().unwrap();
        let mut broker = Mosquitto::start().await;
        let mut process = start(service, broker.port(), "3s", &data);
        process.ready(PATIENCE).await;
        broker.kill();
        process.terminate();
        let code = process.exit(PATIENCE).await;
        assert_eq!(code, 0, "{service}: {}", process.stderr());
    }
}

#[tokio::test]
async fn an_idle_service_with_little_time_has_nothing_to_complain_of() {
    for service in SERVICES {
        let data = tempfile::tempdir().unwrap();
        let broker = Mosquitto::start().await;
        let mut process = start(service, broker.port(), "1s", &data);
        process.ready(PATIENCE).await;
        process.terminate();
        let code = process.exit(PATIENCE).await;
        let told = process.stderr();
        assert_eq!(code, 0, "{service}: {told}");
        assert!(!told.contains("in time"), "{service}: {told}");
    }
}
