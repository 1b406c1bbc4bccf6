//! Rules over readings and silence: one alert for each crossing, told once.
//!
//! The core is pure: a [`RuleSet`] is read from YAML, an [`Engine`] takes messages and the time, and
//! answers with [`Change`]s. Around it a process is active or stands by; the active one makes each
//! change durable in one transaction with what is to be published, before it acknowledges the message
//! that caused it.

mod alert;
mod backtest;
mod condition;
mod config;
mod dead_letter;
mod engine;
mod fault;
mod marks;
mod metrics;
mod notify;
mod outbox;
mod presence;
mod reload;
mod request;
mod roomy;
mod route;
mod rule;
mod run;
mod share;
mod state;
mod status;
mod story;
mod template;
mod window;
mod worker;

pub use alert::{alert_id, message};
pub use backtest::{
    Backtest, Bounds, Column, EPISODES_MAX, Episode, Progress, Report, RuleReport, Series, Trace,
    backtest,
};
pub use condition::{Condition, ConditionError, Subject, Topic};
pub use config::{Config, WatchArgs};
pub use engine::{Change, Engine, Evaluated, Saved, SavedTrack};
pub use fault::FaultPoint;
pub use notify::{
    Bucket, Decision, Decisions, Dispatch, Notification, NotifiedAlert, Pause, Response, Why,
    retry_after, signature,
};
pub use route::{
    AlertmanagerFile, Channel, CompiledMatcher, DEFAULT_ROUTES, EmailFile, InhibitFile, Kind,
    Labels, LogFile, MatcherError, NtfyFile, ReceiverFile, RouteFile, Routes, RoutesFile,
    SlackFile, SmtpTls, TimeInterval, TimeIntervalFile, TwilioFile, WebhookFile,
};
pub use rule::{
    Action, DEFAULT_RULES, Facts, GroupFile, Message, Rule, RuleError, RuleFile, RuleSet, RulesFile,
};
pub use run::run;
pub use state::{Flap, Machine, Phase, Policy, Stamp, Transition, TransitionKind, Verdict};
pub use story::{Step, StepKind};
pub use template::RenderError;
pub use window::{Function, Window};
