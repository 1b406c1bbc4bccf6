//! A real data set as the readings of simulated devices.

mod mapping;
mod table;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use fleet_shared::model::{RejectError, SensorReading};
use fleet_shared::session::{ByteString, QoS};
use fleet_shared::topic;
use jiff::Timestamp;

pub use mapping::{Column, Mapping};
pub use table::{ROWS_MAX, ReplayError, Table};

use crate::chaos::Intents;
use crate::schedule::{Action, Intervals, Step, Steps};
use crate::sensor::{Channel, Measurement, Sensor};

/// How fast the time of the file passes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// As fast as the broker takes it.
    Max,
    /// So many times as fast as it was recorded; finite and above zero.
    Times(f64),
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("max") {
            return Ok(Self::Max);
        }
        match text.parse::<f64>() {
            Ok(0.0) => Ok(Self::Max),
            Ok(times) if times.is_finite() && times > 0.0 => Ok(Self::Times(times)),
            _ => Err("give a positive number (1 is the pace of the recording) or `max`".to_owned()),
        }
    }
}

impl std::fmt::Display for Speed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Max => f.write_str("max"),
            Self::Times(times) => times.fmt(f),
        }
    }
}

/// The sensors that the columns of `table` become: `{prefix}{type}` at `location`, all at `qos`.
///
/// # Errors
/// When a reading of them would not be valid, because of its location, id, type or unit.
pub fn sensors(
    table: &Table,
    prefix: &str,
    location: &str,
    qos: QoS,
) -> Result<Vec<Arc<Sensor>>, RejectError> {
    let sensor = |column: &Column| {
        let example = SensorReading {
            sensor_id: format!("{prefix}{}", column.kind.replace('_', "-")),
            kind: column.kind.clone(),
            value: 0.0,
            unit: column.unit.clone(),
            location: location.to_owned(),
            timestamp: Timestamp::UNIX_EPOCH,
            battery_percent: None,
            quality: None,
        };
        example.validate()?;
        let topic = example.topic();
        let channel = Channel {
            kind: example.kind.into(),
            unit: example.unit.into(),
            location: example.location.into(),
            label: topic::label(&topic),
            topic: ByteString::from(topic),
            qos,
            retain: false,
        };
        Ok(Arc::new(Sensor {
            id: example.sensor_id.into(),
            channel: Arc::new(channel),
        }))
    };
    table.columns.iter().map(sensor).collect()
}

/// The readings of some columns of a table, row by row.
#[derive(Clone, Debug)]
pub struct Replay {
    table: Arc<Table>,
    sensors: Vec<(usize, Arc<Sensor>)>,
    speed: Speed,
    row: usize,
    next: usize,
    due: Duration,
    end: Duration,
    drawn: Option<Step>,
}

impl Replay {
    /// Replays the columns that `sensors` names by their index in the table.
    ///
    /// Readings keep the times of the file, so that a second replay gives the same keys, and its
    /// order: a row that goes back in time is due at once.
    #[must_use]
    pub fn new(table: Arc<Table>, sensors: Vec<(usize, Arc<Sensor>)>, speed: Speed) -> Self {
        Self {
            table,
            sensors,
            speed,
            row: 0,
            next: 0,
            due: Duration::ZERO,
            end: Duration::MAX,
            drawn: None,
        }
    }

    /// The same without what is due at `end` or later.
    #[must_use]
    pub fn until(mut self, end: Duration) -> Self {
        self.end = end;
        self
    }

    /// When the last step is due.
    #[must_use]
    pub fn length(table: &Table, speed: Speed) -> Duration {
        let row = |due: Duration, row| due.max(due_of(table, speed, row));
        (0..table.times.len()).fold(Duration::ZERO, row)
    }
}

impl Steps for Replay {
    fn due(&mut self) -> Option<Duration> {
        if self.drawn.is_none() {
            self.drawn = self.next();
        }
        self.drawn.as_ref().map(|step| step.due)
    }

    /// The times of a replay are those of its file.
    fn set_intervals(&mut self, _: Duration, _: Intervals) -> bool {
        false
    }
}

impl Iterator for Replay {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if let Some(drawn) = self.drawn.take() {
            return Some(drawn);
        }
        loop {
            let timestamp = *self.table.times.get(self.row)?;
            let Some((column, sensor)) = self.sensors.get(self.next) else {
                self.row += 1;
                self.next = 0;
                continue;
            };
            self.next += 1;
            if let Some(value) = self.table.value(self.row, *column) {
                self.due = self.due.max(due_of(&self.table, self.speed, self.row));
                if self.due >= self.end {
                    self.row = self.table.times.len();
                    return None;
                }
                let measurement = Measurement {
                    sensor: Arc::clone(sensor),
                    value,
                    timestamp,
                    battery_percent: None,
                    quality: None,
                    padding_bytes: 0,
                    intents: Intents::default(),
                };
                return Some(Step {
                    due: self.due,
                    action: Action::Measure(measurement),
                });
            }
        }
    }
}

fn due_of(table: &Table, speed: Speed, row: usize) -> Duration {
    match (speed, table.times.first(), table.times.get(row)) {
        (Speed::Times(times), Some(first), Some(time)) => {
            let elapsed = Duration::try_from(time.duration_since(*first)).unwrap_or_default();
            Duration::try_from_secs_f64(elapsed.as_secs_f64() / times).unwrap_or(Duration::MAX)
        }
        _ => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;

    const SAMPLE: &str = "date,temp,light\n\
        2020-01-01 00:00:00,1,10\n\
        2020-01-01 00:01:00,2,\n\
        2020-01-01 00:00:30,3,30\n";

    fn replay(speed: Speed) -> Replay {
        let table = Table::read(SAMPLE.as_bytes(), None, None, &TimeZone::UTC).unwrap();
        let sensors = sensors(&table, "lab-", "lab/room-1", QoS::AtLeastOnce).unwrap();
        Replay::new(
            Arc::new(table),
            sensors.into_iter().enumerate().collect(),
            speed,
        )
    }

    fn said(replay: Replay) -> Vec<(u64, String, String, f64)> {
        let line = |step: Step| match step.action {
            Action::Measure(m) => (
                step.due.as_secs(),
                m.sensor.id.to_string(),
                m.timestamp.to_string(),
                m.value,
            ),
            other => panic!("a replay has readings only, not {other:?}"),
        };
        replay.map(line).collect()
    }

    #[test]
    fn every_value_is_replayed_with_its_own_time() {
        let said = said(replay(Speed::Max));
        let expected = [
            (0, "lab-temperature", "2020-01-01T00:00:00Z", 1.0),
            (0, "lab-light", "2020-01-01T00:00:00Z", 10.0),
            (0, "lab-temperature", "2020-01-01T00:01:00Z", 2.0),
            (0, "lab-temperature", "2020-01-01T00:00:30Z", 3.0),
            (0, "lab-light", "2020-01-01T00:00:30Z", 30.0),
        ];
        assert_eq!(
            said,
            expected.map(|(due, id, at, value)| (due, id.into(), at.into(), value))
        );
    }

    #[test]
    fn the_speed_divides_the_pauses_and_order_is_kept() {
        let due: Vec<u64> = said(replay(Speed::Times(2.0)))
            .iter()
            .map(|step| step.0)
            .collect();
        assert_eq!(due, [0, 0, 30, 30, 30]);
        assert_eq!(
            Replay::length(&replay(Speed::Max).table, Speed::Times(2.0)).as_secs(),
            30
        );
    }

    #[test]
    fn a_replay_publishes_where_its_location_says() {
        let Some(Step {
            action: Action::Measure(measurement),
            ..
        }) = replay(Speed::Max).next()
        else {
            panic!("a replay starts with a reading");
        };
        let publish = measurement.publish();
        assert_eq!(publish.topic.as_str(), "sensors/lab/room-1/temperature");
        assert_eq!(publish.qos, QoS::AtLeastOnce);
        assert!(!publish.retain);
    }

    #[test]
    fn speeds_are_read() {
        assert_eq!("max".parse(), Ok(Speed::Max));
        assert_eq!("0".parse(), Ok(Speed::Max));
        assert_eq!("2.5".parse(), Ok(Speed::Times(2.5)));
        for wrong in ["-1", "inf", "NaN", "fast", ""] {
            assert!(wrong.parse::<Speed>().is_err(), "{wrong}");
        }
    }
}
