//! `fleet alerts silence`, `silences` and `unsilence`.

use std::time::Duration;

use alerting::CompiledMatcher;
use anyhow::{Context as _, bail};
use fleet_shared::config::{ConfigError, duration};
use fleet_store::{SILENCES_MAX, Silence};
use jiff::Timestamp;
use uuid::Uuid;

use super::Where;
use super::text::visible;
use crate::place::Output;

/// Longest silence: what is to be quiet for longer belongs into the routes.
const SPAN_MAX: Duration = Duration::from_secs(90 * 86_400);

const EXAMPLES: &str = "\
A matcher is a label, one of = != =~ !~, and a value. Labels are rule, severity, sensor_id,
location, type, and those that rules give. All matchers of a silence must hold.

Examples:
  fleet alerts silence 'location=~hall/.*' --for 2h --comment 'painting the hall'
  fleet alerts silence sensor_id=s-17 severity!=critical --for 7d --comment 'waits for a battery'";

/// Keeps alerts quiet until an end.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
#[command(mut_arg("log", |arg| arg.default_value("warn")))]
pub struct SilenceArgs {
    /// Which alerts.
    #[arg(value_name = "MATCHER", required = true, value_parser = matcher)]
    pub matchers: Vec<CompiledMatcher>,
    /// For how long, at most 90d.
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub span: Duration,
    /// Why.
    #[arg(long, value_name = "TEXT")]
    pub comment: String,
    /// Who wishes it.
    #[arg(
        long,
        env = "USER",
        hide_env_values = true,
        value_name = "NAME",
        default_value = "operator"
    )]
    pub by: String,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
    /// Where the alerts are.
    #[command(flatten)]
    pub place: Where,
}

/// Lists silences that have not ended.
#[derive(clap::Args, Clone, Debug)]
#[command(mut_arg("log", |arg| arg.default_value("warn")))]
pub struct SilencesArgs {
    /// Those that have ended too; they are kept for 30 days.
    #[arg(long)]
    pub all: bool,
    /// Form of the answer; json is one object a line.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
    /// Where they are.
    #[command(flatten)]
    pub place: Where,
}

/// Deletes a silence, whether it has ended or not.
#[derive(clap::Args, Clone, Debug)]
#[command(mut_arg("log", |arg| arg.default_value("warn")))]
pub struct UnsilenceArgs {
    /// The silence.
    #[arg(value_name = "SILENCE")]
    pub id: Uuid,
    /// Where it is.
    #[command(flatten)]
    pub place: Where,
}

fn matcher(text: &str) -> Result<CompiledMatcher, String> {
    CompiledMatcher::parse(text).map_err(|error| error.to_string())
}

pub(super) async fn create(args: &SilenceArgs) -> anyhow::Result<String> {
    if args.span.is_zero() || args.span > SPAN_MAX {
        let span = fleet_shared::config::format_duration(args.span);
        let expected = "a silence lasts from a moment to 90d";
        return Err(ConfigError::value("--for", span, expected).into());
    }
    let now = fleet_shared::model::to_micros(Timestamp::now());
    let silence = Silence {
        id: Uuid::now_v7(),
        matchers: args
            .matchers
            .iter()
            .map(|it| it.matcher().clone())
            .collect(),
        starts_at: now,
        ends_at: now.checked_add(args.span).context("when it would end")?,
        created_by: args.by.clone(),
        comment: args.comment.clone(),
        created_at: now,
    };
    let store = args.place.write().await?;
    let kept = store.create_silence(&silence);
    if !kept.await.context("keeping the silence")? {
        bail!(
            "there are {SILENCES_MAX} silences already: delete some with `fleet alerts unsilence`"
        );
    }
    said(&[silence], args.output)
}

pub(super) async fn list(args: &SilencesArgs) -> anyhow::Result<String> {
    let store = args.place.read().await?;
    let ended_after = if args.all {
        Timestamp::UNIX_EPOCH
    } else {
        Timestamp::now()
    };
    let silences = store.silences(ended_after).await;
    said(&silences.context("reading silences")?, args.output)
}

pub(super) async fn delete(args: &UnsilenceArgs) -> anyhow::Result<String> {
    let store = args.place.write().await?;
    let deleted = store.delete_silence(args.id).await;
    if !deleted.context("deleting the silence")? {
        bail!(
            "there is no silence {}: `fleet alerts silences` shows those that are there",
            args.id
        );
    }
    Ok(format!("{} is deleted\n", args.id))
}

fn said(silences: &[Silence], output: Output) -> anyhow::Result<String> {
    let mut text = String::new();
    for silence in silences {
        match output {
            Output::Json => text += &serde_json::to_string(silence)?,
            Output::Text => {
                let matchers = silence.matchers.iter();
                let matchers: Vec<String> = matchers
                    .map(|it| format!("{}{}{:?}", it.name, it.op.as_str(), it.value))
                    .collect();
                text += &format!(
                    "{} {} until {}\n    {} by {}",
                    silence.id,
                    matchers.join(" "),
                    silence.ends_at,
                    visible(&silence.comment),
                    visible(&silence.created_by)
                );
            }
        }
        text.push('\n');
    }
    if text.is_empty() && output == Output::Text {
        return Ok("no silences\n".to_owned());
    }
    Ok(text)
}
