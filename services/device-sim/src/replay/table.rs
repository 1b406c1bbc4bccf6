//! A file of measurements in memory: one time and one value for each column a row.

use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use csv::StringRecord;
use fleet_shared::model::to_micros;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::mapping::{Column, Mapping};

/// Rows that a replay takes. A row of six columns needs 64 bytes, so this is 320 MB.
pub const ROWS_MAX: usize = 5_000_000;
/// Headers that are taken for the time when none is named.
const TIME_COLUMNS: [&str; 4] = ["date", "time", "timestamp", "datetime"];

/// Why a file cannot be replayed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The file is missing or not readable.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// Reading failed, or the file is not UTF-8 text.
    #[error("cannot read the file as CSV")]
    Csv(#[from] csv::Error),
    /// A row has too many or too few fields.
    #[error("line {line} has {found} fields where {expected} are expected")]
    Width {
        /// Line in the file, from 1.
        line: u64,
        /// Fields of the first row.
        expected: usize,
        /// Fields of this one.
        found: usize,
    },
    /// A column that was asked for is not there.
    #[error("there is no column `{name}`, only {columns}; name another with {flag}")]
    NoColumn {
        /// What was looked for.
        name: String,
        /// What there is.
        columns: String,
        /// The flag that names the column.
        flag: &'static str,
    },
    /// A time that cannot be read, or is too early for a reading.
    #[error(
        "line {line}: `{value}` is not a time from 1970 on, such as 2015-02-04 17:51:00 or 2015-02-04T17:51:00Z"
    )]
    Time {
        /// Line in the file, from 1.
        line: u64,
        /// What stands there.
        value: String,
    },
    /// A cell that is neither a finite number nor empty.
    #[error(
        "line {line}, column `{column}`: `{value}` is not a number; leave the column out with --replay-map"
    )]
    Value {
        /// Line in the file, from 1.
        line: u64,
        /// Name of the column.
        column: String,
        /// What stands there.
        value: String,
    },
    /// Two columns would become the same sensor.
    #[error(
        "the columns `{first}` and `{second}` both become the type `{kind}`; tell them apart with --replay-map"
    )]
    SameKind {
        /// One column.
        first: String,
        /// The other.
        second: String,
        /// The type of both.
        kind: String,
    },
    /// Nothing to replay.
    #[error("there is no row with a number in it")]
    Empty,
    /// More rows than fit in memory.
    #[error("there are more than {ROWS_MAX} rows; split the file")]
    TooLarge,
}

/// A file of measurements.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// What each column becomes.
    pub columns: Vec<Column>,
    /// Time of each row, in the order of the file, at microsecond precision, each once.
    pub times: Vec<Timestamp>,
    /// Values by row, then column; not a number where the file has none.
    values: Vec<f64>,
    /// Rows left out because an earlier row has the same time.
    pub repeated_rows: usize,
}

impl Table {
    /// Reads a file. Times without an offset are in `zone`.
    pub fn open(
        path: &Path,
        mapping: Option<&Mapping>,
        time_column: Option<&str>,
        zone: &TimeZone,
    ) -> Result<Self, ReplayError> {
        let file = std::fs::File::open(path).map_err(|source| ReplayError::Open {
            path: path.to_owned(),
            source,
        })?;
        Self::read(file, mapping, time_column, zone)
    }

    /// Reads CSV with a header.
    ///
    /// When rows have one field more than the header, the first is the name of the row, as R
    /// writes it, and is left out. Without a `mapping` every column becomes a sensor that has a
    /// number in the first row. Empty cells, `NA`, `NaN` and `null` are missing values. Of rows
    /// with the same time the first counts: a reading's key is its sensor and its time.
    pub fn read(
        input: impl Read,
        mapping: Option<&Mapping>,
        time_column: Option<&str>,
        zone: &TimeZone,
    ) -> Result<Self, ReplayError> {
        let mut csv = csv::ReaderBuilder::new()
            .flexible(true)
            .trim(csv::Trim::All)
            .from_reader(input);
        let header = csv.headers()?.clone();
        let mut row = StringRecord::new();
        if !csv.read_record(&mut row)? {
            return Err(ReplayError::Empty);
        }
        let layout = Layout::new(&header, &row, mapping, time_column)?;

        let mut table = Self {
            columns: layout
                .columns
                .iter()
                .map(|(_, column)| column.clone())
                .collect(),
            times: Vec::new(),
            values: Vec::new(),
            repeated_rows: 0,
        };
        let mut seen = HashSet::new();
        loop {
            let line = row.position().map_or(0, csv::Position::line);
            if row.len() != layout.width {
                return Err(ReplayError::Width {
                    line,
                    expected: layout.width,
                    found: row.len(),
                });
            }
            let time = layout.time(&row, line, zone)?;
            if seen.insert(time) {
                if table.times.len() == ROWS_MAX {
                    return Err(ReplayError::TooLarge);
                }
                table.times.push(time);
                layout.values(&row, line, &mut table.values)?;
            } else {
                table.repeated_rows += 1;
            }
            if !csv.read_record(&mut row)? {
                break;
            }
        }
        if table.values.iter().all(|value| value.is_nan()) {
            return Err(ReplayError::Empty);
        }
        Ok(table)
    }

    /// The value of a column in a row, if there is one.
    #[must_use]
    pub fn value(&self, row: usize, column: usize) -> Option<f64> {
        let value = *self.values.get(row * self.columns.len() + column)?;
        (!value.is_nan()).then_some(value)
    }
}

/// Where in a row which field stands.
struct Layout {
    width: usize,
    time: usize,
    columns: Vec<(usize, Column)>,
}

impl Layout {
    fn new(
        header: &StringRecord,
        first: &StringRecord,
        mapping: Option<&Mapping>,
        time_column: Option<&str>,
    ) -> Result<Self, ReplayError> {
        let row_name = usize::from(first.len() == header.len() + 1);
        let missing = |name: &str, flag| ReplayError::NoColumn {
            name: name.to_owned(),
            columns: header.iter().collect::<Vec<_>>().join(", "),
            flag,
        };
        let time = match time_column {
            Some(name) => header.iter().position(|column| column == name),
            None => header.iter().position(|column| {
                TIME_COLUMNS
                    .iter()
                    .any(|name| column.eq_ignore_ascii_case(name))
            }),
        };
        let time = time.ok_or_else(|| {
            missing(
                time_column.unwrap_or(TIME_COLUMNS[0]),
                "--replay-time-column",
            )
        })?;

        let mut columns: Vec<(usize, Column)> = Vec::new();
        if let Some(Mapping(mapped)) = mapping {
            for column in mapped {
                let place = header.iter().position(|name| name == column.name);
                let place = place.ok_or_else(|| missing(&column.name, "--replay-map"))?;
                columns.push((place + row_name, column.clone()));
            }
        } else {
            for (place, name) in header
                .iter()
                .enumerate()
                .filter(|(place, _)| *place != time)
            {
                let numeric = first
                    .get(place + row_name)
                    .is_some_and(|cell| cell.parse::<f64>().is_ok());
                if numeric {
                    columns.push((place + row_name, Column::from_header(name)));
                }
            }
        }
        for (index, (_, column)) in columns.iter().enumerate() {
            if let Some((_, other)) = columns[..index]
                .iter()
                .find(|(_, other)| other.kind == column.kind)
            {
                return Err(ReplayError::SameKind {
                    first: other.name.clone(),
                    second: column.name.clone(),
                    kind: column.kind.clone(),
                });
            }
        }
        Ok(Self {
            width: header.len() + row_name,
            time: time + row_name,
            columns,
        })
    }

    fn time(
        &self,
        row: &StringRecord,
        line: u64,
        zone: &TimeZone,
    ) -> Result<Timestamp, ReplayError> {
        let text = row.get(self.time).unwrap_or_default();
        parse_time(text, zone).ok_or_else(|| ReplayError::Time {
            line,
            value: text.to_owned(),
        })
    }

    fn values(
        &self,
        row: &StringRecord,
        line: u64,
        values: &mut Vec<f64>,
    ) -> Result<(), ReplayError> {
        for (place, column) in &self.columns {
            let text = row.get(*place).unwrap_or_default();
            let value = parse_value(text).ok_or_else(|| ReplayError::Value {
                line,
                column: column.name.clone(),
                value: text.to_owned(),
            })?;
            values.push(value);
        }
        Ok(())
    }
}

/// A time with an offset, or else one of a clock in `zone`; cut to microseconds.
fn parse_time(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    let time = match text.parse::<Timestamp>() {
        Ok(time) => time,
        Err(_) => text
            .parse::<DateTime>()
            .ok()?
            .to_zoned(zone.clone())
            .ok()?
            .timestamp(),
    };
    (time >= Timestamp::UNIX_EPOCH).then(|| to_micros(time))
}

/// A finite number, or not a number where the cell is empty.
fn parse_value(text: &str) -> Option<f64> {
    if ["", "na", "nan", "null"]
        .iter()
        .any(|missing| text.eq_ignore_ascii_case(missing))
    {
        return Some(f64::NAN);
    }
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the occupancy data set is written: six columns, rows that start with their names.
    const SAMPLE: &str = r#""date","Temperature","Humidity","Occupancy"
"1","2015-02-04 17:51:00",23.18,27.272,1
"2","2015-02-04 17:51:59",23.15,NA,0
"3","2015-02-04 17:53:00",23.15,27.245,1
"#;

    fn read(text: &str) -> Result<Table, ReplayError> {
        Table::read(text.as_bytes(), None, None, &TimeZone::UTC)
    }

    #[test]
    fn rows_with_names_are_read() {
        let table = read(SAMPLE).unwrap();
        let kinds: Vec<_> = table.columns.iter().map(|column| &*column.kind).collect();
        assert_eq!(kinds, ["temperature", "humidity", "motion"]);
        assert_eq!(table.times.len(), 3);
        assert_eq!(table.times[1].to_string(), "2015-02-04T17:51:59Z");
        assert_eq!(table.value(0, 0), Some(23.18));
        assert_eq!(table.value(1, 1), None);
        assert_eq!(table.value(1, 2), Some(0.0));
        assert_eq!(table.value(2, 2), Some(1.0));
        assert_eq!(table.value(3, 0), None);
    }

    #[test]
    fn rows_without_names_are_read() {
        let table = read("light,Timestamp,note\n5,2020-01-01T00:00:00+01:00,dim\n").unwrap();
        assert_eq!(table.columns.len(), 1);
        assert_eq!(table.times[0].to_string(), "2019-12-31T23:00:00Z");
        assert_eq!(table.value(0, 0), Some(5.0));
    }

    #[test]
    fn a_mapping_chooses_columns_and_names_a_missing_one() {
        let mapping: Mapping = "Humidity=moisture:percent".parse().unwrap();
        let table = Table::read(SAMPLE.as_bytes(), Some(&mapping), None, &TimeZone::UTC).unwrap();
        assert_eq!(table.columns.len(), 1);
        assert_eq!(table.value(0, 0), Some(27.272));

        let mapping: Mapping = "Wind=wind:m/s".parse().unwrap();
        let error =
            Table::read(SAMPLE.as_bytes(), Some(&mapping), None, &TimeZone::UTC).unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no column `Wind`, only date, Temperature, Humidity, Occupancy; name another with --replay-map"
        );
    }

    #[test]
    fn of_rows_with_one_time_the_first_counts() {
        let table =
            read("time,a\n2020-01-01 00:00,1\n2020-01-01 00:00,2\n2020-01-01 00:01,3\n").unwrap();
        assert_eq!((table.times.len(), table.repeated_rows), (2, 1));
        assert_eq!(table.value(0, 0), Some(1.0));
        assert_eq!(table.value(1, 0), Some(3.0));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (text, reason) in [
            ("", "no row"),
            ("date,a\n", "no row"),
            ("date,a\n2020-01-01,x\n", "no row"),
            (
                "date,a\n2020-01-01,1\n2020-01-02,x\n",
                "line 3, column `a`: `x` is not a number",
            ),
            (
                "date,a\n2020-01-01,1\n2020-01-02,inf\n",
                "`inf` is not a number",
            ),
            (
                "date,a\n2020-01-01,1\n2020-01-02,1,2\n",
                "line 3 has 3 fields where 2 are expected",
            ),
            ("date,a\nyesterday,1\n", "line 2: `yesterday` is not a time"),
            ("date,a\n1969-12-31 23:59,1\n", "is not a time from 1970 on"),
            ("when,a\n2020-01-01,1\n", "--replay-time-column"),
            (
                "date,temp,Temperature\n2020-01-01,1,2\n",
                "`temp` and `Temperature` both become",
            ),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }

    #[test]
    fn local_times_are_read_in_their_zone() {
        let zone = TimeZone::fixed(jiff::tz::offset(-5));
        let table = Table::read(SAMPLE.as_bytes(), None, None, &zone).unwrap();
        assert_eq!(table.times[0].to_string(), "2015-02-04T22:51:00Z");
    }
}
