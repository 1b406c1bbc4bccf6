//! Which devices a run has.

use std::sync::Arc;
use std::time::Duration;

use crate::chaos::Chaos;
use crate::identity::Identity;
use crate::profile::Profile;
use crate::replay::{Replay, Speed, Table};
use crate::schedule::Plan;
use crate::sensor::Sensor;

/// Connections of a replay. Six columns are six devices; of more columns several share one.
const REPLAY_DEVICES_MAX: usize = 8;
/// Firmware that the devices of a replay report.
const REPLAY_FIRMWARE: &str = "1.2.3";

/// The devices of a run, each made when it is started.
#[derive(Clone, Debug)]
pub(crate) enum Crew {
    /// Devices made from a profile.
    Live {
        /// What they are.
        profile: Profile,
        /// Number of the first one.
        first: u32,
        /// How many.
        devices: u32,
        /// Readings a second of all of them, if somebody asked for so many.
        asked_rate: Option<f64>,
    },
    /// Devices that say what stands in a file.
    Replay {
        /// The file.
        table: Arc<Table>,
        /// The sensors of its columns.
        sensors: Vec<Arc<Sensor>>,
        /// Start of their device ids.
        prefix: String,
        /// How fast its time passes.
        speed: Speed,
        /// Steps due later are left out.
        end: Option<Duration>,
    },
}

impl Crew {
    /// How many devices there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Live { devices, .. } => *devices as usize,
            Self::Replay { sensors, .. } => sensors.len().min(REPLAY_DEVICES_MAX),
        }
    }

    /// Device ids and the locations that each publishes readings of.
    pub(crate) fn locations(&self) -> Vec<(String, Vec<String>)> {
        match self {
            Self::Live {
                profile,
                first,
                devices,
                ..
            } => (*first..first.saturating_add(*devices))
                .map(|number| (profile.device_id(number), profile.locations(number)))
                .collect(),
            Self::Replay {
                sensors, prefix, ..
            } => {
                let locations: std::collections::BTreeSet<_> = sensors
                    .iter()
                    .map(|sensor| sensor.channel.location.to_string())
                    .collect();
                let locations: Vec<_> = locations.into_iter().collect();
                (1..=self.len())
                    .map(|number| (format!("{prefix}device-{number:03}"), locations.clone()))
                    .collect()
            }
        }
    }

    /// When the schedule is over; nothing when it is endless.
    pub(crate) fn schedule_end(&self) -> Option<Duration> {
        match self {
            Self::Live { profile, .. } => profile.end(),
            Self::Replay {
                table, speed, end, ..
            } => {
                let length = Replay::length(table, *speed);
                Some(end.map_or(length, |end| end.min(length)))
            }
        }
    }

    /// Readings a second that somebody asked for; nothing when sensors keep their own pace, or that of
    /// a file.
    pub(crate) fn asked_rate(&self) -> Option<f64> {
        match self {
            Self::Live { asked_rate, .. } => *asked_rate,
            Self::Replay { .. } => None,
        }
    }

    /// Whether steps are due at times of their own; without that none can be late.
    pub(crate) fn is_paced(&self) -> bool {
        !matches!(
            self,
            Self::Replay {
                speed: Speed::Max,
                ..
            }
        )
    }

    /// The device at `index`, with a schedule that starts `offset` after the run does.
    ///
    /// With chaos, what goes wrong with it is part of the schedule.
    pub(crate) fn device(
        &self,
        index: usize,
        offset: Duration,
        chaos: Option<&Chaos>,
    ) -> (Identity, Plan) {
        let (identity, plan) = self.calm_device(index, offset);
        let number = self
            .first()
            .saturating_add(u32::try_from(index).unwrap_or(u32::MAX));
        match chaos {
            Some(chaos) => (identity, chaos.over(plan, number, self.schedule_end())),
            None => (identity, plan),
        }
    }

    /// Number of the first device.
    fn first(&self) -> u32 {
        match self {
            Self::Live { first, .. } => *first,
            Self::Replay { .. } => 1,
        }
    }

    fn calm_device(&self, index: usize, offset: Duration) -> (Identity, Plan) {
        match self {
            Self::Live { profile, first, .. } => {
                let number = first.saturating_add(u32::try_from(index).unwrap_or(u32::MAX));
                let plan = profile.schedule(number, offset);
                (
                    Identity::new(&profile.device_id(number), profile.firmware()),
                    Box::new(plan),
                )
            }
            Self::Replay {
                table,
                sensors,
                prefix,
                speed,
                end,
            } => {
                let own = |column: &usize| column % REPLAY_DEVICES_MAX == index;
                let columns = (0..sensors.len()).filter(own);
                let sensors = columns
                    .map(|column| (column, Arc::clone(&sensors[column])))
                    .collect();
                let replay = Replay::new(Arc::clone(table), sensors, *speed);
                let plan = replay.until(end.unwrap_or(Duration::MAX));
                (
                    Identity::new(&format!("{prefix}device-{:03}", index + 1), REPLAY_FIRMWARE),
                    Box::new(plan),
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fleet_shared::session::QoS;
    use jiff::Timestamp;
    use jiff::tz::TimeZone;

    use super::*;
    use crate::profile::{ProfileName, Setting};
    use crate::replay;
    use crate::schedule::Action;

    #[test]
    fn the_columns_of_a_wide_file_share_connections() {
        let names: Vec<String> = (0..20).map(|n| format!("c{n}")).collect();
        let row = ["1"; 20].join(",");
        let text = format!(
            "date,{}\n2020-01-01,{row}\n2020-01-02,{row}\n",
            names.join(",")
        );
        let table = Table::read(text.as_bytes(), None, None, &TimeZone::UTC).unwrap();
        let sensors = replay::sensors(&table, "wide-", "lab", QoS::AtLeastOnce).unwrap();
        let crew = Crew::Replay {
            table: Arc::new(table),
            sensors,
            prefix: "wide-".to_owned(),
            speed: Speed::Max,
            end: None,
        };
        assert_eq!(crew.len(), 8);
        let mut seen = BTreeSet::new();
        for index in 0..crew.len() {
            let (identity, plan) = crew.device(index, Duration::ZERO, None);
            assert_eq!(*identity.id, format!("wide-device-{:03}", index + 1));
            for step in plan {
                let Action::Measure(measurement) = step.action else {
                    panic!("no reading")
                };
                assert!(seen.insert((measurement.sensor.id.clone(), measurement.timestamp)));
            }
        }
        assert_eq!(seen.len(), 40);
    }

    #[test]
    fn live_devices_are_numbered_from_the_first() {
        let setting = Setting {
            seed: 1,
            start: Timestamp::UNIX_EPOCH,
            end: None,
            pace: 1.0,
        };
        let file = ProfileName::default().load().unwrap();
        let profile = Profile::new(file, setting).unwrap();
        let crew = Crew::Live {
            profile,
            first: 998,
            devices: 3,
            asked_rate: None,
        };
        let id = |index| crew.device(index, Duration::ZERO, None).0.id.to_string();
        assert_eq!(
            [id(0), id(1), id(2)],
            ["sensor-998", "sensor-999", "sensor-1000"]
        );
        assert_eq!(crew.schedule_end(), None);
    }
}
