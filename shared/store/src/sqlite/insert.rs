//! Writing batches through statements that are prepared once.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, Statement, params};

use super::connection::is_about_the_row;
use super::row::{Instant, instant_text, quality_code};
use crate::{Batch, DeadLetter, NewReading, Outcome};

/// Names kept in memory by each of the two dictionaries; about 100 bytes each. Above it the
/// dictionary starts again, and each name costs one look into an index.
const NAMES_MAX: usize = 100_000;

/// Every statement of the write path, for the life of one connection.
pub(super) struct Inserter<'c> {
    series: Dictionary<'c>,
    places: Dictionary<'c>,
    reading: Statement<'c>,
    value: Statement<'c>,
    dead_letter: Statement<'c>,
    redelivered: Statement<'c>,
}

impl<'c> Inserter<'c> {
    pub(super) fn new(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            series: Dictionary {
                ids: HashMap::new(),
                key: Vec::new(),
                find: connection
                    .prepare("SELECT id FROM series WHERE sensor_id = ?1 AND type = ?2")?,
                add: connection.prepare("INSERT INTO series (sensor_id, type) VALUES (?1, ?2)")?,
            },
            places: Dictionary {
                ids: HashMap::new(),
                key: Vec::new(),
                find: connection
                    .prepare("SELECT id FROM place WHERE unit = ?1 AND location = ?2")?,
                add: connection.prepare("INSERT INTO place (unit, location) VALUES (?1, ?2)")?,
            },
            reading: connection.prepare(
                "INSERT INTO reading (minute, series, \"offset\", value, place, battery_percent, quality, delay)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
            )?,
            value: connection.prepare(
                "SELECT value FROM reading WHERE minute = ?1 AND series = ?2 AND \"offset\" = ?3",
            )?,
            dead_letter: connection.prepare(INSERT_DEAD_LETTER)?,
            redelivered: connection.prepare(
                "SELECT 1 FROM dead_letters
                 WHERE content_hash = ?1 AND service = ?2 AND topic = ?3 AND reason = ?4 AND payload = ?5",
            )?,
        })
    }

    /// Writes `batch` inside the open transaction. An error means that the transaction is lost.
    pub(super) fn write(&mut self, batch: &Batch) -> rusqlite::Result<Vec<Outcome>> {
        let mut outcomes = Vec::with_capacity(batch.readings.len());
        for reading in &batch.readings {
            let outcome = match reading.flaw() {
                Some(flaw) => Outcome::Failed(flaw),
                None => match self.write_reading(reading) {
                    Err(error) if is_about_the_row(&error) => Outcome::Failed(error.to_string()),
                    answer => answer?,
                },
            };
            outcomes.push(outcome);
        }
        for letter in &batch.dead_letters {
            self.write_dead_letter(letter)?;
        }
        Ok(outcomes)
    }

    /// Forgets names that a transaction which was rolled back had added.
    pub(super) fn forget_names(&mut self) {
        self.series.ids.clear();
        self.places.ids.clear();
    }

    fn write_reading(&mut self, new: &NewReading) -> rusqlite::Result<Outcome> {
        let reading = &new.reading;
        let series = self.series.id(&reading.sensor_id, &reading.kind)?;
        let place = self.places.id(&reading.unit, &reading.location)?;
        let at = Instant::of(reading.timestamp);
        // Both instants are within jiff's range, whose ends are too close to overflow this.
        let delay = new.received_at.as_microsecond() - reading.timestamp.as_microsecond();
        let added = self.reading.execute(params![
            at.minute,
            series,
            at.offset,
            reading.value,
            place,
            reading.battery_percent,
            reading.quality.map(quality_code),
            delay,
        ])?;
        if added == 1 {
            return Ok(Outcome::Stored);
        }
        let stored: f64 = self
            .value
            .query_row(params![at.minute, series, at.offset], |row| row.get(0))?;
        Ok(Outcome::of_known_key(stored, reading.value))
    }

    fn write_dead_letter(&mut self, letter: &DeadLetter) -> rusqlite::Result<()> {
        let hash = letter.content_hash();
        if letter.redelivered
            && self.redelivered.exists(params![
                hash,
                letter.service,
                letter.topic,
                letter.reason,
                letter.payload
            ])?
        {
            return Ok(());
        }
        insert_dead_letter(&mut self.dead_letter, letter)
    }
}

const INSERT_DEAD_LETTER: &str = "INSERT INTO dead_letters
    (id, service, topic, payload, reason, detail, received_at, content_hash)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING";

/// Writes one dead letter, whether or not there is one like it.
pub(super) fn dead_letter(connection: &Connection, letter: &DeadLetter) -> rusqlite::Result<()> {
    insert_dead_letter(&mut *connection.prepare_cached(INSERT_DEAD_LETTER)?, letter)
}

fn insert_dead_letter(insert: &mut Statement<'_>, letter: &DeadLetter) -> rusqlite::Result<()> {
    insert.execute(params![
        letter.id.to_string(),
        letter.service,
        letter.topic,
        letter.payload,
        letter.reason,
        letter.detail,
        instant_text(letter.received_at),
        letter.content_hash(),
    ])?;
    Ok(())
}

/// Pairs of names that are stored once and referred to by a number. Rows are never deleted from these
/// tables, so what one process remembers stays true whatever the others do.
struct Dictionary<'c> {
    ids: HashMap<Box<[u8]>, i64>,
    /// The pair being looked for, so that a known one costs no allocation.
    key: Vec<u8>,
    find: Statement<'c>,
    add: Statement<'c>,
}

impl Dictionary<'_> {
    fn id(&mut self, first: &str, second: &str) -> rusqlite::Result<i64> {
        // The length keeps ("ab", "c") and ("a", "bc") apart.
        self.key.clear();
        self.key.extend_from_slice(&first.len().to_le_bytes());
        self.key.extend_from_slice(first.as_bytes());
        self.key.extend_from_slice(second.as_bytes());
        if let Some(id) = self.ids.get(self.key.as_slice()) {
            return Ok(*id);
        }
        let known = self
            .find
            .query_row([first, second], |row| row.get(0))
            .optional()?;
        let id = match known {
            Some(id) => id,
            None => self.add.insert([first, second])?,
        };
        if self.ids.len() >= NAMES_MAX {
            self.ids.clear();
        }
        self.ids.insert(self.key.as_slice().into(), id);
        Ok(id)
    }
}
