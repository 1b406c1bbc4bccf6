//! Writing batches: one statement for all readings, in key order.
//!
//! Up to some thousands of rows, arrays through `unnest` cost less than COPY into a temporary table
//! and an insert from there, and need no second step to skip what is known.

use std::collections::HashSet;
use std::iter;
use std::ops::Range;

use deadpool_postgres::{Client, GenericClient, Transaction};
use tokio_postgres::{Error, Row};

use super::columns::{Columns, LetterColumns};
use super::error::is_about_a_row;
use super::value::Micros;
use crate::{Batch, DeadLetter, Outcome};

/// Inserts what is new. The first row counts it; the keys follow only if some were not, which is
/// seldom, and spares reading them back.
const INSERT: &str = "WITH inserted AS (
    INSERT INTO readings (sensor_id, type, timestamp, value, unit, location, battery_percent, quality, received_at)
    SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::float8[], $5::text[], $6::text[], $7::int2[], $8::text[], $9::timestamptz[])
    ON CONFLICT (sensor_id, type, timestamp) DO NOTHING
    RETURNING sensor_id, type, timestamp)
SELECT count(*), NULL::text, NULL::text, NULL::timestamptz FROM inserted
UNION ALL
SELECT NULL, sensor_id, type, timestamp FROM inserted WHERE (SELECT count(*) FROM inserted) < $10";

/// The values stored under keys, with the place of each key among those asked for.
const VALUES: &str = "SELECT asked.place, stored.value
FROM unnest($1::text[], $2::text[], $3::timestamptz[]) WITH ORDINALITY AS asked (sensor_id, type, timestamp, place)
JOIN readings AS stored ON stored.sensor_id = asked.sensor_id COLLATE \"C\"
    AND stored.type = asked.type COLLATE \"C\" AND stored.timestamp = asked.timestamp";

const INSERT_DEAD_LETTERS: &str = "INSERT INTO dead_letters (id, service, topic, payload, reason, detail, received_at, content_hash)
SELECT id, service, topic, payload, reason, detail, received_at, content_hash
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[], $5::text[], $6::text[], $7::timestamptz[], $8::int8[], $9::bool[])
    AS new (id, service, topic, payload, reason, detail, received_at, content_hash, redelivered)
WHERE NOT new.redelivered OR NOT EXISTS (
    SELECT FROM dead_letters AS old
    WHERE old.content_hash = new.content_hash AND old.service = new.service AND old.topic = new.topic
        AND old.reason = new.reason AND old.payload = new.payload)
ON CONFLICT (id) DO NOTHING";

/// Writes `batch` in one transaction.
///
/// `None` for a reading means that its row was there when it was inserted and gone when it was
/// compared: retention deleted it in between, and the batch is to be written again.
pub(super) async fn write(
    client: &mut Client,
    batch: &Batch,
) -> Result<Vec<Option<Outcome>>, Error> {
    let columns = Columns::of(&batch.readings);
    let mut outcomes = Outcomes::new(batch, &columns);
    let written = if batch.dead_letters.is_empty() {
        // One statement is a transaction by itself, and one round trip.
        insert(client, &columns, 0..columns.len(), &mut outcomes).await
    } else {
        write_together(client, &columns, &batch.dead_letters, &mut outcomes).await
    };
    match written {
        Err(error) if is_about_a_row(&error) => {
            outcomes = Outcomes::new(batch, &columns);
            write_around(client, &columns, &batch.dead_letters, &mut outcomes).await?;
        }
        written => written?,
    }
    outcomes.compare(client, &columns).await?;
    Ok(outcomes.by_place)
}

async fn write_together(
    client: &mut Client,
    columns: &Columns<'_>,
    dead_letters: &[DeadLetter],
    outcomes: &mut Outcomes,
) -> Result<(), Error> {
    let transaction = client.transaction().await?;
    insert(&transaction, columns, 0..columns.len(), outcomes).await?;
    insert_dead_letters(&transaction, dead_letters).await?;
    transaction.commit().await
}

/// Writes around rows that PostgreSQL refuses for what is in them: a part that is refused is
/// halved until the row that is to blame stands alone. Each such row costs some twenty statements.
async fn write_around(
    client: &mut Client,
    columns: &Columns<'_>,
    dead_letters: &[DeadLetter],
    outcomes: &mut Outcomes,
) -> Result<(), Error> {
    let mut transaction = client.transaction().await?;
    // The later half waits below the earlier one, so that rows are still inserted in order.
    let mut parts: Vec<Range<usize>> = iter::once(0..columns.len()).collect();
    while let Some(part) = parts.pop() {
        let savepoint = transaction.transaction().await?;
        match insert(&savepoint, columns, part.clone(), outcomes).await {
            Ok(()) => savepoint.commit().await?,
            Err(error) if is_about_a_row(&error) => {
                savepoint.rollback().await?;
                let middle = part.start + part.len() / 2;
                if part.len() <= 1 {
                    outcomes.fail(columns, part, &error);
                } else {
                    parts.push(middle..part.end);
                    parts.push(part.start..middle);
                }
            }
            Err(error) => return Err(error),
        }
    }
    insert_dead_letters(&transaction, dead_letters).await?;
    transaction.commit().await
}

async fn insert(
    client: &impl GenericClient,
    columns: &Columns<'_>,
    part: Range<usize>,
    outcomes: &mut Outcomes,
) -> Result<(), Error> {
    if part.is_empty() {
        return Ok(());
    }
    let statement = client.prepare_cached(INSERT).await?;
    let asked = i64::try_from(part.len()).unwrap_or(i64::MAX);
    let rows = client
        .query(
            &statement,
            &[
                &&columns.sensor_id[part.clone()],
                &&columns.kind[part.clone()],
                &&columns.timestamp[part.clone()],
                &&columns.value[part.clone()],
                &&columns.unit[part.clone()],
                &&columns.location[part.clone()],
                &&columns.battery_percent[part.clone()],
                &&columns.quality[part.clone()],
                &&columns.received_at[part.clone()],
                &asked,
            ],
        )
        .await?;
    outcomes.note(columns, part, &rows)
}

pub(super) async fn insert_dead_letters(
    transaction: &Transaction<'_>,
    dead_letters: &[DeadLetter],
) -> Result<(), Error> {
    let columns = LetterColumns::of(dead_letters);
    let statement = transaction.prepare_cached(INSERT_DEAD_LETTERS).await?;
    transaction
        .execute(
            &statement,
            &[
                &columns.id,
                &columns.service,
                &columns.topic,
                &columns.payload,
                &columns.reason,
                &columns.detail,
                &columns.received_at,
                &columns.content_hash,
                &columns.redelivered,
            ],
        )
        .await
        .map(|_| ())
}

/// What is known so far about each reading of the batch.
struct Outcomes {
    by_place: Vec<Option<Outcome>>,
    /// Positions in the columns of the rows that were not new.
    known: Vec<usize>,
}

impl Outcomes {
    fn new(batch: &Batch, columns: &Columns<'_>) -> Self {
        let mut by_place = vec![None; batch.readings.len()];
        for (place, flaw) in &columns.flaws {
            by_place[*place] = Some(Outcome::Failed(flaw.clone()));
        }
        Self {
            by_place,
            known: Vec::new(),
        }
    }

    /// Takes the answer of [`INSERT`] for `part`. Of rows with the same key the first was inserted.
    fn note(
        &mut self,
        columns: &Columns<'_>,
        part: Range<usize>,
        rows: &[Row],
    ) -> Result<(), Error> {
        let Some((count, inserted)) = rows.split_first() else {
            self.known.extend(part);
            return Ok(());
        };
        if usize::try_from(count.try_get::<_, i64>(0)?) == Ok(part.len()) {
            for position in part {
                self.by_place[columns.places[position]] = Some(Outcome::Stored);
            }
            return Ok(());
        }
        let mut new = HashSet::with_capacity(inserted.len());
        for row in inserted {
            let key: (&str, &str, Micros) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
            new.insert(key);
        }
        for position in part {
            if new.remove(&columns.key(position)) {
                self.by_place[columns.places[position]] = Some(Outcome::Stored);
            } else {
                self.known.push(position);
            }
        }
        Ok(())
    }

    fn fail(&mut self, columns: &Columns<'_>, part: Range<usize>, error: &Error) {
        let reason = match error.as_db_error() {
            Some(reported) => format!("PostgreSQL refuses it: {}", reported.message()),
            None => format!("PostgreSQL refuses it: {error}"),
        };
        for position in part {
            self.by_place[columns.places[position]] = Some(Outcome::Failed(reason.clone()));
        }
    }

    /// Compares the readings whose keys were there with what is stored under them. This is a statement
    /// of its own, because the insert does not see rows that another writer committed meanwhile.
    async fn compare(&mut self, client: &Client, columns: &Columns<'_>) -> Result<(), Error> {
        if self.known.is_empty() {
            return Ok(());
        }
        let sensor_id = picked(&columns.sensor_id, &self.known);
        let kind = picked(&columns.kind, &self.known);
        let timestamp = picked(&columns.timestamp, &self.known);
        for (asked, stored) in values(client, &sensor_id, &kind, &timestamp).await? {
            let position = self.known[asked];
            let outcome = Outcome::of_known_key(stored, columns.value[position]);
            self.by_place[columns.places[position]] = Some(outcome);
        }
        Ok(())
    }
}

fn picked<T: Copy>(column: &[T], positions: &[usize]) -> Vec<T> {
    positions.iter().map(|position| column[*position]).collect()
}

/// The values stored under keys, each with the position of its key among those asked for.
pub(super) async fn values(
    client: &Client,
    sensor_id: &[&str],
    kind: &[&str],
    timestamp: &[Micros],
) -> Result<Vec<(usize, f64)>, Error> {
    let statement = client.prepare_cached(VALUES).await?;
    let rows = client
        .query(&statement, &[&sensor_id, &kind, &timestamp])
        .await?;
    let found = rows.iter().map(|row| {
        let place = usize::try_from(row.try_get::<_, i64>(0)?).unwrap_or(0);
        Ok((place.saturating_sub(1), row.try_get(1)?))
    });
    found.collect()
}
