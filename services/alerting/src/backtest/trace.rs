//! The values behind a backtest, at the resolution of a plot.

use std::collections::BTreeMap;

use fleet_shared::model::SensorReading;
use jiff::Timestamp;

/// Series that are kept; those of further sensors are counted.
const SERIES_MAX: usize = 256;

/// What was measured in a span, as columns of a plot.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Start of the first column.
    pub from: Timestamp,
    /// End of the last column.
    pub to: Timestamp,
    /// Series by sensor and type.
    pub series: BTreeMap<(String, String), Series>,
    /// Readings of series that were not kept.
    pub left_out: u64,
    columns: u32,
    /// Microseconds a column.
    width: i64,
}

/// One sensor's readings of one type.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Unit of the values, as the first reading has it.
    pub unit: String,
    /// Topic of the first reading.
    pub topic: String,
    /// One for each column of the plot; none where nothing was measured.
    pub columns: Vec<Option<Column>>,
}

/// The values in one column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Column {
    /// Lowest value.
    pub min: f64,
    /// Highest value.
    pub max: f64,
    /// The last value.
    pub last: f64,
}

impl Trace {
    pub(super) fn new(from: Timestamp, to: Timestamp, columns: u32) -> Self {
        let columns = columns.max(1);
        let span = (to.as_microsecond() - from.as_microsecond()).max(1);
        let each = i64::from(columns);
        Self {
            from,
            to,
            series: BTreeMap::new(),
            left_out: 0,
            columns,
            width: span / each + i64::from(span % each != 0),
        }
    }

    pub(super) fn add(&mut self, reading: &SensorReading) {
        let key = (reading.sensor_id.clone(), reading.kind.clone());
        if !self.series.contains_key(&key) && self.series.len() >= SERIES_MAX {
            self.left_out += 1;
            return;
        }
        let columns = self.columns as usize;
        let series = self.series.entry(key).or_insert_with(|| Series {
            unit: reading.unit.clone(),
            topic: reading.topic(),
            columns: vec![None; columns],
        });
        let offset = reading.timestamp.as_microsecond() - self.from.as_microsecond();
        let column = usize::try_from(offset / self.width)
            .unwrap_or(0)
            .min(columns - 1);
        let value = reading.value;
        let column = series.columns[column].get_or_insert(Column {
            min: value,
            max: value,
            last: value,
        });
        column.min = column.min.min(value);
        column.max = column.max.max(value);
        column.last = value;
    }
}
