//! HTTPS that goes out: to webhooks and to a collector, which show certificates and ask for ours; all of
//! them are replaced at work.

use std::path::PathBuf;

use fleet_shared::tls::ServerFiles;
use fleet_tests::{Authority, Receiver, TempDir, eventually};

use crate::notify::Scene;
use crate::site::{LONG, Site};

/// Files of a server that asks for certificates, and of its client.
struct Files(TempDir);

impl Files {
    fn by(authority: &Authority) -> Self {
        let files = Self(TempDir::new().unwrap());
        files.replace(authority);
        files
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Replaces what is trusted and what is shown, on both sides.
    fn replace(&self, authority: &Authority) {
        let (server, client) = (authority.issue("localhost"), authority.issue("client"));
        for (name, text) in [
            ("ca", &authority.certificate()),
            ("server.crt", &server.certificate),
            ("server.key", &server.key),
            ("client.crt", &client.certificate),
            ("client.key", &client.key),
        ] {
            let draft = self.at("draft");
            std::fs::write(&draft, text).unwrap();
            std::fs::rename(&draft, self.at(name)).unwrap();
        }
    }

    fn server(&self) -> ServerFiles {
        ServerFiles {
            cert: self.at("server.crt"),
            key: self.at("server.key"),
            client_ca: Some(self.at("ca")),
            client_required: true,
        }
    }
}

#[actix::test]
async fn a_webhook_that_asks_for_certificates_is_told_also_after_all_were_replaced() {
    let [old, new] = ["old", "new"].map(Authority::new);
    let files = Files::by(&old);
    let receiver = Receiver::secure(&files.server()).await;
    let (url, dir) = (receiver.url("/secure"), files.0.path().display());
    let more = format!(
        "  - {{ name: secure, webhook_configs: [{{ url: '{url}', ca_file: '{dir}/ca', cert_file: '{dir}/client.crt', key_file: '{dir}/client.key' }}] }}\n\
         \x20 - {{ name: unknown, webhook_configs: [{{ url: '{url}/unknown', ca_file: '{dir}/ca' }}] }}"
    );
    let route = "  receiver: secure\n  routes:\n    - { receiver: unknown, matchers: ['sensor_id=\"s2\"'] }\n";
    let scene = Scene::new(route, &more).await;
    let _process = scene.start("alerting-a").await;
    let told = async |count: usize| {
        let what = format!("the webhook is told {count} times");
        eventually(LONG, &what, async || {
            match receiver.posted("/secure").len() {
                found if found >= count => Ok(()),
                found => Err(found),
            }
        })
        .await;
    };
    scene.reading("s1", 31.0).await;
    told(1).await;
    // Without our certificate nothing is taken, and the reason is kept with the attempt.
    scene.reading("s2", 31.0).await;
    eventually(LONG, "the refusal is explained", async || {
        let told = scene.alerts(&["list", "--output", "json"]).await;
        let mut alerts = told
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let Some(of) = alerts.find(|alert| alert["sensor_id"] == "s2") else {
            return Err(told);
        };
        let explained = scene
            .alerts(&["explain", of["alert_id"].as_str().unwrap()])
            .await;
        if explained.to_lowercase().contains("certificate") {
            Ok(())
        } else {
            Err(explained)
        }
    })
    .await;
    assert!(receiver.posted("/secure/unknown").is_empty());
    files.replace(&new);
    scene.reading("s3", 31.0).await;
    told(2).await;
}

#[actix::test]
async fn spans_go_to_a_collector_that_asks_for_certificates_also_after_all_were_replaced() {
    let [old, new] = ["old", "new"].map(Authority::new);
    let files = Files::by(&old);
    let receiver = Receiver::secure(&files.server()).await;
    let site = Site::on_sqlite().await;
    let mut ingest = site
        .ingest("ingest-0")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url(""))
        .env("OTEL_EXPORTER_OTLP_CERTIFICATE", files.at("ca").display())
        .env(
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
            files.at("client.crt").display(),
        )
        .env(
            "OTEL_EXPORTER_OTLP_CLIENT_KEY",
            files.at("client.key").display(),
        )
        .env("OTEL_BSP_SCHEDULE_DELAY", 100)
        .start();
    ingest.ready(LONG).await;
    // Readings all the time, each with spans of its own.
    let mut devices = site
        .device_sim()
        .flag("--devices", 2)
        .flag("--rate", 20)
        .start();
    devices.ready(LONG).await;
    for authority in [None, Some(&new)] {
        if let Some(authority) = authority {
            files.replace(authority);
        }
        let before = receiver.posted("/v1/traces").len();
        eventually(LONG, "spans come", async || {
            match receiver.posted("/v1/traces").len() {
                found if found > before => Ok(()),
                found => Err(found),
            }
        })
        .await;
    }
}
