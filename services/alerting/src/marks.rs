//! How far the messages of each sensor are evaluated, as it is made durable.
//!
//! Most messages change no state, and a row for each would cost more than all else. Still, none is
//! acknowledged before the store knows of it: after a crash, a late message that is older than the
//! last one evaluated must not count as news. So what was evaluated is noted in a journal, one entry
//! for many sensors, and now and then the whole of it takes the place of all entries.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::state::Mark;

/// An entry of the journal.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Names of rules; marks refer to them by their place.
    rules: Vec<String>,
    /// For each sensor, how far which rules are.
    sensors: Vec<(String, Vec<Place>)>,
}

/// Rules that are equally far with a sensor: all of them, mostly.
#[derive(Debug, Serialize, Deserialize)]
struct Place {
    /// Places in the list of names.
    #[serde(rename = "r")]
    rules: Vec<u32>,
    /// Event time in nanoseconds since 1970.
    #[serde(rename = "t")]
    at: i64,
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    session: Option<Uuid>,
    #[serde(rename = "e", default, skip_serializing_if = "std::ops::Not::not")]
    session_ended: bool,
}

/// Writes an entry.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    entry: Entry,
    places: HashMap<u32, u32>,
}

impl Writer {
    /// Begins with the next sensor.
    pub(crate) fn sensor(&mut self, sensor_id: &str) {
        self.entry.sensors.push((sensor_id.to_owned(), Vec::new()));
    }

    /// Notes how far a rule, whose number and name these are, is with the sensor.
    pub(crate) fn mark<'a>(&mut self, id: u32, name: impl FnOnce() -> &'a str, mark: &Mark) {
        let rules = &mut self.entry.rules;
        let rule = *self.places.entry(id).or_insert_with(|| {
            rules.push(name().to_owned());
            u32::try_from(rules.len() - 1).unwrap_or(u32::MAX)
        });
        let Some((_, places)) = self.entry.sensors.last_mut() else {
            return;
        };
        let at = i64::try_from(mark.at.as_nanosecond()).unwrap_or(i64::MAX);
        let same = |place: &&mut Place| {
            place.at == at
                && place.session == mark.session
                && place.session_ended == mark.session_ended
        };
        match places.iter_mut().find(same) {
            Some(place) => place.rules.push(rule),
            None => places.push(Place {
                rules: vec![rule],
                at,
                session: mark.session,
                session_ended: mark.session_ended,
            }),
        }
    }

    /// The entry as it is stored.
    pub(crate) fn finish(self) -> String {
        serde_json::to_string(&self.entry).expect("texts and numbers always serialize")
    }
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
        writer.sensor("a");
        writer.mark(9, || "High", &mark(1, None));
        writer.mark(4, || "Low", &mark(1, None));
        writer.sensor("b");
        writer.mark(9, || unreachable!("it is known"), &mark(2, session));
        let text = writer.finish();
        let mut marks = Vec::new();
        read(&text, |sensor, rule, mark| {
            marks.push((sensor.to_owned(), rule.to_owned(), mark));
        })
        .unwrap();
        let expected = [
            ("a", "High", mark(1, None)),
            ("a", "Low", mark(1, None)),
            ("b", "High", mark(2, session)),
        ];
        assert_eq!(
            marks,
            expected.map(|(s, r, m)| (s.to_owned(), r.to_owned(), m))
        );
        assert!(read("{}", |_, _, _| ()).is_err());
    }
}
