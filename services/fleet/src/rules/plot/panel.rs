//! One sensor in the picture.

use std::fmt::Write as _;

use alerting::{Column, Series};
use jiff::Timestamp;

use super::axis::{TimeAxis, ValueAxis};
use super::{LEFT, escaped, push, text};

const TITLE: f64 = 24.0;
const BODY: f64 = 150.0;
const FOOT: f64 = 34.0;
/// A lane above the values says which rule fires; episodes of different rules may overlap.
const LANE: f64 = 7.0;

/// An episode.
pub(super) struct Band<'a> {
    /// Which rule's lane it is in.
    pub(super) lane: usize,
    pub(super) severity: &'static str,
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    /// What would have been said.
    pub(super) message: &'a str,
}

/// A threshold.
pub(super) struct Line<'a> {
    pub(super) severity: &'static str,
    pub(super) value: f64,
    /// Which rule it belongs to.
    pub(super) rule: &'a str,
}

/// A sensor's values of one type, and what rules say of them.
pub(super) struct Panel<'a> {
    pub(super) sensor_id: &'a str,
    pub(super) kind: &'a str,
    pub(super) series: &'a Series,
    pub(super) lanes: usize,
    pub(super) bands: Vec<Band<'a>>,
    pub(super) lines: Vec<Line<'a>>,
}

impl Panel<'_> {
    pub(super) fn height(&self) -> f64 {
        TITLE + self.lanes_height() + BODY + FOOT
    }

    fn lanes_height(&self) -> f64 {
        LANE * self.lanes as f64
    }

    pub(super) fn draw(&self, y: f64, time: &TimeAxis) -> String {
        let width = f64::from(super::COLUMNS);
        let lanes = y + TITLE;
        let top = lanes + self.lanes_height();
        let values = self.axis(top);
        let mut out = String::from("<g>\n");
        let unit = match self.series.unit.as_str() {
            "" => String::new(),
            unit => format!(", {unit}"),
        };
        text(&mut out, LEFT, y + 14.0, "h2", self.sensor_id);
        let place = format!("{}{unit} · {}", self.kind, self.series.topic);
        text(&mut out, LEFT + width, y + 14.0, "soft end", &place);
        for (at, mark) in values.marks() {
            push(
                &mut out,
                format_args!("<path class=\"grid\" d=\"M{LEFT} {at:.1}h{width}\"/>\n"),
            );
            text(&mut out, LEFT - 8.0, at + 4.0, "soft end", &mark);
        }
        for (at, mark) in time.marks() {
            push(
                &mut out,
                format_args!(
                    "<path class=\"grid\" d=\"M{at:.1} {:.1}v4\"/>\n",
                    top + BODY
                ),
            );
            text(&mut out, at, top + BODY + 17.0, "soft mid", &mark);
        }
        push(
            &mut out,
            format_args!(
                "<path class=\"grid\" d=\"M{LEFT} {:.1}h{width}\"/>\n",
                top + BODY
            ),
        );
        for band in &self.bands {
            let (from, to) = (time.x(band.from), time.x(band.to));
            // An episode of a minute in a year must still be seen.
            let wide = (to - from).max(1.5);
            let lane = lanes + LANE * band.lane as f64;
            push(
                &mut out,
                format_args!(
                    "<g class=\"{}\"><title>{} ({:.0} to {:.0})</title>\
                     <rect class=\"band\" x=\"{from:.1}\" y=\"{top:.1}\" width=\"{wide:.1}\" height=\"{BODY}\"/>\
                     <rect x=\"{from:.1}\" y=\"{lane:.1}\" width=\"{wide:.1}\" height=\"{:.1}\" rx=\"1.5\"/></g>\n",
                    band.severity,
                    escaped(band.message),
                    band.from,
                    band.to,
                    LANE - 2.0
                ),
            );
        }
        self.draw_values(&mut out, time, &values);
        for line in &self.lines {
            let at = values.y(line.value);
            push(
                &mut out,
                format_args!(
                    "<path class=\"bound {}\" d=\"M{LEFT} {at:.1}h{width}\"/>\n",
                    line.severity
                ),
            );
            let label = format!("{} {}", line.rule, line.value);
            text(
                &mut out,
                LEFT + width - 4.0,
                at - 4.0,
                &format!("{} end", line.severity),
                &label,
            );
        }
        out.push_str("</g>\n");
        out
    }

    fn axis(&self, top: f64) -> ValueAxis {
        let measured = self.series.columns.iter().flatten();
        let extremes = measured.flat_map(|column| [column.min, column.max]);
        let (low, high) = extremes
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            });
        // A threshold far off the values would press them flat.
        let room = (high - low).max(low.abs().max(high.abs()) * 0.25);
        let near = |value: &f64| *value >= low - room && *value <= high + room;
        let bounds = self.lines.iter().map(|line| line.value).filter(near);
        let (low, high) = bounds.fold((low, high), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        ValueAxis::new(low, high, top, BODY)
    }

    /// The range of each column, and a line through the last values; steps where all are 0 or 1.
    fn draw_values(&self, out: &mut String, time: &TimeAxis, values: &ValueAxis) {
        let measured: Vec<(usize, Column)> = self
            .series
            .columns
            .iter()
            .enumerate()
            .filter_map(|(place, column)| column.map(|column| (place, column)))
            .collect();
        let is_flag = measured.iter().all(|(_, it)| {
            [it.min, it.max]
                .iter()
                .all(|value| [0.0, 1.0].contains(value))
        });
        for run in runs(&measured) {
            if let [(place, column)] = run {
                let (x, y) = (time.column(*place), values.y(column.last));
                push(
                    out,
                    format_args!("<circle class=\"dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"1.6\"/>\n"),
                );
                continue;
            }
            let mut line = String::new();
            for (place, column) in run {
                let (x, y) = (time.column(*place), values.y(column.last));
                let join = match (line.is_empty(), is_flag) {
                    (true, _) => format!("M{x:.1} {y:.1}"),
                    (false, true) => format!("H{x:.1}V{y:.1}"),
                    (false, false) => format!("L{x:.1} {y:.1}"),
                };
                line.push_str(&join);
            }
            if !is_flag {
                let mut range = String::new();
                let above = run.iter().map(|(place, column)| (*place, column.max));
                let below = run.iter().rev().map(|(place, column)| (*place, column.min));
                for (place, value) in above.chain(below) {
                    let join = if range.is_empty() { 'M' } else { 'L' };
                    // Writing to a string never fails.
                    write!(
                        range,
                        "{join}{:.1} {:.1}",
                        time.column(place),
                        values.y(value)
                    )
                    .ok();
                }
                push(
                    out,
                    format_args!("<path class=\"range\" d=\"{range}Z\"/>\n"),
                );
            }
            push(out, format_args!("<path class=\"line\" d=\"{line}\"/>\n"));
        }
    }
}

/// Columns that a line joins: it breaks where the pause is far longer than usual.
fn runs(measured: &[(usize, Column)]) -> impl Iterator<Item = &[(usize, Column)]> {
    let mut pauses: Vec<usize> = measured
        .windows(2)
        .map(|pair| pair[1].0 - pair[0].0)
        .collect();
    pauses.sort_unstable();
    let usual = pauses.get(pauses.len() / 2).copied().unwrap_or(1);
    measured.chunk_by(move |before, next| next.0 - before.0 <= usual * 6)
}
