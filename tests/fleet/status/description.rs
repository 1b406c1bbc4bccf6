//! The description of the API holds: schemathesis makes requests of it, and looks at every answer.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use fleet_tests::{Process, binary, eventually};
use tokio::process::Command;

use super::dashboard::{RULES, alerting};
use super::{TOKEN, Tracker, Voice};
use crate::site::{LONG, Site};

/// Longest run; the examples are bounded, this is for a busy machine.
const LIMIT: Duration = Duration::from_secs(170);

/// What there is, so that requests get further than to 404; without the token they do not.
const KNOWN: &str = r#"
[[operations]]
include-path-regex = "^/api/v1/devices/"
parameters = { "path.id" = "sensor-001" }

[[operations]]
include-path-regex = "^/api/v1/sensors/"
parameters = { "path.id" = "temp-d1" }
"#;

/// What `tests/install-tools` puts beside the programs.
fn schemathesis() -> PathBuf {
    let target = binary("status-tracker");
    let target = target.ancestors().nth(2).unwrap();
    let path = target.join("python/bin/schemathesis");
    assert!(
        path.exists(),
        "{} is missing: run `make test-tools`",
        path.display()
    );
    path
}

/// Runs it against every operation except the stream, which does not end.
async fn run(site: &Site, tracker: &Tracker, token: Option<&str>, checks: &str) -> (bool, String) {
    let config = site.path("schemathesis.toml");
    std::fs::write(&config, if token.is_some() { KNOWN } else { "" }).unwrap();
    let mut command = Command::new(schemathesis());
    command
        .arg("--config-file")
        .arg(config)
        .arg("run")
        .arg(format!("http://{}/openapi.json", tracker.addr))
        .args(["--checks", checks])
        .args(["--phases", "coverage,fuzzing", "--max-examples", "12"])
        .args(["--seed", "1", "--workers", "2", "--no-color"])
        .args(["--exclude-path", "/api/v1/events"])
        .args(["--request-timeout", "20", "--suppress-health-check", "all"])
        // Nothing is learned from what earlier runs found.
        .args(["--generation-database", "none"])
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    if let Some(token) = token {
        command.args(["--header", &format!("Authorization: Bearer {token}")]);
    }
    let output = tokio::time::timeout(LIMIT, command.output()).await;
    let output = output.expect("schemathesis ends").unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), text)
}

/// A tracker with something of everything, in a fleet of every service.
async fn populated(site: &Site) -> (Tracker, Vec<Process>) {
    let tracker = Tracker::start(site, "status-1").await;
    let rules = site.path("rules.yaml");
    std::fs::write(&rules, RULES).unwrap();
    let mut services = vec![
        site.ingest("ingest-0").start(),
        alerting(site, rules).start(),
    ];
    for service in &mut services {
        service.ready(LONG).await;
    }
    services.push(site.device_sim().flag("--devices", 2).start());
    let voice = Voice::of(site, "voice").await;
    voice.status("d1", true).await;
    voice.status("d2", false).await;
    voice.temperature("temp-d1", 20.0).await;
    voice.temperature("temp-d1", 65.0).await;
    voice.say("sensors/lab/temperature", "junk", false).await;
    eventually(LONG, "there is something of everything", async || {
        let summary = tracker.summary().await;
        let devices = summary["devices"]["total"] == 4;
        if devices && summary["dead_letters"] == 1 && summary["alerts"]["critical"] == 1 {
            Ok(())
        } else {
            Err(summary)
        }
    })
    .await;
    (tracker, services)
}

#[actix::test]
async fn every_answer_is_described_and_none_is_an_error_of_ours() {
    let site = Site::on_sqlite().await;
    let (tracker, _services) = populated(&site).await;
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,\
                  response_schema_conformance,response_headers_conformance,\
                  negative_data_rejection,unsupported_method,allow_header_conformance";
    let (good, report) = run(&site, &tracker, Some(TOKEN), checks).await;
    assert!(good, "{report}");
}

#[actix::test]
async fn without_the_token_reads_are_answered_and_writes_refused() {
    let site = Site::on_sqlite().await;
    let (tracker, _services) = populated(&site).await;
    let before = tracker.get("/api/v1/dead-letters").await.body;
    let checks =
        "status_code_conformance,content_type_conformance,response_schema_conformance,ignored_auth";
    let (good, report) = run(&site, &tracker, None, checks).await;
    assert!(good, "{report}");
    assert_eq!(tracker.get("/api/v1/dead-letters").await.body, before);
    let silences = tracker.get("/api/v1/silences").await.json();
    assert_eq!(silences["items"].as_array().unwrap().len(), 0, "{silences}");
}
