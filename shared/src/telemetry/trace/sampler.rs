//! Which traces are recorded (OpenTelemetry specification, "Built-in samplers").

use super::TraceContext;

/// Sampler by its standard name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum SamplerName {
    /// Every trace.
    #[value(name = "always_on")]
    AlwaysOn,
    /// None.
    #[value(name = "always_off")]
    AlwaysOff,
    /// A share of all traces.
    #[value(name = "traceidratio")]
    TraceIdRatio,
    /// As whoever began the trace; every trace that begins here.
    #[default]
    #[value(name = "parentbased_always_on")]
    ParentBasedAlwaysOn,
    /// As whoever began the trace; none that begins here.
    #[value(name = "parentbased_always_off")]
    ParentBasedAlwaysOff,
    /// As whoever began the trace; a share of those that begin here.
    #[value(name = "parentbased_traceidratio")]
    ParentBasedTraceIdRatio,
}

/// Share of traces, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingRatio(f64);

impl Default for SamplingRatio {
    fn default() -> Self {
        Self(1.0)
    }
}

impl std::fmt::Display for SamplingRatio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for SamplingRatio {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim().parse::<f64>() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(Self(ratio)),
            _ => Err("give a number from 0 to 1, such as 0.01 for one in a hundred".to_owned()),
        }
    }
}

/// Decides from the parent and the trace id alone, so every process decides the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sampler {
    parent_based: bool,
    /// A trace is recorded when 63 bits of its id are below this.
    bound: u64,
}

impl Sampler {
    pub(super) fn new(name: SamplerName, ratio: SamplingRatio) -> Self {
        let share = match name {
            SamplerName::AlwaysOn | SamplerName::ParentBasedAlwaysOn => 1.0,
            SamplerName::AlwaysOff | SamplerName::ParentBasedAlwaysOff => 0.0,
            SamplerName::TraceIdRatio | SamplerName::ParentBasedTraceIdRatio => ratio.0,
        };
        Self {
            parent_based: matches!(
                name,
                SamplerName::ParentBasedAlwaysOn
                    | SamplerName::ParentBasedAlwaysOff
                    | SamplerName::ParentBasedTraceIdRatio
            ),
            bound: (share * (1_u64 << 63) as f64) as u64,
        }
    }

    /// Whether a trace that begins here with these last 64 bits of its id is recorded.
    pub(super) fn takes(&self, low_bits: u64) -> bool {
        low_bits >> 1 < self.bound
    }

    /// Whether a span with that parent is recorded.
    pub(super) fn takes_child(&self, parent: &TraceContext) -> bool {
        if self.parent_based {
            return parent.is_sampled();
        }
        let id = u128::from_be_bytes(parent.span_context().trace_id().to_bytes());
        self.takes(id as u64)
    }
}
