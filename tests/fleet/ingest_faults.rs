//! Ingest loses nothing: crashes, restarts, a store that stands still, replicas, poison.

use std::time::{Duration, Instant};

use fleet_shared::session::{Publish, QoS};
use fleet_tests::{Acknowledge, Client, Postgres, Process, eventually, options};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use tokio::time::sleep;

use crate::site::{LONG, Site};

/// Rows of the types that are published with QoS 1 or 2, so each is in the ledger.
const LEDGER_ROWS: &str = "SELECT count(*) FROM readings WHERE type <> 'motion'";

/// Waits until the simulator has done all it was told to do.
async fn finished(mut sim: Process) {
    assert_eq!(sim.exit(Duration::from_secs(150)).await, 0);
}

#[actix::test]
async fn kills_and_restarts_of_everything_lose_nothing() {
    const RUN: Duration = Duration::from_secs(40);
    const IDS: [&str; 2] = ["ingest-0", "ingest-1"];
    let mut postgres = Postgres::start().await;
    let mut site = Site::on(postgres.url()).await;
    let mut ingest = IDS.map(|id| site.ingest(id).start());
    for process in &mut ingest {
        process.ready(LONG).await;
    }
    // One in nine readings has QoS 0 and is in no ledger: 200,000 of the others.
    let mut sim = site
        .device_sim()
        .flag("--devices", 50)
        .flag("--rate", 5_700)
        .flag("--duration", format!("{}s", RUN.as_secs()))
        .flag("--seed", 1)
        .start();
    let mut rng = Pcg64Mcg::seed_from_u64(1);
    let start = Instant::now();
    let mut kills = 0;
    while sim.is_running() && start.elapsed() < RUN {
        // The time between two faults is the test's subject here, not a wait for anything.
        sleep(Duration::from_millis(rng.random_range(2_000..5_000))).await;
        let victim = kills % 2;
        ingest[victim].kill();
        match kills {
            // Mosquitto 2.0 forgets shared subscriptions in a restart: until a member of the group has
            // subscribed again, what the devices publish is acknowledged and goes to nobody.
            2 | 6 => {
                site.broker.terminate().await;
                site.broker.start_again().await;
            }
            4 => postgres.restart_immediate().await,
            _ => {}
        }
        ingest[victim] = site.ingest(IDS[victim]).start();
        kills += 1;
    }
    assert!(kills > 7, "only {kills} kills");
    finished(sim).await;
    let verified = site.verified(LONG).await;
    assert_eq!(
        (verified.missing, verified.duplicates, verified.conflicts),
        (0, 0, 0)
    );
    assert!(verified.acknowledged >= 200_000, "{verified:?}");
    let rows = postgres.number(LEDGER_ROWS).await.unwrap();
    assert_eq!(rows, i64::try_from(verified.acknowledged).unwrap());
    let letters = postgres.number("SELECT count(*) FROM dead_letters").await;
    assert_eq!(letters.unwrap(), 0);
}

#[actix::test]
async fn store_that_stands_still_for_a_minute_costs_no_memory_and_no_connection() {
    const STILL: Duration = Duration::from_secs(60);
    const GROWTH_MAX: u64 = 32 * 1024 * 1024;
    let postgres = Postgres::start().await;
    let site = Site::on(postgres.url()).await;
    // A keep-alive that passes several times meanwhile.
    let mut ingest = site
        .ingest("ingest-0")
        .env("MQTT_KEEP_ALIVE", "10s")
        .start();
    ingest.ready(LONG).await;
    let sim = site
        .device_sim()
        .flag("--devices", 50)
        .flag("--rate", 2_000);
    let sim = sim.flag("--duration", "75s").flag("--seed", 2).start();
    eventually(LONG, "readings flow", async || {
        let rows = postgres
            .number("SELECT count(*) FROM readings")
            .await
            .unwrap_or(0);
        if rows > 5_000 { Ok(()) } else { Err(rows) }
    })
    .await;
    let before = ingest.resident_bytes();
    postgres.pause();
    let paused = Instant::now();
    let mut most = 0;
    eventually(STILL + LONG, "a minute passes", async || {
        assert!(ingest.is_running(), "ingest has ended");
        assert_eq!(ingest.admin("/livez").await.unwrap().0, 200);
        most = most.max(ingest.resident_bytes());
        let metrics = ingest.metrics().await.unwrap();
        assert_eq!(
            metrics.sum("mqtt_connection_status", &[]),
            1.0,
            "the connection is lost"
        );
        if paused.elapsed() > STILL {
            Ok(())
        } else {
            Err(paused.elapsed())
        }
    })
    .await;
    assert_eq!(ingest.admin("/readyz").await.unwrap().0, 503);
    // Later Mosquitto 2.0 may have more in flight than there are packet identifiers, uses some
    // twice, and drops the connection over the confusion.
    let log = site.broker.logged();
    let lost = log.lines().find(|line| {
        let ended = ["exceeded timeout", "closed its connection", "disconnected"];
        line.contains("ingest-0") && ended.iter().any(|end| line.contains(end))
    });
    assert_eq!(lost, None, "the connection was lost");
    postgres.resume();
    ingest.ready(LONG).await;
    let grown = most.saturating_sub(before);
    assert!(
        grown < GROWTH_MAX,
        "{} KiB more than {} KiB",
        grown / 1024,
        before / 1024
    );
    finished(sim).await;
    let verified = site.verified(LONG).await;
    assert_eq!(
        (verified.missing, verified.duplicates, verified.conflicts),
        (0, 0, 0)
    );
}

#[actix::test]
async fn scaling_up_and_down_under_load_loses_nothing() {
    let postgres = Postgres::start().await;
    let site = Site::on(postgres.url()).await;
    let mut first = site.ingest("ingest-0").start();
    first.ready(LONG).await;
    let sim = site
        .device_sim()
        .flag("--devices", 50)
        .flag("--rate", 2_000);
    let sim = sim.flag("--duration", "30s").flag("--seed", 3).start();
    let ids = ["ingest-1", "ingest-2", "ingest-3"];
    let mut more = ids.map(|id| site.ingest(id).start());
    for process in &mut more {
        process.ready(LONG).await;
        eventually(LONG, "the new member stores its share", async || {
            let metrics = process.metrics().await.map_err(|error| error.to_string())?;
            let stored = metrics.sum("ingest_readings_total", &[("outcome", "stored")]);
            if stored > 500.0 {
                Ok(())
            } else {
                Err(stored.to_string())
            }
        })
        .await;
    }
    for process in &mut more {
        process.terminate();
        assert_eq!(process.exit(Duration::from_secs(20)).await, 0);
    }
    for id in ids {
        let mut options = options(site.broker.addr(), id);
        options.client_id = id.into();
        let successor = Client::connected(options, Acknowledge::Later).await;
        assert_eq!(
            successor.ups(),
            [false],
            "{id} left a session at the broker"
        );
    }
    finished(sim).await;
    let verified = site.verified(LONG).await;
    assert_eq!(
        (verified.missing, verified.duplicates, verified.conflicts),
        (0, 0, 0)
    );
    assert!(verified.acknowledged > 50_000, "{verified:?}");
    first.terminate();
    assert_eq!(first.exit(Duration::from_secs(20)).await, 0);
}

/// Bad payloads by the reason they are refused for. Each holds its number, so no two are equal.
fn bad(number: u64) -> (&'static str, Vec<u8>) {
    let reading = |value: &str, timestamp: &str, kind: &str| {
        format!(
            r#"{{"sensor_id":"bad-{number}","type":"{kind}","value":{value},"unit":"celsius",
            "location":"hall","timestamp":"{timestamp}"}}"#
        )
        .into_bytes()
    };
    let past = "2026-01-02T03:04:05Z";
    match number % 9 {
        0 => (
            "malformed",
            format!("{{\"sensor_id\":\"bad-{number}\"").into_bytes(),
        ),
        1 => (
            "malformed",
            format!("{{\"sensor_id\":\"bad-{number}\"}}").into_bytes(),
        ),
        2 => (
            "not_utf8",
            [b"\xff\xfe", format!("{number}").as_bytes()].concat(),
        ),
        3 => (
            "too_deep",
            format!("{}{number}{}", "[".repeat(500), "]".repeat(500)).into_bytes(),
        ),
        4 => (
            "too_large",
            format!("{number}{}", "0".repeat(70_000)).into_bytes(),
        ),
        5 => ("not_finite", reading("1e999", past, "temperature")),
        6 => (
            "future_timestamp",
            reading("1", "2199-01-01T00:00:00Z", "temperature"),
        ),
        7 => ("topic_mismatch", reading("1", past, "humidity")),
        _ => ("invalid_field", {
            let text = String::from_utf8(reading("1", past, "temperature")).unwrap();
            text.replace("\"unit\"", "\"battery_percent\":101,\"unit\"")
                .into_bytes()
        }),
    }
}

#[actix::test]
async fn ten_thousand_bad_messages_harm_none_of_the_good_ones() {
    const EACH: u64 = 10_000;
    let site = Site::on_sqlite().await;
    let mut ingest = site.ingest("ingest-0").start();
    ingest.ready(LONG).await;
    let publisher = options(site.broker.addr(), "publisher");
    let publisher = Client::connected(publisher, Acknowledge::AtOnce).await;
    let publishing = publisher.publish_numbers(0..2 * EACH, |n| {
        let payload = if n % 2 == 0 {
            let day = 1 + n % 28;
            format!(
                r#"{{"sensor_id":"good-{n}","type":"temperature","value":{n},"unit":"celsius",
                "location":"hall","timestamp":"2026-01-{day:02}T00:00:00Z"}}"#
            )
            .into_bytes()
        } else {
            bad(n / 2).1
        };
        let qos = if n % 4 < 2 {
            QoS::AtLeastOnce
        } else {
            QoS::ExactlyOnce
        };
        Publish::new("sensors/hall/temperature", "test", payload).qos(qos)
    });
    publishing.await;
    site.stored_at_least(EACH).await;
    eventually(
        LONG,
        "every bad message is a dead letter",
        async || match site.number("SELECT count(*) FROM dead_letters") {
            Some(EACH) => Ok(()),
            other => Err(other),
        },
    )
    .await;
    let good = "SELECT count(DISTINCT sensor_id) FROM readings WHERE sensor_id LIKE 'good-%'";
    assert_eq!(site.number(good), Some(EACH));
    assert_eq!(site.number("SELECT count(*) FROM readings"), Some(EACH));
    let reasons: std::collections::BTreeSet<_> = (0..9).map(|n| bad(n).0).collect();
    for reason in reasons {
        let wanted = (0..EACH).filter(|n| bad(*n).0 == reason).count() as u64;
        let query = format!("SELECT count(*) FROM dead_letters WHERE reason = '{reason}'");
        assert_eq!(site.number(&query), Some(wanted), "{reason}");
    }
    ingest.terminate();
    assert_eq!(ingest.exit(LONG).await, 0);
}
