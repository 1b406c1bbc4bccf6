//! Grouping, waiting, repeating, silencing and inhibiting: decided from what is known and the time.
//! Knows no store, no network and no clock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use fleet_shared::telemetry::TRACEPARENT;
use fleet_store::{
    Acknowledgement, EventKind, NewAlertEvent, NewNotification, NewOutgoing, Silence, StoredAlert,
    Told as StoredTold, Unsettled,
};
use jiff::Timestamp;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::group::{Group, KEEP_ALIVE, Member, Told};
use super::notification::{LISTED_ALERTMANAGER_MAX, LISTED_MAX, Notification, NotifiedAlert, Why};
use crate::route::{Channel, CompiledMatcher, Labels, Routes, all_match};
use crate::state::after;

/// Alerts that are kept in mind, about 2 kB each; further ones are told once there is room.
pub(crate) const ALERTS_MAX: usize = 100_000;

/// Groups of a route; what would be in a further one joins a group without labels.
const GROUPS_MAX: usize = 1_000;

const FIRING: &str = "firing";
const RESOLVED: &str = "resolved";

/// State and time of what was told last, by alert, group and name of the channel.
type ToldBefore = HashMap<(String, String, String), (String, Timestamp)>;

/// Group and channel.
type Place = (String, usize);

struct Tracked {
    stored: StoredAlert,
    labels: Labels,
    /// Where something may still be told about it.
    places: BTreeSet<Place>,
    /// Where its end was told, by group and name of the channel.
    done: Vec<(String, String)>,
}

/// The core of notifying.
pub struct Dispatch {
    routes: Arc<Routes>,
    alerts: HashMap<String, Tracked>,
    groups: BTreeMap<Place, Group>,
    /// Keys of the groups of each route.
    keys: HashMap<usize, BTreeSet<String>>,
    silences: Vec<(Silence, Vec<CompiledMatcher>)>,
    /// Those of the last look that silence nothing, and why.
    unusable: Vec<(Silence, String)>,
    /// Alerts that fire and keep others quiet, by inhibition and the labels that must be equal.
    sources: HashMap<(usize, Vec<String>), BTreeSet<String>>,
    events: Vec<NewAlertEvent>,
    settled: Vec<(String, Timestamp)>,
    suppressed: Vec<&'static str>,
}

/// What is to be written and sent.
#[derive(Debug, Default)]
pub struct Decisions {
    /// Notifications for the outbox.
    pub notifications: Vec<Decision>,
    /// Reminders for receivers that forget; not kept, for the next one comes soon.
    pub reminders: Vec<Decision>,
    /// What happened to alerts.
    pub events: Vec<NewAlertEvent>,
    /// Alerts about which nothing more is to be told.
    pub settled: Vec<(String, Timestamp)>,
    /// Kinds of channels that something was kept from.
    pub suppressed: Vec<&'static str>,
}

impl Decisions {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.notifications.is_empty()
            && self.reminders.is_empty()
            && self.events.is_empty()
            && self.settled.is_empty()
    }
}

/// A notification that was decided on.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Name of the channel.
    pub channel: String,
    /// What is told.
    pub notification: Notification,
    /// Every alert it is about, and what it says of it.
    pub alerts: Vec<(String, &'static str)>,
}

impl Decision {
    /// The name of the message: made of what was decided, so it is the same if it is written twice.
    #[must_use]
    pub fn name(&self) -> String {
        let mut hash = Sha256::new();
        for part in [&self.notification.group_key, &self.channel] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        hash.update(self.notification.at.as_microsecond().to_be_bytes());
        let digest = hash.finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        let id = uuid::Builder::from_custom_bytes(bytes).into_uuid();
        format!("msg_{}", id.simple())
    }

    /// As it goes into the outbox.
    #[must_use]
    pub fn outgoing(&self) -> NewNotification {
        let body = serde_json::to_string(&self.notification)
            .expect("texts, numbers and times always serialize");
        NewNotification {
            message: NewOutgoing {
                name: self.name(),
                alert_id: self
                    .alerts
                    .first()
                    .map_or_else(String::new, |(id, _)| id.clone()),
                channel: self.channel.clone(),
                body,
                due_at: self.notification.at,
            },
            group_key: self.notification.group_key.clone(),
            queued_at: self.notification.at,
            alerts: self.alerts.clone(),
        }
    }
}

/// What keeps an alert quiet.
enum Suppression {
    Silence(usize),
    Alert(String),
    TimeOfDay,
}

/// The matchers of a silence, or why it silences nothing.
fn compile(silence: &Silence) -> Result<Vec<CompiledMatcher>, String> {
    let compiled: Result<Vec<_>, _> = silence.matchers.iter().map(CompiledMatcher::new).collect();
    match compiled {
        Ok(matchers) if matchers.is_empty() => {
            Err(format!("silence {} has no matchers", silence.id))
        }
        Ok(matchers) => Ok(matchers),
        Err(error) => Err(format!("silence {}: {error}", silence.id)),
    }
}

impl Dispatch {
    /// Begins with what the store knows.
    #[must_use]
    pub fn restore(routes: Arc<Routes>, unsettled: Unsettled, now: Timestamp) -> Self {
        let mut dispatch = Self {
            routes,
            alerts: HashMap::new(),
            groups: BTreeMap::new(),
            keys: HashMap::new(),
            silences: Vec::new(),
            unusable: Vec::new(),
            sources: HashMap::new(),
            events: Vec::new(),
            settled: Vec::new(),
            suppressed: Vec::new(),
        };
        let told = |told: StoredTold| {
            (
                (told.alert_id, told.group_key, told.channel),
                (told.state, told.at),
            )
        };
        let told: ToldBefore = unsettled.told.into_iter().map(told).collect();
        for stored in unsettled.alerts {
            dispatch.add(stored, now, Some(&told));
        }
        let waiting: BTreeSet<(String, String)> = unsettled.waiting.into_iter().collect();
        let routes = dispatch.routes.clone();
        for ((key, channel), group) in &mut dispatch.groups {
            let lane = (key.clone(), routes.channels()[*channel].name.clone());
            group.waiting = waiting.contains(&lane);
            let node = routes.node(group.node);
            group.flush_at = match group.told_at {
                Some(told_at) => after(told_at, node.group_interval),
                None => now,
            };
            if routes.channels()[*channel].kind.keeps_alive() && group.told_at.is_some() {
                group.keep_alive_at = Some(now);
            }
        }
        dispatch
    }

    /// Puts other routes in force. What was told stays told where group and channel are still there.
    pub fn replace_routes(&mut self, routes: Arc<Routes>, now: Timestamp) {
        let mut unsettled = Unsettled::default();
        for ((key, channel), group) in &self.groups {
            let name = &self.routes.channels()[*channel].name;
            if group.waiting {
                unsettled.waiting.push((key.clone(), name.clone()));
            }
            for (alert_id, member) in &group.members {
                if member.told == Told::Firing {
                    unsettled.told.push(StoredTold {
                        group_key: key.clone(),
                        channel: name.clone(),
                        alert_id: alert_id.clone(),
                        state: FIRING.to_owned(),
                        at: group.told_at.unwrap_or(now),
                    });
                }
            }
        }
        for (alert_id, tracked) in std::mem::take(&mut self.alerts) {
            for (group_key, channel) in tracked.done {
                unsettled.told.push(StoredTold {
                    group_key,
                    channel,
                    alert_id: alert_id.clone(),
                    state: RESOLVED.to_owned(),
                    at: now,
                });
            }
            unsettled.alerts.push(tracked.stored);
        }
        unsettled.alerts.sort_by(|a, b| {
            (a.alert.fired_at, &a.alert.alert_id).cmp(&(b.alert.fired_at, &b.alert.alert_id))
        });
        let mut next = Self::restore(routes, unsettled, now);
        next.silences = std::mem::take(&mut self.silences);
        next.unusable = std::mem::take(&mut self.unusable);
        next.events.splice(0..0, std::mem::take(&mut self.events));
        next.settled.splice(0..0, std::mem::take(&mut self.settled));
        *self = next;
    }

    /// The routes in force.
    #[must_use]
    pub const fn routes(&self) -> &Arc<Routes> {
        &self.routes
    }

    /// Alerts in mind.
    #[must_use]
    pub fn alerts(&self) -> usize {
        self.alerts.len()
    }

    /// Takes an alert that began, or that is as it is in the store; false if there is no room. One
    /// that is known is only looked at for its end.
    pub fn take(&mut self, stored: StoredAlert, now: Timestamp) -> bool {
        let alert_id = &stored.alert.alert_id;
        if self.alerts.contains_key(alert_id) {
            if let Some(at) = stored.resolved_at {
                self.resolved(&stored.alert.alert_id, at, now);
            }
            return true;
        }
        if self.alerts.len() >= ALERTS_MAX {
            return false;
        }
        self.add(stored, now, None);
        true
    }

    /// Takes the end of an alert.
    pub fn resolved(&mut self, alert_id: &str, at: Timestamp, now: Timestamp) {
        let Some(tracked) = self.alerts.get_mut(alert_id) else {
            return;
        };
        if tracked.stored.resolved_at.is_some() {
            return;
        }
        tracked.stored.resolved_at = Some(at);
        for (index, inhibition) in self.routes.inhibitions.iter().enumerate() {
            let key = (index, inhibition.equals(&tracked.labels));
            if let Some(sources) = self.sources.get_mut(&key) {
                sources.remove(alert_id);
                if sources.is_empty() {
                    self.sources.remove(&key);
                }
            }
        }
        let places = tracked.places.clone();
        for place in &places {
            let keeps_alive = self.routes.channels()[place.1].kind.keeps_alive();
            if let Some(group) = self.groups.get_mut(place)
                && keeps_alive
            {
                group.flush_at = group.flush_at.min(now);
            }
        }
        if places.is_empty() {
            self.settle(alert_id, now);
        }
    }

    /// Takes who took note of what.
    pub fn acknowledged(&mut self, acknowledgements: Vec<Acknowledgement>) {
        for Acknowledgement { alert_id, at, by } in acknowledgements {
            if let Some(tracked) = self.alerts.get_mut(&alert_id) {
                tracked.stored.acknowledged_at = Some(at);
                tracked.stored.acknowledged_by = Some(by);
            }
        }
    }

    /// Takes the silences that have not ended. One whose matchers cannot be compiled silences nothing
    /// and is told of in the answer.
    ///
    /// This comes with every look, and a thousand silences of 20 expressions take long to compile: one
    /// that was there at the last look and says the same is taken over from it. What is kept is thus
    /// as much as the store has.
    pub fn set_silences(&mut self, silences: Vec<Silence>) -> Vec<String> {
        let mut known: HashMap<_, _> = std::mem::take(&mut self.silences)
            .into_iter()
            .map(|(silence, compiled)| (silence.id, (silence.matchers, Ok(compiled))))
            .collect();
        let unusable = std::mem::take(&mut self.unusable).into_iter();
        known.extend(unusable.map(|(silence, why)| (silence.id, (silence.matchers, Err(why)))));
        for silence in silences {
            let compiled = match known.remove(&silence.id) {
                Some((matchers, compiled)) if matchers == silence.matchers => compiled,
                _ => compile(&silence),
            };
            match compiled {
                Ok(matchers) => self.silences.push((silence, matchers)),
                Err(why) => self.unusable.push((silence, why)),
            }
        }
        self.unusable.iter().map(|(_, why)| why.clone()).collect()
    }

    /// A notification has arrived, or was given up: the next one of its group need not wait.
    pub fn delivered(&mut self, group_key: &str, channel: &str) {
        let channels = self.routes.channels();
        let Some(channel) = channels.iter().position(|known| known.name == channel) else {
            return;
        };
        let place = (group_key.to_owned(), channel);
        if let Some(group) = self.groups.get_mut(&place) {
            group.waiting = false;
            if group.members.is_empty() {
                self.remove_group(&place);
            }
        }
    }

    /// When something is to be done; in the past if there is something to be written now.
    #[must_use]
    pub fn due_at(&self) -> Option<Timestamp> {
        if !self.events.is_empty() || !self.settled.is_empty() {
            return Some(Timestamp::MIN);
        }
        self.groups.values().filter_map(Group::due_at).min()
    }

    /// Looks at every group that is due.
    pub fn flush(&mut self, now: Timestamp) -> Decisions {
        let due: Vec<Place> = self
            .groups
            .iter()
            .filter(|(_, group)| group.due_at().is_some_and(|at| at <= now))
            .map(|(place, _)| place.clone())
            .collect();
        let mut decisions = Decisions::default();
        for place in due {
            let Some(mut group) = self.groups.remove(&place) else {
                continue;
            };
            if group.flush_at <= now {
                decisions
                    .notifications
                    .extend(self.look_at(&place, &mut group, now));
            }
            if group.keep_alive_at.is_some_and(|at| at <= now) && !group.waiting {
                decisions.reminders.extend(self.remind(&place, &group, now));
                group.keep_alive_at = Some(after(now, KEEP_ALIVE));
            }
            let is_over = group.members.is_empty() && !group.waiting;
            self.groups.insert(place.clone(), group);
            if is_over {
                self.remove_group(&place);
            }
        }
        decisions.events = std::mem::take(&mut self.events);
        decisions.settled = std::mem::take(&mut self.settled);
        decisions.suppressed = std::mem::take(&mut self.suppressed);
        decisions
    }

    fn look_at(&mut self, place: &Place, group: &mut Group, now: Timestamp) -> Option<Decision> {
        let routes = self.routes.clone();
        let (node, channel) = (routes.node(group.node), &routes.channels()[place.1]);
        let muted = node.is_muted(now);
        let (mut firing, mut ended, mut over) = (Vec::new(), Vec::new(), Vec::new());
        let (mut is_new, mut may_repeat) = (false, false);
        for (alert_id, member) in &mut group.members {
            let Some(tracked) = self.alerts.get(alert_id) else {
                over.push((alert_id.clone(), false));
                continue;
            };
            let suppression = self.suppression(alert_id, &tracked.labels, muted, now);
            let is_over = tracked.stored.resolved_at.is_some();
            let quiet = suppression.is_some();
            let untold = member.told == Told::Nothing;
            let wanted = untold || channel.send_resolved || !is_over;
            let acknowledged = tracked.stored.acknowledged_at.is_some();
            let key = suppression.as_ref().map(|what| self.key_of(what));
            if key != member.suppressed && (quiet || !is_over) {
                let event = self.suppression_event(alert_id, suppression.as_ref(), channel, now);
                self.events.push(event);
                if quiet {
                    self.suppressed.push(channel.kind.as_str());
                }
                member.suppressed = key;
            }
            match (is_over, quiet) {
                (true, false) if wanted => {
                    ended.push(alert_id.clone());
                    over.push((alert_id.clone(), true));
                }
                (true, _) => over.push((alert_id.clone(), false)),
                (false, false) => {
                    is_new |= untold;
                    may_repeat |= !untold && !acknowledged;
                    firing.push(alert_id.clone());
                }
                (false, true) => {}
            }
        }
        let repeat_due = group
            .told_at
            .is_some_and(|told_at| after(told_at, node.repeat_interval) <= now);
        let why = if is_new {
            Some(Why::New)
        } else if !ended.is_empty() {
            Some(Why::Ended)
        } else if repeat_due && may_repeat && !channel.kind.keeps_alive() {
            Some(Why::Repeat)
        } else {
            None
        };
        let decision = why.map(|why| self.decision(place, group, why, &firing, &ended, now));
        if decision.is_some() {
            group.waiting = true;
            group.told_at = Some(now);
            for alert_id in &firing {
                if let Some(member) = group.members.get_mut(alert_id) {
                    member.told = Told::Firing;
                }
            }
            if channel.kind.keeps_alive() {
                group.keep_alive_at = Some(after(now, KEEP_ALIVE));
            }
        }
        for (alert_id, told) in over {
            group.members.remove(&alert_id);
            self.leave(&alert_id, place, &channel.name, told, now);
        }
        group.flush_at = group.next_flush(now, node.group_interval, node.repeat_interval);
        decision
    }

    /// What an Alertmanager is told again: all that fires and was told.
    fn remind(&self, place: &Place, group: &Group, now: Timestamp) -> Option<Decision> {
        let muted = self.routes.node(group.node).is_muted(now);
        let members = group.members.iter();
        let firing: Vec<String> = members
            .filter(|(alert_id, member)| {
                let tracked = self.alerts.get(*alert_id);
                member.told == Told::Firing
                    && tracked.is_some_and(|tracked| {
                        tracked.stored.resolved_at.is_none()
                            && self
                                .suppression(alert_id, &tracked.labels, muted, now)
                                .is_none()
                    })
            })
            .map(|(alert_id, _)| alert_id.clone())
            .collect();
        (!firing.is_empty()).then(|| self.decision(place, group, Why::Repeat, &firing, &[], now))
    }

    fn decision(
        &self,
        (key, channel): &Place,
        group: &Group,
        why: Why,
        firing: &[String],
        ended: &[String],
        now: Timestamp,
    ) -> Decision {
        let channel = &self.routes.channels()[*channel];
        let listed = if channel.kind.keeps_alive() {
            LISTED_ALERTMANAGER_MAX
        } else {
            LISTED_MAX
        };
        let all = firing.iter().map(|id| (id, FIRING));
        let all = all.chain(ended.iter().map(|id| (id, RESOLVED)));
        let alerts = all
            .clone()
            .filter_map(|(id, state)| Some(notified(self.alerts.get(id)?, state)))
            .take(listed)
            .collect();
        Decision {
            channel: channel.name.clone(),
            notification: Notification {
                receiver: channel.receiver.clone(),
                group_key: key.clone(),
                group_labels: group.labels.clone(),
                status: if firing.is_empty() { RESOLVED } else { FIRING }.to_owned(),
                why,
                at: fleet_shared::model::to_micros(now),
                alerts,
                firing: firing.len(),
                resolved: ended.len(),
                traceparent: all
                    .clone()
                    .find_map(|(id, _)| trace_of(self.alerts.get(id)?)),
            },
            alerts: all.map(|(id, state)| (id.clone(), state)).collect(),
        }
    }

    fn suppression(
        &self,
        alert_id: &str,
        labels: &Labels,
        muted: bool,
        now: Timestamp,
    ) -> Option<Suppression> {
        let mut silences = self.silences.iter();
        let silence = silences
            .position(|(silence, matchers)| silence.is_active(now) && all_match(matchers, labels));
        if let Some(silence) = silence {
            return Some(Suppression::Silence(silence));
        }
        for (index, inhibition) in self.routes.inhibitions.iter().enumerate() {
            if !inhibition.is_target(labels) {
                continue;
            }
            let Some(sources) = self.sources.get(&(index, inhibition.equals(labels))) else {
                continue;
            };
            // Alerts that are both source and target do not keep each other quiet.
            let is_both = inhibition.is_source(labels);
            let source = sources.iter().find(|source| {
                let labels = self.alerts.get(*source).map(|source| &source.labels);
                *source != alert_id
                    && labels.is_some_and(|labels| !is_both || !inhibition.is_target(labels))
            });
            if let Some(source) = source {
                return Some(Suppression::Alert(source.clone()));
            }
        }
        muted.then_some(Suppression::TimeOfDay)
    }

    fn key_of(&self, suppression: &Suppression) -> String {
        match suppression {
            Suppression::Silence(index) => format!("silence {}", self.silences[*index].0.id),
            // Whichever it is: a change of the source is no news.
            Suppression::Alert(_) => "alert".to_owned(),
            Suppression::TimeOfDay => "time".to_owned(),
        }
    }

    fn suppression_event(
        &self,
        alert_id: &str,
        suppression: Option<&Suppression>,
        channel: &Channel,
        now: Timestamp,
    ) -> NewAlertEvent {
        let mut detail = match suppression {
            None => json!({}),
            Some(Suppression::Silence(index)) => {
                let silence = &self.silences[*index].0;
                json!({
                    "by": "silence", "silence": silence.id, "created_by": silence.created_by,
                    "comment": silence.comment, "until": silence.ends_at,
                })
            }
            Some(Suppression::Alert(source)) => json!({ "by": "inhibition", "alert_id": source }),
            Some(Suppression::TimeOfDay) => json!({ "by": "time" }),
        };
        detail["channel"] = channel.name.as_str().into();
        NewAlertEvent {
            alert_id: alert_id.to_owned(),
            at: fleet_shared::model::to_micros(now),
            kind: if suppression.is_some() {
                EventKind::Suppressed
            } else {
                EventKind::Released
            },
            detail: detail.to_string(),
        }
    }

    fn add(&mut self, stored: StoredAlert, now: Timestamp, told: Option<&ToldBefore>) {
        let alert_id = stored.alert.alert_id.clone();
        let labels = Labels::of(&stored);
        let routes = self.routes.clone();
        let (mut places, mut done, mut routed) = (BTreeSet::new(), Vec::new(), Vec::new());
        let mut was_told = false;
        for index in routes.nodes_for(&labels) {
            let node = routes.node(index);
            let (key, group_labels) = self.group_of(index, &labels);
            let names = node.channels.iter();
            let names: Vec<&str> = names
                .map(|place| routes.channels()[*place].name.as_str())
                .collect();
            routed.push(json!({
                "route": node.path, "receiver": node.receiver, "channels": names, "group": key,
            }));
            for &channel in &node.channels {
                let channel_name = routes.channels()[channel].name.clone();
                let lane = (alert_id.clone(), key.clone(), channel_name.clone());
                let last = told.and_then(|told| told.get(&lane));
                was_told |= last.is_some();
                if last.is_some_and(|(state, _)| state == RESOLVED) {
                    done.push((key.clone(), channel_name));
                    continue;
                }
                let place = (key.clone(), channel);
                let keeps_alive = routes.channels()[channel].kind.keeps_alive();
                let wait = if keeps_alive {
                    now
                } else {
                    after(now, node.group_wait)
                };
                let group = self
                    .groups
                    .entry(place.clone())
                    .or_insert_with(|| Group::new(index, group_labels.clone(), wait));
                if keeps_alive {
                    group.flush_at = group.flush_at.min(now);
                }
                if let Some((_, at)) = last {
                    group.told_at = group.told_at.max(Some(*at));
                }
                let told = if last.is_some() {
                    Told::Firing
                } else {
                    Told::Nothing
                };
                let member = Member {
                    told,
                    suppressed: None,
                };
                group.members.insert(alert_id.clone(), member);
                places.insert(place);
            }
        }
        if !was_told {
            self.events.push(NewAlertEvent {
                alert_id: alert_id.clone(),
                at: fleet_shared::model::to_micros(now),
                kind: EventKind::Routed,
                detail: json!({ "routes": routed }).to_string(),
            });
        }
        if stored.resolved_at.is_none() {
            for (index, inhibition) in routes.inhibitions.iter().enumerate() {
                if inhibition.is_source(&labels) {
                    let key = (index, inhibition.equals(&labels));
                    self.sources
                        .entry(key)
                        .or_default()
                        .insert(alert_id.clone());
                }
            }
        }
        let is_over = stored.resolved_at.is_some() && places.is_empty();
        let tracked = Tracked {
            stored,
            labels,
            places,
            done,
        };
        self.alerts.insert(alert_id.clone(), tracked);
        if is_over {
            self.settle(&alert_id, now);
        }
    }

    /// Key and labels of an alert's group at a node.
    fn group_of(&mut self, node: usize, labels: &Labels) -> (String, BTreeMap<String, String>) {
        let path = &self.routes.node(node).path;
        let group = self.routes.node(node).group_by.group(labels);
        let pairs: Vec<String> = group
            .iter()
            .map(|(name, value)| format!("{name}={value:?}"))
            .collect();
        let key = format!("{path}:{{{}}}", pairs.join(","));
        let keys = self.keys.entry(node).or_default();
        if keys.len() < GROUPS_MAX || keys.contains(&key) {
            keys.insert(key.clone());
            return (key, group);
        }
        // Bounded: a storm over many labels becomes one notification.
        (format!("{path}:{{…}}"), BTreeMap::new())
    }

    fn remove_group(&mut self, place: &Place) {
        let Some(group) = self.groups.remove(place) else {
            return;
        };
        let is_used = self
            .groups
            .range((place.0.clone(), 0)..=(place.0.clone(), usize::MAX))
            .next()
            .is_some();
        if !is_used && let Some(keys) = self.keys.get_mut(&group.node) {
            keys.remove(&place.0);
        }
    }

    /// Nothing more is told about an alert in a place.
    fn leave(&mut self, alert_id: &str, place: &Place, channel: &str, told: bool, now: Timestamp) {
        let Some(tracked) = self.alerts.get_mut(alert_id) else {
            return;
        };
        tracked.places.remove(place);
        if told {
            tracked.done.push((place.0.clone(), channel.to_owned()));
        }
        if tracked.places.is_empty() {
            self.settle(alert_id, now);
        }
    }

    fn settle(&mut self, alert_id: &str, now: Timestamp) {
        self.alerts.remove(alert_id);
        let now = fleet_shared::model::to_micros(now);
        self.settled.push((alert_id.to_owned(), now));
    }
}

fn notified(tracked: &Tracked, state: &'static str) -> NotifiedAlert {
    let StoredAlert {
        alert,
        resolved_at,
        acknowledged_by,
        ..
    } = &tracked.stored;
    let metadata: BTreeMap<String, String> =
        serde_json::from_str(&alert.metadata).unwrap_or_default();
    let annotations = metadata.iter().filter_map(|(name, value)| {
        let name = name.strip_prefix("annotation.")?;
        Some((name.to_owned(), value.clone()))
    });
    NotifiedAlert {
        alert_id: alert.alert_id.clone(),
        status: state.to_owned(),
        rule: alert.rule.clone(),
        severity: alert.severity.clone(),
        sensor_id: alert.sensor_id.clone(),
        message: alert.message.clone(),
        value: metadata.get("value").cloned().unwrap_or_default(),
        starts_at: alert.fired_at,
        ends_at: (*resolved_at).filter(|_| state == RESOLVED),
        acknowledged_by: acknowledged_by.clone(),
        labels: tracked.labels.map().clone(),
        annotations: annotations.collect(),
    }
}

/// The trace of the reading that an alert began with. A notification about several alerts is in that
/// of the first.
fn trace_of(tracked: &Tracked) -> Option<String> {
    let metadata = &tracked.stored.alert.metadata;
    let mut metadata: BTreeMap<String, String> = serde_json::from_str(metadata).ok()?;
    metadata.remove(TRACEPARENT)
}

#[cfg(test)]
#[path = "dispatch_tests.rs"]
mod tests;
