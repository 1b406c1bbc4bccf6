//! What a check found, what it means for the fleet, and what to set.

use serde::Serialize;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As the fleet wants it.
    Ok,
    /// The guarantees hold, with less speed or less protection.
    Warn,
    /// A guarantee of the fleet cannot hold.
    Fail,
    /// Nothing was found out: an earlier check says why.
    Skip,
}

impl Status {
    /// As a word of four letters.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
            Self::Skip => "skip",
        }
    }
}

/// The answer of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// Whether it is well.
    pub status: Status,
    /// What the broker did.
    pub found: String,
    /// What that means for the fleet.
    pub means: String,
    /// What to set on Mosquitto; absent where nothing is to be mended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mosquitto: Option<&'static str>,
    /// The same on EMQX.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emqx: Option<&'static str>,
}

impl Finding {
    pub(super) fn new(
        check: &'static str,
        status: Status,
        found: impl Into<String>,
        means: impl Into<String>,
    ) -> Self {
        Self {
            check,
            status,
            found: found.into(),
            means: means.into(),
            mosquitto: None,
            emqx: None,
        }
    }

    /// The same with what mends it.
    pub(super) fn mend(mut self, mosquitto: &'static str, emqx: &'static str) -> Self {
        self.mosquitto = Some(mosquitto);
        self.emqx = Some(emqx);
        self
    }
}
