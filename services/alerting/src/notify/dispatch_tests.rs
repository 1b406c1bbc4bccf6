use std::time::Duration;

use fleet_store::{MatchOp, Matcher, NewAlert};
use uuid::Uuid;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).unwrap()
}

const ROUTES: &str = "
receivers: [{ name: ops, webhook_configs: [{ url: 'http://h/' }] }]
route: { receiver: ops, group_by: [location], group_wait: 30s, group_interval: 5m, repeat_interval: 1h }
";

fn routes(text: &str) -> Arc<Routes> {
    Arc::new(Routes::parse(text).unwrap_or_else(|errors| panic!("{errors:?}")))
}

fn dispatch(text: &str) -> Dispatch {
    Dispatch::restore(routes(text), Unsettled::default(), at(0))
}

fn alert(id: &str, severity: &str, location: &str, second: i64) -> StoredAlert {
    StoredAlert {
        alert: NewAlert {
            alert_id: id.to_owned(),
            rule: "High".to_owned(),
            severity: severity.to_owned(),
            sensor_id: format!("sensor-{id}"),
            message: format!("{id} is high"),
            fired_at: at(second),
            metadata: format!(r#"{{"location":"{location}","value":"31"}}"#),
        },
        resolved_at: None,
        acknowledged_at: None,
        acknowledged_by: None,
    }
}

/// Runs the clock from `from` to `to`, delivers everything at once, and tells what was sent when.
fn run(dispatch: &mut Dispatch, from: i64, to: i64) -> Vec<(i64, String)> {
    let mut sent = Vec::new();
    for second in from..=to {
        if dispatch.due_at().is_none_or(|due| due > at(second)) {
            continue;
        }
        for decision in dispatch.flush(at(second)).notifications {
            sent.push((second, said(&decision)));
            dispatch.delivered(&decision.notification.group_key, &decision.channel);
        }
    }
    sent
}

fn said(decision: &Decision) -> String {
    let alerts = decision.alerts.iter();
    let mut alerts: Vec<String> = alerts.map(|(id, state)| format!("{id} {state}")).collect();
    alerts.sort();
    format!(
        "{}: {}",
        decision.notification.why.as_str(),
        alerts.join(", ")
    )
}

fn sent(seconds: &[(i64, &str)]) -> Vec<(i64, String)> {
    seconds
        .iter()
        .map(|(second, text)| (*second, (*text).to_owned()))
        .collect()
}

#[test]
fn alerts_of_a_group_wait_for_each_other_and_are_told_together() {
    let mut dispatch = dispatch(ROUTES);
    assert!(dispatch.take(alert("a", "info", "hall", 0), at(0)));
    assert!(dispatch.take(alert("b", "info", "hall", 10), at(10)));
    assert!(dispatch.take(alert("c", "info", "yard", 10), at(10)));
    // The same alert again, as after a restart of whoever tells of it.
    assert!(dispatch.take(alert("a", "info", "hall", 0), at(11)));
    assert_eq!(
        run(&mut dispatch, 0, 1_000),
        sent(&[(30, "new: a firing, b firing"), (40, "new: c firing")])
    );
}

#[test]
fn what_comes_later_waits_for_the_group_interval_and_what_ends_is_told_once() {
    let mut dispatch = dispatch(ROUTES);
    dispatch.take(alert("a", "info", "hall", 0), at(0));
    assert_eq!(run(&mut dispatch, 0, 40), sent(&[(30, "new: a firing")]));
    dispatch.take(alert("b", "info", "hall", 41), at(41));
    assert_eq!(
        run(&mut dispatch, 41, 400),
        sent(&[(330, "new: a firing, b firing")])
    );
    dispatch.resolved("a", at(400), at(400));
    dispatch.resolved("a", at(401), at(401));
    assert_eq!(
        run(&mut dispatch, 401, 700),
        sent(&[(630, "ended: a resolved, b firing")])
    );
    dispatch.resolved("b", at(701), at(701));
    assert_eq!(
        run(&mut dispatch, 701, 90_000),
        sent(&[(930, "ended: b resolved")])
    );
    assert_eq!((dispatch.alerts(), dispatch.due_at()), (0, None));
}

#[test]
fn what_fires_is_told_again_after_the_repeat_interval_until_somebody_took_note() {
    let mut dispatch = dispatch(ROUTES);
    dispatch.take(alert("a", "info", "hall", 0), at(0));
    let told = run(&mut dispatch, 0, 8_000);
    assert_eq!(
        told,
        sent(&[
            (30, "new: a firing"),
            (3_630, "repeat: a firing"),
            (7_230, "repeat: a firing")
        ])
    );
    dispatch.acknowledged(vec![Acknowledgement {
        alert_id: "a".to_owned(),
        at: at(8_000),
        by: "ada".to_owned(),
    }]);
    assert_eq!(run(&mut dispatch, 8_001, 40_000), []);
    dispatch.resolved("a", at(40_000), at(40_000));
    assert_eq!(run(&mut dispatch, 40_000, 41_000).len(), 1);
}

#[test]
fn what_ends_before_it_was_told_is_told_all_the_same() {
    let mut dispatch = dispatch(ROUTES);
    dispatch.take(alert("a", "info", "hall", 0), at(0));
    dispatch.resolved("a", at(5), at(5));
    assert_eq!(
        run(&mut dispatch, 5, 9_000),
        sent(&[(30, "ended: a resolved")])
    );
}

#[test]
fn a_receiver_that_wants_no_ends_gets_none() {
    let text = ROUTES.replace("url: 'http://h/'", "url: 'http://h/', send_resolved: false");
    let mut dispatch = dispatch(&text);
    dispatch.take(alert("a", "info", "hall", 0), at(0));
    run(&mut dispatch, 0, 100);
    dispatch.resolved("a", at(100), at(100));
    assert_eq!(run(&mut dispatch, 100, 9_000), []);
    assert_eq!(dispatch.alerts(), 0);
}

#[test]
fn the_next_notification_of_a_group_waits_for_the_one_on_its_way() {
    let mut dispatch = dispatch(ROUTES);
    dispatch.take(alert("a", "info", "hall", 0), at(0));
    let first = dispatch.flush(at(30)).notifications.remove(0);
    dispatch.take(alert("b", "info", "hall", 31), at(31));
    dispatch.flush(at(31));
    assert_eq!(dispatch.due_at(), None);
    assert!(dispatch.flush(at(9_000)).notifications.is_empty());
    dispatch.delivered(&first.notification.group_key, &first.channel);
    assert_eq!(
        run(&mut dispatch, 9_001, 9_002),
        sent(&[(9_001, "new: a firing, b firing")])
    );
}

fn silence(number: u128, value: &str, from: i64, to: i64) -> Silence {
    Silence {
        id: Uuid::from_u128(number),
        matchers: vec![Matcher {
            name: "location".to_owned(),
            op: MatchOp::Matches,
            value: value.to_owned(),
        }],
        starts_at: at(from),
        ends_at: at(to),
        created_by: "ada".to_owned(),
        comment: "painting".to_owned(),
        created_at: at(from),
    }
}

#[test]
fn a_silence_suppresses_until_its_end_and_is_named() {
    let mut dispatch = dispatch(ROUTES);
    let unusable = dispatch.set_silences(vec![silence(1, "hal+", 0, 400), silence(2, "[", 0, 400)]);
    assert_eq!(unusable.len(), 1);
    dispatch.take(alert("a", "info", "hall", 0), at(0));
    dispatch.take(alert("b", "info", "yard", 0), at(0));
    let decisions = dispatch.flush(at(30));
    assert_eq!(decisions.notifications.len(), 1);
    let suppressed: Vec<_> = decisions
        .events
        .iter()
        .filter(|event| event.kind == EventKind::Suppressed)
        .collect();
    assert_eq!(suppressed.len(), 1);
    assert_eq!(suppressed[0].alert_id, "a");
    assert!(
        suppressed[0]
            .detail
            .contains("00000000-0000-0000-0000-000000000001")
    );
    assert_eq!(decisions.suppressed, ["webhook"]);
    // At 330 it is silent still, at 630 no more.
    assert_eq!(run(&mut dispatch, 31, 629), []);
    assert_eq!(
        run(&mut dispatch, 630, 631),
        sent(&[(630, "new: a firing")])
    );
}

#[test]
fn a_silence_that_is_seen_again_is_as_it_was_and_one_that_changed_is_not() {
    let mut dispatch = dispatch(ROUTES);
    let seen = || vec![silence(1, "hal+", 0, 400), silence(2, "[", 0, 400)];
    let unusable = dispatch.set_silences(seen());
    assert_eq!(dispatch.set_silences(seen()), unusable);
    assert_eq!(dispatch.silences.len(), 1);
    let changed = vec![silence(1, "[", 0, 400), silence(2, "yard", 0, 400)];
    assert_eq!(dispatch.set_silences(changed).len(), 1);
    dispatch.take(alert("a", "info", "hall", 0), at(0));
    dispatch.take(alert("b", "info", "yard", 0), at(0));
    let decisions = dispatch.flush(at(30));
    let of = |event: &NewAlertEvent| {
        (event.kind == EventKind::Suppressed).then(|| event.alert_id.clone())
    };
    let suppressed: Vec<_> = decisions.events.iter().filter_map(of).collect();
    assert_eq!(suppressed, ["b"]);
    assert!(dispatch.set_silences(Vec::new()).is_empty());
    assert_eq!((dispatch.silences.len(), dispatch.unusable.len()), (0, 0));
}

#[test]
fn what_ends_in_silence_is_over() {
    let mut dispatch = dispatch(ROUTES);
    dispatch.set_silences(vec![silence(1, "hall", 0, 400)]);
    dispatch.take(alert("a", "info", "hall", 0), at(0));
    dispatch.resolved("a", at(5), at(5));
    assert_eq!(run(&mut dispatch, 5, 9_000), []);
    assert_eq!(dispatch.alerts(), 0);
}

const INHIBITED: &str = "
receivers: [{ name: ops, webhook_configs: [{ url: 'http://h/' }] }]
route: { receiver: ops, group_by: ['...'], group_wait: 10s, group_interval: 1m }
inhibit_rules:
  - { source_matchers: ['severity=critical'], target_matchers: ['severity=~\"warning|critical\"'], equal: [location] }
";

#[test]
fn a_critical_alert_keeps_quiet_the_warnings_of_its_place_while_it_fires() {
    let mut dispatch = dispatch(INHIBITED);
    dispatch.take(alert("w", "warning", "hall", 0), at(0));
    dispatch.take(alert("y", "warning", "yard", 0), at(0));
    dispatch.take(alert("c", "critical", "hall", 5), at(5));
    // Alerts that are source and target both are told, both of them.
    dispatch.take(alert("d", "critical", "hall", 5), at(5));
    assert_eq!(
        run(&mut dispatch, 0, 100),
        sent(&[
            (10, "new: y firing"),
            (15, "new: c firing"),
            (15, "new: d firing")
        ])
    );
    dispatch.resolved("c", at(100), at(100));
    assert!(
        run(&mut dispatch, 100, 150)
            .iter()
            .all(|(_, said)| said == "ended: c resolved")
    );
    dispatch.resolved("d", at(150), at(150));
    let told = run(&mut dispatch, 150, 300);
    assert!(
        told.iter().any(|(_, said)| said == "new: w firing"),
        "{told:?}"
    );
}

#[test]
fn nothing_is_told_at_a_muted_time() {
    let text = "
receivers: [{ name: ops, webhook_configs: [{ url: 'http://h/' }] }]
route: { receiver: ops, group_wait: 10s, group_interval: 1h, mute_time_intervals: [morning] }
time_intervals: [{ name: morning, time_intervals: [{ times: [{ start_time: '00:00', end_time: '12:00' }] }] }]
";
    let mut dispatch = dispatch(text);
    let midnight: Timestamp = "2026-11-25T00:00:00Z".parse().unwrap();
    let from = midnight.as_second() - 1_790_000_000;
    dispatch.take(alert("a", "info", "hall", from), at(from));
    let told = run(&mut dispatch, from, from + 86_400);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].0 >= from + 12 * 3_600);
}

#[test]
fn who_takes_over_tells_nothing_twice_and_forgets_nothing() {
    let mut first = dispatch(ROUTES);
    first.take(alert("a", "info", "hall", 0), at(0));
    let decision = first.flush(at(30)).notifications.remove(0);
    let told = |state: &str| StoredTold {
        group_key: decision.notification.group_key.clone(),
        channel: decision.channel.clone(),
        alert_id: "a".to_owned(),
        state: state.to_owned(),
        at: at(30),
    };
    let restore = |alerts, told, waiting| {
        let unsettled = Unsettled {
            alerts,
            told,
            waiting,
        };
        Dispatch::restore(routes(ROUTES), unsettled, at(60))
    };
    let fires = || vec![alert("a", "info", "hall", 0)];
    let mut second = restore(fires(), vec![told("firing")], Vec::new());
    assert_eq!(run(&mut second, 60, 3_629), []);
    assert_eq!(run(&mut second, 3_630, 3_700).len(), 1);
    // It ended while nobody was there.
    let mut ended = alert("a", "info", "hall", 0);
    ended.resolved_at = Some(at(50));
    let mut second = restore(vec![ended.clone()], vec![told("firing")], Vec::new());
    assert_eq!(
        run(&mut second, 60, 400),
        sent(&[(330, "ended: a resolved")])
    );
    // Its end was told, only not noted as settled.
    let mut second = restore(vec![ended], vec![told("resolved")], Vec::new());
    assert_eq!(run(&mut second, 60, 400), []);
    assert_eq!(second.alerts(), 0);
    // The last one's notification is not delivered yet.
    let lane = (
        decision.notification.group_key.clone(),
        decision.channel.clone(),
    );
    let mut second = restore(fires(), vec![told("firing")], vec![lane]);
    assert_eq!(second.flush(at(9_999)).notifications.len(), 0);
    second.delivered(&decision.notification.group_key, &decision.channel);
    assert_eq!(second.flush(at(9_999)).notifications.len(), 1);
}

#[test]
fn new_routes_repeat_nothing_that_was_told() {
    let mut dispatch = dispatch(ROUTES);
    dispatch.take(alert("a", "info", "hall", 0), at(0));
    run(&mut dispatch, 0, 40);
    dispatch.replace_routes(routes(ROUTES), at(40));
    assert_eq!(run(&mut dispatch, 40, 3_000), []);
    let other = ROUTES
        .replace("name: ops", "name: new")
        .replace("receiver: ops", "receiver: new");
    dispatch.replace_routes(routes(&other), at(3_000));
    assert_eq!(
        run(&mut dispatch, 3_000, 3_001),
        sent(&[(3_000, "new: a firing")])
    );
}

#[test]
fn a_storm_makes_a_bounded_number_of_notifications() {
    let mut dispatch = dispatch(ROUTES);
    for number in 0..5_000 {
        let id = format!("{number}");
        dispatch.take(alert(&id, "info", &format!("room-{number}"), 0), at(0));
    }
    let told = dispatch.flush(at(30)).notifications;
    assert_eq!(told.len(), GROUPS_MAX + 1);
    let alerts: usize = told.iter().map(|decision| decision.alerts.len()).sum();
    assert_eq!(alerts, 5_000);
    let rest = told
        .iter()
        .max_by_key(|decision| decision.alerts.len())
        .unwrap();
    assert_eq!(rest.notification.alerts.len(), LISTED_MAX);
    assert_eq!(rest.notification.firing, 4_000);
}

#[test]
fn an_alertmanager_is_reminded_while_it_fires_and_told_of_changes_at_once() {
    let text = "
receivers: [{ name: am, alertmanager_configs: [{ url: 'http://am/' }] }]
route: { receiver: am, group_by: [location], group_interval: 1h }
";
    let mut dispatch = dispatch(text);
    dispatch.take(alert("a", "info", "hall", 0), at(0));
    assert_eq!(run(&mut dispatch, 0, 0), sent(&[(0, "new: a firing")]));
    let reminders = |dispatch: &mut Dispatch, from, to| {
        (from..=to)
            .map(|second| dispatch.flush(at(second)).reminders.len())
            .sum::<usize>()
    };
    assert_eq!(reminders(&mut dispatch, 1, 299), 4);
    dispatch.resolved("a", at(300), at(300));
    assert_eq!(
        run(&mut dispatch, 300, 300),
        sent(&[(300, "ended: a resolved")])
    );
    assert_eq!(reminders(&mut dispatch, 301, 900), 0);
}

#[test]
fn a_name_is_made_of_what_was_decided() {
    let mut first = dispatch(ROUTES);
    first.take(alert("a", "info", "hall", 0), at(0));
    let one = first.flush(at(30)).notifications.remove(0);
    assert_eq!(one.name(), one.clone().name());
    assert!(one.name().starts_with("msg_") && !one.name().contains('.'));
    let mut other = one.clone();
    other.channel.push('x');
    assert_ne!(one.name(), other.name());
    let mut later = one.clone();
    later.notification.at = after(one.notification.at, Duration::from_micros(1));
    assert_ne!(one.name(), later.name());
}
