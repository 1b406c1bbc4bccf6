//! A backtest as a table.

use std::collections::BTreeSet;
use std::time::Duration;

use alerting::{Episode, Report, RuleReport};
use fleet_shared::config::format_duration;
use jiff::Timestamp;

/// Episodes listed below the table; all are in the JSON.
const LISTED: usize = 20;

pub(super) fn text(source: &str, report: &Report) -> String {
    let mut text = format!(
        "{source} over {} readings, {} to {}\n\n",
        count(report.readings),
        report.from,
        report.to
    );
    let mut rows = vec![
        [
            "RULE", "SEVERITY", "FIRED", "SENSORS", "FIRING", "LONGEST", "FLAPS",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    rows.extend(report.rules.iter().map(|rule| row(rule, report.to)));
    text.push_str(&aligned(&rows));

    let mut episodes: Vec<(&RuleReport, &Episode)> = report
        .rules
        .iter()
        .flat_map(|rule| rule.episodes.iter().map(move |episode| (rule, episode)))
        .collect();
    episodes.sort_by_key(|(_, episode)| episode.fired_at);
    if !episodes.is_empty() {
        text.push('\n');
    }
    for (rule, episode) in episodes.iter().take(LISTED) {
        let lasted = match episode.resolved_at {
            Some(end) => span(episode.fired_at, end),
            None => "still firing".to_owned(),
        };
        text.push_str(&format!(
            "{}  {:<8}  {}: {} ({lasted})\n",
            episode.fired_at,
            rule.severity.as_str(),
            rule.rule,
            episode.message
        ));
    }
    if episodes.len() > LISTED {
        text.push_str(&format!(
            "… and {} more: --output json has them\n",
            count(episodes.len() as u64 - LISTED as u64)
        ));
    }
    for rule in &report.rules {
        if let Some(why) = rule.skipped {
            text.push_str(&format!("\n{}: {why}\n", rule.rule));
        }
    }
    if report.truncated {
        text.push_str("\nNot every episode is described; the numbers in the table cover all.\n");
    }
    text
}

fn row(rule: &RuleReport, end: Timestamp) -> Vec<String> {
    if rule.skipped.is_some() {
        let mut row = vec![rule.rule.clone(), rule.severity.to_string()];
        row.resize(7, "-".to_owned());
        return row;
    }
    let sensors: BTreeSet<&str> = rule
        .episodes
        .iter()
        .map(|it| it.sensor_id.as_str())
        .collect();
    let longest = rule
        .episodes
        .iter()
        .map(|episode| {
            episode
                .resolved_at
                .unwrap_or(end)
                .duration_since(episode.fired_at)
        })
        .max()
        .and_then(|longest| Duration::try_from(longest).ok())
        .unwrap_or_default();
    vec![
        rule.rule.clone(),
        rule.severity.to_string(),
        count(rule.fired),
        count(sensors.len() as u64),
        whole(Duration::try_from_secs_f64(rule.firing_seconds).unwrap_or_default()),
        whole(longest),
        count(rule.flaps),
    ]
}

fn span(from: Timestamp, to: Timestamp) -> String {
    whole(Duration::try_from(to.duration_since(from)).unwrap_or_default())
}

/// To the second: nobody reads the rest.
fn whole(span: Duration) -> String {
    let seconds = span.as_secs() + u64::from(span.subsec_millis() >= 500);
    format_duration(Duration::from_secs(seconds))
}

/// With a comma between thousands.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Columns under each other: texts to the left, the numbers from the third on to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells =
            row.iter()
                .zip(&widths)
                .enumerate()
                .map(|(column, (cell, width))| match column {
                    0 | 1 => format!("{cell:<width$}"),
                    _ => format!("{cell:>width$}"),
                });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}
