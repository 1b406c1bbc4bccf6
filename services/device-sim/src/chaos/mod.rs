//! What goes wrong, on purpose and repeatably.
//!
//! Chaos is laid over a schedule and is a schedule again: which readings are lost, doubled or
//! spoilt, and when connections are cut off, depends on the seed, the number of the device and the
//! file, and on nothing that happens while it runs.

mod disturbed;
mod file;
mod intent;
#[cfg(test)]
mod tests;
mod wrong;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use disturbed::Disturbed;
pub use file::{
    Burst, ChaosFile, Clock, Drift, DropFile, HalfOpenFile, Jump, Later, Links, Readings, Skew,
    SlowReaderFile, Spike, Storm, Stuck, WrongFile, WrongKind,
};
pub use intent::{Intent, Intents};
pub use wrong::Wrong;

use crate::schedule::Plan;
use crate::seed;
use crate::yaml::{self, FileError};

/// Keeps the chance of chaos apart from that of the devices.
const SALT: u64 = 0x6368_616f_735f_0001;
/// The stream of chance that says whether a device suffers.
const SHARE_STREAM: u32 = 0;

/// The chaos of a run. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Chaos {
    file: Arc<ChaosFile>,
    seed: u64,
}

impl Chaos {
    /// Reads a file, for a run with that seed.
    ///
    /// # Errors
    /// When it cannot be read, is no YAML, has a field that is unknown or of the wrong form (with
    /// line and column), or breaks a rule.
    pub fn open(path: &Path, seed: u64) -> Result<Self, FileError> {
        Self::new(yaml::parse(&yaml::open(path)?)?, seed)
    }

    /// The chaos of a file, for a run with that seed.
    ///
    /// # Errors
    /// The first rule that a field breaks.
    pub fn new(file: ChaosFile, seed: u64) -> Result<Self, FileError> {
        file.check().map_err(|(at, rule)| FileError::Rule {
            at: at.to_owned(),
            rule: rule.to_owned(),
        })?;
        Ok(Self {
            file: Arc::new(file),
            seed: seed ^ SALT,
        })
    }

    /// The plan of device `number` with what goes wrong. What is held back is published before
    /// `end`, if there is one.
    #[must_use]
    pub fn over(&self, plan: Plan, number: u32, end: Option<Duration>) -> Plan {
        let suffers = self
            .file
            .devices
            .is_none_or(|chance| chance.draw(&mut seed::stream(self.seed, number, SHARE_STREAM)));
        if suffers {
            Box::new(Disturbed::new(plan, self, number, end))
        } else {
            plan
        }
    }
}
