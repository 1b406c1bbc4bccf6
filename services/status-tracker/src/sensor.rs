//! Sensors as their readings show them: a sample, since every replica sees all readings.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use fleet_shared::model::SensorReading;
use jiff::Timestamp;

/// Seconds over which the rate is taken.
const RATE_SECONDS: usize = 5;

/// A sensor and its newest reading.
#[derive(Clone, Debug)]
pub(crate) struct Sensor {
    pub(crate) device_id: Option<Arc<str>>,
    pub(crate) kind: Arc<str>,
    pub(crate) unit: Arc<str>,
    pub(crate) location: Arc<str>,
    pub(crate) value: f64,
    pub(crate) timestamp: Timestamp,
    pub(crate) battery_percent: Option<u8>,
}

/// The sensors that were heard, at most `max` of them.
#[derive(Debug)]
pub(crate) struct Sensors {
    max: usize,
    by_id: BTreeMap<Arc<str>, Sensor>,
    of_device: HashMap<Arc<str>, Vec<Arc<str>>>,
    traffic: Traffic,
}

impl Sensors {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max,
            by_id: BTreeMap::new(),
            of_device: HashMap::new(),
            traffic: Traffic::default(),
        }
    }

    /// Counts a reading that is not looked into.
    pub(crate) fn count(&mut self, now: Timestamp) {
        self.traffic.count(now);
    }

    /// Takes a reading; gives the device it belongs to, as `knows` tells which ones there are.
    pub(crate) fn heard(
        &mut self,
        reading: &SensorReading,
        knows: impl Fn(&str) -> bool,
    ) -> Option<Arc<str>> {
        if let Some(sensor) = self.by_id.get_mut(reading.sensor_id.as_str()) {
            sensor.value = reading.value;
            sensor.timestamp = reading.timestamp;
            sensor.battery_percent = reading.battery_percent.or(sensor.battery_percent);
            replace(&mut sensor.unit, &reading.unit);
            replace(&mut sensor.location, &reading.location);
            replace(&mut sensor.kind, &reading.kind);
            if sensor.device_id.is_some() {
                return sensor.device_id.clone();
            }
        } else if self.by_id.len() >= self.max {
            return None;
        }
        let id: Arc<str> = reading.sensor_id.as_str().into();
        let device_id = owner(&reading.sensor_id, knows).map(Arc::<str>::from);
        if let Some(device) = &device_id {
            self.of_device
                .entry(device.clone())
                .or_default()
                .push(id.clone());
        }
        let sensor = Sensor {
            device_id: device_id.clone(),
            kind: reading.kind.as_str().into(),
            unit: reading.unit.as_str().into(),
            location: reading.location.as_str().into(),
            value: reading.value,
            timestamp: reading.timestamp,
            battery_percent: reading.battery_percent,
        };
        self.by_id.insert(id, sensor);
        device_id
    }

    /// A sensor by its id.
    pub(crate) fn get(&self, sensor_id: &str) -> Option<&Sensor> {
        self.by_id.get(sensor_id)
    }

    /// The sensors of a device, with their ids.
    pub(crate) fn of(&self, device_id: &str) -> impl Iterator<Item = (&Arc<str>, &Sensor)> {
        let ids = self.of_device.get(device_id).map_or(&[][..], Vec::as_slice);
        ids.iter().filter_map(|id| self.by_id.get_key_value(id))
    }

    /// Sensors in the order of their ids, from behind `after` on.
    pub(crate) fn list(&self, after: Option<&str>) -> impl Iterator<Item = (&Arc<str>, &Sensor)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_id.range::<str, _>((from, Bound::Unbounded))
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn traffic(&self) -> &Traffic {
        &self.traffic
    }
}

fn replace(text: &mut Arc<str>, new: &str) {
    if **text != *new {
        *text = new.into();
    }
}

/// The device of a sensor: the one of the same name, or else the longest that ends the sensor's id
/// after a dash, as `sensor-001` ends `temp-sensor-001`.
fn owner(sensor_id: &str, knows: impl Fn(&str) -> bool) -> Option<&str> {
    let mut rest = sensor_id;
    loop {
        if knows(rest) {
            return Some(rest);
        }
        (_, rest) = rest.split_once('-')?;
    }
}

/// How many readings come.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    second: i64,
    counts: [u32; RATE_SECONDS + 1],
    total: u64,
}

impl Traffic {
    fn turn(&mut self, now: Timestamp) {
        let second = now.as_second();
        let passed = usize::try_from(second - self.second).unwrap_or(0);
        for step in 1..=passed.min(self.counts.len()) {
            let place = (self.second + step as i64).rem_euclid(self.counts.len() as i64);
            self.counts[place as usize] = 0;
        }
        self.second = self.second.max(second);
    }

    fn count(&mut self, now: Timestamp) {
        self.turn(now);
        let place = self.second.rem_euclid(self.counts.len() as i64);
        self.counts[place as usize] += 1;
        self.total += 1;
    }

    /// Readings a second over the last full seconds.
    pub(crate) fn rate(&mut self, now: Timestamp) -> f64 {
        self.turn(now);
        let current = self.second.rem_euclid(self.counts.len() as i64) as usize;
        let full: u32 = (0..self.counts.len())
            .filter(|place| *place != current)
            .map(|place| self.counts[place])
            .sum();
        f64::from(full) / RATE_SECONDS as f64
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }
}

impl Sensors {
    /// Readings a second now.
    pub(crate) fn rate(&mut self, now: Timestamp) -> f64 {
        self.traffic.rate(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_known_name_owns_a_sensor() {
        let known = ["sensor-001", "001"];
        let knows = |id: &str| known.contains(&id);
        assert_eq!(owner("temp-sensor-001", knows), Some("sensor-001"));
        assert_eq!(owner("sensor-001", knows), Some("sensor-001"));
        assert_eq!(owner("sensor-002", knows), None);
    }

    #[test]
    fn the_rate_is_that_of_the_last_full_seconds() {
        let mut traffic = Traffic::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        for second in 100..105 {
            for _ in 0..10 {
                traffic.count(at(second));
            }
        }
        assert!((traffic.rate(at(105)) - 10.0).abs() < 1e-9);
        assert!(traffic.rate(at(200)).abs() < 1e-9);
    }
}
