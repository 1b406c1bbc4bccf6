//! Plots as SVG.

use std::fmt::Write as _;

const WIDTH: f64 = 1_000.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 28.0;

/// Where a value is along an axis, from 0 to 1.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scale {
    Linear {
        low: f64,
        high: f64,
    },
    /// Powers of ten.
    Decades {
        low: f64,
        high: f64,
    },
}

impl Scale {
    pub(super) fn linear(low: f64, high: f64) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        Self::Linear { low, high }
    }

    /// Whole decades around the two, which are made positive.
    pub(super) fn decades(low: f64, high: f64) -> Self {
        let low = low.max(1e-3).log10().floor();
        let high = high.max(1e-3).log10().ceil();
        Self::Decades {
            low,
            high: if high > low { high } else { low + 1.0 },
        }
    }

    fn place(self, value: f64) -> f64 {
        let place = match self {
            Self::Linear { low, high } => (value - low) / (high - low),
            Self::Decades { low, high } => (value.max(1e-9).log10() - low) / (high - low),
        };
        place.clamp(0.0, 1.0)
    }

    /// Round values along it.
    fn ticks(self) -> Vec<f64> {
        match self {
            Self::Decades { low, high } => {
                let count = (high - low).round().clamp(1.0, 12.0) as i32;
                let low = low as i32;
                (low..=low + count)
                    .map(|power| 10_f64.powi(power))
                    .collect()
            }
            Self::Linear { low, high } => {
                let rough = (high - low) / 5.0;
                let power = 10_f64.powf(rough.log10().floor());
                let step = [1.0, 2.0, 5.0, 10.0]
                    .into_iter()
                    .map(|times| times * power)
                    .find(|step| *step >= rough)
                    .unwrap_or(rough);
                let first = (low / step).ceil() as i64;
                let last = (high / step).floor() as i64;
                (first..=last.min(first + 12))
                    .map(|index| index as f64 * step)
                    .collect()
            }
        }
    }
}

/// A line through points; it is broken where there is no value.
#[derive(Clone, Debug)]
pub(super) struct Curve {
    pub(super) class: &'static str,
    pub(super) points: Vec<(f64, Option<f64>)>,
    pub(super) filled: bool,
}

/// Bars over classes on an axis of decades.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bars<'a> {
    /// Upper ends of the classes with what is in them.
    pub(super) upper_ends: &'a [(f64, u64)],
    /// Each class begins so many times below its end.
    pub(super) factor: f64,
}

/// A plot in the making.
pub(super) struct Plot {
    svg: String,
    x: Scale,
    y: Scale,
    marks: u32,
}

impl Plot {
    pub(super) fn new(
        label: &str,
        x: Scale,
        y: Scale,
        name_x: fn(f64) -> String,
        name_y: fn(f64) -> String,
    ) -> Self {
        let mut plot = Self {
            svg: format!(
                "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{label}\">"
            ),
            x,
            y,
            marks: 0,
        };
        for value in y.ticks() {
            let at = plot.down(value);
            plot.push(format_args!(
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                at + 4.0,
                name_y(value)
            ));
        }
        for value in x.ticks() {
            let at = plot.along(value);
            // In the middle below it, but not beyond the edge.
            let (anchor, place) = if at > WIDTH - 36.0 {
                ("end", WIDTH - 2.0)
            } else {
                ("middle", at)
            };
            plot.push(format_args!(
                "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>\
                 <text x=\"{place:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
                HEIGHT - BOTTOM,
                HEIGHT - 9.0,
                name_x(value)
            ));
        }
        plot.push(format_args!(
            "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
            WIDTH - RIGHT,
            y = HEIGHT - BOTTOM
        ));
        plot
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        self.svg
            .write_fmt(text)
            .expect("a text takes what is written to it");
    }

    fn along(&self, value: f64) -> f64 {
        LEFT + self.x.place(value) * (WIDTH - LEFT - RIGHT)
    }

    fn down(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(value) * (HEIGHT - TOP - BOTTOM)
    }

    pub(super) fn curve(&mut self, curve: &Curve) {
        let pieces = curve.points.split(|(_, y)| y.is_none());
        for piece in pieces.filter(|piece| !piece.is_empty()) {
            let path: Vec<_> = piece
                .iter()
                .filter_map(|(x, y)| Some((self.along(*x), self.down((*y)?))))
                .collect();
            let (Some(first), Some(last)) = (path.first(), path.last()) else {
                continue;
            };
            let (first, last) = (first.0, last.0);
            let mut line = String::new();
            for (index, (x, y)) in path.iter().enumerate() {
                let word = if index == 0 { 'M' } else { 'L' };
                write!(line, "{word}{x:.1} {y:.1}").expect("a text takes what is written to it");
            }
            // A single point would be no line at all.
            if path.len() == 1 {
                line.push_str("h2");
            }
            if curve.filled {
                let floor = HEIGHT - BOTTOM;
                self.push(format_args!(
                    "<path class=\"area\" d=\"{line}L{last:.1} {floor}L{first:.1} {floor}Z\"/>"
                ));
            }
            let class = curve.class;
            self.push(format_args!("<path class=\"curve {class}\" d=\"{line}\"/>"));
        }
    }

    pub(super) fn bars(&mut self, bars: &Bars<'_>) {
        for (upper, count) in bars.upper_ends {
            if *count == 0 {
                continue;
            }
            let (from, to) = (self.along(upper / bars.factor), self.along(*upper));
            let top = self.down(*count as f64);
            self.push(format_args!(
                "<rect class=\"bar\" x=\"{from:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>{count} up to {upper:.2} ms</title></rect>",
                (to - from - 1.0).max(1.0),
                (HEIGHT - BOTTOM - top).max(1.0)
            ));
        }
    }

    /// A short line at the top, for something that happened then.
    pub(super) fn tick(&mut self, x: f64, title: &str) {
        let at = self.along(x);
        self.push(format_args!(
            "<line class=\"fault\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"><title>{title}</title></line>",
            TOP + 7.0
        ));
    }

    pub(super) fn dot(&mut self, x: f64, y: f64, title: &str) {
        let (x, y) = (self.along(x), self.down(y));
        self.push(format_args!(
            "<circle class=\"miss\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{title}</title></circle>"
        ));
    }

    /// A line from top to bottom with a name; names take turns in height, so that they can be read.
    pub(super) fn mark(&mut self, x: f64, name: &str) {
        let at = self.along(x);
        let height = TOP + 11.0 + 14.0 * f64::from(self.marks % 4);
        self.marks += 1;
        let (anchor, beside) = if at > WIDTH - 140.0 {
            ("end", -5.0)
        } else {
            ("start", 5.0)
        };
        self.push(format_args!(
            "<line class=\"mark\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>\
             <text class=\"name\" x=\"{:.1}\" y=\"{height:.1}\" text-anchor=\"{anchor}\">{name}</text>",
            HEIGHT - BOTTOM,
            at + beside
        ));
    }

    pub(super) fn finish(mut self) -> String {
        self.svg.push_str("</svg>");
        self.svg
    }
}

/// Seconds since the start.
pub(super) fn seconds(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 120.0 => format!("{} s", (seconds * 100.0).round() / 100.0),
        seconds if seconds < 7_200.0 => format!("{:.1} min", seconds / 60.0),
        seconds => format!("{:.1} h", seconds / 3_600.0),
    }
}

/// A number in few characters.
pub(super) fn count(count: f64) -> String {
    match count {
        count if count >= 1e6 => format!("{:.1} M", count / 1e6),
        count if count >= 1e4 => format!("{:.0} k", count / 1e3),
        count => format!("{}", (count * 100.0).round() / 100.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(
            Scale::linear(0.0, 100.0).ticks(),
            [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]
        );
        assert_eq!(Scale::linear(0.0, 0.0).ticks().len(), 6);
        assert_eq!(Scale::decades(0.5, 90.0).ticks().len(), 4);
        assert!(Scale::linear(0.0, 1e300).ticks().len() <= 13);
    }
}
