//! Every cell of the table, tried.

use std::collections::{BTreeMap, BTreeSet};

use fleet::access::Action;
use fleet_shared::session::{BrokerAddr, PublishError, QoS, SubscribeError, Subscription};
use fleet_tests::Client;

use crate::cells::{Cell, accounts, cells};
use crate::scene::{SOON, Trust, connected, message, tls};

const NOT_AUTHORIZED: u8 = 0x87;

/// What the broker says to it.
async fn outcome(client: &Client, cell: &Cell) -> bool {
    match cell.action {
        Action::Publish => match client.session.publish(message(&cell.topic, "x")).await {
            Ok(()) => true,
            Err(PublishError::Refused { code, .. }) if code == NOT_AUTHORIZED => false,
            Err(error) => panic!("{cell:?}: {error}"),
        },
        Action::Subscribe => {
            let wanted = Subscription::new(cell.topic.as_str(), QoS::AtLeastOnce);
            match client.session.subscribe(vec![wanted]).await {
                Ok(()) => true,
                Err(SubscribeError::Refused { code, .. }) if code == NOT_AUTHORIZED => false,
                Err(error) => panic!("{cell:?}: {error}"),
            }
        }
    }
}

/// Tries every cell of the accounts' table; says how many were refused. On a broker where a client
/// `stays`, a refusal does not end its connection.
async fn try_all(trust: &Trust, broker: &BrokerAddr, by_certificate: bool, stays: bool) -> usize {
    let mut clients = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut refused = 0;
    for cell in cells() {
        if !clients.contains_key(&cell.account) {
            let options = match by_certificate {
                true => trust.with_certificate(broker.clone(), &cell.account),
                false => trust.with_password(broker.clone(), &cell.account),
            };
            clients.insert(cell.account.clone(), connected(options).await);
        }
        let allowed = outcome(&clients[&cell.account], &cell).await;
        refused += usize::from(!allowed);
        if allowed != cell.allowed {
            wrong.push(cell);
        }
    }
    assert!(wrong.is_empty(), "not as the table says: {wrong:#?}");
    if stays {
        for (account, client) in clients {
            assert_eq!(client.ups().len(), 1, "{account} was thrown out");
        }
    }
    refused
}

#[actix::test]
async fn mosquitto_keeps_to_every_cell_of_the_table() {
    let trust = Trust::of(accounts());
    let broker = trust.mosquitto(false).await;
    let refused = try_all(&trust, &tls(broker.port()), false, false).await;
    assert!(
        refused >= 200,
        "only {refused} forbidden actions were refused"
    );
}

#[actix::test]
async fn embedded_broker_keeps_to_every_cell_of_the_table() {
    let trust = Trust::of(accounts());
    let broker = trust.embedded();
    let refused = try_all(&trust, &tls(broker.local_addr().port()), false, true).await;
    assert!(
        refused >= 200,
        "only {refused} forbidden actions were refused"
    );
}

/// With an ACL file Mosquitto accepts every subscription and leaves out what may not be read, so
/// it is seen by what arrives. Groups it does not protect: docs/security.md says so.
#[actix::test]
async fn mosquitto_s_acl_file_keeps_to_the_table_but_for_groups() {
    let trust = Trust::of(accounts());
    // Everybody may read the mark that says that all before it was delivered.
    let more = "\nuser operator\ntopic readwrite #\n\npattern read mark\n";
    let broker = trust.mosquitto_with_files(more).await;
    let addr = tls(broker.port());
    let operator = connected(trust.with_password(addr.clone(), "operator")).await;
    let mut by_account = BTreeMap::<String, Vec<Cell>>::new();
    for cell in cells() {
        if cell.account != "operator" && !cell.topic.starts_with('$') {
            by_account
                .entry(cell.account.clone())
                .or_default()
                .push(cell);
        }
    }
    let mut refused = 0;
    for (account, cells) in by_account {
        let client = connected(trust.with_password(addr.clone(), &account)).await;
        let mut readable = BTreeSet::new();
        let mut topics = BTreeSet::new();
        for cell in &cells {
            match cell.action {
                Action::Publish => {
                    assert_eq!(outcome(&client, cell).await, cell.allowed, "{cell:?}");
                    refused += usize::from(!cell.allowed);
                }
                Action::Subscribe if cell.topic.contains(['#', '+']) => {}
                Action::Subscribe => {
                    topics.insert(cell.topic.clone());
                    // Of a group's filter it knows only the filter.
                    let shared = format!("$share/{account}/{}", cell.topic);
                    let own = trust.accounts.get(&account).unwrap();
                    if cell.allowed || own.may(Action::Subscribe, &shared) {
                        readable.insert(cell.topic.clone());
                    }
                    refused += usize::from(!cell.allowed);
                }
            }
        }
        let wanted = topics.iter().map(String::as_str).chain(["#"]);
        let wanted = wanted.map(|topic| Subscription::new(topic, QoS::AtLeastOnce));
        client.session.subscribe(wanted.collect()).await.unwrap();
        for topic in &topics {
            operator.session.publish(message(topic, "x")).await.unwrap();
        }
        // What it published above itself may still be on its way; the topics are the same.
        let mark = Subscription::new("mark", QoS::AtLeastOnce);
        client.session.subscribe(vec![mark]).await.unwrap();
        operator
            .session
            .publish(message("mark", &account))
            .await
            .unwrap();
        fleet_tests::eventually(SOON, "the mark arrives", async || {
            let received = client.received();
            let marked = received.iter().any(|it| it.payload == account.as_bytes());
            if marked { Ok(()) } else { Err(received.len()) }
        })
        .await;
        let arrived: BTreeSet<_> = client.received().into_iter().map(|it| it.topic).collect();
        let arrived: BTreeSet<_> = arrived.into_iter().filter(|it| it != "mark").collect();
        assert_eq!(arrived, readable, "{account}");
    }
    assert!(
        refused >= 100,
        "only {refused} forbidden actions were refused"
    );
}

/// The reason for the plugin: without a right to read anything, a client takes readings away.
#[actix::test]
async fn a_device_cannot_take_readings_away_from_ingest() {
    let trust = Trust::of(accounts());
    let mosquitto = trust.mosquitto(false).await;
    let embedded = trust.embedded();
    for addr in [tls(mosquitto.port()), tls(embedded.local_addr().port())] {
        let share = || {
            vec![Subscription::new(
                "$share/ingest/sensors/#",
                QoS::AtLeastOnce,
            )]
        };
        let ingest = connected(trust.with_password(addr.clone(), "ingest")).await;
        ingest.session.subscribe(share()).await.unwrap();
        let thief = connected(trust.with_password(addr.clone(), "sensor-002")).await;
        let viewer = connected(trust.with_password(addr.clone(), "viewer")).await;
        assert!(thief.session.subscribe(share()).await.is_err());
        assert!(viewer.session.subscribe(share()).await.is_err());
        let device = connected(trust.with_password(addr, "sensor-001")).await;
        for number in 0..20 {
            let reading = message("sensors/kitchen/temperature", &number.to_string());
            device.session.publish(reading).await.unwrap();
        }
        ingest.received_at_least(20, SOON).await;
        assert_eq!(ingest.numbers(), (0..20).collect::<Vec<_>>());
        assert_eq!((thief.count(), viewer.count()), (0, 0));
    }
}
