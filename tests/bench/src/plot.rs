//! Plots as SVG files that a page can show, light and dark.

use std::fmt::Write as _;

/// A line through points.
#[derive(Clone, Debug)]
pub struct Panel<'a> {
    /// What is shown, with units.
    pub title: &'a str,
    /// Position and value; positions are as far apart as their logarithms if `decades`.
    pub points: &'a [(f64, f64)],
    /// Whether positions are shown as powers of ten.
    pub decades: bool,
    /// What stands at a point, or nothing.
    pub label: fn(f64, f64) -> String,
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 190.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 570.0;
const STYLE: &str = "svg{--ink:#1f2328;--line:#0a5c8f;--soft:#d8dee4;--paper:#fff;font:12px system-ui,sans-serif}\
    @media(prefers-color-scheme:dark){svg{--ink:#e6edf3;--line:#79c0ff;--soft:#30363d;--paper:#0d1117}}\
    text{fill:var(--ink)}.h{font-weight:600}.m{text-anchor:middle;font-size:11px}.axis{stroke:var(--soft)}\
    .line{fill:none;stroke:var(--line);stroke-width:1.5}circle{fill:var(--line)}";

/// Panels below each other. Each begins at zero, so that flat looks flat.
pub fn plot(panels: &[Panel<'_>]) -> String {
    let height = HEIGHT * panels.len() as f64 + 10.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\">\
         <style>{STYLE}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"var(--paper)\"/>\n"
    );
    for (index, panel) in panels.iter().enumerate() {
        draw(&mut svg, panel, HEIGHT * index as f64 + 10.0);
    }
    svg + "</svg>\n"
}

fn draw(svg: &mut String, panel: &Panel<'_>, top: f64) {
    let place = |x: f64| {
        if panel.decades {
            x.max(1e-9).log10()
        } else {
            x
        }
    };
    let xs = panel.points.iter().map(|(x, _)| place(*x));
    let low = xs.clone().fold(f64::INFINITY, f64::min);
    let wide = (xs.fold(f64::NEG_INFINITY, f64::max) - low).max(1e-9);
    let most = panel.points.iter().map(|(_, y)| *y).fold(1e-9, f64::max) * 1.15;
    let bottom = top + 155.0;
    let points: Vec<(f64, f64, String)> = panel
        .points
        .iter()
        .map(|(x, y)| {
            let along = LEFT + (RIGHT - LEFT) * (place(*x) - low) / wide;
            (along, bottom - 120.0 * y / most, (panel.label)(*x, *y))
        })
        .collect();
    let path: Vec<String> = points
        .iter()
        .map(|(x, y, _)| format!("{x:.1} {y:.1}"))
        .collect();
    // Writing to a string never fails.
    writeln!(
        svg,
        "<text class=\"h\" x=\"20\" y=\"{:.0}\">{}</text><path class=\"axis\" d=\"M40 {bottom:.0}h560\"/>\
         <path class=\"line\" d=\"M{}\"/>",
        top + 14.0,
        panel.title,
        path.join("L")
    )
    .ok();
    for (x, y, label) in points.iter().filter(|(_, _, label)| !label.is_empty()) {
        writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/><text class=\"m\" x=\"{x:.0}\" y=\"{:.0}\">{label}</text>",
            y - 9.0
        )
        .ok();
    }
}
