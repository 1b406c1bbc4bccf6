//! `mqtts`: authorities, names and client certificates, right and wrong.

use std::error::Error;
use std::path::{Path, PathBuf};

use fleet_shared::session::{ConnectionError, Options};
use fleet_tests::{Acknowledge, Authority, Client, Issued, Mosquitto, Setup, TempDir, options};

use super::{SOON, number};

/// A broker whose certificate, by `authority`, is for `localhost`.
async fn broker(authority: &Authority, clients: Option<Authority>) -> Mosquitto {
    let tls = Some((authority.issue("localhost"), clients));
    Mosquitto::with(Setup {
        lines: Vec::new(),
        tls,
    })
    .await
}

/// Options that trust `authority`; its certificate is written to `dir`.
fn trusting(broker: &Mosquitto, authority: &Authority, dir: &Path) -> Options {
    let mut options = options(broker.addr(), "secured");
    options.tls.ca_file = Some(write(dir, "ca.pem", &authority.certificate()));
    options
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn with_certificate(mut options: Options, issued: &Issued, dir: &Path) -> Options {
    options.tls.cert_file = Some(write(dir, "client.crt", &issued.certificate));
    options.tls.key_file = Some(write(dir, "client.key", &issued.key));
    options
}

/// Why connecting fails, as an operator reads it.
async fn reason(options: Options) -> String {
    let client = Client::start(options, Acknowledge::AtOnce);
    let error = client.first_down(SOON).await;
    assert!(matches!(*error, ConnectionError::Tls { .. }), "{error:?}");
    assert!(
        error.source().is_some(),
        "the handshake's own reason is kept"
    );
    error.to_string()
}

#[actix::test]
async fn trusted_authority_carries_messages() {
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new("ours"));
    let broker = broker(&authority, None).await;
    let client = Client::connected(
        trusting(&broker, &authority, dir.path()),
        Acknowledge::AtOnce,
    )
    .await;
    let subscription =
        fleet_shared::session::Subscription::new("t", fleet_shared::session::QoS::AtLeastOnce);
    client.session.subscribe(vec![subscription]).await.unwrap();
    client.publish_numbers(0..2_000, |n| number("t", n)).await;
    client.received_at_least(2_000, SOON).await;
    assert_eq!(client.numbers(), (0..2_000).collect::<Vec<_>>());
}

#[actix::test]
async fn unknown_authority_is_named_as_the_reason() {
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new("ours"));
    let broker = broker(&authority, None).await;
    let reason = reason(trusting(&broker, &Authority::new("another"), dir.path())).await;
    assert!(reason.contains("authority we do not trust"), "{reason}");
    assert!(reason.contains("MQTT_CA_FILE"), "{reason}");
}

#[actix::test]
async fn wrong_host_name_is_named_as_the_reason() {
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new("ours"));
    let broker = broker(&authority, None).await;
    let mut options = trusting(&broker, &authority, dir.path());
    options.broker.host = "127.0.0.1".to_owned();
    let reason = reason(options).await;
    assert!(reason.contains("not for the name `127.0.0.1`"), "{reason}");
}

#[actix::test]
async fn missing_client_certificate_is_named_as_the_reason() {
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new("ours"));
    let broker = broker(&authority, Some(Authority::new("clients"))).await;
    let reason = reason(trusting(&broker, &authority, dir.path())).await;
    assert!(reason.contains("MQTT_CERT_FILE"), "{reason}");
}

#[actix::test]
async fn client_certificate_of_a_stranger_is_refused_with_a_reason() {
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new("ours"));
    let broker = broker(&authority, Some(Authority::new("clients"))).await;
    let stranger = Authority::new("another").issue("client");
    let options = trusting(&broker, &authority, dir.path());
    let reason = reason(with_certificate(options, &stranger, dir.path())).await;
    assert!(
        reason.contains("does not trust our client certificate"),
        "{reason}"
    );
}

#[actix::test]
async fn client_certificate_opens_the_door() {
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new("ours"));
    let clients = Authority::new("clients");
    let ours = clients.issue("client");
    let broker = broker(&authority, Some(clients)).await;
    let options = trusting(&broker, &authority, dir.path());
    Client::connected(
        with_certificate(options, &ours, dir.path()),
        Acknowledge::AtOnce,
    )
    .await;
}

#[actix::test]
async fn broker_without_tls_is_named_as_the_reason() {
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new("ours"));
    let broker = Mosquitto::start().await;
    let mut options = trusting(&broker, &authority, dir.path());
    options.broker.tls = true;
    let reason = reason(options).await;
    assert!(reason.contains("speak TLS"), "{reason}");
}

#[actix::test]
async fn renewed_authority_file_is_read_on_the_next_attempt() {
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new("ours"));
    let broker = broker(&authority, None).await;
    let options = trusting(&broker, &Authority::new("expired"), dir.path());
    let client = Client::start(options, Acknowledge::AtOnce);
    client.first_down(SOON).await;
    write(dir.path(), "ca.pem", &authority.certificate());
    client.up(1).await;
}

#[actix::test]
async fn missing_authority_file_is_named() {
    let dir = TempDir::new().unwrap();
    let broker = Mosquitto::start().await;
    let mut options = options(broker.addr(), "secured");
    options.broker.tls = true;
    options.tls.ca_file = Some(dir.path().join("absent.pem"));
    let client = Client::start(options, Acknowledge::AtOnce);
    let error = client.first_down(SOON).await.to_string();
    assert!(
        error.contains("MQTT_CA_FILE") && error.contains("absent.pem"),
        "{error}"
    );
}
