//! Crashes, restarts, takeovers and several trackers: what is shown and stored is true.

use fleet_shared::session::{QoS, Subscription};
use fleet_tests::{Acknowledge, Client, Process, eventually, options};
use rusqlite::Connection;
use serde_json::{Value, json};

use super::{Tracker, Voice};
use crate::site::{LONG, Site};

const DEVICES: u64 = 2_000;

const QUIET: &str = "
device_id: quiet-{device}
firmware: 1.0.0
status_every: 200ms
signal_strength_dbm: [-50, -40]
locations: [hall]
devices:
  - sensors:
      - id: motion-{device}
        type: motion
        unit: boolean
        qos: 0
        every: 1h
        first: after_a_pause
        value: event
        battery: { percent: [55, 55] }
";

fn simulator(site: &Site) -> Process {
    site.device_sim()
        .flag("--devices", DEVICES)
        .flag("--rate", 100)
        .flag("--seed", 1)
        .start()
}

fn stored(site: &Site) -> Vec<(String, bool)> {
    let connection = Connection::open(site.path("fleet.db")).unwrap();
    let mut rows = connection
        .prepare("SELECT device_id, online FROM device_transitions ORDER BY device_id, at")
        .unwrap();
    let rows = rows
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

async fn agree(one: &Tracker, other: &Tracker) {
    eventually(LONG, "two trackers agree on every device", async || {
        let (one, other) = (one.devices().await, other.devices().await);
        match one.iter().zip(&other).find(|(one, other)| one != other) {
            None if one.len() as u64 == DEVICES && other.len() == one.len() => Ok(()),
            differ => Err(format!("{} and {}: {differ:?}", one.len(), other.len())),
        }
    })
    .await;
}

#[actix::test]
async fn a_killed_fleet_is_offline_comes_back_and_is_stored_once_by_two_trackers() {
    let site = Site::on_sqlite().await;
    let one = Tracker::start(&site, "status-1").await;
    let other = Tracker::start(&site, "status-2").await;
    let mut devices = simulator(&site);
    one.counts("online", DEVICES).await;
    other.counts("online", DEVICES).await;

    devices.kill();
    one.counts("offline", DEVICES).await;
    other.counts("offline", DEVICES).await;
    agree(&one, &other).await;

    let _devices = simulator(&site);
    one.counts("online", DEVICES).await;
    other.counts("online", DEVICES).await;
    agree(&one, &other).await;

    // On, off, on: three rows each, whoever of the two was first.
    let expected = DEVICES as usize * 3;
    eventually(LONG, "every transition is stored once", async || {
        let rows = stored(&site);
        if rows.len() == expected {
            Ok(())
        } else {
            Err(rows.len())
        }
    })
    .await;
    let rows = stored(&site);
    for device in rows.chunks(3) {
        assert!(
            device.iter().all(|(id, _)| *id == device[0].0),
            "{device:?}"
        );
        assert_eq!(
            device.iter().map(|(_, online)| *online).collect::<Vec<_>>(),
            [true, false, true]
        );
    }

    // A third that starts later shows the same.
    let late = Tracker::start(&site, "status-3").await;
    agree(&one, &late).await;
    assert_eq!(stored(&site).len(), expected);
}

#[actix::test]
async fn a_restart_of_the_broker_is_no_transition() {
    let mut site = Site::on_sqlite().await;
    let tracker = Tracker::start(&site, "status-1").await;
    let _devices = simulator(&site);
    tracker.counts("online", DEVICES).await;
    eventually(LONG, "all births are stored", async || {
        let rows = stored(&site).len();
        if rows as u64 == DEVICES {
            Ok(())
        } else {
            Err(rows)
        }
    })
    .await;
    let before = tracker.devices().await;

    // It publishes the wills of all devices when it ends.
    site.broker.terminate().await;
    site.broker.start_again().await;
    eventually(
        LONG,
        "every device is back with a new session",
        async || {
            let after = tracker.devices().await;
            let old = before
                .iter()
                .zip(&after)
                .filter(|(b, a)| b["session_id"] == a["session_id"])
                .count();
            if old == 0 { Ok(()) } else { Err(old) }
        },
    )
    .await;
    eventually(LONG, "the wills are no longer held back", async || {
        let summary = tracker.summary().await;
        let at = |value: &Value| {
            value
                .as_str()
                .and_then(|it| it.parse::<jiff::Timestamp>().ok())
        };
        match (at(&summary["at"]), at(&summary["broker"]["since"])) {
            (Some(now), Some(since)) if now.duration_since(since).as_secs() > 22 => Ok(()),
            _ => Err(summary["broker"].clone()),
        }
    })
    .await;
    tracker.counts("online", DEVICES).await;
    assert_eq!(
        stored(&site).len() as u64,
        DEVICES,
        "a false transition is stored"
    );
    let after = tracker.devices().await;
    assert!(
        before
            .iter()
            .zip(&after)
            .all(|(before, after)| before["since"] == after["since"])
    );
}

#[actix::test]
async fn telemetry_is_in_the_row_of_its_device_and_bad_telemetry_is_counted_only() {
    let site = Site::on_sqlite().await;
    let tracker = Tracker::start(&site, "status-1").await;
    // A device that measures itself long before its sensor says what is left of the battery.
    let profile = site.path("quiet.yaml");
    std::fs::write(&profile, QUIET).unwrap();
    let _device = site
        .device_sim()
        .flag("--devices", 1)
        .flag("--profile", profile.display())
        .start();
    let voice = Voice::of(&site, "voice").await;
    let battery = async |device: &str, wanted: &dyn Fn(&Value) -> bool| {
        let path = format!("/api/v1/devices/{device}");
        eventually(LONG, "the battery is shown", async || {
            let device = tracker.get(&path).await.json();
            if wanted(&device["battery_percent"]) {
                Ok(device)
            } else {
                Err(device)
            }
        })
        .await
    };
    battery("quiet-001", &|it| *it == 55).await;

    voice.status("ext-5", true).await;
    let telemetry = json!({"battery_percent": 50, "signal_strength": -61, "uptime_seconds": 7});
    voice
        .say("devices/ext-5/telemetry", telemetry.to_string(), false)
        .await;
    let device = battery("ext-5", &|it| *it == 50).await;
    assert_eq!(
        (&device["signal_strength"], &device["uptime_seconds"]),
        (&json!(-61), &json!(7))
    );
    voice
        .say(
            "devices/ext-5/telemetry",
            r#"{"battery_percent":150}"#,
            false,
        )
        .await;
    eventually(LONG, "the refusal is counted", async || {
        let metrics = tracker.process.metrics().await.unwrap();
        let refused = [("reason", "invalid_field")];
        match metrics.sum("status_messages_refused_total", &refused) {
            1.0 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    battery("ext-5", &|it| *it == 50).await;
}

#[actix::test]
async fn late_will_does_not_hide_a_device_and_the_broker_is_told_the_truth() {
    let site = Site::on_sqlite().await;
    let tracker = Tracker::start(&site, "status-1").await;
    let voice = Voice::of(&site, "d1").await;
    let say = async |text: Value| voice.say("devices/d1/status", text.to_string(), true).await;
    let (old, new) = (
        "01900000-0000-7000-8000-000000000001",
        "01900000-0001-7000-8000-000000000001",
    );
    say(json!({"device_id": "d1", "online": true, "last_seen": "2026-01-01T00:00:00Z", "firmware_version": "1", "signal_strength": -40, "uptime_seconds": 1, "session_id": new})).await;
    say(json!({"device_id": "d1", "online": false, "timestamp": "2026-01-01T00:00:00Z", "reason": "unexpected_disconnect", "session_id": old})).await;

    let mut late = options(site.broker.addr(), "late");
    late.subscriptions
        .push(Subscription::new("devices/d1/status", QoS::AtLeastOnce));
    let late = Client::connected(late, Acknowledge::AtOnce).await;
    eventually(LONG, "the retained status is repaired", async || {
        let last = late
            .received()
            .last()
            .map(|it| it.payload.clone())
            .unwrap_or_default();
        let last: Value = serde_json::from_slice(&last).unwrap_or_default();
        if last["online"] == true && last["session_id"] == new {
            Ok(())
        } else {
            Err(last)
        }
    })
    .await;
    let device = tracker.get("/api/v1/devices/d1").await.json();
    assert_eq!(
        (&device["online"], &device["state"]),
        (&json!(true), &json!("online"))
    );
    assert_eq!(stored(&site), [("d1".to_owned(), true)]);
}
