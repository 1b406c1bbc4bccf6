//! Certificates replaced while messages flow: none is lost, and the new ones are used.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fleet::certs::Facts;
use fleet_tests::{Mosquitto, Process, Program, eventually};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::cells::accounts;
use crate::scene::{SOON, Trust, connected, read, tls};

const LONG: Duration = Duration::from_secs(90);

/// The serial number of the certificate that a server shows.
pub(crate) async fn serial(port: u16, ca: &Path) -> String {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, socket)
        .await
        .unwrap();
    let certificate = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    let (_, certificate) = x509_parser::parse_x509_certificate(&certificate).unwrap();
    certificate.raw_serial_as_string()
}

fn serial_in(file: &Path) -> String {
    Facts::of(file).unwrap().unwrap().serial
}

/// `fleet certs` for the scene's folder.
async fn renew(trust: &Trust, what: &str) {
    let accounts = trust.write("accounts.yaml", "services: {ingest: {}, alerting: {}, status-tracker: {}, bridge: {}, operator: {}, viewer: {}}\n");
    let program = Program::new("fleet")
        .arg("certs")
        .flag("--dir", trust.certs("").display())
        .flag("--accounts", accounts.display())
        .flag("--renew", what);
    assert_eq!(program.output(LONG).await.0, 0);
}

#[actix::test]
async fn embedded_broker_shows_a_renewed_certificate_to_the_next_client_and_keeps_the_others() {
    let trust = Trust::of(accounts());
    let broker = trust.embedded();
    let port = broker.local_addr().port();
    let client = connected(trust.with_password(tls(port), "ingest")).await;
    let (ca, file) = (trust.certs("ca.crt"), trust.certs("servers/broker.crt"));
    let before = serial(port, &ca).await;
    assert_eq!(before, serial_in(&file));
    renew(&trust, "servers/broker").await;
    assert_ne!(before, serial_in(&file));
    eventually(SOON, "the new certificate is shown", async || {
        let shown = serial(port, &ca).await;
        if shown == serial_in(&file) {
            Ok(())
        } else {
            Err(shown)
        }
    })
    .await;
    assert!(client.downs().is_empty(), "who is connected stays so");
}

fn ingest(trust: &Trust, broker: &Mosquitto, id: &str) -> Process {
    let file = |name: &str| trust.certs(name).display().to_string();
    Program::service("ingest")
        .env("MQTT_URL", format!("mqtts://localhost:{}", broker.port()))
        .env("MQTT_CA_FILE", file("ca.crt"))
        .env("MQTT_CERT_FILE", file("accounts/ingest.crt"))
        .env("MQTT_KEY_FILE", file("accounts/ingest.key"))
        .env("MQTT_CLIENT_ID", id)
        .env("MQTT_MAX_RECONNECT_DELAY", "1s")
        .env(
            "DATABASE_URL",
            format!("sqlite://{}", trust.dir.path().join("fleet.db").display()),
        )
        .start()
}

/// The broker trusts one authority. It and every certificate is replaced, the old authority is
/// dropped, and the broker starts again: whoever comes back can only do so with new certificates.
#[actix::test]
async fn replaced_authority_and_certificates_lose_no_message() {
    let devices: Vec<_> = (1..=8)
        .map(|number| (format!("sensor-{number:03}"), Vec::<String>::new()))
        .collect();
    let text = fleet::access::Accounts::to_yaml(&devices)
        .replace("locations: []", "publish: [\"sensors/#\"]");
    let trust = Trust::of(fleet::access::Accounts::parse(&text).unwrap());
    // Devices have certificates here, too.
    let yaml = trust.write("all.yaml", &text);
    let certs = |renew: Option<&str>| {
        let program = Program::new("fleet")
            .arg("certs")
            .flag("--dir", trust.certs("").display())
            .flag("--accounts", yaml.display());
        match renew {
            Some(what) => program.flag("--renew", what),
            None => program,
        }
    };
    assert_eq!(certs(None).output(LONG).await.0, 0);
    let mut broker = trust.mosquitto(true).await;
    let mut workers = [
        ingest(&trust, &broker, "ingest-0"),
        ingest(&trust, &broker, "ingest-1"),
    ];
    for worker in &mut workers {
        worker.ready(LONG).await;
    }
    let ledger = trust.dir.path().join("ledger.jsonl");
    let mut devices = Program::service("device-sim")
        .env("MQTT_URL", format!("mqtts://localhost:{}", broker.port()))
        .env("MQTT_CA_FILE", trust.certs("ca.crt").display())
        .env("MQTT_MAX_RECONNECT_DELAY", "1s")
        .flag("--device-certs", trust.certs("accounts").display())
        .flag("--devices", 8)
        .flag("--rate", 400)
        .flag("--duration", "12s")
        .flag("--seed", 7)
        .flag("--ledger", ledger.display())
        .start();
    devices.ready(LONG).await;

    let ca = trust.certs("ca.crt");
    let before = (
        serial_in(&ca),
        serial_in(&trust.certs("accounts/ingest.crt")),
    );
    assert_eq!(certs(Some("ca")).output(LONG).await.0, 0);
    let after = (
        serial_in(&ca),
        serial_in(&trust.certs("accounts/ingest.crt")),
    );
    assert!(before.0 != after.0 && before.1 != after.1);
    // Connections go on; the broker shows the new certificate to whoever comes, and trusts both.
    broker.hang_up();
    let shown = serial_in(&trust.certs("servers/broker.crt"));
    eventually(SOON, "Mosquitto has its new certificate", async || {
        let logged = broker.logged();
        if logged.contains("Reloading config") {
            Ok(())
        } else {
            Err(logged)
        }
    })
    .await;
    // Now without the old authority, so that an old certificate opens no door.
    let both = read(&ca);
    let end = "-----END CERTIFICATE-----\n";
    let (new, old) = both.split_once(end).unwrap();
    assert!(old.contains("BEGIN CERTIFICATE"));
    std::fs::write(&ca, format!("{new}{end}")).unwrap();
    broker.terminate().await;
    broker.start_again().await;
    assert_eq!(devices.exit(LONG).await, 0, "{}", devices.stderr());

    let verify = Program::new("fleet")
        .arg("verify")
        .flag("--ledger", ledger.display())
        .flag(
            "--database-url",
            format!("sqlite://{}", trust.dir.path().join("fleet.db").display()),
        )
        .flag("--wait", "60s")
        .flag("--output", "json");
    let (code, told) = verify.output(LONG).await;
    let told: Value = serde_json::from_str(told.trim()).unwrap();
    assert_eq!(code, 0, "{told}");
    assert_eq!(
        (&told["missing"], &told["duplicates"]),
        (&0.into(), &0.into())
    );
    assert!(told["acknowledged"].as_u64().unwrap() > 1_000, "{told}");
    let logged = broker.logged();
    let back = logged.rsplit("terminating").next().unwrap();
    for client in ["ingest-0", "ingest-1", "sensor-008"] {
        assert!(
            back.contains(&format!("as {client} ")),
            "{client} is back: {back}"
        );
    }
    assert_eq!(shown, serial_in(&trust.certs("servers/broker.crt")));
}
