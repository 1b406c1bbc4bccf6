//! A backtest as a picture: one panel a sensor, with its values, the thresholds of the rules that
//! look at it, and their episodes as bands.
//!
//! SVG with a style sheet of its own, light or dark as the reader's browser is.

mod axis;
mod panel;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use alerting::{Episode, Report, Rule, RuleReport, RuleSet, Series, Trace};
use fleet_shared::config::format_duration;

use self::axis::TimeAxis;
use self::panel::{Band, Line, Panel};
use super::table::count;

/// Columns of a panel: one a pixel.
pub(super) const COLUMNS: u32 = 960;

/// Panels at most; more than fit a page are better looked at one sensor at a time.
const PANELS_MAX: usize = 12;

/// Width and margins of the picture.
const WIDTH: f64 = 1_080.0;
const LEFT: f64 = 72.0;
/// Height of the head of the page, above the rules.
const HEAD: f64 = 64.0;
const RULE_HEIGHT: f64 = 20.0;

const STYLE: &str = "\
svg{--paper:#fff;--ink:#1f2328;--soft:#656d76;--rule:#d8dee4;--value:#0a5c8f;--critical:#cf222e;--warning:#bf6a02;--info:#0969da;font:12px system-ui,sans-serif}
@media(prefers-color-scheme:dark){svg{--paper:#0d1117;--ink:#e6edf3;--soft:#8d96a0;--rule:#30363d;--value:#79c0ff;--critical:#ff7b72;--warning:#e3a341;--info:#58a6ff}}
.paper{fill:var(--paper)}text{fill:var(--ink)}.soft{fill:var(--soft)}.h1{font-size:18px;font-weight:600}.h2{font-size:13px;font-weight:600}
.grid{stroke:var(--rule);stroke-width:1}.line{fill:none;stroke:var(--value);stroke-width:1.25;stroke-linejoin:round}.dot,.range{fill:var(--value)}.range{opacity:.22}
.critical{fill:var(--critical)}.warning{fill:var(--warning)}.info{fill:var(--info)}.band{opacity:.13}.bound{stroke-width:1;stroke-dasharray:5 4}
.bound.critical{stroke:var(--critical)}.bound.warning{stroke:var(--warning)}.bound.info{stroke:var(--info)}.end{text-anchor:end}.mid{text-anchor:middle}";

/// The picture.
pub(super) fn svg(source: &str, rules: &RuleSet, report: &Report, trace: &Trace) -> String {
    let panels = panels(rules, report, trace);
    let time = TimeAxis::new(trace.from, trace.to, LEFT, f64::from(COLUMNS));
    let top = HEAD + RULE_HEIGHT * report.rules.len() as f64 + 16.0;
    let bodies: Vec<String> = panels
        .iter()
        .scan(top, |y, panel| {
            let drawn = panel.draw(*y, &time);
            *y += panel.height();
            Some(drawn)
        })
        .collect();
    let height = top + panels.iter().map(Panel::height).sum::<f64>() + 32.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" height=\"{height:.0}\" role=\"img\" aria-labelledby=\"title\">\n\
         <title id=\"title\">{}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n",
        escaped(&format!("Backtest of {source}"))
    );
    head(&mut out, source, report);
    for body in bodies {
        out.push_str(&body);
    }
    let rest = trace.series.len() - panels.len();
    let mut notes = Vec::new();
    if panels.is_empty() {
        notes.push("No readings in this span.".to_owned());
    }
    if rest > 0 {
        notes.push(format!(
            "{} further series are not shown; --sensor ID shows one.",
            count(rest as u64)
        ));
    }
    if trace.left_out > 0 {
        notes.push(format!(
            "{} readings of further sensors are not shown.",
            count(trace.left_out)
        ));
    }
    text(&mut out, LEFT, height - 12.0, "soft", &notes.join(" "));
    out.push_str("</svg>\n");
    out
}

fn head(out: &mut String, source: &str, report: &Report) {
    text(out, 24.0, 32.0, "h1", &format!("Backtest of {source}"));
    let line = format!(
        "{} readings · {:.0} to {:.0}",
        count(report.readings),
        report.from,
        report.to
    );
    text(out, 24.0, 51.0, "soft", &line);
    for (place, rule) in report.rules.iter().enumerate() {
        let y = HEAD + RULE_HEIGHT * (place as f64 + 1.0);
        let severity = rule.severity.as_str();
        push(
            out,
            format_args!(
                "<rect class=\"{severity}\" x=\"24\" y=\"{:.0}\" width=\"10\" height=\"10\" rx=\"2\"/>\n",
                y - 9.0
            ),
        );
        text(out, 42.0, y, "h2", &rule.rule);
        text(out, 260.0, y, "soft", severity);
        text(out, 340.0, y, "", &summary(rule));
    }
}

fn summary(rule: &RuleReport) -> String {
    if let Some(why) = rule.skipped {
        return why.to_owned();
    }
    if rule.fired == 0 {
        return "never fired".to_owned();
    }
    let firing = std::time::Duration::from_secs(rule.firing_seconds.round() as u64);
    let times = match rule.fired {
        1 => "once".to_owned(),
        more => format!("{} times", count(more)),
    };
    let flaps = match rule.flaps {
        0 => String::new(),
        1 => " · 1 flap".to_owned(),
        more => format!(" · {} flaps", count(more)),
    };
    format!("fired {times} · {} in all{flaps}", format_duration(firing))
}

/// The series worth a panel: those with the longest episodes first, then others that a rule for
/// their type looks at.
fn panels<'a>(rules: &'a RuleSet, report: &'a Report, trace: &'a Trace) -> Vec<Panel<'a>> {
    let mut episodes = BTreeMap::<(&str, &str), Vec<(&RuleReport, &Episode)>>::new();
    for rule in &report.rules {
        for episode in &rule.episodes {
            let kind = episode.kind.as_deref().unwrap_or_default();
            episodes
                .entry((&episode.sensor_id, kind))
                .or_default()
                .push((rule, episode));
        }
    }
    let of = |key: &'a (String, String)| episodes.get(&(key.0.as_str(), key.1.as_str()));
    let mut ranked: Vec<(f64, &(String, String), &Series)> = trace
        .series
        .iter()
        .map(|(key, series)| {
            let list = of(key).map_or(&[][..], Vec::as_slice);
            let spans = list.iter().map(|(_, episode)| {
                let end = episode.resolved_at.unwrap_or(report.to);
                1.0 + end.duration_since(episode.fired_at).as_secs_f64()
            });
            (spans.sum(), key, series)
        })
        .collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    let mut found = Vec::new();
    let mut panels = Vec::new();
    for (firing, key, series) in ranked {
        rules.matching(&series.topic, &mut found);
        let looking = || {
            found
                .iter()
                .filter_map(|id| rules.rule(*id))
                .map(AsRef::as_ref)
        };
        let is_meant = looking().any(|rule| rule.kind.is_some());
        if firing > 0.0 || is_meant || trace.series.len() == 1 {
            let list = of(key).map_or(&[][..], Vec::as_slice);
            panels.push(panel(key, series, looking(), list, report));
        }
        if panels.len() == PANELS_MAX {
            break;
        }
    }
    panels
}

fn panel<'a>(
    key: &'a (String, String),
    series: &'a Series,
    looking: impl Iterator<Item = &'a Rule>,
    episodes: &[(&'a RuleReport, &'a Episode)],
    report: &Report,
) -> Panel<'a> {
    let mut lines: Vec<Line<'a>> = Vec::new();
    for rule in looking {
        for value in rule.when.iter().flat_map(|when| when.thresholds()) {
            lines.push(Line {
                severity: rule.severity.as_str(),
                value,
                rule: &rule.name,
            });
        }
    }
    let mut lanes: Vec<&str> = Vec::new();
    let mut bands = Vec::new();
    for (rule, episode) in episodes {
        let lane = lanes
            .iter()
            .position(|known| *known == rule.rule)
            .unwrap_or_else(|| {
                lanes.push(&rule.rule);
                lanes.len() - 1
            });
        bands.push(Band {
            lane,
            severity: rule.severity.as_str(),
            from: episode.fired_at,
            to: episode.resolved_at.unwrap_or(report.to),
            message: &episode.message,
        });
    }
    Panel {
        sensor_id: &key.0,
        kind: &key.1,
        series,
        lanes: lanes.len(),
        bands,
        lines,
    }
}

fn text(out: &mut String, x: f64, y: f64, class: &str, text: &str) {
    let text = escaped(text);
    push(
        out,
        format_args!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>\n"),
    );
}

fn push(out: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string never fails.
    out.write_fmt(what).ok();
}

/// As XML has it. Characters that XML has no form for are left out.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            char if char.is_control() && !matches!(char, '\n' | '\t') => {}
            '\u{fffe}' | '\u{ffff}' => {}
            char => out.push(char),
        }
    }
    out
}
