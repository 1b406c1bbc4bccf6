//! Who is not let in, and what each is told.

use fleet::certs::{Authority, Purpose, Wanted};
use fleet_shared::session::{Options, QoS, Will, WillSource};
use jiff::Timestamp;
use std::time::Duration;

use crate::cells::accounts;
use crate::scene::{Trust, connected, refusal, tls};

fn as_client(mut options: Options, client_id: &str) -> Options {
    options.client_id = client_id.into();
    options
}

fn with_will(mut options: Options, topic: &str) -> Options {
    let topic = topic.to_owned();
    options.will = Some(WillSource::new(move |_| Will {
        topic: topic.clone().into(),
        payload: "gone".into(),
        qos: QoS::AtLeastOnce,
        retain: false,
        delay: Duration::ZERO,
        user: Vec::new(),
    }));
    options
}

#[actix::test]
async fn embedded_broker_lets_in_only_who_proves_an_account_and_says_why_not() {
    let trust = Trust::of(accounts());
    let broker = trust.embedded();
    let addr = tls(broker.local_addr().port());
    let by_password = |name: &str| trust.with_password(addr.clone(), name);
    let by_certificate = |name: &str| trust.with_certificate(addr.clone(), name);

    for options in [
        by_password("sensor-001"),
        by_password("ingest"),
        as_client(by_password("ingest"), "ingest-0"),
        by_certificate("alerting"),
        as_client(by_certificate("alerting"), "alerting-out"),
        with_will(by_password("sensor-001"), "devices/sensor-001/status"),
    ] {
        connected(options).await;
    }

    let mut wrong = by_password("sensor-001");
    wrong.password = by_password("sensor-002").password;
    let mut unknown = by_password("sensor-001");
    unknown.username = Some("sensor-999".to_owned());
    let mut without = by_password("sensor-001");
    without.password = None;
    let mut borrowed = by_certificate("viewer");
    borrowed.username = Some("operator".to_owned());
    for (options, reason) in [
        (wrong, "0x86"),
        (unknown, "0x86"),
        (without, "0x86"),
        (borrowed, "0x87"),
        (trust.anonymous(addr.clone(), "sensor-001"), "0x87"),
        (as_client(by_password("sensor-001"), "sensor-002"), "0x87"),
        (as_client(by_password("sensor-001"), "ingest-0"), "0x87"),
        (as_client(by_password("ingest"), "alerting"), "0x87"),
        (as_client(by_certificate("viewer"), "ingest-0"), "0x87"),
        (
            with_will(by_password("sensor-001"), "devices/sensor-002/status"),
            "0x87",
        ),
        (with_will(by_password("viewer"), "alerts/info/x"), "0x87"),
    ] {
        let told = refusal(options).await;
        assert!(told.contains(reason), "{told}");
    }
}

#[actix::test]
async fn embedded_broker_tells_each_wrong_certificate_from_the_others() {
    let trust = Trust::of(accounts());
    let broker = trust.embedded();
    let addr = tls(broker.local_addr().port());
    let options = || trust.with_certificate(addr.clone(), "ingest");

    let now = Timestamp::now();
    let day = Duration::from_secs(86_400);
    let strange = trust.dir.path().join("strange");
    let stranger = Authority::open(&strange, day * 9, day, false, now).unwrap();
    let ingest = Wanted {
        name: "ingest".to_owned(),
        purpose: Purpose::Client,
        names: Vec::new(),
    };
    stranger
        .issue(&strange.join("ingest"), &ingest, day, now)
        .unwrap();
    let ours = Authority::open(&trust.certs(""), day * 9, day, false, now).unwrap();
    assert!(!ours.is_new());
    let past = now - day * 3;
    ours.issue(&trust.dir.path().join("old"), &ingest, day, past)
        .unwrap();

    let mut distrusting = options();
    distrusting.tls.ca_file = Some(strange.join("ca.crt"));
    let mut foreign = options();
    foreign.tls.cert_file = Some(strange.join("ingest.crt"));
    foreign.tls.key_file = Some(strange.join("ingest.key"));
    let mut old = options();
    old.tls.cert_file = Some(trust.dir.path().join("old.crt"));
    old.tls.key_file = Some(trust.dir.path().join("old.key"));
    let mut mixed = options();
    mixed.tls.key_file = Some(trust.certs("accounts/viewer.key"));
    let mut plain = options();
    plain.broker.tls = false;
    for (options, reason) in [
        (distrusting, "authority we do not trust"),
        (foreign, "does not trust our client certificate"),
        (old, "our client certificate has expired"),
        (mixed, "MQTT_KEY_FILE"),
    ] {
        let told = refusal(options).await;
        assert!(told.contains(reason), "expected `{reason}`: {told}");
    }
    refusal(plain).await;
}

#[actix::test]
async fn a_server_s_certificate_that_has_expired_or_bears_another_name_is_told() {
    let trust = Trust::of(accounts());
    let (now, day) = (Timestamp::now(), Duration::from_secs(86_400));
    let ours = Authority::open(&trust.certs(""), day * 9, day, false, now).unwrap();
    for (names, made, reason) in [
        (["localhost"], now - day * 3, "has expired"),
        (["broker.example.org"], now, "not for the name `localhost`"),
    ] {
        let server = Wanted {
            name: "broker".to_owned(),
            purpose: Purpose::Server,
            names: names.map(str::to_owned).to_vec(),
        };
        ours.issue(&trust.certs("servers/broker"), &server, day, made)
            .unwrap();
        let (embedded, mosquitto) = (trust.embedded(), trust.mosquitto(false).await);
        for port in [embedded.local_addr().port(), mosquitto.port()] {
            let told = refusal(trust.with_password(tls(port), "ingest")).await;
            assert!(told.contains(reason), "expected `{reason}`: {told}");
        }
    }
}

#[actix::test]
async fn mosquitto_lets_in_only_who_proves_an_account() {
    let trust = Trust::of(accounts());
    let broker = trust.mosquitto(false).await;
    let addr = tls(broker.port());
    let by_password = |name: &str| trust.with_password(addr.clone(), name);
    connected(by_password("sensor-001")).await;
    connected(as_client(by_password("ingest"), "ingest-0")).await;
    let mut wrong = by_password("sensor-001");
    wrong.password = by_password("sensor-002").password;
    for options in [
        wrong,
        trust.anonymous(addr.clone(), "sensor-001"),
        as_client(by_password("sensor-001"), "sensor-002"),
        as_client(by_password("sensor-001"), "ingest-0"),
    ] {
        let told = refusal(options).await;
        assert!(told.contains("not authorized"), "{told}");
    }
}

#[actix::test]
async fn mosquitto_takes_the_common_name_for_the_account_and_wants_a_certificate() {
    let trust = Trust::of(accounts());
    let broker = trust.mosquitto(true).await;
    let addr = tls(broker.port());
    let ingest = connected(trust.with_certificate(addr.clone(), "ingest")).await;
    let filter = fleet_shared::session::Subscription::new("sensors/#", QoS::AtLeastOnce);
    assert!(ingest.session.subscribe(vec![filter]).await.is_err());
    let told = refusal(trust.with_password(addr, "ingest")).await;
    assert!(told.contains("MQTT_CERT_FILE"), "{told}");
}

#[actix::test]
async fn filters_that_are_too_deep_are_refused() {
    let trust = Trust::of(accounts());
    let broker = trust.embedded();
    let addr = tls(broker.local_addr().port());
    let client = connected(trust.with_password(addr.clone(), "operator")).await;
    let filter = |levels: usize| {
        let filter = vec!["a"; levels].join("/");
        vec![fleet_shared::session::Subscription::new(
            filter,
            QoS::AtLeastOnce,
        )]
    };
    client.session.subscribe(filter(32)).await.unwrap();
    tokio::select! {
        outcome = client.session.subscribe(filter(33)) => assert!(outcome.is_err()),
        // The library ends the connection of who asks for it.
        _ = client.first_down(crate::scene::SOON) => {}
    }
    connected(trust.with_password(addr, "viewer")).await;
}
