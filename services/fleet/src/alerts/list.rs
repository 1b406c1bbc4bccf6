//! `fleet alerts list`.

use anyhow::Context as _;
use fleet_store::{AlertCursor, AlertFilter, AlertPhase, StoredAlert};

use super::Where;
use super::text::{alert_json, state, visible};
use crate::place::Output;

/// Alerts read at once.
const PAGE: u32 = 500;

const EXAMPLES: &str = "\
Examples:
  fleet alerts list                                # the newest 100
  fleet alerts list --state firing --severity critical
  fleet alerts list --limit 0 --output json | jq -r .alert_id";

/// Lists alerts, newest first.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
#[command(mut_arg("log", |arg| arg.default_value("warn")))]
pub struct ListArgs {
    /// Only those in this state; acknowledged ones fire still.
    #[arg(long, value_name = "STATE", value_parser = phase)]
    pub state: Option<AlertPhase>,
    /// Only those of this severity: critical, warning or info.
    #[arg(long, value_name = "SEVERITY", value_parser = ["critical", "warning", "info"])]
    pub severity: Option<String>,
    /// How many at most; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: u64,
    /// Form of the answer; json is one object a line.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
    /// Where they are.
    #[command(flatten)]
    pub place: Where,
}

fn phase(text: &str) -> Result<AlertPhase, String> {
    let found = AlertPhase::ALL
        .into_iter()
        .find(|phase| phase.as_str() == text);
    found.ok_or_else(|| "use firing, acknowledged or resolved".to_owned())
}

pub(super) async fn run(args: &ListArgs) -> anyhow::Result<String> {
    let store = args.place.read().await?;
    let filter = AlertFilter {
        state: args.state,
        severity: args.severity.clone(),
        ..AlertFilter::default()
    };
    let mut left = if args.limit == 0 {
        u64::MAX
    } else {
        args.limit
    };
    let (mut rows, mut after) = (Vec::new(), None);
    while left > 0 {
        let limit = u32::try_from(left).unwrap_or(PAGE).min(PAGE);
        let page = store.alert_page(&filter, after.as_ref(), limit);
        let page = page.await.context("reading alerts")?;
        let is_last = page.len() < limit as usize;
        left -= page.len() as u64;
        after = page.last().map(AlertCursor::of);
        rows.extend(page);
        if is_last {
            break;
        }
    }
    match args.output {
        Output::Text => Ok(table(&rows)),
        Output::Json => {
            let mut lines = String::new();
            for row in &rows {
                lines += &serde_json::to_string(&alert_json(row))?;
                lines.push('\n');
            }
            Ok(lines)
        }
    }
}

fn table(rows: &[StoredAlert]) -> String {
    if rows.is_empty() {
        return "no alerts\n".to_owned();
    }
    let mut text = format!(
        "{:<36}  {:<8}  {:<8}  {:<20}  {}\n",
        "ALERT", "STATE", "SEVERITY", "FIRED", "MESSAGE"
    );
    for row in rows {
        let taken = if row.acknowledged_at.is_some() && row.resolved_at.is_none() {
            "acked"
        } else {
            state(row)
        };
        text += &format!(
            "{:<36}  {:<8}  {:<8}  {:<20}  {}\n",
            row.alert.alert_id,
            taken,
            row.alert.severity,
            format!("{:.0}", row.alert.fired_at),
            visible(&row.alert.message)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_store::NewAlert;

    #[test]
    fn people_see_a_table() {
        let alert = NewAlert {
            alert_id: "0f0e0d0c-0000-8000-8000-000000000001".to_owned(),
            rule: "TemperatureHigh".to_owned(),
            severity: "critical".to_owned(),
            sensor_id: "s".to_owned(),
            message: "s is at 31\u{1b}[31m celsius".to_owned(),
            fired_at: jiff::Timestamp::UNIX_EPOCH,
            metadata: "{}".to_owned(),
        };
        let row = StoredAlert {
            alert,
            resolved_at: None,
            acknowledged_at: Some(jiff::Timestamp::UNIX_EPOCH),
            acknowledged_by: Some("ada".to_owned()),
        };
        insta::assert_snapshot!(table(&[row]));
        assert_eq!(table(&[]), "no alerts\n");
    }
}
