//! The report as a page: one file, without a script and without anything from elsewhere.

mod plot;

use std::fmt::Write as _;
use std::path::Path;

use indicatif::HumanCount;
use jiff::Timestamp;

use super::report::{Finding, Proof};
use plot::{Bars, Curve, Plot, Scale};

const STYLE: &str = include_str!("style.css");

/// The page.
pub(super) fn render(proof: &Proof, ledger: &Path, now: Timestamp) -> String {
    let mut page = String::with_capacity(64 * 1024);
    let (class, word) = match (proof.counts.hold(), proof.counts.hold_strictly()) {
        (_, true) => ("good", "It holds"),
        (true, false) => ("warn", "It holds, with questions"),
        (false, _) => ("bad", "It does not hold"),
    };
    page.push_str("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    page.push_str("<title>fleet verify</title>\n<style>\n");
    page.push_str(STYLE);
    page.push_str("</style>\n</head>\n<body>\n<main>\n<h1>What the broker acknowledged, and what is stored</h1>\n");
    push(
        &mut page,
        format_args!(
            "<p class=\"dim\">Ledger <code>{}</code>, compared on {}</p>\n\
             <div class=\"verdict {class}\"><div><strong>{word}</strong><p>{}</p></div></div>\n",
            escaped(&ledger.display().to_string()),
            now.strftime("%Y-%m-%d %H:%M:%S UTC"),
            proof.verdict(),
        ),
    );
    tiles(&mut page, proof);
    if let Some(flow) = flow(proof) {
        page.push_str(&flow);
    }
    if let Some(latency) = latency(proof) {
        page.push_str(&latency);
    }
    if let Some(distribution) = distribution(proof) {
        page.push_str(&distribution);
    }
    findings(&mut page, proof);
    faults(&mut page, proof);
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

fn push(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text)
        .expect("a text takes what is written to it");
}

/// Text that holds no markup: topics and ids are whatever somebody has published.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

fn tiles(page: &mut String, proof: &Proof) {
    page.push_str("<ul class=\"tiles\">\n");
    for (index, (name, count, zero)) in proof.rows().into_iter().enumerate() {
        if index >= 6 && count == 0 && !zero {
            continue;
        }
        let class = match (zero, count) {
            (true, 0) => " class=\"good\"",
            (true, _) => " class=\"bad\"",
            (false, _) => "",
        };
        push(
            page,
            format_args!(
                "<li{class}><span class=\"dim\">{name}</span><b>{}</b></li>\n",
                HumanCount(count)
            ),
        );
    }
    if let Some(delivery) = &proof.delivery {
        for (name, ms) in [
            ("delivery p50", delivery.p50_ms),
            ("delivery p99", delivery.p99_ms),
        ] {
            push(
                page,
                format_args!(
                    "<li><span class=\"dim\">{name}</span><b>{}</b></li>\n",
                    time(ms)
                ),
            );
        }
    }
    page.push_str("</ul>\n");
}

/// Readings a second over the run.
fn flow(proof: &Proof) -> Option<String> {
    let steps = proof.timeline.steps();
    let width = proof.timeline.width_seconds();
    let (began, ended) = (steps.first()?.0, steps.last()?.0);
    let at = |micros: i64| (micros - began) as f64 / 1e6;
    let curve = |class, count: fn(&super::timeline::Step) -> u64| Curve {
        class,
        points: steps
            .iter()
            .map(|(micros, step)| (at(*micros), Some(count(step) as f64 / width)))
            .collect(),
        filled: class == "s1",
    };
    let curves = [
        curve("s1", |step| step.acknowledged),
        curve("s2", |step| step.stored),
    ];
    let highest = curves
        .iter()
        .flat_map(|curve| curve.points.iter().filter_map(|(_, y)| *y))
        .fold(1.0, f64::max);
    let mut plot = Plot::new(
        "Readings a second over the run",
        Scale::linear(0.0, at(ended).max(width)),
        Scale::linear(0.0, highest),
        plot::seconds,
        plot::count,
    );
    for (micros, step) in &steps {
        if step.faults > 0 {
            plot.tick(at(*micros), &format!("{} faults on purpose", step.faults));
        }
    }
    for curve in &curves {
        plot.curve(curve);
    }
    for (micros, step) in &steps {
        if step.missing > 0 {
            plot.dot(at(*micros), 0.0, &format!("{} missing", step.missing));
        }
    }
    Some(figure(
        "Flow",
        "Readings a second: acknowledged by the broker, by the clock of the devices' machine, and stored, by that of ingest.",
        &[
            ("k1", "acknowledged"),
            ("k2", "stored"),
            ("k3", "missing"),
            ("k4", "faults on purpose"),
        ],
        &plot.finish(),
    ))
}

/// Delivery latency over the run.
fn latency(proof: &Proof) -> Option<String> {
    let steps = proof.timeline.steps();
    let (began, ended) = (steps.first()?.0, steps.last()?.0);
    let at = |micros: i64| (micros - began) as f64 / 1e6;
    let curve = |class, quantile: f64| Curve {
        class,
        points: steps
            .iter()
            .map(|(micros, step)| (at(*micros), step.quantile_ms(quantile)))
            .collect(),
        filled: false,
    };
    let curves = [curve("s1", 0.5), curve("s2", 0.99)];
    let known = || {
        curves
            .iter()
            .flat_map(|curve| curve.points.iter().filter_map(|(_, y)| *y))
    };
    let highest = known().fold(f64::MIN, f64::max);
    let lowest = known().fold(f64::MAX, f64::min);
    if highest < lowest {
        return None;
    }
    let mut plot = Plot::new(
        "Delivery latency over the run",
        Scale::linear(0.0, at(ended).max(proof.timeline.width_seconds())),
        Scale::decades(lowest, highest),
        plot::seconds,
        time,
    );
    for curve in &curves {
        plot.curve(curve);
    }
    Some(figure(
        "Delivery latency over the run",
        "From the publish to the store: of the readings that were stored in each step, the middle one and the slowest of a hundred. Logarithmic.",
        &[("k1", "p50"), ("k2", "p99")],
        &plot.finish(),
    ))
}

/// How many readings took how long.
fn distribution(proof: &Proof) -> Option<String> {
    let delivery = proof.delivery?;
    let classes: Vec<_> = proof
        .latencies
        .iter()
        .skip_while(|(_, count)| *count == 0)
        .copied()
        .collect();
    let highest = classes.iter().map(|(_, count)| *count).max()?;
    let (first, last) = (classes.first()?.0, classes.last()?.0);
    let mut plot = Plot::new(
        "Distribution of the delivery latency",
        Scale::decades(first / 1.25, last),
        Scale::linear(0.0, highest as f64),
        time,
        plot::count,
    );
    plot.bars(&Bars {
        upper_ends: &classes,
        factor: 1.25,
    });
    for (name, ms) in [
        ("p50", delivery.p50_ms),
        ("p90", delivery.p90_ms),
        ("p99", delivery.p99_ms),
        ("p99.9", delivery.p999_ms),
    ] {
        plot.mark(ms, &format!("{name} {}", time(ms)));
    }
    Some(figure(
        "Distribution of the delivery latency",
        &format!(
            "Readings by their time from publish to store, in classes a quarter apart; the slowest took {}.",
            time(delivery.max_ms)
        ),
        &[],
        &plot.finish(),
    ))
}

fn figure(title: &str, caption: &str, legend: &[(&str, &str)], svg: &str) -> String {
    let mut out = format!("<figure><h2>{title}</h2><figcaption>{caption}</figcaption>");
    if !legend.is_empty() {
        out.push_str("<ul class=\"legend\">");
        for (class, name) in legend {
            push(
                &mut out,
                format_args!("<li class=\"{class}\"><i></i>{name}</li>"),
            );
        }
        out.push_str("</ul>");
    }
    out.push_str(svg);
    out.push_str("</figure>\n");
    out
}

fn findings(page: &mut String, proof: &Proof) {
    for (kind, findings) in proof.findings.iter().filter(|(_, list)| !list.is_empty()) {
        push(
            page,
            format_args!(
                "<section><h2>{}</h2><p class=\"dim\">{} of {}</p><div class=\"scroll\"><table><tr><th>which</th><th>what</th></tr>\n",
                kind.title(),
                findings.len(),
                HumanCount(proof.count(*kind)),
            ),
        );
        for Finding { what, detail } in findings {
            push(
                page,
                format_args!(
                    "<tr><td><code>{}</code></td><td>{}</td></tr>\n",
                    escaped(what),
                    escaped(detail)
                ),
            );
        }
        page.push_str("</table></div></section>\n");
    }
}

fn faults(page: &mut String, proof: &Proof) {
    if proof.faults.is_empty() {
        return;
    }
    page.push_str("<section><h2>Done on purpose</h2><p class=\"dim\">Faults that the simulator made, as the ledger tells.</p><table><tr><th>fault</th><th class=\"n\">times</th></tr>\n");
    for (name, count) in &proof.faults {
        push(
            page,
            format_args!(
                "<tr><td>{}</td><td class=\"n\">{}</td></tr>\n",
                escaped(name),
                HumanCount(*count)
            ),
        );
    }
    page.push_str("</table></section>\n");
}

/// A latency for people.
fn time(ms: f64) -> String {
    match ms {
        ms if ms < 1.0 => format!("{ms:.2} ms"),
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 1_000.0 => format!("{ms:.0} ms"),
        ms if ms < 60_000.0 => format!("{:.1} s", ms / 1_000.0),
        ms => format!("{:.1} min", ms / 60_000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::report::{Delivery, Kind};

    #[test]
    fn the_page_needs_nothing_else_and_takes_any_text() {
        let mut proof = Proof::default();
        proof.counts.missing = 1;
        proof.find(Kind::Missing, || Finding {
            what: "<script>alert('x')</script>".to_owned(),
            detail: "a & b".to_owned(),
        });
        for second in 0..100_i64 {
            let step = proof.timeline.at(second * 1_000_000);
            step.acknowledged = 100;
            step.stored = 99;
            step.missing = u64::from(second == 40);
            step.faults = u64::from(second % 30 == 0);
            step.delivered(3_000 + second * 100);
        }
        proof.latencies = vec![(0.1, 0), (1.25, 10), (1.56, 50), (1.95, 3)];
        proof.delivery = Some(Delivery {
            p50_ms: 1.4,
            p90_ms: 1.5,
            p99_ms: 1.8,
            p999_ms: 1.9,
            max_ms: 1.95,
        });
        proof.faults.insert("dropped".to_owned(), 4);
        let page = render(&proof, Path::new("a<b"), Timestamp::UNIX_EPOCH);
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script"));
        assert!(!page.contains("http") && !page.contains("NaN") && !page.contains("inf"));
        assert_eq!(page.matches("<svg").count(), 3);
        for tag in ["svg", "figure", "table", "section", "ul", "main", "html"] {
            let open = page.matches(&format!("<{tag}")).count();
            assert_eq!(open, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }

    #[test]
    fn an_empty_run_has_a_page() {
        let page = render(&Proof::default(), Path::new("l"), Timestamp::UNIX_EPOCH);
        assert!(page.contains("It holds") && !page.contains("<svg"));
    }
}
