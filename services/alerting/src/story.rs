//! How an alert came to be: each step of its life with the reading, the window and the condition
//! that decided it.

use std::time::Duration;

use fleet_shared::config::format_duration;
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::condition::Condition;
use crate::rule::{Facts, Rule};
use crate::state::{Phase, Transition, TransitionKind};
use crate::window::Window;

/// Something that happened in the life of an alert.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What.
    pub kind: StepKind,
    /// The time of the reading with which the episode began: names the episode.
    pub crossed_at: Timestamp,
    /// When, in event time.
    pub at: Timestamp,
    /// What decided it, as a JSON object.
    pub detail: Map<String, Value>,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// The condition began to hold; told once the alert fires.
    Pending,
    /// It fires.
    Firing,
    /// The condition is cleared, and it fires on for a while.
    Clearing,
    /// The condition holds again before that while was over.
    FiringAgain,
    /// It ended.
    Resolved,
}

/// What made a state change.
#[derive(Clone, Copy)]
pub(crate) enum Cause<'a> {
    /// A message, and the readings before it if the rule looks back.
    Message {
        facts: &'a Facts,
        /// When it counts as measured.
        at: Timestamp,
        received_at: Timestamp,
        window: Option<&'a Window>,
    },
    /// The clock.
    Clock,
    /// The rule is gone.
    RuleGone,
}

/// The state before a change.
#[derive(Clone, Debug)]
pub(crate) struct Before {
    pub(crate) phase: Phase,
    pub(crate) facts: Facts,
}

/// The steps of a change, in order. None for one that begins no episode or has not fired yet: what
/// never fires is not told.
pub(crate) fn steps<'t>(
    rule: &Rule,
    before: &Before,
    transitions: impl Iterator<Item = &'t Transition>,
    after: &Phase,
    cause: Cause<'_>,
) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut quiet = true;
    for transition in transitions {
        quiet = false;
        if transition.kind == TransitionKind::Firing {
            steps.extend(pending(rule, before, transition));
        }
        steps.push(Step {
            kind: match transition.kind {
                TransitionKind::Firing => StepKind::Firing,
                TransitionKind::Resolved => StepKind::Resolved,
            },
            crossed_at: transition.crossed_at,
            at: transition.at,
            detail: decided(rule, before, transition, cause),
        });
    }
    match (before.phase, *after) {
        (
            before,
            Phase::Clearing {
                crossed_at, since, ..
            },
        ) if !matches!(before, Phase::Clearing { since: known, .. } if known == since) => {
            let mut detail = input(rule, rule.clear.as_ref().or(rule.when.as_ref()), cause);
            put_span(&mut detail, "keep_firing_for", rule.policy.keep_firing_for);
            steps.push(Step {
                kind: StepKind::Clearing,
                crossed_at,
                at: since,
                detail,
            });
        }
        (Phase::Clearing { .. }, Phase::Firing { crossed_at, .. }) if quiet => {
            if let Cause::Message { at, .. } = cause {
                steps.push(Step {
                    kind: StepKind::FiringAgain,
                    crossed_at,
                    at,
                    detail: input(rule, rule.when.as_ref(), cause),
                });
            }
        }
        _ => {}
    }
    steps
}

/// The reading with which the condition began to hold, if that was an earlier one.
fn pending(rule: &Rule, before: &Before, transition: &Transition) -> Option<Step> {
    let Phase::Pending {
        crossed_at,
        since,
        seen_at,
    } = before.phase
    else {
        return None;
    };
    if crossed_at != transition.crossed_at {
        return None;
    }
    let mut detail = Map::new();
    detail.insert("by".to_owned(), "reading".into());
    detail.insert("reading".to_owned(), reading(&before.facts));
    detail.insert("received_at".to_owned(), seen_at.to_string().into());
    if let Some(when) = &rule.when {
        detail.insert("condition".to_owned(), when.source().into());
    }
    put_span(&mut detail, "for", rule.policy.hold);
    Some(Step {
        kind: StepKind::Pending,
        crossed_at,
        at: since,
        detail,
    })
}

fn decided(
    rule: &Rule,
    before: &Before,
    transition: &Transition,
    cause: Cause<'_>,
) -> Map<String, Value> {
    let by_time = match cause {
        Cause::Message { at, .. } => at != transition.at,
        Cause::Clock => true,
        Cause::RuleGone => false,
    };
    let fires = transition.kind == TransitionKind::Firing;
    let condition = if fires {
        rule.when.as_ref()
    } else {
        rule.clear.as_ref().or(rule.when.as_ref())
    };
    let mut detail = if by_time {
        let mut detail = Map::new();
        detail.insert("by".to_owned(), "clock".into());
        detail
    } else {
        input(rule, condition, cause)
    };
    match rule.policy.absent {
        Some(absent) if fires => {
            detail.insert(
                "last_heard".to_owned(),
                transition.crossed_at.to_string().into(),
            );
            put_span(&mut detail, "absent", absent);
        }
        _ if fires => put_span(&mut detail, "for", rule.policy.hold),
        // What was cleared before ends by time too, but not by silence.
        _ if by_time && !matches!(before.phase, Phase::Clearing { .. }) => {
            if let Some(silence) = rule.policy.resolve_after {
                put_span(&mut detail, "resolve_after", silence);
            }
        }
        _ => {}
    }
    detail
}

/// What came in and what was asked of it.
fn input(rule: &Rule, condition: Option<&Condition>, cause: Cause<'_>) -> Map<String, Value> {
    let mut detail = Map::new();
    let mut put = |name: &str, value: Value| {
        detail.insert(name.to_owned(), value);
    };
    match cause {
        Cause::Message {
            facts,
            received_at,
            window,
            ..
        } => {
            put("by", "reading".into());
            put("reading", reading(facts));
            put("received_at", received_at.to_string().into());
            if let (Some(condition), Some(window)) = (condition, window) {
                let answers = condition.answers(window).into_iter();
                let answers: Map<String, Value> = answers
                    .map(|(name, answer)| (name, answer.into()))
                    .collect();
                if !answers.is_empty() {
                    put("windows", Value::Object(answers));
                }
            }
        }
        Cause::Clock => put("by", "clock".into()),
        Cause::RuleGone => {
            put("by", "rules".into());
            put(
                "reason",
                format!("the rule {} is no longer in force", rule.name).into(),
            );
        }
    }
    if let Some(condition) = condition {
        detail.insert("condition".to_owned(), condition.source().into());
    }
    detail
}

/// The facts without what the message lacks.
fn reading(facts: &Facts) -> Value {
    let known = facts.0.iter().filter(|(_, value)| !value.is_null());
    Value::Object(
        known
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    )
}

fn put_span(detail: &mut Map<String, Value>, name: &str, span: Duration) {
    if !span.is_zero() {
        detail.insert(name.to_owned(), format_duration(span).into());
    }
}

#[cfg(test)]
#[path = "story_tests.rs"]
mod tests;
