//! All rules over all sensors: messages and the clock in, changes out. Knows no broker, no store
//! and no clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fleet_shared::model::{SensorReading, StatusMessage};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::condition::Subject;
use crate::marks;
use crate::rule::{Facts, Rule, RuleSet};
use crate::state::{Machine, Mark, Phase, Stamp, Transition, Verdict, after};
use crate::story::{Before, Cause, Step, steps};
use crate::window::Window;

/// Sensors tracked at most, some 500 bytes each; what a further one says is not evaluated.
pub(crate) const SENSORS_MAX: usize = 500_000;

/// Time without a message after which a sensor about which nothing is known to be wrong is
/// forgotten.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(24 * 3_600);

/// A change of one rule's state for one sensor, to be made durable.
#[derive(Clone, Debug)]
pub struct Change {
    /// The rule.
    pub rule: Arc<Rule>,
    /// The sensor or device.
    pub sensor_id: String,
    /// What is announced, in order; mostly none or one.
    pub transitions: Vec<(Transition, Facts)>,
    /// What led to it, for explanation; none before an alert fires.
    pub steps: Vec<Step>,
    /// The state now.
    pub saved: Saved,
}

/// The state of one rule for one sensor as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// Where it is in its life.
    pub machine: Machine,
    /// The message with which the episode began; empty while there is none.
    #[serde(default)]
    pub facts: Facts,
}

/// A stored state and what it belongs to.
#[derive(Clone, Debug)]
pub struct SavedTrack {
    /// Name of the rule.
    pub rule: String,
    /// The sensor or device.
    pub sensor_id: String,
    /// The state.
    pub saved: Saved,
}

/// What became of one message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evaluated {
    /// Rules that were evaluated.
    pub evaluations: u32,
    /// Rules whose condition failed.
    pub failures: u32,
    /// The message was not newer than the last one, for some rule.
    pub stale: bool,
    /// It came from a sensor beyond the most that are kept, `SENSORS_MAX`.
    pub refused: bool,
}

/// What is announced because of a message, and what led to it.
type Observed = (Vec<(Transition, Facts)>, Vec<Step>);

struct Track {
    rule: u32,
    saved: Saved,
    window: Option<Box<Window>>,
    refill: Option<Box<Refill>>,
}

/// How an empty window comes by what was before.
struct Refill {
    /// The last reading that was evaluated when it was empty: all later ones come as messages.
    mark: Timestamp,
    /// What the store has up to there, while it is read.
    past: Option<Window>,
}

impl Refill {
    fn new(mark: Timestamp) -> Self {
        Self { mark, past: None }
    }
}

struct Sensor {
    id: Arc<str>,
    /// In the order of their rules' numbers.
    tracks: Vec<Track>,
    /// It is among those to be noted.
    is_evaluated: bool,
}

/// Rules and the state of every sensor they look at.
pub struct Engine {
    rules: Arc<RuleSet>,
    sensors: HashMap<Arc<str>, Sensor>,
    /// Sensors of which messages were evaluated since that was last noted.
    evaluated: Vec<Arc<str>>,
    /// Rules that look at `found_on`, the last topic that was asked about.
    found: Vec<u32>,
    found_on: String,
}

impl Engine {
    /// An engine that has seen nothing.
    #[must_use]
    pub fn new(rules: Arc<RuleSet>) -> Self {
        Self {
            rules,
            sensors: HashMap::new(),
            evaluated: Vec::new(),
            found: Vec::new(),
            found_on: String::new(),
        }
    }

    /// An engine that goes on where another one stopped: from the states it stored, and from `marks`,
    /// entries of [`Engine::take_marks`] in their order. Silence counts from `now` on. States whose
    /// rules are gone go to `gone`.
    #[must_use]
    pub fn restore(
        rules: Arc<RuleSet>,
        tracks: Vec<SavedTrack>,
        marks: &[String],
        now: Timestamp,
        gone: &mut Vec<SavedTrack>,
    ) -> Self {
        let mut engine = Self::new(rules);
        for mut track in tracks {
            let Some(rule) = engine.rules.id_of(&track.rule) else {
                gone.push(track);
                continue;
            };
            track.saved.machine.resume(now);
            // What was stored is there whatever the limit is now.
            if let Some(sensor) = sensor_of(&mut engine.sensors, &track.sensor_id, usize::MAX) {
                track_of(&mut sensor.tracks, rule).0.saved = track.saved;
            }
        }
        for text in marks {
            let read = marks::read(text, |sensor_id, rule, mark| {
                engine.advance(sensor_id, rule, &mark, now);
            });
            if let Err(error) = read {
                tracing::error!(%error, "an entry of the journal of evaluated messages cannot be read and is left out");
            }
        }
        engine
    }

    fn advance(&mut self, sensor_id: &str, rule: &str, mark: &Mark, now: Timestamp) {
        let Some(id) = self.rules.id_of(rule) else {
            return;
        };
        let looks_back = self
            .rules
            .rule(id)
            .is_some_and(|rule| rule.span().is_some());
        if let Some(sensor) = sensor_of(&mut self.sensors, sensor_id, SENSORS_MAX) {
            let (track, _) = track_of(&mut sensor.tracks, id);
            track.saved.machine.advance(mark);
            track.saved.machine.resume(now);
            // Of what another group has evaluated since then, nothing is known here.
            let mark = track.saved.machine.mark().filter(|_| looks_back);
            track.refill = mark.map(|mark| Box::new(Refill::new(mark.at)));
        }
    }

    /// Whether messages were evaluated of which no entry was taken yet.
    #[must_use]
    pub fn has_marks(&self) -> bool {
        !self.evaluated.is_empty()
    }

    /// How far it is with the sensors of which messages were evaluated since the last time, or with
    /// all of them: an entry to be stored before those messages are acknowledged.
    pub fn take_marks(&mut self, all: bool) -> String {
        let mut writer = marks::Writer::default();
        let rules = &self.rules;
        let mut note = |sensor_id: &str, sensor: &mut Sensor| {
            sensor.is_evaluated = false;
            for track in &sensor.tracks {
                if let (Some(rule), Some(mark)) =
                    (rules.rule(track.rule), track.saved.machine.mark())
                {
                    writer.mark(track.rule, || &rule.name, mark);
                }
            }
            writer.sensor(sensor_id);
        };
        let evaluated = std::mem::take(&mut self.evaluated);
        if all {
            for (sensor_id, sensor) in &mut self.sensors {
                note(sensor_id, sensor);
            }
        } else {
            for sensor_id in &evaluated {
                // One that is forgotten or another group's by now needs no mark.
                if let Some(sensor) = self.sensors.get_mut(sensor_id) {
                    note(sensor_id, sensor);
                }
            }
        }
        // Its memory serves for the next ones.
        self.evaluated = evaluated;
        self.evaluated.clear();
        writer.finish()
    }

    /// The rules in force.
    #[must_use]
    pub fn rules(&self) -> &Arc<RuleSet> {
        &self.rules
    }

    /// Sensors it has a state for.
    #[must_use]
    pub fn sensors(&self) -> usize {
        self.sensors.len()
    }

    /// Goes on from the state that a rule has for a sensor in another group; the change that says so,
    /// unless there is no such rule, or a state already.
    pub fn adopt(&mut self, track: SavedTrack, now: Timestamp) -> Option<Change> {
        let id = self.rules.id_of(&track.rule)?;
        let rule = self.rules.rule(id)?.clone();
        let sensor = sensor_of(&mut self.sensors, &track.sensor_id, SENSORS_MAX)?;
        let (known, _) = track_of(&mut sensor.tracks, id);
        if known.saved.machine.phase().is_firing() {
            return None;
        }
        known.saved = track.saved;
        known.saved.machine.resume(now);
        Some(known.change(&rule, &track.sensor_id, Vec::new(), Vec::new()))
    }

    /// Lets go of the state of a rule for a sensor, which another group has now.
    pub fn disown(&mut self, rule: &str, sensor_id: &str) {
        let Some(id) = self.rules.id_of(rule) else {
            return;
        };
        if let Some(sensor) = self.sensors.get_mut(sensor_id) {
            sensor.tracks.retain(|track| track.rule != id);
            if sensor.tracks.is_empty() {
                self.sensors.remove(sensor_id);
            }
        }
    }

    /// Whether the rule of that name looks at the topic that was last asked about.
    #[must_use]
    pub(crate) fn found(&self, rule: &str) -> bool {
        self.rules
            .id_of(rule)
            .is_some_and(|id| self.found.contains(&id))
    }

    /// How many sensors fire and are pending, for each rule in the order of the file.
    #[must_use]
    pub fn counts(&self) -> Vec<(u64, u64)> {
        let mut counts = vec![(0, 0); self.rules.rules().len()];
        for track in self.sensors.values().flat_map(|sensor| &sensor.tracks) {
            let Some((firing, pending)) = counts.get_mut(track.rule as usize) else {
                continue;
            };
            match track.saved.machine.phase() {
                Phase::Inactive => {}
                Phase::Pending { .. } => *pending += 1,
                Phase::Firing { .. } | Phase::Clearing { .. } => *firing += 1,
            }
        }
        counts
    }

    /// Whether any rule looks at `topic`; where none does, the payload need not even be read.
    #[must_use]
    pub fn looks_at(&mut self, topic: &str) -> bool {
        self.find(topic);
        !self.found.is_empty()
    }

    fn find(&mut self, topic: &str) {
        if self.found_on != topic {
            self.rules.matching(topic, &mut self.found);
            self.found_on.clear();
            self.found_on.push_str(topic);
        }
    }

    /// Takes a reading that came on `topic`.
    pub fn reading(
        &mut self,
        topic: &str,
        reading: &SensorReading,
        received_at: Timestamp,
        changes: &mut Vec<Change>,
    ) -> Evaluated {
        let stamp = Stamp::reading(reading.timestamp, received_at);
        self.take(
            topic,
            Subject::Reading(reading),
            &stamp,
            Some(reading.value),
            changes,
        )
    }

    /// How far rules look back that look at more than one reading, the longest first.
    #[must_use]
    pub fn spans(&self) -> Vec<Duration> {
        let mut spans: Vec<_> = self
            .rules
            .rules()
            .iter()
            .filter_map(|it| it.span())
            .collect();
        spans.sort_unstable_by(|a, b| b.cmp(a));
        spans.dedup();
        spans
    }

    /// Begins to fill windows from the store, of rules that look back no longer than `span`: what was
    /// remembered before is forgotten.
    pub fn begin_to_remember(&mut self, span: Duration) {
        let rules = &self.rules;
        for track in self.sensors.values_mut().flat_map(|it| &mut it.tracks) {
            let fits = rules.rule(track.rule).and_then(|rule| rule.span());
            let fits = fits.is_some_and(|of_rule| of_rule <= span);
            if let Some(refill) = &mut track.refill {
                refill.past = fits.then(Window::default);
            }
        }
    }

    /// Takes a reading out of the store, where they come in the order of time. What was evaluated
    /// before the windows were empty belongs into them; what is later comes as a message, or has come.
    pub fn remember(&mut self, reading: &SensorReading) {
        self.find(&reading.topic());
        let Some(sensor) = self.sensors.get_mut(reading.sensor_id.as_str()) else {
            return;
        };
        for track in &mut sensor.tracks {
            if let Some(refill) = &mut track.refill
                && reading.timestamp <= refill.mark
                && let Some(past) = &mut refill.past
                && past
                    .newest()
                    .is_none_or(|newest| newest < reading.timestamp)
                && self.found.contains(&track.rule)
                && let Some(span) = self.rules.rule(track.rule).and_then(|rule| rule.span())
            {
                past.push(reading.timestamp, reading.value, span);
            }
        }
    }

    /// All of the past was taken. A window of which the store has the last reading that was evaluated
    /// goes on from there; of the others something may be missing, and they fill by themselves. How
    /// many do so.
    pub fn has_remembered(&mut self) -> (usize, usize) {
        let (mut filled, mut left) = (0, 0);
        let rules = &self.rules;
        for track in self.sensors.values_mut().flat_map(|it| &mut it.tracks) {
            let Some(refill) = track.refill.take() else {
                continue;
            };
            let span = rules.rule(track.rule).and_then(|rule| rule.span());
            match (refill.past, span) {
                (Some(past), Some(span)) if past.newest() == Some(refill.mark) => {
                    filled += 1;
                    track.window.get_or_insert_default().follow(past, span);
                }
                _ => left += 1,
            }
        }
        (filled, left)
    }

    /// Lets windows fill by themselves from here on.
    pub fn forget_past(&mut self) {
        for track in self.sensors.values_mut().flat_map(|it| &mut it.tracks) {
            track.refill = None;
        }
    }

    /// Empties windows: messages were missed.
    pub fn forget_windows(&mut self) {
        for track in self.sensors.values_mut().flat_map(|it| &mut it.tracks) {
            track.window = None;
            track.refill = None;
        }
    }

    /// Takes the presence of a device.
    pub fn status(
        &mut self,
        topic: &str,
        status: &StatusMessage,
        received_at: Timestamp,
        changes: &mut Vec<Change>,
    ) -> Evaluated {
        let stamp = Stamp {
            at: status.at.unwrap_or(received_at),
            received_at,
            session: status.session_id,
            // A will says why; a device that says good-bye itself does not.
            is_will: !status.online && status.reason.is_some(),
        };
        self.take(topic, Subject::Status(status), &stamp, None, changes)
    }

    fn take(
        &mut self,
        topic: &str,
        subject: Subject<'_>,
        stamp: &Stamp,
        value: Option<f64>,
        changes: &mut Vec<Change>,
    ) -> Evaluated {
        let mut evaluated = Evaluated::default();
        self.find(topic);
        if self.found.is_empty() {
            return evaluated;
        }
        let sensor_id = subject.sensor_id();
        let Some(sensor) = sensor_of(&mut self.sensors, sensor_id, SENSORS_MAX) else {
            evaluated.refused = true;
            return evaluated;
        };
        let tracks = &mut sensor.tracks;
        for &id in &self.found {
            let Some(rule) = self.rules.rule(id) else {
                continue;
            };
            let (track, is_new) = track_of(tracks, id);
            if track.saved.machine.admits(stamp).is_none() {
                evaluated.stale = true;
                continue;
            }
            evaluated.evaluations += 1;
            let is_remembered = if let (Some(value), Some(span)) = (value, rule.span()) {
                let window = track.window.get_or_insert_default();
                window.push(stamp.at, value, span);
                true
            } else {
                false
            };
            let change = match rule.verdict(subject, track.window.as_deref()) {
                Ok(Some(verdict)) => track.observe(rule, subject, stamp, verdict),
                // Silence has an end, whatever was said.
                Ok(None) if rule.policy.resolve_after.is_some() => {
                    track.observe(rule, subject, stamp, Verdict::Unsaid)
                }
                Ok(None) => {
                    track.saved.machine.heard(stamp);
                    None
                }
                Err(error) => {
                    evaluated.failures += 1;
                    tracing::debug!(rule = %rule.name, sensor_id, %error, "a condition failed");
                    None
                }
            };
            if is_remembered && rule.policy.absent.is_none() {
                // Whatever was said of it, it must not come into the window again.
                track.saved.machine.passed(stamp);
            }
            if rule.policy.absent.is_some() {
                // Silence brings no message of its own: it is told by the one before it.
                track.saved.facts.renew(subject);
            }
            if let Some((transitions, steps)) = change {
                changes.push(track.change(rule, sensor_id, transitions, steps));
            } else if is_new && rule.policy.absent.is_some() {
                // A sensor that is silent after a restart must still be missed.
                changes.push(track.change(rule, sensor_id, Vec::new(), Vec::new()));
            }
        }
        if evaluated.evaluations > 0 && !sensor.is_evaluated {
            sensor.is_evaluated = true;
            self.evaluated.push(sensor.id.clone());
        }
        evaluated
    }

    /// Looks at the clock: alerts that are due, silence, and sensors to forget. Called about once a
    /// second; the keys of forgotten states go to `forgotten`.
    pub fn tick(
        &mut self,
        now: Timestamp,
        changes: &mut Vec<Change>,
        forgotten: &mut Vec<(String, String)>,
    ) {
        let rules = &self.rules;
        self.sensors.retain(|sensor_id, sensor| {
            sensor.tracks.retain_mut(|track| {
                let Some(rule) = rules.rule(track.rule) else {
                    return false;
                };
                let before = *track.saved.machine.phase();
                if let Some(transition) = track.saved.machine.tick(&rule.policy, now) {
                    changes.push(track.decided(rule, sensor_id, before, transition, Cause::Clock));
                }
                let machine = &track.saved.machine;
                let is_idle = *machine.phase() == Phase::Inactive
                    && after(machine.received_at(), IDLE_MAX) <= now;
                if is_idle {
                    forgotten.push((rule.name.clone(), sensor_id.to_string()));
                }
                !is_idle
            });
            !sensor.tracks.is_empty()
        });
    }

    /// Puts other rules in force. A rule of the same name keeps its states; alerts of rules that are
    /// gone end.
    pub fn replace_rules(
        &mut self,
        rules: Arc<RuleSet>,
        now: Timestamp,
        changes: &mut Vec<Change>,
    ) {
        let old = std::mem::replace(&mut self.rules, rules);
        self.found.clear();
        self.found_on.clear();
        let rules = &self.rules;
        for (sensor_id, Sensor { tracks, .. }) in &mut self.sensors {
            tracks.retain_mut(|track| {
                let Some(rule) = old.rule(track.rule) else {
                    return false;
                };
                if let Some(id) = rules.id_of(&rule.name) {
                    track.rule = id;
                    if !rules.rule(id).is_some_and(|new| new.remembers_as(rule)) {
                        track.window = None;
                        track.refill = None;
                    }
                    return true;
                }
                let before = *track.saved.machine.phase();
                if let Some(transition) = track.saved.machine.abandon(now) {
                    let cause = Cause::RuleGone;
                    changes.push(track.decided(rule, sensor_id, before, transition, cause));
                }
                false
            });
            tracks.sort_unstable_by_key(|track| track.rule);
        }
        self.sensors.retain(|_, sensor| !sensor.tracks.is_empty());
    }
}

impl Track {
    /// The transitions, if anything changed that must be remembered.
    fn observe(
        &mut self,
        rule: &Rule,
        subject: Subject<'_>,
        stamp: &Stamp,
        verdict: Verdict,
    ) -> Option<Observed> {
        let at = self.saved.machine.admits(stamp)?;
        let before = *self.saved.machine.phase();
        let made = self.saved.machine.observe(&rule.policy, stamp, verdict);
        let after = *self.saved.machine.phase();
        if made.is_empty() && before == after {
            return None;
        }
        let now = Facts::of(subject);
        let cause = Cause::Message {
            facts: &now,
            at,
            received_at: stamp.received_at,
            window: self.window.as_deref(),
        };
        let told = Before {
            phase: before,
            facts: self.saved.facts.clone(),
        };
        let steps = steps(rule, &told, made.iter(), &after, cause);
        let transitions = made
            .into_iter()
            .map(|transition| {
                // What began with this message is told by it, and what began before by its own.
                let facts = if transition.crossed_at == stamp.at || self.saved.facts.0.is_empty() {
                    &now
                } else {
                    &self.saved.facts
                };
                (transition, facts.clone())
            })
            .collect();
        if crossing(&before) != crossing(&after) {
            self.saved.facts = match crossing(&after) {
                Some(_) => now,
                None => Facts::default(),
            };
        }
        Some((transitions, steps))
    }

    /// The change that something else than a message made.
    fn decided(
        &self,
        rule: &Arc<Rule>,
        sensor_id: &str,
        phase: Phase,
        transition: Transition,
        cause: Cause<'_>,
    ) -> Change {
        let facts = self.saved.facts.clone();
        let before = Before {
            phase,
            facts: facts.clone(),
        };
        let after = self.saved.machine.phase();
        let steps = steps(rule, &before, std::iter::once(&transition), after, cause);
        self.change(rule, sensor_id, vec![(transition, facts)], steps)
    }

    fn change(
        &self,
        rule: &Arc<Rule>,
        sensor_id: &str,
        transitions: Vec<(Transition, Facts)>,
        steps: Vec<Step>,
    ) -> Change {
        Change {
            rule: rule.clone(),
            sensor_id: sensor_id.to_owned(),
            transitions,
            steps,
            saved: self.saved.clone(),
        }
    }
}

/// The reading that names the episode under way.
fn crossing(phase: &Phase) -> Option<Timestamp> {
    match phase {
        Phase::Inactive => None,
        Phase::Pending { crossed_at, .. }
        | Phase::Firing { crossed_at, .. }
        | Phase::Clearing { crossed_at, .. } => Some(*crossed_at),
    }
}

/// The sensor of that name, a new one unless there are `max`.
fn sensor_of<'a>(
    sensors: &'a mut HashMap<Arc<str>, Sensor>,
    sensor_id: &str,
    max: usize,
) -> Option<&'a mut Sensor> {
    if !sensors.contains_key(sensor_id) {
        if sensors.len() >= max {
            return None;
        }
        let id: Arc<str> = sensor_id.into();
        let sensor = Sensor {
            id: id.clone(),
            tracks: Vec::new(),
            is_evaluated: false,
        };
        sensors.insert(id, sensor);
    }
    sensors.get_mut(sensor_id)
}

fn track_of(tracks: &mut Vec<Track>, rule: u32) -> (&mut Track, bool) {
    let place = tracks.partition_point(|known| known.rule < rule);
    let is_new = tracks.get(place).is_none_or(|known| known.rule != rule);
    if is_new {
        tracks.insert(
            place,
            Track {
                rule,
                saved: Saved::default(),
                window: None,
                refill: None,
            },
        );
    }
    (&mut tracks[place], is_new)
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
