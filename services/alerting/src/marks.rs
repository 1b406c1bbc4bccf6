//! How far the messages of each sensor are evaluated, as it is made durable.
//!
//! Most messages change no state, and a row for each would cost more than all else. Still, none is
//! acknowledged before the store knows of it: after a crash, a late message that is older than the
//! last one evaluated must not count as news. So what was evaluated is noted in a journal, one entry
//! for many sensors, and now and then the whole of it takes the place of all entries.

use std::collections::HashMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use serde::Deserialize;
use uuid::Uuid;

use crate::state::Mark;

/// An entry of the journal.
#[derive(Debug, Deserialize)]
pub(crate) struct Entry {
    /// Names of rules; marks refer to them by their place.
    rules: Vec<String>,
    /// For each sensor, how far which rules are.
    sensors: Vec<(String, Vec<Place>)>,
}

/// Rules that are equally far with a sensor: all of them, mostly.
#[derive(Debug, Deserialize)]
struct Place {
    /// Places in the list of names.
    #[serde(rename = "r")]
    rules: Vec<u32>,
    /// Event time in nanoseconds since 1970.
    #[serde(rename = "t")]
    at: i64,
    #[serde(rename = "s", default)]
    session: Option<Uuid>,
    #[serde(rename = "e", default)]
    session_ended: bool,
}

/// Writes an entry: the JSON of [`Entry`], without a value for each part of it, as there are thousands
/// a second.
#[derive(Debug)]
pub(crate) struct Writer {
    sensors: String,
    rules: Vec<String>,
    places: HashMap<u32, u32>,
    /// Of the sensor that is written, each with its rule.
    marks: Vec<(u32, Mark)>,
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            sensors: "[".to_owned(),
            rules: Vec::new(),
            places: HashMap::new(),
            marks: Vec::new(),
        }
    }
}

impl Writer {
    /// Notes how far a rule, whose number and name these are, is with the sensor that comes next.
    pub(crate) fn mark<'a>(&mut self, id: u32, name: impl FnOnce() -> &'a str, mark: Mark) {
        let rules = &mut self.rules;
        let rule = *self.places.entry(id).or_insert_with(|| {
            rules.push(name().to_owned());
            u32::try_from(rules.len() - 1).unwrap_or(u32::MAX)
        });
        self.marks.push((rule, mark));
    }

    /// Writes the sensor whose marks these were.
    pub(crate) fn sensor(&mut self, sensor_id: &str) {
        let separator = if self.sensors.len() > 1 { "," } else { "" };
        write!(self.sensors, "{separator}[{},[", text(sensor_id)).unwrap_or_default();
        while let Some((_, mark)) = self.marks.first().copied() {
            let at = i64::try_from(mark.at.as_nanosecond()).unwrap_or(i64::MAX);
            write!(self.sensors, "{{\"t\":{at},\"r\":[").unwrap_or_default();
            let mut separator = "";
            // Mostly all are equally far.
            for (rule, _) in self.marks.extract_if(.., |(_, other)| *other == mark) {
                write!(self.sensors, "{separator}{rule}").unwrap_or_default();
                separator = ",";
            }
            self.sensors.push(']');
            if let Some(session) = mark.session {
                let ended = mark.session_ended;
                write!(self.sensors, ",\"s\":\"{session}\",\"e\":{ended}").unwrap_or_default();
            }
            self.sensors.push('}');
            if !self.marks.is_empty() {
                self.sensors.push(',');
            }
        }
        self.sensors.push_str("]]");
    }

    /// The entry as it is stored.
    pub(crate) fn finish(self) -> String {
        let rules: Vec<String> = self.rules.iter().map(|rule| text(rule)).collect();
        format!(
            "{{\"rules\":[{}],\"sensors\":{}]}}",
            rules.join(","),
            self.sensors
        )
    }
}

/// As JSON writes it.
fn text(text: &str) -> String {
    serde_json::to_string(text).expect("a text always serializes")
}

/// Reads an entry: `take` gets sensor, rule and mark of each.
///
/// # Errors
/// If it is none.
pub(crate) fn read(
    text: &str,
    mut take: impl FnMut(&str, &str, Mark),
) -> Result<(), serde_json::Error> {
    let entry: Entry = serde_json::from_str(text)?;
    for (sensor_id, places) in &entry.sensors {
        for place in places {
            let mark = Mark {
                at: Timestamp::from_nanosecond(place.at.into()).unwrap_or(Timestamp::MAX),
                session: place.session,
                session_ended: place.session_ended,
            };
            let names = place
                .rules
                .iter()
                .filter_map(|rule| entry.rules.get(*rule as usize));
            for name in names {
                take(sensor_id, name, mark);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let at = |second: i64| Timestamp::from_second(1_790_000_000 + second).unwrap();
        let mark = |second, session| Mark {
            at: at(second),
            session,
            session_ended: session.is_some(),
        };
        let session = Some(Uuid::from_u128(7));
        let mut writer = Writer::default();
        writer.mark(9, || "High", mark(1, None));
        writer.mark(7, || "Low", mark(2, None));
        writer.mark(4, || "Middle", mark(1, None));
        writer.sensor("a\"");
        writer.mark(9, || unreachable!("it is known"), mark(2, session));
        writer.sensor("b");
        let text = writer.finish();
        let mut marks = Vec::new();
        read(&text, |sensor, rule, mark| {
            marks.push((sensor.to_owned(), rule.to_owned(), mark));
        })
        .unwrap();
        let expected = [
            ("a\"", "High", mark(1, None)),
            ("a\"", "Middle", mark(1, None)),
            ("a\"", "Low", mark(2, None)),
            ("b", "High", mark(2, session)),
        ];
        assert_eq!(
            marks,
            expected.map(|(s, r, m)| (s.to_owned(), r.to_owned(), m))
        );
        read(&Writer::default().finish(), |_, _, _| {
            unreachable!("it is empty")
        })
        .unwrap();
        assert!(read("{}", |_, _, _| ()).is_err());
    }
}
