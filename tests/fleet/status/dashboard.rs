//! The dashboard in a real browser: live without reload, commands, alerts, silences, backtests, replay.

use std::path::PathBuf;

use fleet_tests::{Browser, Process, Program, Screen, eventually};
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{TOKEN, Tracker, Voice};
use crate::site::{LONG, Site};

pub(super) const RULES: &str = "
groups:
  - name: lab
    rules:
      - alert: LabTooWarm
        type: temperature
        when: value > 60
        clear: value < 59
        severity: critical
        message: 'Temperature {{ value }} °C, above 60 °C'
";

/// An alert for each room: a room is an area, and so a group of its own.
const ROOMS: &str = "
groups:
  - name: rooms
    rules:
      - alert: RoomTooWarm
        type: temperature
        when: value > 60
        severity: critical
      - alert: RoomTooCold
        type: temperature
        when: value < 5
        severity: info
";

/// An alert that goes on for a while after its condition.
const LINGERING: &str = "
groups:
  - name: lab
    rules:
      - alert: LabTooWarm
        type: temperature
        when: value > 60
        keep_firing_for: 1h
        severity: warning
";

/// A fleet of every service, and a browser that looks at it.
struct Scene {
    site: Site,
    tracker: Tracker,
    voice: Voice,
    browser: Browser,
    _services: Vec<Process>,
}

impl Scene {
    async fn new() -> Self {
        let site = Site::on_sqlite().await;
        let tracker = Tracker::start(&site, "status-1").await;
        let rules = site.path("rules.yaml");
        std::fs::write(&rules, RULES).unwrap();
        let mut services = vec![
            site.ingest("ingest-0").start(),
            alerting(&site, rules).start(),
        ];
        for service in &mut services {
            service.ready(LONG).await;
        }
        let devices = site.device_sim().flag("--devices", 5).flag("--rate", 5);
        services.push(devices.start());
        tracker.counts("online", 5).await;
        let voice = Voice::of(&site, "voice").await;
        let browser = Browser::start(Screen::Window(1280, 960)).await;
        browser.open(&format!("http://{}/", tracker.addr)).await;
        Self {
            site,
            tracker,
            voice,
            browser,
            _services: services,
        }
    }

    /// Follows a link of the page: it is not loaded anew.
    async fn go(&self, place: &str) {
        self.browser
            .run(&format!("location.hash = '{place}'"))
            .await;
    }

    async fn unlock(&self) {
        self.browser.click("#access").await;
        self.browser.write("#tok", TOKEN).await;
        self.browser.write("#who", "ana").await;
        self.browser.click("#dialog .main").await;
        self.browser.shows("#access", "Can write").await;
    }
}

pub(super) fn alerting(site: &Site, rules: PathBuf) -> Program {
    alerting_as_shipped(site).flag("--rules", rules.display())
}

/// Without a file of rules.
fn alerting_as_shipped(site: &Site) -> Program {
    Program::service("alerting")
        .env("MQTT_URL", site.broker.url())
        .env("MQTT_CLIENT_ID", "alerting-0")
        .env("DATABASE_URL", &site.database_url)
}

#[actix::test]
async fn the_dashboard_is_live_and_does_what_its_buttons_say() {
    let scene = Scene::new().await;
    let (browser, voice) = (&scene.browser, &scene.voice);

    // Live, without a reload: what is put into the page stays there.
    browser.shows("h1", "All 5 devices online.").await;
    browser.run("window.untouched = true").await;
    voice.status("d1", true).await;
    browser.shows("h1", "All 6 devices online.").await;
    assert_eq!(browser.run("return window.untouched").await, true);
    browser.shows("#ingest", "ingest-0").await;
    browser.shows("#ingest", "100.0 %").await;

    // Without the token a button that writes asks for it.
    scene.go("#/devices/sensor-001").await;
    browser.click("[data-cmd=ping]").await;
    browser.shows("#dialog", "read-only").await;
    browser.click("#dialog [value=cancel]").await;
    scene.unlock().await;

    browser.click("[data-cmd=ping]").await;
    browser.shows("#log", "Answered in").await;
    browser.shows("#plots", "Temperature").await;

    // An alert is explained, acknowledged by name, and its sensor silenced.
    voice.temperature("temp-d1", 20.0).await;
    voice.temperature("temp-d1", 65.5).await;
    scene.go("#/alerts").await;
    browser.shows("#list", "above 60").await;
    browser.shows("#story", "Why it fired").await;
    browser.click("#story [data-act=ack]").await;
    browser.shows("#story", "Acknowledged by ana").await;
    let alerts = scene
        .tracker
        .get("/api/v1/alerts?state=acknowledged")
        .await
        .json();
    assert_eq!(alerts["items"][0]["acknowledged_by"], "ana", "{alerts}");
    browser.click("#story [data-act=silence]").await;
    browser.write("#why", "door repair").await;
    browser.click("#dialog .main").await;
    scene.go("#/alerts?tab=silences").await;
    browser.shows("#silences", "sensor_id=temp-d1").await;
    browser.shows("#silences", "door repair").await;
    let silences = scene.tracker.get("/api/v1/silences").await.json();
    assert_eq!(silences["items"][0]["created_by"], "ana", "{silences}");
    browser.click("[data-end]").await;
    browser.shows("#silences", "No silence").await;

    // A rule is tried on what is stored: the two readings above.
    scene.site.stored_at_least(2).await;
    scene.go("#/rules").await;
    browser.click("[data-bt=LabTooWarm]").await;
    browser.shows(".bt", "Would have fired once").await;
    browser.shows(".bt", "temp-d1").await;

    // A dead letter is looked at and published again.
    voice
        .say("sensors/lab/temperature", "<b>junk</b>", false)
        .await;
    scene.go("#/dead-letters").await;
    browser.shows("main", "Malformed").await;
    browser.shows("#dl", "<b>junk</b>").await;
    browser.click("#all").await;
    browser.click("[data-act=replay]").await;
    browser.shows("main", "1 published again").await;

    assert_eq!(browser.run("return window.untouched").await, true);
    // Neither the console nor the content security policy has anything to say.
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[actix::test]
async fn the_gravest_alert_comes_first_however_old_and_the_rest_is_counted() {
    let site = Site::on_sqlite().await;
    let tracker = Tracker::start(&site, "status-1").await;
    let rules = site.path("rules.yaml");
    std::fs::write(&rules, ROOMS).unwrap();
    let mut alerting = alerting(&site, rules).start();
    alerting.ready(LONG).await;
    let voice = Voice::of(&site, "voice").await;
    // Two rooms burn, and then ten freeze: more than the overview lists.
    for room in 1..=2 {
        voice.room(room, 65.5).await;
        fires(&tracker, "critical", room).await;
    }
    for room in 11..=20 {
        voice.room(room, 1.5).await;
    }
    fires(&tracker, "info", 10).await;

    let browser = Browser::start(Screen::Window(1280, 960)).await;
    browser.open(&format!("http://{}/", tracker.addr)).await;
    browser.shows("#firing", "and 4 more").await;
    let told = browser
        .run("return [...document.querySelectorAll('#firing li')].map(it => it.innerText)")
        .await;
    let told: Vec<String> = serde_json::from_value(told).unwrap();
    assert_eq!(told.len(), 8, "{told:#?}");
    assert!(
        told[0].starts_with("Critical") && told[0].contains("temp-2"),
        "{told:#?}"
    );
    assert!(
        told[1].starts_with("Critical") && told[1].contains("temp-1"),
        "{told:#?}"
    );
    assert!(told[2].starts_with("Info"), "{told:#?}");
    // The headline and the list say the same.
    browser.shows("h1", "2 critical alerts firing").await;
    browser.shows("h1", "10 notices").await;

    browser.click("#firing .more a").await;
    browser.shows("#list", "RoomTooCold").await;
    let first = "return document.querySelector('#list h2').innerText";
    let first = browser.run(first).await;
    assert!(
        first.as_str().unwrap().starts_with("RoomTooWarm"),
        "{first}"
    );

    // What is over goes, though others still fire.
    voice.room(2, 20.0).await;
    eventually(LONG, "the list is without temp-2", async || {
        match browser.text("#list").await {
            Some(list) if list.contains("temp-1 ") && !list.contains("temp-2 ") => Ok(()),
            other => Err(other),
        }
    })
    .await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());

    // On a phone the alert that is chosen takes the place of the list.
    let phone = Browser::start(Screen::Phone(390, 844)).await;
    let alerts = format!("http://{}/#/alerts", tracker.addr);
    phone.open(&alerts).await;
    phone.click("#list .pick").await;
    phone.shows("#story", "Why it fired").await;
    displays(&phone, ".list", "none").await;
    phone.click(".back a").await;
    displays(&phone, ".list", "block").await;
}

/// Waits until an element is laid out so.
async fn displays(browser: &Browser, selector: &str, display: &str) {
    let what = format!("`{selector}` displays as {display}");
    let script = format!("return getComputedStyle(document.querySelector('{selector}')).display");
    eventually(LONG, &what, async || match browser.run(&script).await {
        shown if shown == display => Ok(()),
        other => Err(other),
    })
    .await;
}

/// Waits until so many alerts of a severity fire.
async fn fires(tracker: &Tracker, severity: &str, count: usize) {
    let what = format!("{count} alerts that are {severity} fire");
    let path = format!("/api/v1/alerts?state=firing&severity={severity}");
    eventually(LONG, &what, async || {
        let alerts = tracker.get(&path).await.json();
        match alerts["items"].as_array() {
            Some(items) if items.len() == count => Ok(()),
            _ => Err(alerts),
        }
    })
    .await;
}

#[actix::test]
async fn what_a_device_refuses_is_told_with_its_reason_and_the_table_fits() {
    let site = Site::on_sqlite().await;
    let tracker = Tracker::start(&site, "status-1").await;
    let _devices = site.device_sim().flag("--devices", 1).start();
    tracker.counts("online", 1).await;
    let desired =
        r#"{"interval_ms":5,"status_interval_ms":20000,"an_offset_with_a_long_name":-0.4}"#;
    let path = "/api/v1/devices/sensor-001/config";
    tracker.write("PUT", path, desired).await;

    for screen in [Screen::Window(1280, 960), Screen::Phone(390, 844)] {
        let browser = Browser::start(screen).await;
        let page = format!("http://{}/#/devices/sensor-001", tracker.addr);
        browser.open(&page).await;
        browser.shows("#cfg-n", "2 values refused").await;
        browser
            .shows("#cfg", "must be a whole number from 100 to 86400000")
            .await;
        let rows = "return [...document.querySelectorAll('.cfg tbody tr:not(.why)')]
            .map(it => [it.querySelector('th').innerText, it.lastElementChild.innerText.replace(/\\s+/g, ' ')])";
        let rows = browser.run(rows).await;
        let told = json!([
            ["an_offset_with_a_long_name", "refused"],
            ["interval_ms", "refused"],
            ["status_interval_ms", "applied: 20000"],
        ]);
        assert_eq!(rows, told);
        let wide = "const wide = document.querySelector('.cfg').getBoundingClientRect();
            return wide.right <= document.querySelector('#cfg').getBoundingClientRect().right
              && [...document.querySelectorAll('.cfg *')].every(it => it.getBoundingClientRect().right <= wide.right)
              && document.documentElement.scrollWidth <= innerWidth";
        assert_eq!(browser.run(wide).await, true, "{screen:?}");
    }
}

#[actix::test]
async fn settings_are_applied_awaited_or_refused() {
    let site = Site::on_sqlite().await;
    let tracker = Tracker::start(&site, "status-1").await;
    let browser = Browser::start(Screen::Window(1280, 960)).await;
    browser.open(&format!("http://{}/", tracker.addr)).await;
    let told = async |desired: Value, reported: Value| {
        let config = json!({"desired": desired, "reported": reported});
        let script = format!(
            "return import('/pages/configuration.js').then(it => it.settings({config})).then(({{ rows, whole }}) =>
               [whole ?? null, ...rows.map(it => `${{it.key}} ${{it.state}} ${{it.reason ?? ''}}`.trim())])"
        );
        browser.run(&script).await
    };
    let nothing = told(Value::Null, Value::Null).await;
    assert_eq!(nothing, json!([null]));
    let each = told(
        json!({"a": 1, "b": 2, "c": 3}),
        json!({"a": 1, "b": 1, "d": 4, "refused": {"c": "there is no c"}}),
    )
    .await;
    assert_eq!(
        each,
        json!([
            null,
            "a applied",
            "b waits",
            "c refused there is no c",
            "d applied"
        ])
    );
    // In force and refused: the device keeps what it had.
    let kept = told(
        json!({"a": 1}),
        json!({"a": 2, "refused": {"a": "too small"}}),
    )
    .await;
    assert_eq!(kept, json!([null, "a refused too small"]));
    // All of it, of which no key is to blame.
    let whole = told(json!([1]), json!({"refused": {"": "it must be an object"}})).await;
    assert_eq!(whole, json!(["it must be an object"]));
    // A setting of that name is one as any other.
    let name = told(json!({"refused": true}), json!({"refused": true})).await;
    assert_eq!(name, json!([null, "refused applied"]));
}

#[actix::test]
async fn names_of_near_bounds_do_not_lie_on_each_other() {
    let site = Site::on_sqlite().await;
    let tracker = Tracker::start(&site, "status-1").await;
    let browser = Browser::start(Screen::Window(1280, 960)).await;
    browser.open(&format!("http://{}/", tracker.addr)).await;
    let tops = async |bounds: &[(i32, bool)]| {
        let bounds: Vec<_> = bounds
            .iter()
            .map(|(y, above)| json!({"y": y, "above": above}))
            .collect();
        let bounds = Value::Array(bounds);
        let script =
            format!("return import('/plot.js').then(it => it.labelTops({bounds}, 120, 14))");
        browser.run(&script).await
    };
    // One stands beyond its line; at the edge, within the plot.
    assert_eq!(tops(&[(100, true), (20, false)]).await, json!([86, 20]));
    assert_eq!(tops(&[(5, true), (118, false)]).await, json!([0, 106]));
    // At one height, the second is beyond the first; nearly so, likewise.
    assert_eq!(tops(&[(100, true), (100, true)]).await, json!([86, 72]));
    assert_eq!(tops(&[(50, false), (53, false)]).await, json!([50, 64]));
    // Bounds that face each other.
    assert_eq!(tops(&[(60, true), (48, false)]).await, json!([46, 60]));
    // More than there is room for.
    let many = tops(&[(100, true); 10]).await;
    let shown: Vec<i64> = many
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_i64)
        .collect();
    assert_eq!(shown.len(), 8, "{many}");
}

#[actix::test]
async fn rules_that_ship_are_no_file_and_a_story_is_told_in_words() {
    let site = Site::on_sqlite().await;
    let tracker = Tracker::start(&site, "status-1").await;
    let mut shipped = alerting_as_shipped(&site).start();
    shipped.ready(LONG).await;
    let browser = Browser::start(Screen::Window(1280, 960)).await;
    let at = |place: &str| format!("http://{}/{place}", tracker.addr);
    browser.open(&at("#/rules")).await;
    browser
        .shows("#rules-n", "rules that ship with the program")
        .await;
    browser.shows("#rules-n", "ALERTING_RULES").await;
    let text = browser.text("#rules-n").await.unwrap();
    assert!(
        !text.contains("shipped") && !text.contains("Change the file"),
        "{text}"
    );
    browser.shows("#rules", "sensors/#, door").await;
    shipped.kill();

    let rules = site.path("rules.yaml");
    std::fs::write(&rules, LINGERING).unwrap();
    let mut own = alerting(&site, rules).start();
    own.ready(LONG).await;
    let voice = Voice::of(&site, "voice").await;
    for value in [65.5, 20.0, 66.5] {
        voice.temperature("temp-d1", value).await;
    }
    fires(&tracker, "warning", 1).await;
    browser.open(&at("#/alerts")).await;
    browser.shows("#story .tl", "Firing again").await;
    let story = browser.text("#story").await.unwrap();
    assert!(!story.to_lowercase().contains("firing_"), "{story}");
    assert!(story.contains("fires on for 1h"), "{story}");
    browser.open(&at("#/rules")).await;
    browser.shows("#rules-n", "rules.yaml").await;
    browser.shows("#rules-n", "Change the file").await;
}

#[actix::test]
async fn ten_thousand_devices_are_one_table_of_a_few_rows_and_a_lost_connection_is_said() {
    let site = Site::on_sqlite().await;
    let mut tracker = Tracker::start(&site, "status-1").await;
    let voice = Voice::of(&site, "voice").await;
    for start in (0..10_000).step_by(500) {
        let births = (start..start + 500).map(async |number| {
            let topic = format!("devices/d{number:05}/status");
            voice.say(&topic, r#"{"online":true}"#, false).await;
        });
        join_all(births).await;
    }
    tracker.counts("online", 10_000).await;
    let browser = Browser::start(Screen::Window(1280, 960)).await;
    browser
        .open(&format!("http://{}/#/devices", tracker.addr))
        .await;
    browser.shows("#dn", "10,000 devices").await;
    let rows = browser
        .run("return document.querySelectorAll('.vt tbody tr').length")
        .await;
    assert!(rows.as_u64() < Some(80), "{rows}");
    browser
        .run("const vt = document.querySelector('.vt'); vt.scrollTop = vt.scrollHeight")
        .await;
    browser.shows(".vt tbody", "d09999").await;
    // What a step of scrolling takes, as a person would feel it; the median, as the machine is shared.
    let step = browser
        .run(
            "const vt = document.querySelector('.vt'), took = [];
             for (let y = 0; y < 201; y += 1) {
               const began = performance.now();
               vt.scrollTop = y * 1700; vt.dispatchEvent(new Event('scroll')); vt.offsetHeight;
               took.push(performance.now() - began);
             }
             return took.sort((a, b) => a - b)[100];",
        )
        .await;
    assert!(step.as_f64() < Some(50.0), "{step} ms");
    assert_eq!(browser.complaints().await, Vec::<String>::new());

    browser.write("#dq", "d00042").await;
    browser.shows("#dn", "1 of 10,000").await;
    tracker.process.kill();
    browser.shows("#banner", "Connection lost").await;
    browser.shows("#stream", "Not live").await;
    let grey = browser
        .run("return document.body.classList.contains('stale')")
        .await;
    assert_eq!(grey, true);
}

#[actix::test]
async fn an_empty_fleet_says_what_to_do_next() {
    let site = Site::on_sqlite().await;
    let tracker = Tracker::start(&site, "status-1").await;
    let browser = Browser::start(Screen::Phone(390, 844)).await;
    for (place, words) in [
        ("", "No device yet"),
        ("#/devices", "No device yet"),
        ("#/devices/none", "No device called none"),
        ("#/alerts", "Nothing is firing"),
        ("#/alerts?tab=silences", "No silence"),
        ("#/dead-letters", "No dead letters"),
    ] {
        browser
            .open(&format!("http://{}/{place}", tracker.addr))
            .await;
        browser.shows("main", words).await;
        // A phone scrolls down, never sideways.
        let wide = "return document.documentElement.scrollWidth - innerWidth";
        assert_eq!(browser.run(wide).await, 0, "{place}");
    }
    // Alerting does not run: that is told, and the browser notes the answers 503 and 404 of this
    // test, nothing else.
    browser
        .open(&format!("http://{}/#/rules", tracker.addr))
        .await;
    browser.shows("main", "Alerting does not run").await;
    let others: Vec<_> = browser.complaints().await;
    let others: Vec<_> = others
        .iter()
        .filter(|it| !it.contains("status of 503") && !it.contains("status of 404"))
        .collect();
    assert!(others.is_empty(), "{others:?}");
}
