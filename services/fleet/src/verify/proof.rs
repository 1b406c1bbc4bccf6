//! The comparison itself, in bounded memory.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;

use device_sim::ledger::{self, Entry, LedgerError};
use fleet_store::{ReadingKey, Store, StoreError};
use serde::Serialize;

/// Keys that the store is asked for at once.
const LOOKUP: usize = 4_000;
/// Bytes of ledger whose readings are remembered at once: 1.3 million entries of 200 bytes, for
/// which the memory below takes some 100 MB. A longer ledger is read several times, each time for
/// another share of the keys.
const SHARE_BYTES: u64 = 256 * 1024 * 1024;
/// Findings of each kind that are told.
const FINDINGS: usize = 10;

/// Why the comparison has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The ledger cannot be read, or is none.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Acknowledgements in the ledger.
    pub published: u64,
    /// Different readings among them.
    pub acknowledged: u64,
    /// Those that the store has.
    pub stored: u64,
    /// Those that it has not.
    pub missing: u64,
    /// Keys with more than one row in the store.
    pub duplicates: u64,
    /// Readings whose value in the store is not that of the ledger.
    pub conflicts: u64,
}

impl Counts {
    /// Whether every acknowledged reading is stored once, with its value.
    #[must_use]
    pub fn hold(&self) -> bool {
        self.missing == 0 && self.duplicates == 0 && self.conflicts == 0
    }
}

/// A reading that is missing or different.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Which reading.
    pub key: ReadingKey,
    /// Where it was published.
    pub topic: String,
    /// Its value in the ledger.
    pub value: f64,
    /// Its value in the store; none when it is missing.
    pub stored: Option<f64>,
}

/// The result of a comparison; `Display` shows it to people.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Proof {
    /// The numbers.
    pub counts: Counts,
    /// The first missing readings, at most ten.
    pub missing: Vec<Finding>,
    /// The first readings with another value, at most ten.
    pub conflicts: Vec<Finding>,
}

/// Looks every reading of the ledger up in the store.
///
/// The ledger may be written meanwhile; what is appended after the start may be left out. Memory
/// is bounded whatever its length. Keys are remembered by 128 bits of two keyed hashes: that two
/// of a billion readings are taken for one is less likely than a broken disk.
///
/// # Errors
/// When ledger or store cannot be read: then nothing is proven.
pub async fn verify(ledger: &Path, store: &dyn Store) -> Result<Proof, VerifyError> {
    let bytes = std::fs::metadata(ledger).map_or(0, |file| file.len());
    verify_shares(ledger, store, bytes / SHARE_BYTES + 1).await
}

async fn verify_shares(
    ledger: &Path,
    store: &dyn Store,
    shares: u64,
) -> Result<Proof, VerifyError> {
    let mut proof = Proof::default();
    let hashes = [RandomState::new(), RandomState::new()];
    for share in 0..shares {
        let mut memory = Memory::default();
        let mut batch = Vec::with_capacity(LOOKUP);
        let mut lines = 0;
        for entry in ledger::read(ledger)? {
            // Later rounds end where the first one did, or they would count what is new.
            if share > 0 && lines == proof.counts.published {
                break;
            }
            lines += 1;
            let entry = entry?;
            let fingerprint = fingerprint(&hashes, &entry);
            if fingerprint % u128::from(shares) != u128::from(share) {
                continue;
            }
            if memory.is_news(fingerprint, entry.value, &mut proof.counts) {
                batch.push((fingerprint, entry));
            }
            if batch.len() == LOOKUP {
                look_up(store, &mut batch, &mut memory, &mut proof).await?;
            }
        }
        look_up(store, &mut batch, &mut memory, &mut proof).await?;
        proof.counts.published = lines;
        proof.counts.conflicts += memory.conflicting.len() as u64;
    }
    proof.counts.duplicates = store.duplicate_keys().await?;
    Ok(proof)
}

/// What is known of the readings of one share.
#[derive(Default)]
struct Memory {
    /// The value with which a reading was first seen, as bits.
    values: HashMap<u128, u64>,
    conflicting: HashSet<u128>,
}

impl Memory {
    /// Whether a reading is to be looked up: not when the ledger had it before with that value.
    fn is_news(&mut self, fingerprint: u128, value: f64, counts: &mut Counts) -> bool {
        match self.values.get(&fingerprint) {
            None => {
                self.values.insert(fingerprint, value.to_bits());
                counts.acknowledged += 1;
                true
            }
            Some(first) => {
                // The store keeps one of the two, so one of them cannot be there.
                if f64::from_bits(*first) != value {
                    self.conflicting.insert(fingerprint);
                }
                false
            }
        }
    }
}

fn fingerprint(hashes: &[RandomState; 2], entry: &Entry) -> u128 {
    let key = (
        &entry.sensor_id,
        &entry.kind,
        entry.timestamp.as_microsecond(),
    );
    let [high, low] = hashes.each_ref().map(|hash| u128::from(hash.hash_one(key)));
    high << 64 | low
}

async fn look_up(
    store: &dyn Store,
    batch: &mut Vec<(u128, Entry)>,
    memory: &mut Memory,
    proof: &mut Proof,
) -> Result<(), VerifyError> {
    let keys: Vec<_> = batch
        .iter()
        .map(|(_, entry)| ReadingKey {
            sensor_id: entry.sensor_id.clone(),
            kind: entry.kind.clone(),
            timestamp: entry.timestamp,
        })
        .collect();
    let stored = store.lookup(&keys).await?;
    for (((fingerprint, entry), key), stored) in batch.drain(..).zip(keys).zip(stored) {
        let list = match stored {
            Some(value) => {
                proof.counts.stored += 1;
                if value == entry.value {
                    continue;
                }
                memory.conflicting.insert(fingerprint);
                &mut proof.conflicts
            }
            None => {
                proof.counts.missing += 1;
                &mut proof.missing
            }
        };
        if list.len() < FINDINGS {
            list.push(Finding {
                key,
                topic: entry.topic,
                value: entry.value,
                stored,
            });
        }
    }
    Ok(())
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        for (name, count) in [
            ("published", counts.published),
            ("acknowledged", counts.acknowledged),
            ("stored", counts.stored),
            ("missing", counts.missing),
            ("duplicates", counts.duplicates),
            ("conflicts", counts.conflicts),
        ] {
            writeln!(f, "{name:<13} {count:>12}")?;
        }
        list(f, "missing", &self.missing, counts.missing)?;
        list(f, "different", &self.conflicts, counts.conflicts)?;
        f.write_str(if counts.hold() {
            "\nEvery acknowledged reading is stored, once, with its value.\n"
        } else {
            "\nThe store does not hold what the broker has acknowledged.\n"
        })
    }
}

fn list(f: &mut fmt::Formatter<'_>, title: &str, findings: &[Finding], count: u64) -> fmt::Result {
    if findings.is_empty() {
        return Ok(());
    }
    writeln!(f, "\n{title}, {} of {count}:", findings.len())?;
    for Finding {
        key,
        topic,
        value,
        stored,
    } in findings
    {
        let ReadingKey {
            sensor_id,
            kind,
            timestamp,
        } = key;
        write!(f, "  {sensor_id} {kind} {timestamp} on {topic}: {value}")?;
        match stored {
            Some(stored) => writeln!(f, " in the ledger, {stored} in the store")?,
            None => writeln!(f)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fleet_shared::config::DatabaseUrl;
    use fleet_shared::model::SensorReading;
    use fleet_shared::session::QoS;
    use fleet_store::{Batch, NewReading, OpenOptions};
    use jiff::Timestamp;

    use super::*;

    #[actix::test]
    async fn a_ledger_is_compared_in_shares_with_the_same_result() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        let ledger = ledger::Ledger::open(&path).unwrap();
        let url = DatabaseUrl::Sqlite(folder.path().join("fleet.db"));
        let store = fleet_store::open(&url, OpenOptions::writer("test"))
            .await
            .unwrap();
        let mut batch = Batch::default();
        // 9,000 readings, of which every ninth is published twice, every tenth is missing and
        // every hundredth has another value.
        for number in 0..10_000_i64 {
            let timestamp = Timestamp::from_microsecond(number % 9_000).unwrap();
            let entry = ledger::NewEntry {
                sensor_id: "s",
                kind: "temperature",
                timestamp,
                value: 0.5,
                qos: QoS::AtLeastOnce,
                topic: "sensors/hall/temperature",
                acknowledged_at: timestamp,
            };
            ledger.append(&entry).unwrap();
            if number < 9_000 && number % 10 != 1 {
                let reading = SensorReading {
                    sensor_id: "s".to_owned(),
                    kind: "temperature".to_owned(),
                    value: if number % 100 == 0 { 0.25 } else { 0.5 },
                    unit: String::new(),
                    location: "hall".to_owned(),
                    timestamp,
                    battery_percent: None,
                    quality: None,
                };
                batch.readings.push(NewReading {
                    reading,
                    received_at: timestamp,
                });
            }
        }
        ledger.close().unwrap();
        store.write_batch(Arc::new(batch)).await.unwrap();
        let expected = Counts {
            published: 10_000,
            acknowledged: 9_000,
            stored: 8_100,
            missing: 900,
            duplicates: 0,
            conflicts: 90,
        };
        for shares in [1, 3] {
            let proof = verify_shares(&path, store.as_ref(), shares).await.unwrap();
            assert_eq!(proof.counts, expected, "{shares}");
            assert_eq!(
                (proof.missing.len(), proof.conflicts.len()),
                (FINDINGS, FINDINGS)
            );
        }
    }
}
