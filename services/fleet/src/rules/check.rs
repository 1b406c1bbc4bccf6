//! `fleet rules check`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use alerting::{Policy, Rule, RuleSet, Topic, TransitionKind};
use anyhow::Context as _;
use fleet_shared::config::{LogArgs, format_duration};
use serde_json::json;

use super::Source;
use crate::place::Output;

const EXAMPLES: &str = "\
Exit codes: 0 the rules can be used, 1 something is wrong with them, 2 they cannot be read.

Examples:
  fleet rules check rules.yaml
  fleet rules check                          # the rules that ship with the program
  fleet rules check - --output json < rules.yaml";

/// Checks a file of rules as alerting does, and tells what each rule does.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
#[command(mut_arg("log", |arg| arg.default_value("warn")))]
pub struct CheckArgs {
    /// File of rules, `-` for standard input; those that ship with the program without.
    pub file: Option<PathBuf>,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
    /// What is logged, and how.
    #[command(flatten)]
    pub logs: LogArgs,
}

pub(super) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let source = Source::read(args.file.as_ref())?;
    let (text, code) = match (source.rules(), args.output) {
        (Ok(rules), Output::Text) => (told(&source.name, &rules), 0),
        (Ok(rules), Output::Json) => {
            let rules: Vec<_> = rules.rules().iter().map(|rule| listed(rule)).collect();
            (json!({"rules": rules, "errors": []}).to_string() + "\n", 0)
        }
        (Err(errors), Output::Text) => {
            #[expect(clippy::print_stderr, reason = "what is wrong is for people")]
            {
                eprint!("{}", source.complaint(&errors));
            }
            (String::new(), 1)
        }
        (Err(errors), Output::Json) => {
            let errors: Vec<_> = errors
                .iter()
                .map(|error| json!({"line": error.line, "column": error.column, "message": error.message}))
                .collect();
            (json!({"rules": [], "errors": errors}).to_string() + "\n", 1)
        }
    };
    std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())
        .context("writing the answer")?;
    Ok(ExitCode::from(code))
}

fn listed(rule: &Rule) -> serde_json::Value {
    json!({
        "name": rule.name,
        "group": rule.group,
        "severity": rule.severity,
        "does": sentences(rule),
    })
}

fn told(name: &str, rules: &RuleSet) -> String {
    let mut text = String::new();
    let mut group = None;
    for rule in rules.rules() {
        if group != Some(&rule.group) {
            text.extend(["\n", &rule.group, "\n"]);
            group = Some(&rule.group);
        }
        // Writing to a string never fails.
        writeln!(text, "  {}  [{}]", rule.name, rule.severity).ok();
        for sentence in sentences(rule) {
            writeln!(text, "      {sentence}").ok();
        }
    }
    let count = match rules.rules().len() {
        1 => "1 rule".to_owned(),
        more => format!("{more} rules"),
    };
    format!("{name}: {count}, all can be used\n{text}")
}

/// What a rule does, in words.
fn sentences(rule: &Rule) -> Vec<String> {
    let mut told = Vec::new();
    let what = match (&rule.kind, rule.topic) {
        (_, Topic::Status) => "the presence of devices".to_owned(),
        (Some(kind), Topic::Readings) => format!("readings of {kind}"),
        (None, Topic::Readings) => "all readings".to_owned(),
    };
    told.push(format!("looks at {what} on {}", rule.filter.as_str()));
    told.push(fires(rule));
    told.push(ends(rule));
    if let Some(flap) = rule.policy.flap {
        told.push(format!(
            "goes on from the {}th firing within {within} until it was calm for {within}",
            flap.episodes,
            within = format_duration(flap.within)
        ));
    }
    for action in &rule.publish {
        let when = match action.on {
            TransitionKind::Firing => "fires",
            TransitionKind::Resolved => "ends",
        };
        let kept = if action.retain { ", retained" } else { "" };
        told.push(format!(
            "publishes to {} when it {when} (QoS {}{kept})",
            action.topic.source(),
            action.qos.as_str()
        ));
    }
    told
}

fn fires(rule: &Rule) -> String {
    let Policy { hold, absent, .. } = rule.policy;
    match (&rule.when, absent) {
        (Some(when), _) if hold.is_zero() => format!("fires when {}", one_line(when.source())),
        (Some(when), _) => format!(
            "fires when {} for {}",
            one_line(when.source()),
            format_duration(hold)
        ),
        (None, Some(absent)) => format!("fires when nothing comes for {}", format_duration(absent)),
        (None, None) => "never fires".to_owned(),
    }
}

fn ends(rule: &Rule) -> String {
    let mut told = match (&rule.clear, rule.policy.absent) {
        (Some(clear), _) => format!("ends when {}", one_line(clear.source())),
        (None, Some(_)) => "ends with the next message".to_owned(),
        (None, None) => "ends when that does not hold any more".to_owned(),
    };
    let keep = rule.policy.keep_firing_for;
    if !keep.is_zero() {
        told.push_str(&format!(" for {}", format_duration(keep)));
    }
    if let Some(silence) = rule.policy.resolve_after {
        told.push_str(&format!(
            ", or when nothing comes for {}",
            format_duration(silence.saturating_add(keep))
        ));
    }
    told
}

fn one_line(condition: &str) -> String {
    condition.split_whitespace().collect::<Vec<_>>().join(" ")
}
