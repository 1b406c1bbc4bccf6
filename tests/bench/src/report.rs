//! Figures as a table for people and as JSON for machines.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

/// Prints the table, and writes the figures as JSON to `file` if one is given.
///
/// # Errors
/// When the file cannot be written.
#[expect(clippy::print_stdout, reason = "the table is the result")]
pub fn tell(file: Option<&Path>, figures: &impl Serialize, table: &str) -> anyhow::Result<()> {
    println!("{table}");
    if let Some(file) = file {
        let json = serde_json::to_string_pretty(figures)?;
        std::fs::write(file, json + "\n").with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// What was measured.
    pub what: String,
    /// Rows or messages a second.
    pub per_second: f64,
    /// CPU seconds per million of them, of the measured process alone.
    pub cpu_seconds_per_million: f64,
    /// Resident memory at the end, in MiB; absent where it is not a process of its own.
    pub resident_mib: Option<f64>,
}

impl Line {
    /// A measurement of `count` items that took `took` and `cpu`.
    pub fn new(
        what: impl Into<String>,
        count: u64,
        took: Duration,
        cpu: Duration,
        resident: Option<u64>,
    ) -> Self {
        Self {
            what: what.into(),
            per_second: count as f64 / took.as_secs_f64(),
            cpu_seconds_per_million: cpu.as_secs_f64() * 1e6 / count as f64,
            resident_mib: resident.map(|bytes| bytes as f64 / 1_048_576.0),
        }
    }
}

/// The measurements of a run, with the machine they were made on.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Processor, number of cores, kernel.
    pub machine: String,
    /// Version of the fleet.
    pub version: &'static str,
    /// In the order of measuring.
    pub lines: Vec<Line>,
}

impl Report {
    /// An empty report of this machine.
    pub fn new() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or("unknown processor", |(_, model)| model);
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            machine: format!("{model}, {cores} cores, Linux {}", kernel.trim()),
            version: env!("CARGO_PKG_VERSION"),
            lines: Vec::new(),
        }
    }

    /// Adds a measurement.
    pub fn push(&mut self, line: Line) {
        self.lines.push(line);
    }

    /// The report as a table.
    pub fn table(&self) -> String {
        let mut text = format!("{}\n\n", self.machine);
        text.push_str(&format!(
            "{:<58} {:>10} {:>10} {:>10}\n",
            "", "per second", "CPU s/M", "MiB"
        ));
        for line in &self.lines {
            let resident = line
                .resident_mib
                .map_or_else(String::new, |mib| format!("{mib:.1}"));
            text.push_str(&format!(
                "{:<58} {:>10.0} {:>10.2} {:>10}\n",
                line.what, line.per_second, line.cpu_seconds_per_million, resident
            ));
        }
        text
    }
}

impl Default for Report {
    fn default() -> Self {
        Self::new()
    }
}
