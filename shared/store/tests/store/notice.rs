//! What is told about alerts, and what people answer, on both stores.

use std::sync::Arc;
use std::time::Duration;

use fleet_store::{
    ALERT_EVENTS_MAX, AlertBatch, AlertCursor, AlertFilter, AlertPhase, AlertStore, AttemptOutcome,
    DeadLetter, EventKind, GivenUp, Lease, MQTT_CHANNEL, MatchOp, Matcher, NewAlert, NewAlertEvent,
    NewAttempt, NewNotification, NewOutgoing, OpenOptions, Silence, Written, open, open_alerts,
};
use jiff::Timestamp;
use uuid::Uuid;

use crate::database::Database;
use crate::sample::at;
use crate::server::Server;

struct Opened {
    store: Arc<dyn AlertStore>,
    lease: Lease,
}

impl Opened {
    async fn at(database: &Database<'_>) -> Self {
        let store = open_alerts(&database.url(), OpenOptions::writer("test"))
            .await
            .unwrap();
        let lease = store.acquire_lease("test", "a", Duration::from_secs(60));
        let lease = lease.await.unwrap().unwrap();
        Self { store, lease }
    }

    async fn write(&self, batch: AlertBatch) -> Vec<fleet_store::Outgoing> {
        let written = self.store.write_alerts(Arc::new(batch), &self.lease);
        match written.await.unwrap() {
            Written::Done(new) => new,
            Written::Fenced => panic!("the lease is held"),
        }
    }
}

fn alert(alert_id: &str, severity: &str, second: i64) -> NewAlert {
    NewAlert {
        alert_id: alert_id.to_owned(),
        rule: "High".to_owned(),
        severity: severity.to_owned(),
        sensor_id: "s1".to_owned(),
        message: "it is hot".to_owned(),
        fired_at: at(second),
        metadata: "{}".to_owned(),
    }
}

fn outgoing(name: &str, channel: &str) -> NewOutgoing {
    NewOutgoing {
        name: name.to_owned(),
        alert_id: "a1".to_owned(),
        channel: channel.to_owned(),
        body: "{}".to_owned(),
        due_at: at(5),
    }
}

fn notification(name: &str, second: i64, alerts: &[(&str, &'static str)]) -> NewNotification {
    NewNotification {
        message: outgoing(name, "ops/webhook/0"),
        group_key: "g1".to_owned(),
        queued_at: at(second),
        alerts: alerts
            .iter()
            .map(|(id, state)| ((*id).to_owned(), *state))
            .collect(),
    }
}

fn event(kind: EventKind, second: i64) -> NewAlertEvent {
    NewAlertEvent {
        alert_id: "a1".to_owned(),
        at: at(second),
        kind,
        detail: "{}".to_owned(),
    }
}

async fn alerts_come_in_pages(database: &Database<'_>) {
    let opened = Opened::at(database).await;
    let fired = [("a1", "critical", 1), ("a2", "info", 2), ("a3", "info", 2)];
    opened
        .write(AlertBatch {
            fired: fired
                .map(|(id, severity, at)| alert(id, severity, at))
                .into(),
            resolved: vec![("a2".to_owned(), at(9))],
            ..AlertBatch::default()
        })
        .await;
    let ids = async |state, severity: Option<&str>, limit| {
        let filter = AlertFilter {
            state,
            severity: severity.map(str::to_owned),
            sensor_id: None,
        };
        let mut ids = Vec::new();
        let mut after: Option<AlertCursor> = None;
        loop {
            let page = opened.store.alert_page(&filter, after.as_ref(), limit);
            let page = page.await.unwrap();
            let Some(last) = page.last() else {
                return ids;
            };
            after = Some(AlertCursor::of(last));
            ids.extend(page.into_iter().map(|row| row.alert.alert_id));
        }
    };
    assert_eq!(ids(None, None, 1).await, ["a3", "a2", "a1"]);
    assert_eq!(ids(Some(AlertPhase::Firing), None, 10).await, ["a3", "a1"]);
    assert_eq!(ids(Some(AlertPhase::Resolved), None, 10).await, ["a2"]);
    assert_eq!(ids(None, Some("critical"), 10).await, ["a1"]);
    let of_sensor = async |sensor_id: &str| {
        let filter = AlertFilter {
            sensor_id: Some(sensor_id.to_owned()),
            ..AlertFilter::default()
        };
        let page = opened.store.alert_page(&filter, None, 10).await;
        page.unwrap().len()
    };
    let every = AlertFilter::default();
    let all = opened.store.alert_page(&every, None, 10);
    let known = all.await.unwrap()[0].alert.sensor_id.clone();
    assert!(of_sensor(&known).await > 0);
    assert_eq!(of_sensor("nobody").await, 0);

    let acknowledge = |id, second, by| opened.store.acknowledge_alert(id, at(second), by);
    assert_eq!(acknowledge("no", 3, "ada").await.unwrap(), None);
    acknowledge("a1", 3, "ada").await.unwrap();
    let known = acknowledge("a1", 4, "bob").await.unwrap().unwrap();
    assert_eq!(known.acknowledged_at, Some(at(3)));
    assert_eq!(known.acknowledged_by.as_deref(), Some("ada"));
    assert_eq!(ids(Some(AlertPhase::Acknowledged), None, 10).await, ["a1"]);
    let acknowledged = opened.store.acknowledgements().await.unwrap();
    assert_eq!(acknowledged.len(), 1);
    assert_eq!(acknowledged[0].by, "ada");
    let story = opened.store.alert_story("a1").await.unwrap().unwrap();
    assert_eq!(story.events.len(), 1);
    assert_eq!(story.events[0].detail, "{\"by\":\"ada\"}");
}

async fn a_story_tells_inputs_messages_and_attempts(database: &Database<'_>) {
    let opened = Opened::at(database).await;
    let batch = || AlertBatch {
        fired: vec![alert("a1", "critical", 1), alert("a2", "info", 2)],
        outbox: vec![outgoing("a1/firing/alert", MQTT_CHANNEL)],
        notifications: vec![notification("n1", 5, &[("a1", "firing"), ("a2", "firing")])],
        events: vec![event(EventKind::Pending, 1), event(EventKind::Firing, 1)],
        ..AlertBatch::default()
    };
    let new = opened.write(batch()).await;
    let names: Vec<&str> = new.iter().map(|message| message.name.as_str()).collect();
    assert_eq!(names, ["a1/firing/alert", "n1"]);
    assert_eq!(opened.write(batch()).await, []);

    let seq = new[1].seq;
    let attempt = |number, error: Option<&str>, outcome| NewAttempt {
        seq,
        attempt: number,
        at: at(6),
        took: Duration::from_millis(250),
        error: error.map(str::to_owned),
        outcome,
    };
    let failed = attempt(1, Some("500"), AttemptOutcome::Failed { due_at: at(9) });
    opened.store.note_attempt(&failed).await.unwrap();
    // The answer of the database was lost, and it is noted again.
    opened.store.note_attempt(&failed).await.unwrap();
    let waiting = opened.store.notifications_for("ops/webhook/0", 10);
    let waiting = waiting.await.unwrap();
    assert_eq!((waiting.len(), waiting[0].0.attempts), (1, 1));
    assert_eq!(waiting[0].1, at(9));
    let sent = attempt(2, None, AttemptOutcome::Sent);
    opened.store.note_attempt(&sent).await.unwrap();
    let waiting = opened.store.notifications_for("ops/webhook/0", 10);
    assert_eq!(waiting.await.unwrap(), []);

    for alert_id in ["a1", "a2"] {
        let story = opened.store.alert_story(alert_id).await.unwrap().unwrap();
        let told = story.messages.last().unwrap();
        assert_eq!(told.says.as_deref(), Some("firing"));
        assert_eq!(told.group_key.as_deref(), Some("g1"));
        assert_eq!(told.stored.outcome.as_deref(), Some("sent"));
        let outcomes: Vec<_> = told.attempts.iter().map(|a| a.outcome.as_str()).collect();
        assert_eq!(outcomes, ["failed", "sent"]);
        assert_eq!(told.attempts[0].took, Duration::from_millis(250));
    }
    let story = opened.store.alert_story("a1").await.unwrap().unwrap();
    let kinds: Vec<_> = story.events.iter().map(|e| e.kind.as_str()).collect();
    assert_eq!(kinds, ["pending", "firing"]);
    assert_eq!(story.messages[0].stored.message.channel, MQTT_CHANNEL);
    assert_eq!(opened.store.alert_story("no").await.unwrap(), None);
}

async fn an_endless_story_is_cut_but_its_end_is_kept(database: &Database<'_>) {
    let opened = Opened::at(database).await;
    let clearings = 0..i64::from(ALERT_EVENTS_MAX) + 10;
    opened
        .write(AlertBatch {
            fired: vec![alert("a1", "info", 1)],
            events: clearings
                .map(|second| event(EventKind::Clearing, second))
                .chain([event(EventKind::Resolved, 500)])
                .collect(),
            ..AlertBatch::default()
        })
        .await;
    let story = opened.store.alert_story("a1").await.unwrap().unwrap();
    assert_eq!(story.events.len(), ALERT_EVENTS_MAX as usize + 1);
    assert_eq!(story.events.last().unwrap().kind, "resolved");
}

async fn what_is_given_up_becomes_a_dead_letter(database: &Database<'_>) {
    let opened = Opened::at(database).await;
    let new = opened
        .write(AlertBatch {
            fired: vec![alert("a1", "critical", 1)],
            notifications: vec![notification("n1", 5, &[("a1", "firing")])],
            ..AlertBatch::default()
        })
        .await;
    let given_up = NewAttempt {
        seq: new[0].seq,
        attempt: 1,
        at: at(6),
        took: Duration::ZERO,
        error: Some("404".to_owned()),
        outcome: AttemptOutcome::GivenUp(Box::new(GivenUp {
            dead_letter: DeadLetter {
                id: Uuid::from_u128(7),
                service: "alerting".to_owned(),
                topic: "notifications/ops/webhook/0".to_owned(),
                payload: b"{}".to_vec(),
                reason: "refused".to_owned(),
                detail: "404".to_owned(),
                received_at: at(6),
                redelivered: false,
            },
            message: outgoing("n1/dead-letter", MQTT_CHANNEL),
        })),
    };
    opened.store.note_attempt(&given_up).await.unwrap();
    opened.store.note_attempt(&given_up).await.unwrap();
    let due = opened.store.outbox_due(true, Timestamp::MAX, 10).await;
    assert_eq!(due.unwrap()[0].name, "n1/dead-letter");
    let readings = open(&database.url(), OpenOptions::reader("test")).await;
    let counted = readings.unwrap().count_dead_letters().await.unwrap();
    assert_eq!(counted.len(), 1);
    assert_eq!(
        (counted[0].reason.as_str(), counted[0].count),
        ("refused", 1)
    );
}

async fn who_takes_over_knows_what_was_told(database: &Database<'_>) {
    let opened = Opened::at(database).await;
    opened
        .write(AlertBatch {
            fired: vec![alert("a1", "info", 1), alert("a2", "info", 2)],
            notifications: vec![
                notification("n1", 5, &[("a1", "firing")]),
                notification("n2", 7, &[("a1", "resolved"), ("a2", "firing")]),
            ],
            resolved: vec![("a1".to_owned(), at(6))],
            ..AlertBatch::default()
        })
        .await;
    let unsettled = opened.store.unsettled().await.unwrap();
    assert_eq!(unsettled.alerts.len(), 2);
    let mut told: Vec<_> = unsettled
        .told
        .iter()
        .map(|told| (told.alert_id.as_str(), told.state.as_str(), told.at))
        .collect();
    told.sort_unstable();
    assert_eq!(told, [("a1", "resolved", at(7)), ("a2", "firing", at(7))]);
    let lane = ("g1".to_owned(), "ops/webhook/0".to_owned());
    assert_eq!(unsettled.waiting, [lane]);

    let settled = vec![("a1".to_owned(), at(8))];
    opened
        .write(AlertBatch {
            settled,
            ..AlertBatch::default()
        })
        .await;
    let unsettled = opened.store.unsettled().await.unwrap();
    assert_eq!(unsettled.alerts[0].alert.alert_id, "a2");
    assert_eq!(unsettled.told.len(), 1);

    // What was said of an alert that fires is not forgotten, however old.
    let due = opened.store.notifications_for("ops/webhook/0", 10).await;
    for (message, _) in due.unwrap() {
        let sent = NewAttempt {
            seq: message.seq,
            attempt: 1,
            at: at(9),
            took: Duration::ZERO,
            error: None,
            outcome: AttemptOutcome::Sent,
        };
        opened.store.note_attempt(&sent).await.unwrap();
    }
    assert_eq!(opened.store.prune_outbox(Timestamp::MAX).await.unwrap(), 1);
    assert_eq!(opened.store.unsettled().await.unwrap().told.len(), 1);
}

async fn silences_are_kept_until_their_end(database: &Database<'_>) {
    let opened = Opened::at(database).await;
    let silence = |number, end| Silence {
        id: Uuid::from_u128(number),
        matchers: vec![Matcher {
            name: "location".to_owned(),
            op: MatchOp::Matches,
            value: "hall/.*".to_owned(),
        }],
        starts_at: at(1),
        ends_at: at(end),
        created_by: "ada".to_owned(),
        comment: "painting".to_owned(),
        created_at: at(0),
    };
    let store = &opened.store;
    for (number, end) in [(1, 10), (2, 20)] {
        assert!(store.create_silence(&silence(number, end)).await.unwrap());
    }
    let all = store.silences(Timestamp::MIN).await.unwrap();
    assert_eq!(all, [silence(1, 10), silence(2, 20)]);
    assert_eq!(store.silences(at(10)).await.unwrap(), [silence(2, 20)]);
    assert!(store.delete_silence(Uuid::from_u128(2)).await.unwrap());
    assert!(!store.delete_silence(Uuid::from_u128(2)).await.unwrap());
    store.prune_outbox(at(11)).await.unwrap();
    assert_eq!(store.silences(Timestamp::MIN).await.unwrap(), []);
}

#[tokio::test]
async fn sqlite_keeps_what_people_are_told() {
    alerts_come_in_pages(&Database::sqlite()).await;
    a_story_tells_inputs_messages_and_attempts(&Database::sqlite()).await;
    an_endless_story_is_cut_but_its_end_is_kept(&Database::sqlite()).await;
    what_is_given_up_becomes_a_dead_letter(&Database::sqlite()).await;
    who_takes_over_knows_what_was_told(&Database::sqlite()).await;
    silences_are_kept_until_their_end(&Database::sqlite()).await;
}

#[tokio::test]
async fn postgres_keeps_what_people_are_told() {
    let Some(server) = Server::start() else {
        return;
    };
    let database = |name| Database::postgres(&server, name);
    alerts_come_in_pages(&database("pages")).await;
    a_story_tells_inputs_messages_and_attempts(&database("story")).await;
    an_endless_story_is_cut_but_its_end_is_kept(&database("endless")).await;
    what_is_given_up_becomes_a_dead_letter(&database("given_up")).await;
    who_takes_over_knows_what_was_told(&database("told")).await;
    silences_are_kept_until_their_end(&database("silences")).await;
}
