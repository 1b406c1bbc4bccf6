//! `fleet dead-letters list`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context as _;
use fleet_shared::config::LogArgs;
use fleet_store::{OpenOptions, StoredDeadLetter};
use serde::Serialize;

use super::{PAGE, Which};
use crate::place::{Output, StoreArgs};

/// Characters of a payload that are shown to people.
const EXCERPT: usize = 80;

const EXAMPLES: &str = "\
Examples:
  fleet dead-letters list                              # the oldest 100
  fleet dead-letters list --reason malformed --limit 5
  fleet dead-letters list --output json | jq -r .payload";

/// Lists what was refused, oldest first.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
#[command(mut_arg("log", |arg| arg.default_value("warn")))]
pub struct ListArgs {
    /// How many at most; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: u64,
    /// Form of the answer; json is one object a line.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
    /// Which.
    #[command(flatten)]
    pub which: Which,
    /// Where they are.
    #[command(flatten)]
    pub store: StoreArgs,
    /// What is logged, and how.
    #[command(flatten)]
    pub logs: LogArgs,
}

/// A dead letter as JSON.
#[derive(Serialize)]
struct Line<'a> {
    id: uuid::Uuid,
    service: &'a str,
    topic: &'a str,
    reason: &'a str,
    detail: &'a str,
    received_at: jiff::Timestamp,
    /// The payload when it is UTF-8 text.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    /// The payload in hexadecimal otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_hex: Option<String>,
}

pub(super) async fn run(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let options = OpenOptions::reader("fleet-dead-letters");
    let store = args.store.open(options).await?;
    let mut left = if args.limit == 0 {
        u64::MAX
    } else {
        args.limit
    };
    let mut after = None;
    let mut out = std::io::BufWriter::new(std::io::stdout());
    while left > 0 {
        let limit = u32::try_from(left).unwrap_or(PAGE).min(PAGE);
        let page = store
            .dead_letters(args.which.filter(), after, limit)
            .await
            .context("reading dead letters")?;
        for letter in &page {
            write(&mut out, letter, args.output).context("writing the list")?;
        }
        left -= page.len() as u64;
        after = page.last().map(|letter| letter.id);
        if page.len() < limit as usize {
            break;
        }
    }
    if after.is_none() && args.output == Output::Text && left > 0 {
        writeln!(out, "no dead letters")?;
    }
    out.flush().context("writing the list")?;
    store.close().await.context("closing the store")?;
    Ok(ExitCode::SUCCESS)
}

fn write(out: &mut impl Write, letter: &StoredDeadLetter, output: Output) -> std::io::Result<()> {
    match output {
        Output::Text => out.write_all(text(letter).as_bytes()),
        Output::Json => {
            serde_json::to_writer(&mut *out, &json(letter))?;
            out.write_all(b"\n")
        }
    }
}

fn text(letter: &StoredDeadLetter) -> String {
    let payload = String::from_utf8_lossy(&letter.payload);
    let (excerpt, more) = match payload.char_indices().nth(EXCERPT) {
        Some((end, _)) => (&payload[..end], "…"),
        None => (&*payload, ""),
    };
    format!(
        "{} {} {} on {}\n    {}\n    {}{more}\n",
        letter.id,
        letter.received_at,
        letter.reason,
        visible(&letter.topic),
        visible(&letter.detail),
        visible(excerpt),
    )
}

/// The text with control characters as escapes: a payload must not command the terminal.
pub(crate) fn visible(text: &str) -> String {
    text.chars().fold(String::new(), |mut shown, character| {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
        shown
    })
}

fn json(letter: &StoredDeadLetter) -> Line<'_> {
    let payload = std::str::from_utf8(&letter.payload).ok();
    let hex = || {
        letter
            .payload
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    };
    Line {
        id: letter.id,
        service: &letter.service,
        topic: &letter.topic,
        reason: &letter.reason,
        detail: &letter.detail,
        received_at: letter.received_at,
        payload,
        payload_hex: payload.is_none().then(hex),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(payload: &[u8]) -> StoredDeadLetter {
        StoredDeadLetter {
            id: uuid::Uuid::from_u128(7),
            service: "ingest".to_owned(),
            topic: "sensors/hall/door".to_owned(),
            payload: payload.to_owned(),
            reason: "malformed".to_owned(),
            detail: "expected value at line 1".to_owned(),
            received_at: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn people_see_an_excerpt_without_control_characters() {
        insta::assert_snapshot!(text(&letter(
            format!("\u{1b}[31m\"{}", "é".repeat(200)).as_bytes()
        )));
    }

    #[test]
    fn programs_see_the_payload_byte_for_byte() {
        let line = |payload| serde_json::to_string(&json(&letter(payload))).unwrap();
        insta::assert_snapshot!(line(b"not a reading"), @r#"{"id":"00000000-0000-0000-0000-000000000007","service":"ingest","topic":"sensors/hall/door","reason":"malformed","detail":"expected value at line 1","received_at":"1970-01-01T00:00:00Z","payload":"not a reading"}"#);
        assert!(line(b"\xff\x00").ends_with(r#""payload_hex":"ff00"}"#));
    }
}
