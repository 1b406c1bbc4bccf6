//! What changes leave behind: rows of the store and messages to send, written together.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use fleet_shared::model::{AlertMessage, Limits, to_micros};
use fleet_shared::session::{Properties, Publish, QoS};
use fleet_shared::telemetry::{TRACEPARENT, TraceContext};
use fleet_shared::topic::{self, templates};
use fleet_store::{
    AlertBatch, AlertState, EventKind, MQTT_CHANNEL, NewAlert, NewAlertEvent, NewOutgoing, Outgoing,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::alert::{alert_id, message};
use crate::engine::{Change, SavedTrack};
use crate::share::{AlertStateMessage, StoredState};
use crate::state::{Phase, Transition, TransitionKind};
use crate::story::{Step, StepKind};

/// A publish as it waits in the outbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MqttBody {
    /// Where to.
    pub(crate) topic: String,
    /// Delivery guarantee.
    pub(crate) qos: QoS,
    /// Whether the broker keeps it.
    pub(crate) retain: bool,
    /// What.
    pub(crate) payload: String,
    /// The group that publishes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<String>,
    /// User properties.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) user: Vec<(String, String)>,
    /// The span that asked for it: it may be published by another process than the one that began it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) traceparent: Option<String>,
    /// What vendors add to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tracestate: Option<String>,
}

impl MqttBody {
    /// The span that asked for it.
    pub(crate) fn trace(&self) -> Option<TraceContext> {
        TraceContext::parse(self.traceparent.as_deref()?, self.tracestate.as_deref()).ok()
    }

    /// As it goes to the session.
    #[must_use]
    pub(crate) fn publish(self) -> Publish {
        let label = topic::label(&self.topic);
        let publish = Publish::new(self.topic, label, self.payload)
            .qos(self.qos)
            .retain(self.retain);
        if self.user.is_empty() {
            return publish;
        }
        let pairs = self.user.into_iter();
        publish.properties(Properties {
            user: pairs
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            ..Properties::default()
        })
    }
}

/// Adds to `batch` what `change` asks for, as part of the trace of what caused it.
pub(crate) fn add(
    batch: &mut AlertBatch,
    change: &Change,
    group: &str,
    trace: Option<&TraceContext>,
    now: Timestamp,
) {
    let now = to_micros(now);
    batch.states.push(stored(change, group, now));
    let events = change.steps.iter();
    batch
        .events
        .extend(events.map(|step| event(&change.rule.name, &change.sensor_id, step)));
    for (transition, facts) in &change.transitions {
        let alert = message(&change.rule, &change.sensor_id, transition, facts);
        match transition.kind {
            TransitionKind::Firing => batch.fired.push(NewAlert {
                alert_id: alert.alert_id.clone(),
                rule: change.rule.name.clone(),
                severity: alert.severity.to_string(),
                sensor_id: alert.sensor_id.clone(),
                message: alert.message.clone(),
                fired_at: transition.at,
                metadata: json(&stored_metadata(&alert, trace)),
            }),
            TransitionKind::Resolved => {
                batch.resolved.push((alert.alert_id.clone(), transition.at))
            }
        }
        let mut send = Sender {
            batch,
            alert_id: &alert.alert_id,
            state: transition.kind.as_str().into(),
            group,
            trace,
            now,
        };
        send.state_topic(&alert, change, transition.kind);
        send.alert(&alert);
        for (index, action) in change.rule.publish.iter().enumerate() {
            if action.on != transition.kind {
                continue;
            }
            match action.render(&change.rule.name, facts) {
                Ok(Some((topic, payload))) => send.mqtt(
                    &format!("action-{index}"),
                    MqttBody {
                        qos: action.qos,
                        retain: action.retain,
                        ..MqttBody::new(topic, payload)
                    },
                ),
                Ok(None) => {
                    tracing::warn!(rule = %change.rule.name, "an action is left out: its topic is none it may publish to");
                }
                Err(error) => {
                    let error = format!("{:#}", anyhow::Error::new(error));
                    tracing::warn!(rule = %change.rule.name, %error, "an action is left out");
                }
            }
        }
    }
}

fn event(rule: &str, sensor_id: &str, step: &Step) -> NewAlertEvent {
    NewAlertEvent {
        alert_id: alert_id(rule, sensor_id, step.crossed_at).to_string(),
        at: to_micros(step.at),
        kind: match step.kind {
            StepKind::Pending => EventKind::Pending,
            StepKind::Firing => EventKind::Firing,
            StepKind::Clearing => EventKind::Clearing,
            StepKind::FiringAgain => EventKind::FiringAgain,
            StepKind::Resolved => EventKind::Resolved,
        },
        detail: json(&step.detail),
    }
}

/// The state of a change as it is stored.
fn stored(change: &Change, group: &str, now: Timestamp) -> AlertState {
    AlertState {
        rule: change.rule.name.clone(),
        sensor_id: change.sensor_id.clone(),
        state: json(&StoredState {
            saved: change.saved.clone(),
            group: group.to_owned(),
        }),
        updated_at: now,
    }
}

/// Adds to `batch` that an alert which fires is now this group's: in the store, and for all others on
/// its retained topic. Nobody is told a second time that it fires.
pub(crate) fn add_adopted(batch: &mut AlertBatch, change: &Change, group: &str, now: Timestamp) {
    let now = to_micros(now);
    batch.states.push(stored(change, group, now));
    let (Phase::Firing {
        crossed_at,
        fired_at,
    }
    | Phase::Clearing {
        crossed_at,
        fired_at,
        ..
    }) = *change.saved.machine.phase()
    else {
        return;
    };
    let fired = Transition {
        kind: TransitionKind::Firing,
        crossed_at,
        at: fired_at,
    };
    let alert = message(&change.rule, &change.sensor_id, &fired, &change.saved.facts);
    let mut send = Sender {
        batch,
        alert_id: &alert.alert_id,
        // An alert may change hands more than once, and each time is news.
        state: format!("adopted-{}", now.as_microsecond()).into(),
        group,
        trace: None,
        now,
    };
    send.state_topic(&alert, change, TransitionKind::Firing);
}

/// What is stored of an alert's metadata: the trace of its reading, too. Who notifies, or looks at the
/// alert later, finds the trace by it.
fn stored_metadata(alert: &AlertMessage, trace: Option<&TraceContext>) -> BTreeMap<String, String> {
    let mut metadata = alert.metadata.clone().unwrap_or_default();
    if let Some(trace) = trace {
        metadata.insert(TRACEPARENT.to_owned(), trace.traceparent());
    }
    metadata
}

/// Adds to `batch` that a rule is gone: its state is forgotten, and its alert, if one fires, ends.
pub(crate) fn add_gone(batch: &mut AlertBatch, mut track: SavedTrack, group: &str, now: Timestamp) {
    let now = to_micros(now);
    if let Some(transition) = track.saved.machine.abandon(now) {
        let alert_id = alert_id(&track.rule, &track.sensor_id, transition.crossed_at).to_string();
        batch.resolved.push((alert_id.clone(), transition.at));
        let reason = format!("the rule {} is no longer in force", track.rule);
        batch.events.push(NewAlertEvent {
            alert_id: alert_id.clone(),
            at: transition.at,
            kind: EventKind::Resolved,
            detail: serde_json::json!({ "by": "rules", "reason": reason }).to_string(),
        });
        if let Ok(topic) = topic::alerting_state(&track.rule, &track.sensor_id) {
            let mut send = Sender {
                batch,
                alert_id: &alert_id,
                state: "resolved".into(),
                group,
                trace: None,
                now,
            };
            send.mqtt("state", MqttBody::cleared(topic));
        }
    }
    batch.forgotten.push((track.rule, track.sensor_id));
}

impl MqttBody {
    /// A publish at QoS 1 that is not kept and belongs to nothing.
    pub(crate) fn new(topic: String, payload: String) -> Self {
        Self {
            topic,
            qos: QoS::AtLeastOnce,
            retain: false,
            payload,
            group: None,
            user: Vec::new(),
            traceparent: None,
            tracestate: None,
        }
    }

    fn cleared(topic: String) -> Self {
        Self {
            retain: true,
            ..Self::new(topic, String::new())
        }
    }
}

struct Sender<'a> {
    batch: &'a mut AlertBatch,
    alert_id: &'a str,
    state: Cow<'static, str>,
    group: &'a str,
    trace: Option<&'a TraceContext>,
    now: Timestamp,
}

impl Sender<'_> {
    fn state_topic(&mut self, alert: &AlertMessage, change: &Change, kind: TransitionKind) {
        // A sensor's id was checked to be a topic level, and so was the rule's name.
        let Ok(topic) = topic::alerting_state(&change.rule.name, &alert.sensor_id) else {
            return;
        };
        let body = match kind {
            TransitionKind::Resolved => MqttBody::cleared(topic),
            TransitionKind::Firing => MqttBody {
                payload: json(&AlertStateMessage {
                    alert_id: alert.alert_id.clone(),
                    rule: change.rule.name.clone(),
                    sensor_id: alert.sensor_id.clone(),
                    severity: alert.severity.to_string(),
                    state: kind.as_str().to_owned(),
                    since: alert.timestamp,
                    group: self.group.to_owned(),
                    saved: Some(change.saved.clone()),
                }),
                ..MqttBody::cleared(topic)
            },
        };
        self.mqtt("state", body);
    }

    fn alert(&mut self, alert: &AlertMessage) {
        let Ok(topic) = alert.topic() else { return };
        let qos = match alert.severity {
            fleet_shared::model::Severity::Critical => QoS::ExactlyOnce,
            _ => QoS::AtLeastOnce,
        };
        let payload = String::from_utf8_lossy(&alert.to_json()).into_owned();
        self.mqtt(
            "alert",
            MqttBody {
                qos,
                ..MqttBody::new(topic, payload)
            },
        );
    }

    fn mqtt(&mut self, what: &str, mut body: MqttBody) {
        body.group = Some(self.group.to_owned());
        body.traceparent = self.trace.map(TraceContext::traceparent);
        body.tracestate = self.trace.and_then(TraceContext::tracestate);
        self.batch.outbox.push(NewOutgoing {
            name: format!("{}/{}/{what}", self.alert_id, self.state),
            alert_id: self.alert_id.to_owned(),
            channel: MQTT_CHANNEL.to_owned(),
            body: json(&body),
            due_at: self.now,
        });
    }
}

/// What of the outbox may have been published by who was active before, and is not to be published
/// again.
///
/// The group's session at the broker gets every alert that is published, in order. Once a publish
/// that was made after taking over has come back on it, each alert that was published before has
/// come as well: what has not come was never published.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    waiting: Vec<Outgoing>,
    seen: HashSet<String>,
    /// Names that matter; others are not remembered.
    in_doubt: HashSet<String>,
}

impl Recovery {
    /// Begins with what the store says is not published.
    #[must_use]
    pub(crate) fn new(unpublished: Vec<Outgoing>) -> Self {
        Self {
            in_doubt: unpublished
                .iter()
                .map(|message| message.name.clone())
                .collect(),
            waiting: unpublished,
            seen: HashSet::new(),
        }
    }

    /// An alert of that name came on the group's session. Whether it was in doubt: then it must not
    /// be acknowledged before it is noted as published, for it does not come again.
    pub(crate) fn heard(&mut self, name: &str) -> bool {
        let in_doubt = self.in_doubt.contains(name);
        if in_doubt {
            self.seen.insert(name.to_owned());
        }
        in_doubt
    }

    /// Holds back what is new, so that everything goes out in its order.
    pub(crate) fn hold(&mut self, new: Vec<Outgoing>) {
        self.waiting.extend(new);
    }

    /// Ends it: what is to be published, in order, and numbers and names of what was.
    #[must_use]
    pub(crate) fn end(self) -> (Vec<Outgoing>, Vec<(i64, String)>) {
        let (published, rest): (Vec<_>, Vec<_>) = self
            .waiting
            .into_iter()
            .partition(|message| self.seen.contains(&message.name));
        (
            rest,
            published
                .into_iter()
                .map(|message| (message.seq, message.name))
                .collect(),
        )
    }
}

/// The name in the outbox of the alert in `payload`; none if it is no alert of ours.
pub(crate) fn alert_name(payload: &[u8]) -> Option<String> {
    let alert = AlertMessage::parse(payload, &Limits::default()).ok()?;
    let state = alert.metadata.as_ref()?.get("state")?;
    Some(format!("{}/{state}/alert", alert.alert_id))
}

/// Whether a publish is an alert: those come back on the group's session.
#[must_use]
pub(crate) fn is_alert(topic: &str) -> bool {
    topic.starts_with(templates::ALERT.split('{').next().unwrap_or_default())
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("strings, numbers, flags and times always serialize")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::condition::sample_reading;
    use crate::engine::Engine;
    use crate::rule::RuleSet;

    fn fired() -> AlertBatch {
        fired_by(None)
    }

    fn fired_by(trace: Option<&TraceContext>) -> AlertBatch {
        let text = "groups:\n  - name: g\n    rules:\n\
            \x20     - alert: Motion\n\
            \x20       when: value > 0\n\
            \x20       severity: critical\n\
            \x20       publish: [{ topic: 'lights/{{ sensor_id }}/set', payload: 'on', qos: 0 }]\n";
        let mut engine = Engine::new(Arc::new(RuleSet::parse(text).unwrap()));
        let reading = sample_reading(Timestamp::UNIX_EPOCH);
        let mut changes = Vec::new();
        engine.reading(&reading.topic(), &reading, reading.timestamp, &mut changes);
        let mut batch = AlertBatch::default();
        for change in &changes {
            add(&mut batch, change, "alerting", trace, reading.timestamp);
        }
        batch
    }

    fn outgoing(seq: i64, new: &NewOutgoing) -> Outgoing {
        Outgoing {
            seq,
            name: new.name.clone(),
            alert_id: new.alert_id.clone(),
            channel: new.channel.clone(),
            body: new.body.clone(),
            attempts: 0,
        }
    }

    #[test]
    fn a_firing_leaves_a_row_a_state_an_alert_and_an_action() {
        let batch = fired();
        assert_eq!((batch.states.len(), batch.fired.len()), (1, 1));
        let bodies: Vec<MqttBody> = batch
            .outbox
            .iter()
            .map(|message| serde_json::from_str(&message.body).unwrap())
            .collect();
        let sent: Vec<_> = bodies
            .iter()
            .map(|body| (body.topic.as_str(), u8::from(body.qos), body.retain))
            .collect();
        assert_eq!(
            sent,
            [
                ("fleet/alerting/state/Motion/sensor-1", 1, true),
                ("alerts/critical/sensor-1", 2, false),
                ("lights/sensor-1/set", 0, false)
            ]
        );
    }

    #[test]
    fn the_trace_of_a_reading_is_in_all_that_it_leaves_behind() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let trace = TraceContext::parse(parent, Some("vendor=a")).unwrap();
        let batch = fired_by(Some(&trace));
        for message in &batch.outbox {
            let body: MqttBody = serde_json::from_str(&message.body).unwrap();
            assert_eq!(body.trace(), Some(trace.clone()), "{}", message.name);
            let publish = body.publish();
            assert_eq!(publish.properties, None, "it is set by who publishes");
        }
        let metadata = &batch.fired[0].metadata;
        assert!(metadata.contains(parent), "{metadata}");
        // What was written before traces were there is read all the same.
        let old = r#"{"topic":"t","qos":1,"retain":false,"payload":"p"}"#;
        let old: MqttBody = serde_json::from_str(old).unwrap();
        assert_eq!(old.trace(), None);
        assert!(!json(&old).contains("trace"));
    }

    #[test]
    fn what_came_back_is_not_published_again() {
        let batch = fired();
        let rows: Vec<Outgoing> = (1..)
            .zip(&batch.outbox)
            .map(|(seq, new)| outgoing(seq, new))
            .collect();
        let body: MqttBody = serde_json::from_str(&rows[1].body).unwrap();

        let (publish, published) = Recovery::new(rows.clone()).end();
        assert_eq!((publish.len(), published.len()), (3, 0));

        let mut recovery = Recovery::new(rows.clone());
        assert_eq!(alert_name(b"not an alert"), None);
        let name = alert_name(body.payload.as_bytes()).unwrap();
        assert!(!recovery.heard("other/firing/alert"));
        assert!(recovery.heard(&name));
        recovery.hold(vec![Outgoing {
            seq: 9,
            name: "new".to_owned(),
            ..rows[0].clone()
        }]);
        let (publish, published) = recovery.end();
        let seqs: Vec<i64> = publish.iter().map(|message| message.seq).collect();
        assert_eq!((seqs, published), (vec![1, 3, 9], vec![(2, name)]));
    }
}
