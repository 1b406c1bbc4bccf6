//! Which columns of a file become which sensors.

use std::str::FromStr;

use fleet_shared::topic;

/// A column and the readings it becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name in the header.
    pub name: String,
    /// `type` of its readings.
    pub kind: String,
    /// Unit of its readings.
    pub unit: String,
}

/// The columns to replay, as written on the command line: `COLUMN=TYPE:UNIT,…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping(pub Vec<Column>);

/// Headers whose meaning is known: header in snake case, type, unit.
const KNOWN: [(&str, &str, &str); 10] = [
    ("co2", "co2", "ppm"),
    ("door", "door", "boolean"),
    ("humidity", "humidity", "percent"),
    ("humidity_ratio", "humidity_ratio", "kg/kg"),
    ("light", "light", "lux"),
    ("motion", "motion", "boolean"),
    ("occupancy", "motion", "boolean"),
    ("pressure", "pressure", "hectopascal"),
    ("temp", "temperature", "celsius"),
    ("temperature", "temperature", "celsius"),
];
/// Unit of a column of which nothing more is known.
const UNIT_UNKNOWN: &str = "unknown";

impl Column {
    /// What a header says by itself: a known quantity, or a type of the same name.
    #[must_use]
    pub fn from_header(name: &str) -> Self {
        let snake = snake_case(name);
        let known = KNOWN.iter().find(|(header, ..)| *header == snake);
        let (kind, unit) = match known {
            Some((_, kind, unit)) => ((*kind).to_owned(), (*unit).to_owned()),
            None => (snake, UNIT_UNKNOWN.to_owned()),
        };
        Self {
            name: name.to_owned(),
            kind,
            unit,
        }
    }
}

impl FromStr for Mapping {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut columns: Vec<Column> = Vec::new();
        for part in text.split(',') {
            let wrong =
                |what: &str| format!("`{part}` {what}; write COLUMN=TYPE:UNIT,COLUMN=TYPE:UNIT");
            let (name, sensor) = part.split_once('=').ok_or_else(|| wrong("has no `=`"))?;
            let (kind, unit) = sensor.split_once(':').ok_or_else(|| wrong("has no `:`"))?;
            let (name, kind, unit) = (name.trim(), kind.trim(), unit.trim());
            if name.is_empty() || unit.is_empty() {
                return Err(wrong("names no column or no unit"));
            }
            if topic::sensor("location", kind).is_err() {
                return Err(wrong("has a type that cannot be the level of a topic"));
            }
            if columns.iter().any(|other| other.kind == kind) {
                return Err(wrong("has the type of an earlier column"));
            }
            columns.push(Column {
                name: name.into(),
                kind: kind.into(),
                unit: unit.into(),
            });
        }
        Ok(Self(columns))
    }
}

/// `HumidityRatio` to `humidity_ratio`, `CO2` to `co2`, `Wind speed (m/s)` to `wind_speed_m_s`.
fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    let mut after_lower = false;
    for c in name.chars() {
        if !c.is_alphanumeric() {
            after_lower = false;
            if !snake.is_empty() && !snake.ends_with('_') {
                snake.push('_');
            }
            continue;
        }
        if c.is_uppercase() && after_lower {
            snake.push('_');
        }
        after_lower = c.is_lowercase();
        snake.extend(c.to_lowercase());
    }
    snake.truncate(snake.trim_end_matches('_').len());
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_say_what_they_measure() {
        let sensor = |name| {
            let column = Column::from_header(name);
            format!("{}:{}", column.kind, column.unit)
        };
        assert_eq!(sensor("Temperature"), "temperature:celsius");
        assert_eq!(sensor("HumidityRatio"), "humidity_ratio:kg/kg");
        assert_eq!(sensor("CO2"), "co2:ppm");
        assert_eq!(sensor("Occupancy"), "motion:boolean");
        assert_eq!(sensor(" Wind speed (m/s)"), "wind_speed_m_s:unknown");
    }

    #[test]
    fn a_mapping_is_read_from_the_command_line() {
        let mapping: Mapping = "Temperature=temperature:celsius, CO2 = co2:ppm"
            .parse()
            .unwrap();
        let names: Vec<_> = mapping
            .0
            .iter()
            .map(|c| (&*c.name, &*c.kind, &*c.unit))
            .collect();
        assert_eq!(
            names,
            [
                ("Temperature", "temperature", "celsius"),
                ("CO2", "co2", "ppm")
            ]
        );
    }

    #[test]
    fn a_wrong_mapping_says_what_is_wrong() {
        for (text, reason) in [
            ("", "has no `=`"),
            ("Light", "has no `=`"),
            ("Light=light", "has no `:`"),
            ("Light=light:", "no unit"),
            ("Light=a/b:lux", "level of a topic"),
            ("Light=:lux", "level of a topic"),
            ("A=light:lux,B=light:lux", "earlier column"),
        ] {
            let error = text.parse::<Mapping>().unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
