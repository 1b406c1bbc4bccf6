//! Alerts on both stores: the same batch again is nothing new, and a lost lease writes nothing.

use std::sync::Arc;
use std::time::Duration;

use fleet_store::{
    AlertBatch, AlertMarks, AlertState, AlertStore, Firing, Lease, MQTT_CHANNEL, NewAlert,
    NewOutgoing, OpenOptions, Written, open_alerts,
};
use jiff::Timestamp;

use crate::database::Database;
use crate::sample::at;
use crate::server::Server;

const TTL: Duration = Duration::from_secs(60);

async fn open(database: &Database<'_>) -> Arc<dyn AlertStore> {
    open_alerts(&database.url(), OpenOptions::writer("test"))
        .await
        .unwrap()
}

async fn lease(store: &dyn AlertStore, holder: &str, ttl: Duration) -> Option<Lease> {
    store
        .acquire_lease("alerting/test", holder, ttl)
        .await
        .unwrap()
}

fn batch() -> Arc<AlertBatch> {
    let outgoing = |what: &str, channel: &str| NewOutgoing {
        name: format!("a1/firing/{what}"),
        alert_id: "a1".to_owned(),
        channel: channel.to_owned(),
        body: "{}".to_owned(),
        due_at: at(1),
    };
    Arc::new(AlertBatch {
        states: vec![state("first"), state("second")],
        forgotten: Vec::new(),
        fired: vec![alert()],
        resolved: Vec::new(),
        outbox: vec![outgoing("alert", MQTT_CHANNEL), outgoing("notify", "ops")],
        ..AlertBatch::default()
    })
}

fn state(text: &str) -> AlertState {
    AlertState {
        rule: "High".to_owned(),
        sensor_id: "s1".to_owned(),
        state: text.to_owned(),
        updated_at: at(1),
    }
}

fn alert() -> NewAlert {
    NewAlert {
        alert_id: "a1".to_owned(),
        rule: "High".to_owned(),
        severity: "critical".to_owned(),
        sensor_id: "s1".to_owned(),
        message: "it's hot".to_owned(),
        fired_at: at(1),
        // A name may look like the state.
        metadata: r#"{"rule":"\"state\":\"firing\"","state":"firing"}"#.to_owned(),
    }
}

async fn alerts_are_kept_once_and_sent_in_order(database: &Database<'_>) {
    let store = open(database).await;
    let held = lease(&*store, "a", TTL).await.unwrap();
    let Written::Done(new) = store.write_alerts(batch(), &held).await.unwrap() else {
        panic!("the lease is held");
    };
    assert_eq!(new.len(), 2);
    let again = store.write_alerts(batch(), &held).await.unwrap();
    assert_eq!(again, Written::Done(Vec::new()));
    assert_eq!(store.alert_states().await.unwrap(), [state("second")]);

    let due = |to_broker, second| store.outbox_due(to_broker, at(second), 10);
    assert_eq!(due(true, 0).await.unwrap(), []);
    assert_eq!(due(true, 1).await.unwrap(), new[..1]);
    assert_eq!(due(false, 1).await.unwrap(), new[1..]);
    store
        .outbox_done(&[new[0].seq], "sent", at(2))
        .await
        .unwrap();
    store
        .outbox_failed(new[1].seq, "refused", at(9))
        .await
        .unwrap();
    assert_eq!(due(true, 5).await.unwrap(), []);
    assert_eq!(due(false, 5).await.unwrap(), []);
    let sent = store.outbox_of("a1").await.unwrap();
    assert_eq!(sent[0].outcome.as_deref(), Some("sent"));
    assert_eq!(sent[0].done_at, Some(at(2)));
    assert_eq!(sent[1].error.as_deref(), Some("refused"));
    assert_eq!((sent[1].message.attempts, sent[1].due_at), (1, at(9)));

    let firing = store.alerts(true, 10).await.unwrap();
    assert_eq!(firing.len(), 1);
    assert_eq!(firing[0].alert, alert());
    let critical = Firing {
        severity: "critical".to_owned(),
        count: 1,
        since: at(1),
    };
    assert_eq!(store.firing().await.unwrap(), [critical]);
    let ended = AlertBatch {
        resolved: vec![("a1".to_owned(), at(3))],
        forgotten: vec![("High".to_owned(), "s1".to_owned())],
        ..AlertBatch::default()
    };
    store.write_alerts(Arc::new(ended), &held).await.unwrap();
    assert_eq!(store.alerts(true, 10).await.unwrap(), []);
    assert_eq!(store.firing().await.unwrap(), []);
    assert_eq!(store.alert_states().await.unwrap(), []);
    let stored = store.alert("a1").await.unwrap().unwrap();
    assert_eq!(stored.resolved_at, Some(at(3)));
    let over = r#"{"rule":"\"state\":\"firing\"","state":"resolved"}"#;
    assert_eq!(stored.alert.metadata, over);
    assert_eq!(store.prune_outbox(Timestamp::MAX).await.unwrap(), 1);
    assert_eq!(store.outbox_of("a1").await.unwrap().len(), 1);
}

async fn a_lease_has_one_holder_and_fences_the_last(database: &Database<'_>) {
    let (a, b) = (open(database).await, open(database).await);
    let first = lease(&*a, "a", TTL).await.unwrap();
    assert_eq!(lease(&*b, "b", TTL).await, None);
    assert!(a.renew_lease(&first, TTL).await.unwrap());
    // The same holder after a restart need not wait, and is another epoch.
    let restarted = lease(&*a, "a", Duration::ZERO).await.unwrap();
    assert!(restarted.epoch > first.epoch);
    assert!(!a.renew_lease(&first, TTL).await.unwrap());
    // It has run out.
    let second = lease(&*b, "b", TTL).await.unwrap();
    assert!(second.epoch > restarted.epoch);
    let written = a.write_alerts(batch(), &restarted).await.unwrap();
    assert_eq!(written, Written::Fenced);
    assert_eq!(b.alerts(false, 10).await.unwrap(), []);
    b.release_lease(&second).await.unwrap();
    assert!(lease(&*a, "a", TTL).await.unwrap().epoch > second.epoch);
}

async fn marks_are_a_journal_of_the_lease_and_a_whole_entry_replaces_it(database: &Database<'_>) {
    let store = open(database).await;
    let held = lease(&*store, "a", TTL).await.unwrap();
    let write = async |body: &str, replaces, lease: &Lease| {
        let marks = AlertMarks {
            body: body.to_owned(),
            replaces,
        };
        let batch = AlertBatch {
            marks: Some(marks),
            ..AlertBatch::default()
        };
        store.write_alerts(Arc::new(batch), lease).await.unwrap()
    };
    let name = "alerting/test";
    for body in ["1", "2"] {
        assert_eq!(write(body, false, &held).await, Written::Done(Vec::new()));
    }
    assert_eq!(store.alert_marks(Some(name)).await.unwrap(), ["1", "2"]);
    assert_eq!(store.alert_marks(None).await.unwrap(), ["1", "2"]);
    assert_eq!(
        store.alert_marks(Some("alerting/other")).await.unwrap(),
        [""; 0]
    );
    write("3", true, &held).await;
    write("4", false, &held).await;
    assert_eq!(store.alert_marks(Some(name)).await.unwrap(), ["3", "4"]);
    let stale = Lease {
        epoch: held.epoch - 1,
        ..held.clone()
    };
    assert_eq!(write("5", true, &stale).await, Written::Fenced);
    assert_eq!(store.alert_marks(Some(name)).await.unwrap(), ["3", "4"]);
}

#[tokio::test]
async fn sqlite_keeps_alerts() {
    marks_are_a_journal_of_the_lease_and_a_whole_entry_replaces_it(&Database::sqlite()).await;
    alerts_are_kept_once_and_sent_in_order(&Database::sqlite()).await;
    a_lease_has_one_holder_and_fences_the_last(&Database::sqlite()).await;
}

#[tokio::test]
async fn postgres_keeps_alerts() {
    let Some(server) = Server::start() else {
        return;
    };
    alerts_are_kept_once_and_sent_in_order(&Database::postgres(&server, "alerts")).await;
    let marks = Database::postgres(&server, "marks");
    marks_are_a_journal_of_the_lease_and_a_whole_entry_replaces_it(&marks).await;
    a_lease_has_one_holder_and_fences_the_last(&Database::postgres(&server, "leases")).await;
}
