//! Pictures of the dashboard for docs/screenshots, of a fleet that has run for a while: `make screenshots`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet_tests::{Browser, Screen, eventually};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::dashboard::alerting;
use super::{TOKEN, Tracker, Voice};
use crate::site::{LONG, Site};

const RULES: &str = "
groups:
  - name: cold-chain
    rules:
      - alert: cold-room-warm
        type: temperature
        topic: sensors/site-2/#
        when: value > 8
        clear: value < 7
        severity: critical
        message: 'Temperature {{ value }} °C, above 8 °C'
      - alert: device-offline
        topic: devices/+/status
        when: '!online'
        for: 10s
        severity: warning
        message: 'Offline for more than 10 s'
      - alert: battery-low
        when: battery_percent < 10
        clear: battery_percent > 15
        severity: warning
        message: 'Battery {{ battery_percent }} %, below 10 %'
      - alert: humidity-high
        type: humidity
        when: value > 90
        for: 5m
        severity: info
";

/// How long the fleet runs before the pictures: for the lines of the overview.
const RUN: Duration = Duration::from_secs(100);

/// Where the pictures go.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/screenshots")
}

/// A cold room over the last day: 4 °C, twice too warm, the second time until now.
fn cold_room(minute: i64) -> f64 {
    let wave = (minute as f64 / 37.0).sin() * 0.4 + (minute as f64 / 5.3).sin() * 0.15;
    let warm = match minute {
        400..=460 => 5.2 - (minute - 430).abs() as f64 * 0.17,
        1_422.. => ((minute - 1_422) as f64 * 0.42).min(5.4),
        _ => 0.0,
    };
    4.1 + wave + warm.max(0.0)
}

#[actix::test]
#[ignore = "it runs for minutes and writes docs/screenshots: `make screenshots`"]
async fn the_pictures_of_the_documentation() {
    let site = Site::on_sqlite().await;
    let tracker = Tracker::start(&site, "status-0").await;
    let rules = site.path("rules.yaml");
    std::fs::write(&rules, RULES).unwrap();
    let mut services: Vec<_> = (0..4)
        .map(|number| site.ingest(&format!("ingest-{number}")).start())
        .collect();
    services.push(alerting(&site, rules).start());
    for service in &mut services {
        service.ready(LONG).await;
    }
    let devices = site
        .device_sim()
        .flag("--devices", 1_992)
        .flag("--profile", "mixed");
    services.push(devices.flag("--rate", 600).start());
    let mut lost = site
        .device_sim()
        .flag("--devices", 3)
        .flag("--first-device", 5_001)
        .start();
    let voice = Voice::of(&site, "th-0412").await;
    day_of_the_cold_room(&voice).await;
    tracker.counts("online", 1_996).await;
    lost.kill();

    let began = Timestamp::now();
    eventually(RUN * 3, "the fleet has run for a while", async || {
        let at = Timestamp::now();
        voice
            .say(
                "sensors/site-2/floor-1/cold-1/temperature",
                cold_reading(1_440, at),
                false,
            )
            .await;
        let ran = at.duration_since(began);
        let firing = tracker.summary().await["alerts"].clone();
        if ran > SignedDuration::try_from(RUN).unwrap()
            && firing["critical"] == 1
            && firing["warning"].as_u64() >= Some(3)
        {
            Ok(())
        } else {
            Err((ran, firing))
        }
    })
    .await;
    std::fs::create_dir_all(folder()).unwrap();
    desktop(&tracker).await;
    phone(&tracker).await;
}

fn cold_reading(minute: i64, at: Timestamp) -> String {
    json!({
        "sensor_id": "temp-th-0412", "type": "temperature", "value": (cold_room(minute) * 10.0).round() / 10.0,
        "unit": "°C", "location": "site-2/floor-1/cold-1", "timestamp": at.to_string(), "battery_percent": 33,
    })
    .to_string()
}

async fn day_of_the_cold_room(voice: &Voice) {
    let now = Timestamp::now();
    let status = json!({
        "device_id": "th-0412", "online": true, "last_seen": now.to_string(), "firmware_version": "2.4.1",
        "signal_strength": -50, "uptime_seconds": 1_899_000, "session_id": "01900000-0001-7000-8000-00000000019c",
    });
    voice
        .say("devices/th-0412/status", status.to_string(), true)
        .await;
    for minute in 0..1_440 {
        let at = now - SignedDuration::from_mins(1_440 - minute);
        voice
            .say(
                "sensors/site-2/floor-1/cold-1/temperature",
                cold_reading(minute, at),
                false,
            )
            .await;
    }
    let reported = json!({"interval_ms": 5_000, "report_battery": true, "temperature_offset": 0.0, "led": "off"});
    voice
        .say(
            "devices/th-0412/config/reported",
            reported.to_string(),
            true,
        )
        .await;
    let desired = json!({"interval_ms": 5_000, "temperature_offset": -0.4});
    voice
        .say("devices/th-0412/config", desired.to_string(), true)
        .await;
}

async fn take(browser: &Browser, name: &str) {
    std::fs::write(
        folder().join(format!("{name}.png")),
        browser.screenshot().await,
    )
    .unwrap();
}

async fn desktop(tracker: &Tracker) {
    let browser = Browser::start(Screen::Window(1280, 1103)).await;
    let open = async |place: &str, theme: &str| {
        browser
            .open(&format!("http://{}/{place}", tracker.addr))
            .await;
        let script = format!(
            "localStorage.setItem('theme', '{theme}'); sessionStorage.setItem('api-token', '{TOKEN}'); location.reload()"
        );
        browser.run(&script).await;
        browser.shows("#access", "Can write").await;
    };
    for theme in ["light", "dark"] {
        open("#/overview", theme).await;
        browser.shows("#firing", "cold-room-warm").await;
        browser.shows("#ingest", "ms").await;
        take(&browser, &format!("overview-{theme}")).await;
        open("#/devices/th-0412", theme).await;
        browser.click("[data-span='24']").await;
        browser.shows("#plots", "Temperature").await;
        browser.shows("#cfg", "temperature_offset").await;
        take(&browser, &format!("device-{theme}")).await;
        open("#/alerts", theme).await;
        browser.shows("#story", "Temperature").await;
        browser.shows("#ex-plot", "Temperature").await;
        take(&browser, &format!("alerts-{theme}")).await;
    }
    open("#/devices", "dark").await;
    browser.shows("#dn", "devices").await;
    take(&browser, "devices-dark").await;
    open("#/rules", "light").await;
    browser.click("[data-bt=cold-room-warm]").await;
    browser.shows(".bt", "Would have fired").await;
    take(&browser, "rules-light").await;
}

async fn phone(tracker: &Tracker) {
    let browser = Browser::start(Screen::Phone(360, 780)).await;
    browser.open(&format!("http://{}/", tracker.addr)).await;
    browser
        .run("localStorage.setItem('theme', 'dark'); location.reload()")
        .await;
    browser.shows("#firing", "cold-room-warm").await;
    take(&browser, "overview-phone").await;
    browser.run("location.hash = '#/devices/th-0412'").await;
    browser.shows("#plots", "Temperature").await;
    take(&browser, "device-phone").await;
    browser.run("location.hash = '#/alerts'").await;
    browser.shows("#list", "above 8").await;
    take(&browser, "alerts-phone").await;
}
