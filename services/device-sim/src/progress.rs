//! What a run tells while it runs and at its end.

use std::io::Write;
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar};
use serde::Serialize;

use crate::latency::Times;
use crate::run::Run;
use crate::scenario::Output;
use crate::tally::Count;

/// Time over which the rate on the progress line is taken.
const RATE_OVER: Duration = Duration::from_secs(1);

/// The progress line; it is drawn on a terminal only.
pub(crate) struct Progress {
    bar: ProgressBar,
    devices: usize,
    meter: Meter,
}

impl Progress {
    pub(crate) fn new(output: Output, devices: usize) -> Self {
        let bar = match output {
            Output::Text => ProgressBar::new_spinner(),
            Output::Json | Output::Nothing => ProgressBar::hidden(),
        };
        Self {
            bar,
            devices,
            meter: Meter::default(),
        }
    }

    /// Draws the line anew.
    pub(crate) fn show(&mut self, count: &Count, elapsed: Duration) {
        let rate = self.meter.rate(count.published, elapsed);
        if !self.bar.is_hidden() {
            self.bar.set_message(line(self.devices, count, rate));
            self.bar.tick();
        }
    }

    /// Takes the line away.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// Readings a second over the last whole period.
#[derive(Debug, Default)]
struct Meter {
    since: Duration,
    published: u64,
    rate: f64,
}

impl Meter {
    fn rate(&mut self, published: u64, elapsed: Duration) -> f64 {
        let period = elapsed.saturating_sub(self.since);
        if period >= RATE_OVER {
            self.rate = published.saturating_sub(self.published) as f64 / period.as_secs_f64();
            self.since = elapsed;
            self.published = published;
        }
        self.rate
    }
}

fn line(devices: usize, count: &Count, rate: f64) -> String {
    let failed = match count.failed {
        0 => String::new(),
        failed => format!(", {} failed", HumanCount(failed)),
    };
    format!(
        "{} of {} devices connected, {} readings published, {} acknowledged{failed}, {rate:.1}/s",
        HumanCount(count.connected),
        HumanCount(devices as u64),
        HumanCount(count.published),
        HumanCount(count.acknowledged),
    )
}

/// What a run has done.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Devices that took part.
    pub devices: usize,
    /// Readings published, at any QoS.
    pub published: u64,
    /// Readings that the broker has acknowledged: those at QoS 1 and 2.
    pub acknowledged: u64,
    /// Readings that did not reach the broker, or were refused.
    pub failed: u64,
    /// From the start to the last acknowledgement.
    pub duration_seconds: f64,
    /// Readings published a second.
    pub rate: f64,
    /// Readings a second that were asked for; absent when nobody did.
    pub asked_rate: Option<f64>,
    /// As many of these as there can be in a run of this length, as devices are silent before they are
    /// started, one after the other.
    pub reachable_rate: Option<f64>,
    /// Devices that ever had a connection.
    pub connected: u64,
    /// From the start until the last of those had its first; absent when there was none.
    pub connected_seconds: Option<f64>,
    /// From when readings were due to their acknowledgements.
    #[serde(flatten)]
    pub times: Times,
}

impl Summary {
    /// The summary of a run of so many devices that was `asked` for so many readings a second, of which
    /// it could reach so many.
    pub(crate) fn new(
        devices: usize,
        asked: Option<(f64, f64)>,
        run: &Run,
        took: Duration,
    ) -> Self {
        let (connected, last) = run.tally.ever_connected();
        let summary = Self::counted(devices, &run.tally.count(), took);
        Self {
            asked_rate: asked.map(|(rate, _)| round(rate)),
            reachable_rate: asked.map(|(_, rate)| round(rate)),
            connected,
            connected_seconds: (connected > 0).then(|| round(last.as_secs_f64())),
            times: run.latency.times(),
            ..summary
        }
    }

    fn counted(devices: usize, count: &Count, took: Duration) -> Self {
        let seconds = took.as_secs_f64();
        let rate = if seconds > 0.0 {
            count.published as f64 / seconds
        } else {
            0.0
        };
        Self {
            devices,
            published: count.published,
            acknowledged: count.acknowledged,
            failed: count.failed,
            duration_seconds: round(seconds),
            rate: round(rate),
            asked_rate: None,
            reachable_rate: None,
            connected: 0,
            connected_seconds: None,
            times: Times::default(),
        }
    }

    /// Writes the summary in the form that was asked for.
    pub(crate) fn print(&self, output: Output, out: &mut impl Write) -> std::io::Result<()> {
        match output {
            Output::Text => out.write_all(self.table().as_bytes())?,
            Output::Json => writeln!(out, "{}", serde_json::to_string(self)?)?,
            Output::Nothing => {}
        }
        out.flush()
    }

    fn table(&self) -> String {
        let asked = match (self.asked_rate, self.reachable_rate) {
            (Some(asked), Some(reachable)) if reachable < asked * 0.999 => format!(
                " of {asked:.1} asked for, {reachable:.1} with devices that start one after the other"
            ),
            (Some(asked), _) => format!(" of {asked:.1} asked for"),
            (None, _) => String::new(),
        };
        let connected = match self.connected_seconds {
            None => "none was ever connected".to_owned(),
            Some(seconds) if self.connected == self.devices as u64 => {
                format!("all connected after {seconds:.1} s")
            }
            Some(seconds) => format!(
                "{} connected, the last after {seconds:.1} s",
                HumanCount(self.connected)
            ),
        };
        let times = &self.times;
        format!(
            "devices       {}  ({connected})\n\
             published     {}\n\
             acknowledged  {}  (QoS 1 and 2)\n\
             failed        {}\n\
             late          {}  (handed over more than 100 ms after they were due)\n\
             duration      {:.1} s\n\
             rate          {:.1} readings/s{asked}\n\
             latency       p50 {:.2} ms, p90 {:.2}, p99 {:.2}, p99.9 {:.2}, max {:.2}\n",
            HumanCount(self.devices as u64),
            HumanCount(self.published),
            HumanCount(self.acknowledged),
            HumanCount(self.failed),
            HumanCount(times.late),
            self.duration_seconds,
            self.rate,
            times.p50_ms,
            times.p90_ms,
            times.p99_ms,
            times.p999_ms,
            times.max_ms,
        )
    }
}

/// The share of a steady rate that devices can reach which start one after the other within
/// `ramp`, of a schedule of this length: they are silent before they start.
pub(crate) fn reachable(ramp: Duration, schedule: Duration) -> f64 {
    let (ramp, schedule) = (ramp.as_secs_f64(), schedule.as_secs_f64());
    if ramp <= schedule {
        // Both are zero in a run of no time.
        1.0 - ramp / (2.0 * schedule.max(f64::MIN_POSITIVE))
    } else {
        schedule / (2.0 * ramp)
    }
}

fn round(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: Count = Count {
        published: 48_858,
        acknowledged: 48_000,
        sent: 850,
        failed: 8,
        connected: 6,
        finished: 5,
    };

    fn printed(output: Output) -> String {
        let mut out = Vec::new();
        let times = Times {
            p50_ms: 0.41,
            p90_ms: 1.2,
            p99_ms: 8.75,
            p999_ms: 20.5,
            max_ms: 121.0,
            late: 7,
        };
        let summary = Summary {
            asked_rate: Some(20_000.0),
            reachable_rate: Some(19_500.0),
            connected: 6,
            connected_seconds: Some(0.25),
            times,
            ..Summary::counted(6, &COUNT, Duration::from_millis(2_500))
        };
        summary.print(output, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_summary_is_a_table_or_a_line_of_json() {
        insta::assert_snapshot!(printed(Output::Text));
        insta::assert_snapshot!(printed(Output::Json), @r#"{"devices":6,"published":48858,"acknowledged":48000,"failed":8,"duration_seconds":2.5,"rate":19543.2,"asked_rate":20000.0,"reachable_rate":19500.0,"connected":6,"connected_seconds":0.25,"p50_ms":0.41,"p90_ms":1.2,"p99_ms":8.75,"p999_ms":20.5,"max_ms":121.0,"late":7}"#);
        assert_eq!(printed(Output::Nothing), "");
    }

    #[test]
    fn the_summary_says_how_many_devices_were_ever_connected() {
        let said = |connected, seconds| {
            let summary = Summary {
                connected,
                connected_seconds: seconds,
                ..Summary::counted(6, &COUNT, Duration::from_secs(1))
            };
            let table = summary.table();
            table.lines().next().unwrap_or_default().to_owned()
        };
        assert_eq!(said(0, None), "devices       6  (none was ever connected)");
        assert_eq!(
            said(4, Some(0.3)),
            "devices       6  (4 connected, the last after 0.3 s)"
        );
        assert_eq!(
            said(6, Some(0.3)),
            "devices       6  (all connected after 0.3 s)"
        );
    }

    #[test]
    fn a_run_of_no_time_has_no_rate() {
        assert_eq!(
            Summary::counted(1, &COUNT, Duration::ZERO).rate.to_bits(),
            0.0_f64.to_bits()
        );
    }

    #[test]
    fn devices_that_are_not_started_are_asked_for_nothing() {
        let second = Duration::from_secs;
        for (ramp, schedule, share) in [(0, 10, 1.0), (1, 10, 0.95), (10, 10, 0.5), (20, 10, 0.25)]
        {
            assert!((reachable(second(ramp), second(schedule)) - share).abs() < 1e-9);
        }
        assert!(reachable(Duration::ZERO, Duration::ZERO).is_finite());
    }

    #[test]
    fn the_line_tells_how_far_the_run_is() {
        let mut meter = Meter::default();
        assert!(meter.rate(100, Duration::from_millis(500)) < 1e-9);
        let rate = meter.rate(4_000, Duration::from_secs(2));
        insta::assert_snapshot!(line(10, &COUNT, rate), @"6 of 10 devices connected, 48,858 readings published, 48,000 acknowledged, 8 failed, 2000.0/s");
        assert!((meter.rate(4_500, Duration::from_millis(2_900)) - 2_000.0).abs() < 1e-9);
    }
}
