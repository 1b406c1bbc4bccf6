//! Values of the YAML files: spans of time, chances, and bounds between which something is drawn.

use std::borrow::Cow;
use std::time::Duration;

use fleet_shared::config::duration;
use rand::RngExt;
use rand_pcg::Pcg32;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use crate::schedule;

/// A span of time such as `250ms`, `30s` or `1h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(pub Duration);

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        duration(&text).map(Self)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A whole number with a unit (ms, s, m, h, d), such as 250ms, 30s or 1h.",
            "type": "string",
            "pattern": "^(0|([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?)$",
        })
    }
}

/// How likely something is: from 0, never, to 1, always.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Deserialize)]
#[serde(try_from = "f64")]
pub struct Chance(pub f64);

impl Chance {
    /// Whether it happens this time.
    pub(crate) fn draw(self, rng: &mut Pcg32) -> bool {
        rng.random::<f64>() < self.0
    }
}

impl TryFrom<f64> for Chance {
    type Error = String;

    fn try_from(chance: f64) -> Result<Self, String> {
        if (0.0..=1.0).contains(&chance) {
            Ok(Self(chance))
        } else {
            Err(format!("{chance} is no chance: give 0 to 1"))
        }
    }
}

impl JsonSchema for Chance {
    fn schema_name() -> Cow<'static, str> {
        "Chance".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "How likely something is: from 0, never, to 1, always.",
            "type": "number",
            "minimum": 0,
            "maximum": 1,
        })
    }
}

/// A lower and an upper bound, both included, written `[low, high]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(
    try_from = "(T, T)",
    bound(deserialize = "T: Deserialize<'de> + PartialOrd")
)]
pub struct Bounds<T> {
    /// The lower one.
    pub low: T,
    /// The upper one.
    pub high: T,
}

impl<T: PartialOrd> TryFrom<(T, T)> for Bounds<T> {
    type Error = &'static str;

    fn try_from((low, high): (T, T)) -> Result<Self, Self::Error> {
        // Numbers that do not compare, NaN, are no bounds either.
        if low <= high {
            Ok(Self { low, high })
        } else {
            Err("the first bound must not be above the second: [low, high]")
        }
    }
}

impl<T: JsonSchema> JsonSchema for Bounds<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("Bounds_of_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let bound = generator.subschema_for::<T>();
        json_schema!({
            "description": "A lower and an upper bound, both included.",
            "type": "array",
            "items": bound,
            "minItems": 2,
            "maxItems": 2,
        })
    }
}

/// Largest number of a file, up or down: whole numbers and hundredths are still told apart there, and
/// neither a distance between two nor a product is beyond all numbers.
pub(crate) const NUMBER_MAX: f64 = 1e15;

/// Whether a number of a file is one that can be reckoned with.
pub(crate) fn is_sane(number: f64) -> bool {
    number.abs() <= NUMBER_MAX
}

impl Bounds<f64> {
    pub(crate) fn draw(&self, rng: &mut Pcg32) -> f64 {
        rng.random_range(self.low..=self.high)
    }

    /// Whether both are numbers that can be drawn from and reckoned with.
    pub(crate) fn is_sane(&self) -> bool {
        is_sane(self.low) && is_sane(self.high)
    }
}

impl Bounds<u8> {
    pub(crate) fn draw(&self, rng: &mut Pcg32) -> u8 {
        rng.random_range(self.low..=self.high)
    }
}

impl Bounds<u32> {
    pub(crate) fn draw(&self, rng: &mut Pcg32) -> u32 {
        rng.random_range(self.low..=self.high)
    }

    /// Uniform in the logarithm: small numbers often, large ones seldom.
    pub(crate) fn draw_skewed(&self, rng: &mut Pcg32) -> u32 {
        let (low, high) = (f64::from(self.low) + 1.0, f64::from(self.high) + 1.0);
        let drawn = rng.random_range(low.ln()..=high.ln()).exp() - 1.0;
        // A float beyond the range of the integer saturates, and the bounds are kept below.
        (drawn.round() as u32).clamp(self.low, self.high)
    }
}

impl Bounds<Span> {
    pub(crate) fn draw(&self, rng: &mut Pcg32) -> Duration {
        schedule::between(rng, self.low.0, self.high.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed;

    #[test]
    fn bounds_are_in_order() {
        assert!(Bounds::try_from((1.0, 1.0)).is_ok());
        assert!(Bounds::try_from((2.0, 1.0)).is_err());
        assert!(Bounds::try_from((f64::NAN, 1.0)).is_err());
        assert!(Chance::try_from(1.5).is_err());
        assert!(Chance::try_from(f64::NAN).is_err());
    }

    #[test]
    fn skewed_numbers_are_small_more_often_than_large() {
        let bounds = Bounds {
            low: 0_u32,
            high: 999,
        };
        let mut rng = seed::stream(1, 1, 1);
        let drawn: Vec<u32> = (0..1_000).map(|_| bounds.draw_skewed(&mut rng)).collect();
        assert!(drawn.iter().all(|number| *number <= 999));
        assert!(drawn.iter().filter(|number| **number < 32).count() > 400);
        assert!(drawn.iter().any(|number| *number > 500));
    }
}
