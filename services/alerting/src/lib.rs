//! Rules over readings and silence: one alert for each crossing, told once.

mod alert;
mod condition;
mod engine;
mod rule;
mod state;
mod window;

pub use alert::{alert_id, message};
pub use condition::{Condition, ConditionError, Subject, Topic};
pub use engine::{Change, Engine, Evaluated, Saved, SavedTrack};
pub use rule::{
    Action, DEFAULT_RULES, Facts, GroupFile, Message, RenderError, Rule, RuleError, RuleFile,
    RuleSet, RulesFile,
};
pub use state::{Flap, Machine, Phase, Policy, Stamp, Transition, TransitionKind, Verdict};
pub use window::{Function, Window};
