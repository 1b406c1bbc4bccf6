//! What was done to a reading on purpose.

use std::fmt;

use serde::{Serialize, Serializer};

/// One thing that chaos does to a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// The same reading is published again.
    Duplicate,
    /// Published after readings that were taken later.
    Reordered,
    /// One of many readings at nearly the same time.
    Burst,
    /// The value does not change any more.
    Stuck,
    /// The value is many times what it should be.
    Spike,
    /// The value moves away from what it should be.
    Drift,
    /// The device's clock is wrong.
    Clock,
}

impl Intent {
    const ALL: [Self; 7] = [
        Self::Duplicate,
        Self::Reordered,
        Self::Burst,
        Self::Stuck,
        Self::Spike,
        Self::Drift,
        Self::Clock,
    ];

    /// Its name in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::Reordered => "reordered",
            Self::Burst => "burst",
            Self::Stuck => "stuck",
            Self::Spike => "spike",
            Self::Drift => "drift",
            Self::Clock => "clock",
        }
    }
}

/// All that was done to one reading. In text and in the ledger: the names with `+` between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Intents(u8);

impl Intents {
    /// Whether nothing was done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0 == 0
    }

    /// Whether this was done.
    #[must_use]
    pub fn contains(self, intent: Intent) -> bool {
        self.0 & (1 << intent as u8) != 0
    }

    /// The same and one more.
    #[must_use]
    pub fn with(self, intent: Intent) -> Self {
        Self(self.0 | (1 << intent as u8))
    }
}

impl fmt::Display for Intents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = Intent::ALL.into_iter().filter(|it| self.contains(*it));
        for (index, intent) in done.enumerate() {
            let plus = if index > 0 { "+" } else { "" };
            write!(f, "{plus}{}", intent.as_str())?;
        }
        Ok(())
    }
}

impl Serialize for Intents {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
