//! What kinds of device there are: their sensors, rhythms and addresses.

mod file;
mod name;

use std::sync::Arc;
use std::time::Duration;

use fleet_shared::model::SensorReading;
use fleet_shared::session::ByteString;
use fleet_shared::topic;
use jiff::Timestamp;
use rand::RngExt;
use rand_pcg::Pcg32;

pub use file::{
    Activity, AroundFile, BatteryFile, DeviceFile, First, ProfileFile, SensorFile, ValueFile,
    WaveFile,
};
pub use name::ProfileName;

use crate::bounds::Bounds;
use crate::schedule::{Battery, Curve, Reporting, Schedule, Source, Timing, Voice, between};
use crate::seed;
use crate::sensor::{Channel, Sensor};
use crate::yaml::{self, FileError};

/// First readings are spread over at most this time: long enough that devices do not speak in
/// chorus, short enough that a person who starts a fleet sees readings at once.
const FIRST_WITHIN: Duration = Duration::from_millis(1_500);
/// The stream of chance that says of which kind a device is. Sensors count from 0.
const KIND_STREAM: u32 = u32::MAX;

/// When a run is, and how fast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setting {
    /// From which all chance comes.
    pub seed: u64,
    /// From when timestamps count.
    pub start: Timestamp,
    /// Schedules end before it; without it they are endless.
    pub end: Option<Duration>,
    /// Pauses between readings are divided by it. Status is reported at its own pace always.
    pub pace: f64,
}

/// The kinds of device of a run, from which each of its devices is made. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Profile {
    setting: Setting,
    file: Arc<ProfileFile>,
    kinds: Arc<[Kind]>,
    status: Arc<Reporting>,
}

/// A kind of device.
#[derive(Debug)]
struct Kind {
    share: u32,
    sensors: Vec<Model>,
}

/// A kind of sensor.
#[derive(Debug)]
struct Model {
    file: SensorFile,
    voice: Arc<Voice>,
    /// By location.
    channels: Vec<Arc<Channel>>,
}

impl ProfileFile {
    /// Reads the text of a profile file.
    ///
    /// # Errors
    /// When it is no YAML, or a field is unknown or of the wrong form; with line and column.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        yaml::parse(text)
    }
}

impl Profile {
    /// The profile of a file, for a run.
    ///
    /// # Errors
    /// The first rule that a field of the file breaks.
    pub fn new(file: ProfileFile, setting: Setting) -> Result<Self, FileError> {
        let locations = file
            .check()
            .map_err(|(at, rule)| FileError::Rule { at, rule })?;
        let locations: Vec<Arc<str>> = locations.into_iter().map(Arc::from).collect();
        let mut kinds = Vec::with_capacity(file.devices.len());
        for (d, device) in file.devices.iter().enumerate() {
            let mut sensors = Vec::with_capacity(device.sensors.len());
            for (s, sensor) in device.sensors.iter().enumerate() {
                let model = Model::new(sensor, &locations, setting.pace);
                sensors.push(model.map_err(|rule| FileError::Rule {
                    at: format!("devices[{d}].sensors[{s}]"),
                    rule,
                })?);
            }
            kinds.push(Kind {
                share: device.share,
                sensors,
            });
        }
        let Bounds { low, high } = file.signal_strength_dbm;
        let status = Reporting {
            timing: Timing::Every(file.status_every.0),
            signal_strength: (low, high),
        };
        Ok(Self {
            setting,
            file: Arc::new(file),
            kinds: kinds.into(),
            status: Arc::new(status),
        })
    }

    /// When the schedules of its devices are over; nothing when they are endless.
    #[must_use]
    pub fn end(&self) -> Option<Duration> {
        self.setting.end
    }

    /// Client id and device id of device `number`.
    #[must_use]
    pub fn device_id(&self, number: u32) -> String {
        numbered(&self.file.device_id, number, 0)
    }

    /// Locations that device `number` publishes readings of, each once.
    #[must_use]
    pub fn locations(&self, number: u32) -> Vec<String> {
        let models = &self.kinds[self.kind_of(number)].sensors;
        let sensors = self.sensors_of(models, number);
        let locations = sensors.map(|(_, sensor)| sensor.channel.location.to_string());
        let each_once: std::collections::BTreeSet<_> = locations.collect();
        each_once.into_iter().collect()
    }

    /// Firmware that the devices report.
    #[must_use]
    pub fn firmware(&self) -> &str {
        &self.file.firmware
    }

    /// Readings a second of the devices from `first` on, averaged over a day.
    #[must_use]
    pub fn rate(&self, first: u32, devices: u32) -> f64 {
        let rates: Vec<f64> = self.kinds.iter().map(Kind::rate).collect();
        match rates.as_slice() {
            [rate] => rate * f64::from(devices),
            rates => (first..first.saturating_add(devices))
                .map(|number| rates[self.kind_of(number)])
                .sum(),
        }
    }

    /// Index of the kind of device `number`.
    fn kind_of(&self, number: u32) -> usize {
        if self.kinds.len() == 1 {
            return 0;
        }
        let all: u64 = self.kinds.iter().map(|kind| u64::from(kind.share)).sum();
        let mut drawn = seed::stream(self.setting.seed, number, KIND_STREAM).random_range(0..all);
        let found = self.kinds.iter().position(|kind| {
            let share = u64::from(kind.share);
            let is_it = drawn < share;
            drawn = drawn.saturating_sub(share);
            is_it
        });
        found.unwrap_or(0)
    }

    /// What device `number` (from 1) does, from `offset` since the start of the run on.
    ///
    /// It depends on nothing but the arguments and those of the profile: the same give the same
    /// steps, to the last bit.
    #[must_use]
    pub fn schedule(&self, number: u32, offset: Duration) -> Schedule {
        let sensors = &self.kinds[self.kind_of(number)].sensors;
        let count: u32 = sensors.iter().map(|model| model.file.count).sum();
        let mut sources = Vec::with_capacity(count as usize + 1);
        for (stream, (model, sensor)) in (0..).zip(self.sensors_of(sensors, number)) {
            let rng = seed::stream(self.setting.seed, number, stream);
            sources.push(model.source(rng, sensor, offset));
        }
        let mut rng = seed::stream(self.setting.seed, number, count);
        // The message on connect is the first status, so the schedule starts with the second.
        let pause = self.file.status_every.0;
        let first = offset + pause + soon(&mut rng, pause);
        let mut batteries = sources.iter().map(Source::battery);
        let battery = batteries.find(|it| *it != Battery::None);
        let battery = battery.unwrap_or(Battery::None);
        sources.push(Source::status(
            rng,
            first,
            Arc::clone(&self.status),
            battery,
        ));
        Schedule::new(self.setting.start, self.setting.end, sources)
    }

    fn sensors_of<'a>(
        &self,
        models: &'a [Model],
        number: u32,
    ) -> impl Iterator<Item = (&'a Model, Sensor)> {
        models.iter().flat_map(move |model| {
            // Device 1 is in the first location.
            let room = number.wrapping_sub(1) as usize + model.file.rooms_away as usize;
            let channel = &model.channels[room % model.channels.len()];
            (1..=model.file.count).map(move |index| {
                let sensor = Sensor {
                    id: numbered(&model.file.id, number, index).into(),
                    channel: Arc::clone(channel),
                };
                (model, sensor)
            })
        })
    }
}

impl Kind {
    /// Readings a second of one device, averaged over a day.
    fn rate(&self) -> f64 {
        self.sensors.iter().map(Model::rate).sum()
    }
}

impl Model {
    fn new(file: &SensorFile, locations: &[Arc<str>], pace: f64) -> Result<Self, String> {
        let timing = file.timing().ok_or("needs a pause")?;
        let (kind, unit): (Arc<str>, Arc<str>) =
            (file.kind.as_str().into(), file.unit.as_str().into());
        let mut channels = Vec::with_capacity(locations.len());
        for location in locations {
            let example = SensorReading {
                // The longest that the number of a device can make it.
                sensor_id: numbered(&file.id, u32::MAX, file.count),
                kind: file.kind.clone(),
                value: 0.0,
                unit: file.unit.clone(),
                location: location.to_string(),
                timestamp: Timestamp::UNIX_EPOCH,
                battery_percent: None,
                quality: None,
            };
            example.validate().map_err(|error| error.to_string())?;
            let topic = example.topic();
            channels.push(Arc::new(Channel {
                kind: Arc::clone(&kind),
                unit: Arc::clone(&unit),
                location: Arc::clone(location),
                label: topic::label(&topic),
                topic: ByteString::from(topic),
                qos: file.qos,
                retain: file.retain,
            }));
        }
        let voice = Voice {
            timing: timing.faster(pace),
            activity: file.activity,
            curve: match file.value {
                ValueFile::Around(AroundFile { spread, .. }) => Curve::Around { spread },
                ValueFile::Wave(wave) => Curve::Wave {
                    amplitude: wave.amplitude,
                    peak_hour: wave.peak_hour,
                    spread: wave.spread,
                },
                ValueFile::Event => Curve::Event,
                ValueFile::Toggle => Curve::Toggle,
            },
            padding_bytes: file.padding_bytes,
        };
        Ok(Self {
            file: file.clone(),
            voice: Arc::new(voice),
            channels,
        })
    }

    fn rate(&self) -> f64 {
        let pause = self.file.timing().map_or(Duration::MAX, Timing::mean);
        let activity = self.file.activity.map_or(1.0, Activity::mean);
        f64::from(self.file.count) * activity / pause.as_secs_f64()
    }

    fn source(&self, mut rng: Pcg32, sensor: Sensor, offset: Duration) -> Source {
        let timing = self.voice.timing;
        let first = match self.file.first {
            First::Soon => soon(&mut rng, timing.mean()),
            First::AfterAPause => timing.draw(&mut rng),
            First::WithinAPause => between(&mut rng, Duration::ZERO, timing.mean()),
        };
        let base = match self.file.value {
            ValueFile::Around(AroundFile { base, .. }) | ValueFile::Wave(WaveFile { base, .. }) => {
                base.draw(&mut rng)
            }
            ValueFile::Event | ValueFile::Toggle => 0.0,
        };
        let battery = self.file.battery.map_or(Battery::None, |battery| {
            let percent = battery.percent.draw(&mut rng);
            if battery.drains {
                Battery::Draining(percent)
            } else {
                Battery::Steady(percent)
            }
        });
        let voice = Arc::clone(&self.voice);
        Source::sensor(rng, offset + first, voice, Arc::new(sensor), base, battery)
    }
}

impl Activity {
    /// Averaged over a day.
    fn mean(self) -> f64 {
        f64::midpoint(self.least, 1.0)
    }
}

/// An id with its numbers put in.
fn numbered(template: &str, device: u32, sensor: u32) -> String {
    template
        .replace("{device}", &format!("{device:03}"))
        .replace("{sensor}", &format!("{sensor:02}"))
}

/// A time for the first step of a source, within its first pause.
fn soon(rng: &mut Pcg32, pause: Duration) -> Duration {
    between(rng, Duration::ZERO, pause.min(FIRST_WITHIN))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use fleet_shared::session::QoS;
    use proptest::prelude::*;

    use super::*;
    use crate::schedule::{Action, Step};
    use crate::sensor::Measurement;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn profile(
        name: &str,
        seed: u64,
        start: Timestamp,
        end: Option<Duration>,
        pace: f64,
    ) -> Profile {
        let file = name.parse::<ProfileName>().unwrap().load().unwrap();
        let setting = Setting {
            seed,
            start,
            end,
            pace,
        };
        Profile::new(file, setting).unwrap()
    }

    fn steps(seed: u64, number: u32, end: Duration, pace: f64) -> Vec<Step> {
        let start = "2026-01-02T03:04:05Z".parse().unwrap();
        profile("tutorial", seed, start, Some(end), pace)
            .schedule(number, Duration::ZERO)
            .collect()
    }

    fn measured(steps: &[Step], kind: &str) -> Vec<(Duration, Measurement)> {
        let of_kind = |step: &Step| match &step.action {
            Action::Measure(measurement) if *measurement.sensor.channel.kind == *kind => {
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
            assert_eq!(&*measurement.sensor.channel.unit, "celsius");
            assert_eq!(measurement.sensor.channel.qos, QoS::AtLeastOnce);
            assert!(!measurement.sensor.channel.retain);
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
            assert_eq!(measurement.sensor.channel.qos, QoS::AtMostOnce);
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
            assert_eq!(measurement.sensor.channel.qos, QoS::ExactlyOnce);
            assert!(measurement.sensor.channel.retain);
            assert_eq!(
                measurement.sensor.channel.topic.as_str(),
                "sensors/front/door"
            );
        }
    }

    #[test]
    fn built_in_sensors_publish_as_the_contract_says_for_their_type() {
        for name in ["tutorial", "mixed", "load"] {
            let profile = profile(name, 1, Timestamp::UNIX_EPOCH, None, 1.0);
            let models = profile.kinds.iter().flat_map(|kind| &kind.sensors);
            for channel in models.flat_map(|model| &model.channels) {
                let expected = match &*channel.kind {
                    "motion" => (QoS::AtMostOnce, false),
                    "door" => (QoS::ExactlyOnce, true),
                    _ => (QoS::AtLeastOnce, false),
                };
                assert_eq!(
                    (channel.qos, channel.retain),
                    expected,
                    "{name}: {}",
                    channel.kind
                );
            }
        }
    }

    #[test]
    fn status_follows_the_birth_message_every_thirty_seconds() {
        let mut due = Vec::new();
        for step in steps(1, 1, HOUR, 8.0) {
            if let Action::Report {
                signal_strength,
                battery_percent,
            } = step.action
            {
                assert!((-50..=-30).contains(&signal_strength));
                // That of its temperature sensor, the first that has one.
                assert!((85..=100).contains(&battery_percent.unwrap()));
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
        let rate = profile("tutorial", 3, Timestamp::UNIX_EPOCH, None, 1.0).rate(9, 1);
        let pace = wanted / rate;
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
                    other => (step.due, format!("{other:?}").into_bytes()),
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
            name in prop::sample::select(&["tutorial", "mixed", "load"][..]),
            seed in any::<u64>(), number in 1..u32::MAX, pace in 0.1..1e7_f64,
        ) {
            let start = Timestamp::UNIX_EPOCH;
            let steps = profile(name, seed, start, None, pace).schedule(number, HOUR);
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
                    let key = measurement.sensor.id.to_string();
                    let before = keys.insert(key, measurement.timestamp);
                    prop_assert!(before.is_none_or(|before| before < measurement.timestamp));
                }
            }
        }
    }
}
