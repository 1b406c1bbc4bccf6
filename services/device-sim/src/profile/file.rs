//! The form of a profile file.

use std::time::Duration;

use fleet_shared::session::QoS;
use fleet_shared::topic::Excerpt;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::bounds::{Bounds, Span, is_sane};
use crate::schedule::Timing;

/// Kinds of device, as a file describes them.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProfileFile {
    /// Client id and device id; `{device}` stands for the number of the device.
    pub device_id: String,
    /// Firmware that the devices report.
    pub firmware: String,
    /// Pause between two reports of a device's status, whatever the rate of readings.
    pub status_every: Span,
    /// Weakest and strongest signal of a device, in dBm.
    pub signal_strength_dbm: Bounds<i32>,
    /// Where devices are: one after the other. `{1..20}` stands for each number of the range, with
    /// zeros in front as the first number has them.
    pub locations: Vec<String>,
    /// The kinds.
    pub devices: Vec<DeviceFile>,
}

/// A kind of device.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceFile {
    /// How many devices are of this kind, in relation to the shares of the others.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub share: u32,
    /// What it has.
    pub sensors: Vec<SensorFile>,
}

/// A sensor, or several alike.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SensorFile {
    /// `sensor_id`; `{device}` stands for the number of the device, `{sensor}` for that among
    /// sensors alike.
    pub id: String,
    /// `type` of its readings.
    #[serde(rename = "type")]
    pub kind: String,
    /// Unit of its values.
    pub unit: String,
    /// Delivery guarantee of its readings.
    #[serde(default = "at_least_once")]
    #[schemars(with = "u8", range(min = 0, max = 2))]
    pub qos: QoS,
    /// Whether the broker keeps its last reading.
    #[serde(default)]
    pub retain: bool,
    /// How many of them the device has.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1_000))]
    pub count: u32,
    /// How far along the locations it is from its device.
    #[serde(default)]
    pub rooms_away: u32,
    /// Pause between two readings: this, or `between`.
    pub every: Option<Span>,
    /// Bounds of the pause between two readings.
    pub between: Option<Bounds<Span>>,
    /// When the first reading comes.
    #[serde(default)]
    pub first: First,
    /// Makes pauses longer at other times of the day than the peak.
    pub activity: Option<Activity>,
    /// What it measures.
    pub value: ValueFile,
    /// Its battery, if it has one.
    pub battery: Option<BatteryFile>,
    /// Bytes of a field that nobody reads; small numbers often, large ones seldom.
    pub padding_bytes: Option<Bounds<u32>>,
}

/// When the first reading of a sensor comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum First {
    /// Within a pause, but at most 1.5 s after the start: somebody watches.
    #[default]
    Soon,
    /// After a whole pause.
    AfterAPause,
    /// Anywhere within the first pause: devices with one pace take turns.
    WithinAPause,
}

/// How busy a day is: a wave from the least, twelve hours off the peak, to 1.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Activity {
    /// Activity at night, above 0 and at most 1: pauses are divided by it.
    pub least: f64,
    /// Busiest hour of the day, in UTC.
    #[schemars(range(min = 0, max = 24))]
    pub peak_hour: f64,
}

/// What a sensor measures.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ValueFile {
    /// Varies around a base that each sensor draws once.
    Around(AroundFile),
    /// As `around`, with a wave over the day.
    Wave(WaveFile),
    /// 1 each time something happens.
    Event,
    /// 1 and 0 in turn.
    Toggle,
}

/// Values around a base.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AroundFile {
    /// Bounds of the base.
    pub base: Bounds<f64>,
    /// Largest distance from the base.
    pub spread: f64,
}

/// Values that follow the hour of the day.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WaveFile {
    /// Bounds of the base, the middle of the wave.
    pub base: Bounds<f64>,
    /// How far the wave goes from its middle.
    pub amplitude: f64,
    /// Hour of its top, in UTC.
    #[schemars(range(min = 0, max = 24))]
    pub peak_hour: f64,
    /// Largest distance from the wave.
    pub spread: f64,
}

/// A battery.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BatteryFile {
    /// Bounds of its charge at the start, in percent.
    pub percent: Bounds<u8>,
    /// Whether it loses a percent an hour, until it is replaced.
    #[serde(default)]
    pub drains: bool,
}

fn one() -> u32 {
    1
}

fn at_least_once() -> QoS {
    QoS::AtLeastOnce
}

/// Locations of a profile at most, after ranges are written out.
const LOCATIONS_MAX: usize = 1_000;
/// Ranges of one location at most: each is written out within the one before.
const RANGES_MAX: usize = 8;
/// Digits of a range's numbers at most, zeros in front among them: those of the largest number.
const DIGITS_MAX: usize = 10;
/// Sensors of a device at most.
const SENSORS_MAX: u32 = 1_000;
/// Largest padding: beyond it a payload is too large to be taken.
const PADDING_BYTES_MAX: u32 = 60_000;

impl SensorFile {
    /// The pause between two readings.
    pub(super) fn timing(&self) -> Option<Timing> {
        let timing = match (self.every, self.between) {
            (Some(Span(pause)), None) => Timing::Every(pause),
            (None, Some(bounds)) => Timing::Between(bounds.low.0, bounds.high.0),
            _ => return None,
        };
        (timing.mean() > Duration::ZERO).then_some(timing)
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        let rule = |field, rule: &str| Err((field, rule.to_owned()));
        if self.timing().is_none() {
            return rule("every", "give either `every` or `between`, above zero");
        }
        if self.count == 0 || (self.count > 1 && !self.id.contains("{sensor}")) {
            return rule(
                "count",
                "must be at least 1; above 1 the id needs `{sensor}`",
            );
        }
        if !self.id.contains("{device}") {
            return rule("id", "needs `{device}`, or all devices would have it");
        }
        let curve = match self.value {
            ValueFile::Around(AroundFile { base, spread }) => Some((base, spread, 0.0)),
            ValueFile::Wave(wave) => Some((wave.base, wave.spread, wave.amplitude)),
            ValueFile::Event | ValueFile::Toggle => None,
        };
        if let Some((base, spread, amplitude)) = curve
            && !(base.is_sane() && is_sane(spread) && spread >= 0.0 && is_sane(amplitude))
        {
            return rule(
                "value",
                "needs numbers from -1e15 to 1e15, and no negative spread",
            );
        }
        if let Some(activity) = self.activity
            && !(activity.least > 0.0 && activity.least <= 1.0 && activity.peak_hour.is_finite())
        {
            return rule("activity.least", "must be above 0 and at most 1");
        }
        if self
            .battery
            .is_some_and(|battery| battery.percent.high > 100)
        {
            return rule("battery.percent", "must be at most 100");
        }
        if self
            .padding_bytes
            .is_some_and(|bytes| bytes.high > PADDING_BYTES_MAX)
        {
            return rule("padding_bytes", "must be at most 60000");
        }
        Ok(())
    }
}

impl ProfileFile {
    /// The locations, with ranges written out.
    ///
    /// # Errors
    /// What is wrong, by the place in the file.
    pub(super) fn check(&self) -> Result<Vec<String>, (String, String)> {
        let at = |place: &str, rule: &str| Err((place.to_owned(), rule.to_owned()));
        if !self.device_id.contains("{device}") {
            return at(
                "device_id",
                "needs `{device}`, or all devices would have it",
            );
        }
        if self.status_every.0.is_zero() {
            return at("status_every", "must be above zero");
        }
        let mut locations = Vec::new();
        for location in &self.locations {
            let ranges = location.matches('{').count();
            if ranges > RANGES_MAX {
                let rule = format!("a location has {ranges} ranges: give it at most {RANGES_MAX}");
                return at("locations", &rule);
            }
            expand(location, &mut locations).map_err(|rule| ("locations".to_owned(), rule))?;
        }
        if locations.is_empty() || self.devices.is_empty() {
            return at("locations, devices", "must not be empty");
        }
        for (d, device) in self.devices.iter().enumerate() {
            let count = device.sensors.iter().map(|sensor| u64::from(sensor.count));
            if device.share == 0 || count.sum::<u64>() > u64::from(SENSORS_MAX) {
                let rule = "needs a share above 0 and at most 1000 sensors";
                return at(&format!("devices[{d}]"), rule);
            }
            for (s, sensor) in device.sensors.iter().enumerate() {
                sensor.check().map_err(|(field, rule)| {
                    (format!("devices[{d}].sensors[{s}].{field}"), rule)
                })?;
            }
        }
        Ok(locations)
    }
}

/// Writes the ranges of `text` out: `a-{1..2}` becomes `a-1` and `a-2`.
fn expand(text: &str, into: &mut Vec<String>) -> Result<(), String> {
    let Some((before, rest)) = text.split_once('{') else {
        if into.len() >= LOCATIONS_MAX {
            return Err(format!("there are more than {LOCATIONS_MAX} locations"));
        }
        into.push(text.to_owned());
        return Ok(());
    };
    let range = rest.split_once('}').and_then(|(range, after)| {
        let (first, last) = range.split_once("..")?;
        if first.len() > DIGITS_MAX || last.len() > DIGITS_MAX {
            return None;
        }
        let numbers = first.parse::<u32>().ok()?..=last.parse::<u32>().ok()?;
        Some((numbers, first.len(), after))
    });
    // An empty range within another would be gone through for each number of that, for nothing.
    let Some((numbers, width, after)) = range.filter(|(numbers, ..)| !numbers.is_empty()) else {
        return Err(format!(
            "`{}` has a range that is not like {{1..20}}: give two numbers of at most {DIGITS_MAX} digits, the smaller one first",
            Excerpt::new(text)
        ));
    };
    for number in numbers {
        expand(&format!("{before}{number:0width$}{after}"), into)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_written_out() {
        let mut locations = Vec::new();
        expand("site-{1..2}/room-{09..10}", &mut locations).unwrap();
        expand("hall", &mut locations).unwrap();
        assert_eq!(
            locations,
            [
                "site-1/room-09",
                "site-1/room-10",
                "site-2/room-09",
                "site-2/room-10",
                "hall"
            ]
        );
        for wrong in [
            "{",
            "{1}",
            "{a..b}",
            "{1..4000000000}",
            "{2..1}",
            "{0..4294967295}{2..1}",
            &format!("{{{}1..2}}", "0".repeat(70_000)),
        ] {
            assert!(expand(wrong, &mut Vec::new()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_would_take_for_ever_or_cannot_be_drawn_from_is_refused_with_place_and_remedy() {
        let error = |from: &str, to: &str| {
            let text = include_str!("../../profiles/tutorial.yaml");
            let mut file = ProfileFile::parse(text).unwrap();
            match from {
                "locations" => file.locations = vec![to.to_owned()],
                _ => {
                    file.devices[0].sensors[0].value = serde_json::from_str(to).unwrap();
                }
            }
            let (at, rule) = file.check().unwrap_err();
            format!("{at}: {rule}")
        };
        assert_eq!(
            error("locations", &"{1..1}".repeat(20_000)),
            "locations: a location has 20000 ranges: give it at most 8"
        );
        for value in [
            r#"{"around": {"base": [-1.7e308, 1.7e308], "spread": 1.0}}"#,
            r#"{"around": {"base": [0.0, 1.0], "spread": 1.7e308}}"#,
            r#"{"wave": {"base": [0.0, 1.0], "spread": 1.0, "amplitude": 1.7e308, "peak_hour": 1.0}}"#,
        ] {
            assert_eq!(
                error("value", value),
                "devices[0].sensors[0].value: needs numbers from -1e15 to 1e15, and no negative spread"
            );
        }
    }
}
