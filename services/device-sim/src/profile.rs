//! What kinds of device there are: their sensors, rhythms and addresses.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use fleet_shared::session::{ByteString, QoS};
use fleet_shared::topic;
use jiff::Timestamp;
use rand::RngExt;
use rand_pcg::Pcg32;

use crate::schedule::{Schedule, Signal, Source, Timing, between};
use crate::seed;
use crate::sensor::Sensor;

/// A built-in kind of device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ProfileName {
    /// One temperature, motion and door sensor, each at the pace of a home.
    #[default]
    Tutorial,
}

/// Rooms of the simulated homes. A device sits in one of them and watches the door to the next.
const LOCATIONS: [&str; 8] = [
    "bedroom",
    "front",
    "kitchen",
    "living-room",
    "bathroom",
    "garage",
    "hallway",
    "office",
];
/// Pauses of the tutorial's sensors.
const TEMPERATURE: Timing = Timing::Every(Duration::from_secs(5));
const MOTION: Timing = Timing::Between(Duration::from_secs(10), Duration::from_secs(60));
const DOOR: Timing = Timing::Every(Duration::from_secs(30));
/// Pause between two reports of a device's status, whatever the rate of readings.
const STATUS: Timing = Timing::Every(Duration::from_secs(30));
/// First readings are spread over at most this time: long enough that devices do not speak in
/// chorus, short enough that a person who starts a fleet sees readings at once.
const FIRST_WITHIN: Duration = Duration::from_millis(1_500);
/// Signal strength of a device, in dBm.
const SIGNAL_STRENGTH: (i32, i32) = (-50, -30);
/// Firmware that the devices report.
pub const FIRMWARE: &str = "1.2.3";

/// Readings a second of one device at the tutorial's own pace.
#[must_use]
pub fn tutorial_rate() -> f64 {
    [TEMPERATURE, MOTION, DOOR]
        .iter()
        .map(|timing| timing.mean().as_secs_f64().recip())
        .sum()
}

/// The tutorial's device, from which every device of a run is made.
#[derive(Clone, Debug)]
pub struct Profile {
    seed: u64,
    start: Timestamp,
    end: Option<Duration>,
    pace: f64,
    topics: Vec<[ByteString; 3]>,
}

impl Profile {
    /// Devices of a run that starts at `start` and ends before `end`, with pauses between readings
    /// divided by `pace`. Status is reported at its own pace always.
    #[must_use]
    pub fn tutorial(seed: u64, start: Timestamp, end: Option<Duration>, pace: f64) -> Self {
        let topic =
            |location: &str, kind: &str| ByteString::from(format!("sensors/{location}/{kind}"));
        let topics = LOCATIONS
            .iter()
            .map(|location| ["temperature", "motion", "door"].map(|kind| topic(location, kind)))
            .collect();
        Self {
            seed,
            start,
            end,
            pace,
            topics,
        }
    }

    /// When the schedules of its devices are over; nothing when they are endless.
    #[must_use]
    pub fn end(&self) -> Option<Duration> {
        self.end
    }

    /// What device `number` (from 1) does, from `offset` since the start of the run on.
    ///
    /// It depends on nothing but the arguments and those of the profile: the same give the same
    /// steps, to the last bit.
    #[must_use]
    pub fn schedule(&self, number: u32, offset: Duration) -> Schedule {
        let [temperature, motion, door] = self.sensors(number).map(Arc::new);
        let sources = vec![
            self.temperature(temperature, number, offset),
            self.motion(motion, number, offset),
            self.door(door, number, offset),
            self.status(number, offset),
        ];
        Schedule::new(self.start, self.end, sources)
    }

    /// The temperature, motion and door sensor of device `number`.
    #[must_use]
    pub fn sensors(&self, number: u32) -> [Sensor; 3] {
        // Device 1 is in the bedroom and watches the front door, as in the tutorial.
        let room = number.wrapping_sub(1) as usize % LOCATIONS.len();
        let door = (room + 1) % LOCATIONS.len();
        [
            Sensor {
                id: format!("temp-sensor-{number:03}"),
                kind: Cow::Borrowed("temperature"),
                unit: Cow::Borrowed("celsius"),
                location: Cow::Borrowed(LOCATIONS[room]),
                topic: self.topics[room][0].clone(),
                label: topic::label("sensors/{location}/temperature"),
                qos: QoS::AtLeastOnce,
                retain: false,
            },
            Sensor {
                id: format!("motion-sensor-{number:03}"),
                kind: Cow::Borrowed("motion"),
                unit: Cow::Borrowed("boolean"),
                location: Cow::Borrowed(LOCATIONS[room]),
                topic: self.topics[room][1].clone(),
                label: topic::label("sensors/{location}/motion"),
                qos: QoS::AtMostOnce,
                retain: false,
            },
            Sensor {
                id: format!("door-sensor-{number:03}"),
                kind: Cow::Borrowed("door"),
                unit: Cow::Borrowed("boolean"),
                location: Cow::Borrowed(LOCATIONS[door]),
                topic: self.topics[door][2].clone(),
                label: topic::label("sensors/{location}/door"),
                qos: QoS::ExactlyOnce,
                retain: true,
            },
        ]
    }

    fn temperature(&self, sensor: Arc<Sensor>, number: u32, offset: Duration) -> Source {
        let mut rng = seed::stream(self.seed, number, 0);
        let timing = TEMPERATURE.faster(self.pace);
        let first = offset + soon(&mut rng, timing);
        let base = rng.random_range(20.0..=30.0);
        let battery_percent = rng.random_range(85..=100);
        Source::new(
            rng,
            first,
            timing,
            Signal::Around {
                sensor,
                base,
                spread: 1.0,
                battery_percent,
            },
        )
    }

    fn motion(&self, sensor: Arc<Sensor>, number: u32, offset: Duration) -> Source {
        let mut rng = seed::stream(self.seed, number, 1);
        let timing = MOTION.faster(self.pace);
        let first = offset + timing.draw(&mut rng);
        Source::new(rng, first, timing, Signal::Event { sensor })
    }

    fn door(&self, sensor: Arc<Sensor>, number: u32, offset: Duration) -> Source {
        let mut rng = seed::stream(self.seed, number, 2);
        let timing = DOOR.faster(self.pace);
        let first = offset + soon(&mut rng, timing);
        Source::new(
            rng,
            first,
            timing,
            Signal::Toggle {
                sensor,
                open: false,
                battery_percent: 90,
            },
        )
    }

    fn status(&self, number: u32, offset: Duration) -> Source {
        let mut rng = seed::stream(self.seed, number, 3);
        // The message on connect is the first status, so the schedule starts with the second.
        let first = offset + STATUS.mean() + soon(&mut rng, STATUS);
        Source::new(
            rng,
            first,
            STATUS,
            Signal::Status {
                signal_strength: SIGNAL_STRENGTH,
            },
        )
    }
}

/// Client id and device id of device `number`.
#[must_use]
pub fn device_id(number: u32) -> String {
    format!("sensor-{number:03}")
}

/// A time for the first step of a source, within its first pause.
fn soon(rng: &mut Pcg32, timing: Timing) -> Duration {
    between(rng, Duration::ZERO, timing.mean().min(FIRST_WITHIN))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::schedule::{Action, Step};
    use crate::sensor::Measurement;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn steps(seed: u64, number: u32, end: Duration, pace: f64) -> Vec<Step> {
        let start = "2026-01-02T03:04:05Z".parse().unwrap();
        Profile::tutorial(seed, start, Some(end), pace)
            .schedule(number, Duration::ZERO)
            .collect()
    }

    fn measured(steps: &[Step], kind: &str) -> Vec<(Duration, Measurement)> {
        let of_kind = |step: &Step| match &step.action {
            Action::Measure(measurement) if measurement.sensor.kind == kind => {
                Some((step.due, measurement.clone()))
            }
            _ => None,
        };
        steps.iter().filter_map(of_kind).collect()
    }

    fn pauses(measured: &[(Duration, Measurement)]) -> Vec<Duration> {
        measured
            .windows(2)
            .map(|pair| pair[1].0 - pair[0].0)
            .collect()
    }

    #[test]
    fn an_hour_of_temperature_is_a_reading_every_five_seconds() {
        let temperature = measured(&steps(1, 1, HOUR, 1.0), "temperature");
        assert_eq!(temperature.len(), 720);
        assert!(temperature[0].0 < FIRST_WITHIN);
        assert!(
            pauses(&temperature)
                .iter()
                .all(|pause| *pause == Duration::from_secs(5))
        );
        let middle = temperature.iter().map(|(_, m)| m.value).sum::<f64>() / 720.0;
        for (_, measurement) in &temperature {
            assert!(
                (measurement.value - middle).abs() <= 1.2,
                "{} around {middle}",
                measurement.value
            );
            assert!((19.0..=31.0).contains(&measurement.value));
            assert!((80..=100).contains(&measurement.battery_percent.unwrap()));
            assert_eq!(measurement.sensor.unit, "celsius");
            assert_eq!(measurement.sensor.qos, QoS::AtLeastOnce);
            assert!(!measurement.sensor.retain);
        }
    }

    #[test]
    fn motion_comes_at_random_within_its_bounds() {
        let motion = measured(&steps(1, 1, 10 * HOUR, 1.0), "motion");
        let pauses = pauses(&motion);
        assert!(
            pauses
                .iter()
                .all(|pause| (10..=60).contains(&pause.as_secs()))
        );
        assert!(pauses.iter().any(|pause| pause.as_secs() < 20));
        assert!(pauses.iter().any(|pause| pause.as_secs() > 50));
        for (_, measurement) in &motion {
            assert_eq!(measurement.value.to_bits(), 1.0_f64.to_bits());
            assert_eq!(measurement.battery_percent, None);
            assert_eq!(measurement.sensor.qos, QoS::AtMostOnce);
        }
    }

    #[test]
    fn a_door_opens_and_closes_every_thirty_seconds() {
        let door = measured(&steps(1, 1, HOUR, 1.0), "door");
        assert_eq!(door.len(), 120);
        assert!(
            pauses(&door)
                .iter()
                .all(|pause| *pause == Duration::from_secs(30))
        );
        for (index, (_, measurement)) in door.iter().enumerate() {
            assert_eq!(measurement.value > 0.5, index % 2 == 0);
            assert_eq!(measurement.battery_percent, Some(90));
            assert_eq!(measurement.sensor.qos, QoS::ExactlyOnce);
            assert!(measurement.sensor.retain);
            assert_eq!(measurement.sensor.topic.as_str(), "sensors/front/door");
        }
    }

    #[test]
    fn status_follows_the_birth_message_every_thirty_seconds() {
        let mut due = Vec::new();
        for step in steps(1, 1, HOUR, 8.0) {
            if let Action::Report { signal_strength } = step.action {
                assert!((-50..=-30).contains(&signal_strength));
                due.push(step.due);
            }
        }
        assert!(due[0] >= Duration::from_secs(30) && due[0] < Duration::from_secs(32));
        assert!(
            due.windows(2)
                .all(|pair| pair[1] - pair[0] == Duration::from_secs(30))
        );
    }

    #[test]
    fn the_pace_sets_the_rate() {
        let wanted = 50.0;
        let pace = wanted / tutorial_rate();
        let seconds = 200_u32;
        let readings = steps(3, 9, Duration::from_secs(seconds.into()), pace)
            .iter()
            .filter(|step| matches!(step.action, Action::Measure(_)))
            .count();
        let rate = readings as f64 / f64::from(seconds);
        assert!((rate - wanted).abs() < 1.0, "{rate}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_same_seed_gives_the_same_bytes(
            seed in any::<u64>(), number in 1..u32::MAX, pace in 0.1..1_000.0_f64,
        ) {
            let bytes = |steps: Vec<Step>| -> Vec<(Duration, Vec<u8>)> {
                steps.into_iter().map(|step| match step.action {
                    Action::Measure(measurement) => {
                        (step.due, measurement.publish().payload.to_vec())
                    }
                    Action::Report { signal_strength } => {
                        (step.due, signal_strength.to_le_bytes().to_vec())
                    }
                }).collect()
            };
            let end = Duration::from_secs(120).div_f64(pace);
            let one = bytes(steps(seed, number, end, pace));
            prop_assert_eq!(&one, &bytes(steps(seed, number, end, pace)));
            if !one.is_empty() {
                prop_assert_ne!(&one, &bytes(steps(seed.wrapping_add(1), number, end, pace)));
            }
        }

        #[test]
        fn keys_never_repeat_and_steps_never_go_back(
            seed in any::<u64>(), number in 1..u32::MAX, pace in 0.1..1e7_f64,
        ) {
            let start = Timestamp::UNIX_EPOCH;
            let steps = Profile::tutorial(seed, start, None, pace).schedule(number, HOUR);
            let mut last = HOUR;
            let mut keys: HashMap<String, Timestamp> = HashMap::new();
            for step in steps.take(500) {
                prop_assert!(step.due >= last);
                last = step.due;
                if let Action::Measure(measurement) = step.action {
                    prop_assert_eq!(
                        i128::from(measurement.timestamp.as_microsecond()),
                        i128::try_from(step.due.as_micros()).unwrap(),
                    );
                    let key = measurement.sensor.id.clone();
                    let before = keys.insert(key, measurement.timestamp);
                    prop_assert!(before.is_none_or(|before| before < measurement.timestamp));
                }
            }
        }
    }
}
