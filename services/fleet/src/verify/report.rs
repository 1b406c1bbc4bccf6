//! What a comparison has found, and how it is shown to people.

use std::collections::BTreeMap;
use std::fmt;

use fleet_store::ReadingKey;
use serde::Serialize;

use super::timeline::Timeline;

/// What was counted. The first six are those of the contract.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Acknowledgements in the ledger.
    pub published: u64,
    /// Different readings among them.
    pub acknowledged: u64,
    /// Those that the store has.
    pub stored: u64,
    /// Those that it has not.
    pub missing: u64,
    /// Keys with more than one row in the store.
    pub duplicates: u64,
    /// Readings whose value in the store is not that of the ledger.
    pub conflicts: u64,
    /// Readings that reached the store long after their acknowledgement.
    pub late: u64,
    /// Lines of the ledger that are there twice.
    pub repeated: u64,
    /// Messages that had to be refused, and are dead letters for that reason.
    pub dead_lettered: u64,
    /// Messages that had to be refused, and are no dead letters, or for another reason.
    pub not_dead_lettered: u64,
    /// Readings at QoS 0 or given up: those that the store has.
    pub open_stored: u64,
    /// Readings at QoS 0 or given up: those that it has not.
    pub open_lost: u64,
    /// Rows and dead letters of the run that no line of the ledger explains.
    pub unexplained: u64,
}

impl Counts {
    /// Whether every acknowledged reading is stored once, with its value.
    #[must_use]
    pub fn hold(&self) -> bool {
        self.missing == 0 && self.duplicates == 0 && self.conflicts == 0
    }

    /// Whether, besides, nothing is there that should not be, and everything that was to be refused
    /// was.
    #[must_use]
    pub fn hold_strictly(&self) -> bool {
        self.hold() && self.unexplained == 0 && self.not_dead_lettered == 0 && self.repeated == 0
    }
}

/// Times from the publish of readings to the store, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Delivery {
    /// Half of them took at most this.
    pub p50_ms: f64,
    /// 90 of a hundred did.
    pub p90_ms: f64,
    /// 99 of a hundred did.
    pub p99_ms: f64,
    /// 999 of a thousand did.
    pub p999_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Which reading, or on which topic.
    pub what: String,
    /// What is the matter with it.
    pub detail: String,
}

impl Finding {
    /// A finding about a reading.
    pub(super) fn of(key: &ReadingKey, detail: String) -> Self {
        let ReadingKey {
            sensor_id,
            kind,
            timestamp,
        } = key;
        Self {
            what: format!("{sensor_id} {kind} {timestamp}"),
            detail,
        }
    }
}

/// Of what kind findings are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Acknowledged and not stored.
    Missing,
    /// More than one row.
    Duplicate,
    /// Another value.
    Conflict,
    /// Twice in the ledger.
    Repeated,
    /// To be refused, and it was not, or for another reason.
    NotDeadLettered,
    /// In the store, and in no line of the ledger.
    Unexplained,
    /// Stored late.
    Late,
}

impl Kind {
    /// The heading of its findings.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Duplicate => "double",
            Self::Conflict => "different",
            Self::Repeated => "repeated in the ledger",
            Self::NotDeadLettered => "not dead-lettered as intended",
            Self::Unexplained => "unexplained",
            Self::Late => "late",
        }
    }
}

/// Findings of each kind that are told.
const TOLD: usize = 10;

/// The result of a comparison; `Display` shows it to people.
#[derive(Clone, Debug, Default)]
pub struct Proof {
    /// The numbers.
    pub counts: Counts,
    /// From publish to store; absent when nothing was stored.
    pub delivery: Option<Delivery>,
    /// What was done on purpose, and how often.
    pub faults: BTreeMap<String, u64>,
    /// The first findings of each kind, at most ten.
    pub findings: BTreeMap<Kind, Vec<Finding>>,
    pub(super) timeline: Timeline,
    /// Upper ends of classes of latency in milliseconds, with the readings in them.
    pub(super) latencies: Vec<(f64, u64)>,
}

/// The answer for programs.
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    counts: &'a Counts,
    delivery: &'a Option<Delivery>,
    faults: &'a BTreeMap<String, u64>,
}

impl Proof {
    pub(super) fn find(&mut self, kind: Kind, finding: impl FnOnce() -> Finding) {
        let list = self.findings.entry(kind).or_default();
        if list.len() < TOLD {
            list.push(finding());
        }
    }

    /// The answer for programs, in one line of JSON.
    ///
    /// # Errors
    /// None in practice: all of it can be written as JSON.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string(&Answer {
            counts: &self.counts,
            delivery: &self.delivery,
            faults: &self.faults,
        })
    }

    /// How many there are of a kind.
    #[must_use]
    pub fn count(&self, kind: Kind) -> u64 {
        let counts = &self.counts;
        match kind {
            Kind::Missing => counts.missing,
            Kind::Duplicate => counts.duplicates,
            Kind::Conflict => counts.conflicts,
            Kind::Repeated => counts.repeated,
            Kind::NotDeadLettered => counts.not_dead_lettered,
            Kind::Unexplained => counts.unexplained,
            Kind::Late => counts.late,
        }
    }

    /// The numbers with their names, and whether they should be 0.
    pub(super) fn rows(&self) -> [(&'static str, u64, bool); 13] {
        let counts = &self.counts;
        [
            ("published", counts.published, false),
            ("acknowledged", counts.acknowledged, false),
            ("stored", counts.stored, false),
            ("missing", counts.missing, true),
            ("duplicates", counts.duplicates, true),
            ("conflicts", counts.conflicts, true),
            ("late", counts.late, false),
            ("repeated", counts.repeated, true),
            ("dead-lettered", counts.dead_lettered, false),
            ("not dead-lettered", counts.not_dead_lettered, true),
            ("open, stored", counts.open_stored, false),
            ("open, lost", counts.open_lost, false),
            ("unexplained", counts.unexplained, true),
        ]
    }

    /// The verdict in a sentence.
    pub(super) fn verdict(&self) -> &'static str {
        if !self.counts.hold() {
            "The store does not hold what the broker has acknowledged."
        } else if !self.counts.hold_strictly() {
            "Every acknowledged reading is stored, once, with its value; but not everything is as the ledger says."
        } else {
            "Every acknowledged reading is stored, once, with its value."
        }
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, count, _)) in self.rows().into_iter().enumerate() {
            // What is beside the six of the contract is shown when there is something of it.
            if index < 6 || count > 0 {
                writeln!(f, "{name:<17} {count:>12}")?;
            }
        }
        if let Some(delivery) = &self.delivery {
            writeln!(
                f,
                "{:<17} p50 {:.1} ms, p90 {:.1}, p99 {:.1}, p99.9 {:.1}, max {:.1}",
                "delivery",
                delivery.p50_ms,
                delivery.p90_ms,
                delivery.p99_ms,
                delivery.p999_ms,
                delivery.max_ms
            )?;
        }
        if !self.faults.is_empty() {
            let faults = self
                .faults
                .iter()
                .map(|(name, count)| format!("{name} {count}"));
            writeln!(
                f,
                "{:<17} {}",
                "on purpose",
                faults.collect::<Vec<_>>().join(", ")
            )?;
        }
        for (kind, findings) in &self.findings {
            if findings.is_empty() {
                continue;
            }
            let (title, count) = (kind.title(), self.count(*kind));
            writeln!(f, "\n{title}, {} of {count}:", findings.len())?;
            for Finding { what, detail } in findings {
                writeln!(
                    f,
                    "  {what}{}{detail}",
                    if detail.is_empty() { "" } else { ": " }
                )?;
            }
        }
        writeln!(f, "\n{}", self.verdict())
    }
}
