//! What rules would have said: the engine that runs over new readings, run over stored ones.
//!
//! The clock is the time of the readings, which come in its order, as if each had been received when
//! it was measured. Nothing is published and nothing is written.

mod report;
mod stream;
mod trace;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fleet_shared::model::SensorReading;
use jiff::Timestamp;

use crate::condition::Topic;
use crate::engine::{Change, Engine};
use crate::rule::RuleSet;
use crate::state::TransitionKind;

pub use report::{Episode, Report, RuleReport};
pub use stream::{Bounds, Progress, backtest};
pub use trace::{Column, Series, Trace};

/// Episodes that are described; of the others only numbers are kept.
pub const EPISODES_MAX: usize = 1_000;

/// Text of the episodes that are described, together.
const EPISODE_BYTES_MAX: usize = 512 * 1_024;

/// An episode that begins so soon after the one before of the same sensor is a flap, unless the rule
/// says what it takes for one.
const FLAP_WITHIN: Duration = Duration::from_secs(600);

/// Readings between two looks at the clock; with many sensors it is one for each of them, so that
/// looking at all of them costs about as much as the readings themselves.
const LOOK_AFTER: u64 = 1_000;

/// The state of one rule for one sensor, as far as it is reported.
#[derive(Clone, Copy, Debug, Default)]
struct Story {
    fired_at: Option<Timestamp>,
    resolved_at: Option<Timestamp>,
    /// Its place among the episodes of the rule, if it is described.
    episode: Option<usize>,
}

/// A run of rules over readings of a span.
pub struct Backtest {
    engine: Engine,
    from: Timestamp,
    to: Timestamp,
    reports: Vec<RuleReport>,
    stories: HashMap<(u32, String), Story>,
    trace: Option<Trace>,
    readings: u64,
    /// Rules that were asked of a reading: what time and memory go by.
    evaluations: u64,
    since_look: u64,
    described: usize,
    described_bytes: usize,
    truncated: bool,
    topic: String,
    changes: Vec<Change>,
}

impl Backtest {
    /// A run of `rules` over what was measured from `from` on, and before `to`.
    #[must_use]
    pub fn new(rules: Arc<RuleSet>, from: Timestamp, to: Timestamp) -> Self {
        let reports = rules.rules().iter().map(|rule| RuleReport {
            rule: rule.name.clone(),
            severity: rule.severity,
            episodes: Vec::new(),
            fired: 0,
            firing_seconds: 0.0,
            flaps: 0,
            skipped: (rule.topic == Topic::Status).then_some(
                "readings are stored, the status of devices is not: it cannot be tried on the past",
            ),
        });
        Self {
            reports: reports.collect(),
            engine: Engine::new(rules),
            from,
            to,
            stories: HashMap::new(),
            trace: None,
            readings: 0,
            evaluations: 0,
            since_look: 0,
            described: 0,
            described_bytes: 0,
            truncated: false,
            topic: String::new(),
            changes: Vec::new(),
        }
    }

    /// The same, and it keeps what a plot of `columns` columns needs.
    #[must_use]
    pub fn traced(mut self, columns: u32) -> Self {
        self.trace = Some(Trace::new(self.from, self.to, columns));
        self
    }

    /// Takes the next reading; they come in the order of time.
    pub fn reading(&mut self, reading: &SensorReading) {
        let now = reading.timestamp;
        self.since_look += 1;
        if self.since_look >= LOOK_AFTER.max(self.engine.sensors() as u64) {
            self.look(now);
        }
        self.readings += 1;
        self.topic.clear();
        for part in ["sensors/", &reading.location, "/", &reading.kind] {
            self.topic.push_str(part);
        }
        let mut changes = std::mem::take(&mut self.changes);
        let evaluated = self.engine.reading(&self.topic, reading, now, &mut changes);
        self.truncated |= evaluated.refused;
        self.evaluations += u64::from(evaluated.evaluations);
        self.tell(&mut changes);
        self.changes = changes;
        if let Some(trace) = &mut self.trace {
            trace.add(reading);
        }
    }

    /// What came of it; `complete` if all readings of the span were taken. Otherwise the span of the
    /// report ends with the last one.
    #[must_use]
    pub fn end(mut self, reached: Timestamp, complete: bool) -> (Report, Option<Trace>) {
        let end = if complete { self.to } else { reached };
        self.look(end);
        for ((rule, _), story) in &self.stories {
            if let (Some(fired_at), Some(report)) =
                (story.fired_at, self.reports.get_mut(*rule as usize))
            {
                report.firing_seconds += seconds(fired_at, end);
            }
        }
        let report = Report {
            from: self.from,
            to: end,
            readings: self.readings,
            rules: self.reports,
            truncated: self.truncated || !complete,
        };
        (report, self.trace)
    }

    /// Looks at the clock: what is due by now, and which sensors can be forgotten.
    fn look(&mut self, now: Timestamp) {
        self.since_look = 0;
        let mut changes = std::mem::take(&mut self.changes);
        // Nothing was stored, so there is nothing to forget there.
        let mut forgotten = Vec::new();
        self.engine.tick(now, &mut changes, &mut forgotten);
        self.tell(&mut changes);
        self.changes = changes;
    }

    fn tell(&mut self, changes: &mut Vec<Change>) {
        for change in changes.drain(..) {
            let Some(rule) = self.engine.rules().id_of(&change.rule.name) else {
                continue;
            };
            if change.transitions.is_empty() {
                continue;
            }
            let report = &mut self.reports[rule as usize];
            let story = self
                .stories
                .entry((rule, change.sensor_id.clone()))
                .or_default();
            for (transition, facts) in &change.transitions {
                match transition.kind {
                    TransitionKind::Firing => {
                        report.fired += 1;
                        let within = change
                            .rule
                            .policy
                            .flap
                            .map_or(FLAP_WITHIN, |flap| flap.within);
                        let is_flap = story.resolved_at.is_some_and(|resolved_at| {
                            transition.at <= crate::state::after(resolved_at, within)
                        });
                        report.flaps += u64::from(is_flap);
                        story.fired_at = Some(transition.at);
                        story.episode = None;
                        if self.described < EPISODES_MAX && self.described_bytes < EPISODE_BYTES_MAX
                        {
                            let episode =
                                Episode::new(&change.rule, &change.sensor_id, transition, facts);
                            self.described += 1;
                            self.described_bytes += episode.message.len() + 256;
                            story.episode = Some(report.episodes.len());
                            report.episodes.push(episode);
                        } else {
                            self.truncated = true;
                        }
                    }
                    TransitionKind::Resolved => {
                        if let Some(fired_at) = story.fired_at.take() {
                            report.firing_seconds += seconds(fired_at, transition.at);
                        }
                        if let Some(index) = story.episode.take() {
                            report.episodes[index].resolved_at = Some(transition.at);
                        }
                        story.resolved_at = Some(transition.at);
                    }
                }
            }
        }
    }
}

/// From `from` to `to`, not negative.
fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64().max(0.0)
}

#[cfg(test)]
mod tests;
