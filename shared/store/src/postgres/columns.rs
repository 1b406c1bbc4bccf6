//! Rows turned into columns, which is how `unnest` takes them; texts are borrowed, not copied.

use std::borrow::Cow;
use std::collections::HashMap;

use fleet_shared::model::Quality;
use uuid::Uuid;

use super::value::Micros;
use crate::{DeadLetter, NewReading};

/// Readings in key order, column by column.
///
/// The order is the same for every writer, so two that insert the same keys wait for each other but
/// never in a circle; and neighbours share index pages.
#[derive(Default)]
pub(super) struct Columns<'a> {
    /// The place of each row in the batch.
    pub(super) places: Vec<usize>,
    /// Readings that PostgreSQL cannot keep, by place, and why.
    pub(super) flaws: Vec<(usize, String)>,
    pub(super) sensor_id: Vec<&'a str>,
    pub(super) kind: Vec<&'a str>,
    pub(super) timestamp: Vec<Micros>,
    pub(super) value: Vec<f64>,
    pub(super) unit: Vec<&'a str>,
    pub(super) location: Vec<&'a str>,
    pub(super) battery_percent: Vec<Option<i16>>,
    pub(super) quality: Vec<Option<&'static str>>,
    pub(super) received_at: Vec<Micros>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(readings: &'a [NewReading]) -> Self {
        let mut flaws = Vec::new();
        let mut places = Vec::with_capacity(readings.len());
        for (place, reading) in readings.iter().enumerate() {
            match flaw(reading) {
                Some(flaw) => flaws.push((place, flaw)),
                None => places.push(place),
            }
        }
        // Stable, so that of equal keys the first in the batch is inserted.
        places.sort_by_key(|place| {
            let reading = &readings[*place].reading;
            let at = Micros::of(reading.timestamp);
            (reading.sensor_id.as_str(), reading.kind.as_str(), at)
        });
        let sorted = || places.iter().map(|place| &readings[*place]);
        Self {
            sensor_id: sorted().map(|new| new.reading.sensor_id.as_str()).collect(),
            kind: sorted().map(|new| new.reading.kind.as_str()).collect(),
            timestamp: sorted()
                .map(|new| Micros::of(new.reading.timestamp))
                .collect(),
            value: sorted().map(|new| new.reading.value).collect(),
            unit: sorted().map(|new| new.reading.unit.as_str()).collect(),
            location: sorted().map(|new| new.reading.location.as_str()).collect(),
            battery_percent: sorted()
                .map(|new| new.reading.battery_percent.map(i16::from))
                .collect(),
            quality: sorted()
                .map(|new| new.reading.quality.map(Quality::as_str))
                .collect(),
            received_at: sorted().map(|new| Micros::of(new.received_at)).collect(),
            places,
            flaws,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn key(&self, position: usize) -> (&'a str, &'a str, Micros) {
        (
            self.sensor_id[position],
            self.kind[position],
            self.timestamp[position],
        )
    }
}

/// Why PostgreSQL cannot keep this reading, found before it is asked.
fn flaw(new: &NewReading) -> Option<String> {
    let reading = &new.reading;
    if let Some(flaw) = new.flaw() {
        return Some(flaw);
    }
    let texts = [
        ("sensor_id", &reading.sensor_id),
        ("type", &reading.kind),
        ("unit", &reading.unit),
        ("location", &reading.location),
    ];
    for (field, text) in texts {
        if text.as_bytes().contains(&0) {
            return Some(format!(
                "{field} holds a NUL character, which PostgreSQL cannot keep"
            ));
        }
    }
    let instants = [
        ("timestamp", reading.timestamp),
        ("received_at", new.received_at),
    ];
    for (field, at) in instants {
        if !Micros::of(at).is_storable() {
            return Some(format!(
                "{field} {at} is before the first instant of PostgreSQL"
            ));
        }
    }
    None
}

/// Dead letters, column by column, without those that are repeated within the batch.
#[derive(Default)]
pub(super) struct LetterColumns<'a> {
    pub(super) id: Vec<Uuid>,
    pub(super) service: Vec<Cow<'a, str>>,
    pub(super) topic: Vec<Cow<'a, str>>,
    pub(super) payload: Vec<&'a [u8]>,
    pub(super) reason: Vec<Cow<'a, str>>,
    pub(super) detail: Vec<Cow<'a, str>>,
    pub(super) received_at: Vec<Micros>,
    pub(super) content_hash: Vec<i64>,
    pub(super) redelivered: Vec<bool>,
}

impl<'a> LetterColumns<'a> {
    pub(super) fn of(letters: &'a [DeadLetter]) -> Self {
        let mut columns = Self::default();
        // One statement does not see its own rows, so repetitions within the batch end here.
        let mut seen: HashMap<i64, Vec<&DeadLetter>> = HashMap::new();
        for letter in letters {
            let hash = letter.content_hash();
            let alike = seen.entry(hash).or_default();
            if letter.redelivered && alike.iter().any(|other| other.same_content(letter)) {
                continue;
            }
            alike.push(letter);
            columns.push(letter, hash);
        }
        columns
    }

    fn push(&mut self, letter: &'a DeadLetter, hash: i64) {
        self.id.push(letter.id);
        self.service.push(without_nul(&letter.service));
        self.topic.push(without_nul(&letter.topic));
        self.payload.push(&letter.payload);
        self.reason.push(without_nul(&letter.reason));
        self.detail.push(without_nul(&letter.detail));
        self.received_at.push(nearest_storable(letter.received_at));
        self.content_hash.push(hash);
        self.redelivered.push(letter.redelivered);
    }
}

/// PostgreSQL's text holds no NUL; a dead letter is kept all the same, with a mark in its place.
fn without_nul(text: &str) -> Cow<'_, str> {
    if text.as_bytes().contains(&0) {
        Cow::Owned(text.replace('\0', "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

fn nearest_storable(at: jiff::Timestamp) -> Micros {
    let at = Micros::of(at);
    if at.is_storable() { at } else { Micros(0) }
}
