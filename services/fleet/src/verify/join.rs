//! The comparison itself, in bounded memory.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::time::Duration;

use device_sim::ledger::{self, DeadLetterEntry, Entry, LedgerError, Line, OpenEntry};
use fleet_shared::model::{Limits, RejectReason, SensorReading};
use fleet_store::{DeadLetterFilter, ReadingKey, Store, StoreError, StoredReading};
use hdrhistogram::Histogram;
use jiff::Timestamp;

use super::report::{Delivery, Finding, Kind, Proof};

/// Keys that the store is asked for at once.
const LOOKUP: usize = 4_000;
/// Rows of one page of the store.
const PAGE: u32 = 10_000;
/// Dead letters of one page: at most 64 MB, should each be as large as a payload may be.
const LETTERS_PAGE: u32 = 1_000;
/// Bytes of ledger whose readings are remembered at once: 650,000 entries of 200 bytes, for which
/// the memory below takes some 100 MB. A longer ledger is read several times, each time for another
/// share of the keys.
const SHARE_BYTES: u64 = 128 * 1024 * 1024;
/// Dead letters that are remembered; what is beyond is not compared.
const LETTERS_MAX: usize = 2_000_000;
/// Rows without a line that are remembered, to look for their lines a second time.
const STRAYS_MAX: usize = 100_000;
/// A row may be stored before the device has its acknowledgement and the ledger its line, and before
/// the run by the clock of another machine.
const SLACK: Duration = Duration::from_secs(5);
/// Longest latency that is told apart, in microseconds: an hour.
const MICROS_MAX: u64 = 3_600_000_000;

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

/// Joins a ledger with a store.
///
/// The ledger may be written meanwhile; what is appended after the start may be left out. Memory
/// is bounded whatever its length. Keys are remembered by 128 bits of two keyed hashes: that two
/// of a billion readings are taken for one is less likely than a broken disk.
///
/// A reading is late when it reached the store more than `late_after` after its acknowledgement.
/// Rows and dead letters are of this run, and so to be explained, when they reached the store
/// between its first publish and now and are of one of its sensors, or on one of its topics.
///
/// # Errors
/// When ledger or store cannot be read: then nothing is proven.
pub async fn verify(
    ledger: &Path,
    store: &dyn Store,
    late_after: Duration,
) -> Result<Proof, VerifyError> {
    let bytes = std::fs::metadata(ledger).map_or(0, |file| file.len());
    verify_shares(ledger, store, late_after, bytes / SHARE_BYTES + 1).await
}

pub(super) async fn verify_shares(
    ledger: &Path,
    store: &dyn Store,
    late_after: Duration,
    shares: u64,
) -> Result<Proof, VerifyError> {
    let mut join = Join {
        hashes: [RandomState::new(), RandomState::new()],
        late_micros: i64::try_from(late_after.as_micros()).unwrap_or(i64::MAX),
        now: Timestamp::now().as_microsecond(),
        proof: Proof::default(),
        run: Run::default(),
        letters: HashMap::new(),
        contradicted: HashMap::new(),
        strays: HashMap::new(),
        latencies: Histogram::new_with_bounds(1, MICROS_MAX, 3).ok(),
        lines: u64::MAX,
    };
    join.read_letters(store).await?;
    for share in 0..shares {
        let mut memory = join.read_ledger(ledger, store, share, shares).await?;
        join.read_store(store, &mut memory, share, shares).await?;
    }
    join.explain_strays(ledger)?;
    join.proof.counts.duplicates = store.duplicate_keys().await?;
    Ok(join.finish())
}

/// What of the ledger says which rows belong to the run.
#[derive(Default)]
struct Run {
    began: Option<i64>,
    series: HashSet<u64>,
    topics: HashSet<u64>,
}

/// A dead letter in the store.
#[derive(Clone, Copy)]
struct Letter {
    reason: Option<RejectReason>,
    topic: u64,
    received_at: i64,
    explained: bool,
}

/// A reading of the ledger.
#[derive(Clone, Copy)]
struct Known {
    /// The value with which it was first seen, as bits; none when it was kept back.
    value: u64,
    acknowledged_at: i64,
    published_at: Option<i64>,
    status: Status,
    rows: u8,
    /// It was counted as a conflict.
    conflicting: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    Acknowledged,
    Open,
    Withheld,
}

type Memory = HashMap<u128, Known>;

struct Join {
    hashes: [RandomState; 2],
    late_micros: i64,
    now: i64,
    proof: Proof,
    run: Run,
    letters: HashMap<u128, Letter>,
    /// Readings that are dead letters, because the store had another value: what they said, and
    /// which letter it is.
    contradicted: HashMap<u128, (u64, u128)>,
    strays: HashMap<u128, Finding>,
    latencies: Option<Histogram<u64>>,
    /// Lines that the first round has read: later rounds end there, or they would count what is
    /// new.
    lines: u64,
}

impl Join {
    fn key(&self, sensor_id: &str, kind: &str, timestamp: Timestamp) -> u128 {
        self.fingerprint((sensor_id, kind, timestamp.as_microsecond()))
    }

    fn letter(&self, topic: &str, payload_hash: &str) -> u128 {
        self.fingerprint((topic, payload_hash))
    }

    fn fingerprint(&self, of: impl std::hash::Hash) -> u128 {
        let [high, low] = self
            .hashes
            .each_ref()
            .map(|hash| u128::from(hash.hash_one(&of)));
        high << 64 | low
    }

    fn series(&self, sensor_id: &str, kind: &str) -> u64 {
        self.hashes[0].hash_one((sensor_id, kind))
    }

    async fn read_letters(&mut self, store: &dyn Store) -> Result<(), VerifyError> {
        let mut after = None;
        while self.letters.len() < LETTERS_MAX {
            let filter = DeadLetterFilter::default();
            let page = store.dead_letters(filter, after, LETTERS_PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            for letter in page {
                let id = self.letter(&letter.topic, &ledger::payload_hash(&letter.payload));
                let reason = RejectReason::from_name(&letter.reason);
                if reason == Some(RejectReason::Conflict)
                    && let Ok(said) = SensorReading::parse(&letter.payload, &Limits::default())
                {
                    let key = self.key(&said.sensor_id, &said.kind, said.timestamp);
                    self.contradicted.insert(key, (said.value.to_bits(), id));
                }
                let topic = self.hashes[0].hash_one(letter.topic.as_str());
                self.letters.insert(
                    id,
                    Letter {
                        reason,
                        topic,
                        received_at: letter.received_at.as_microsecond(),
                        explained: false,
                    },
                );
            }
        }
        Ok(())
    }

    /// Reads the ledger for one share of the keys, and looks its readings up.
    async fn read_ledger(
        &mut self,
        ledger: &Path,
        store: &dyn Store,
        share: u64,
        shares: u64,
    ) -> Result<Memory, VerifyError> {
        let mut memory = Memory::new();
        let mut batch = Vec::with_capacity(LOOKUP);
        let mut refused = Vec::new();
        let mut lines = 0;
        let first = share == 0;
        for line in ledger::read_lines(ledger)? {
            if lines == self.lines {
                break;
            }
            lines += 1;
            let line = line?;
            if first {
                self.note(&line);
            }
            let own = |key: u128| key % u128::from(shares) == u128::from(share);
            match line {
                Line::Acknowledged(entry) => {
                    let key = self.key(&entry.sensor_id, &entry.kind, entry.timestamp);
                    if own(key) && self.is_news(&mut memory, key, &entry) {
                        batch.push((key, entry));
                    }
                }
                Line::Open(entry) => {
                    let key = self.key(&entry.sensor_id, &entry.kind, entry.timestamp);
                    if own(key) {
                        memory.entry(key).or_insert_with(|| Known::open(&entry));
                    }
                }
                Line::Withheld(entry) => {
                    let key = self.key(&entry.sensor_id, &entry.kind, entry.timestamp);
                    if own(key) {
                        memory.entry(key).or_insert_with(Known::withheld);
                    }
                }
                Line::DeadLetter(entry) => {
                    // With the reading it was made of, since a conflict is told by that.
                    let key = self.key(&entry.sensor_id, &entry.kind, entry.timestamp);
                    if own(key) {
                        refused.push((key, entry));
                    }
                }
                Line::Link(_) => {}
            }
            if batch.len() == LOOKUP {
                self.look_up(store, &mut batch, &mut memory, &refused)
                    .await?;
            }
        }
        self.look_up(store, &mut batch, &mut memory, &refused)
            .await?;
        if first {
            self.lines = lines;
        }
        for (key, entry) in refused {
            self.refused(key, &entry, &memory);
        }
        Ok(memory)
    }

    /// What the first round takes from a line.
    fn note(&mut self, line: &Line) {
        let (topic, series, at) = match line {
            Line::Acknowledged(entry) => {
                self.proof.counts.published += 1;
                for intent in entry.intent.iter().flat_map(|intents| intents.split('+')) {
                    self.fault(intent, entry.acknowledged_at);
                }
                let at = entry.acknowledged_at.as_microsecond();
                self.proof.timeline.at(at).acknowledged += 1;
                let published = entry.published_at.unwrap_or(entry.acknowledged_at);
                (
                    Some(entry.topic.as_str()),
                    Some((&entry.sensor_id, &entry.kind)),
                    Some(published.as_microsecond()),
                )
            }
            Line::DeadLetter(entry) => {
                self.fault(&entry.intent, entry.acknowledged_at);
                let at = entry.acknowledged_at.as_microsecond();
                (Some(entry.topic.as_str()), None, Some(at))
            }
            Line::Open(entry) => (
                Some(entry.topic.as_str()),
                Some((&entry.sensor_id, &entry.kind)),
                None,
            ),
            Line::Withheld(entry) => {
                *self.proof.faults.entry(entry.withheld.clone()).or_default() += 1;
                (None, Some((&entry.sensor_id, &entry.kind)), None)
            }
            Line::Link(entry) => {
                self.fault(entry.link.as_str(), entry.at);
                (None, None, None)
            }
        };
        if let Some(topic) = topic {
            let topic = self.hashes[0].hash_one(topic);
            self.run.topics.insert(topic);
        }
        if let Some((sensor_id, kind)) = series {
            let series = self.series(sensor_id, kind);
            self.run.series.insert(series);
        }
        self.run.began = match (self.run.began, at) {
            (Some(began), Some(at)) => Some(began.min(at)),
            (began, at) => began.or(at),
        };
    }

    fn fault(&mut self, name: &str, at: Timestamp) {
        *self.proof.faults.entry(name.to_owned()).or_default() += 1;
        self.proof.timeline.at(at.as_microsecond()).faults += 1;
    }

    /// Whether an acknowledged reading is to be looked up: not when the ledger had it before.
    fn is_news(&mut self, memory: &mut Memory, key: u128, entry: &Entry) -> bool {
        let at = entry.acknowledged_at.as_microsecond();
        let Some(known) = memory.get_mut(&key) else {
            memory.insert(key, Known::acknowledged(entry));
            self.proof.counts.acknowledged += 1;
            return true;
        };
        if known.status != Status::Acknowledged {
            *known = Known::acknowledged(entry);
            self.proof.counts.acknowledged += 1;
            return true;
        }
        let reading = || ReadingKey {
            sensor_id: entry.sensor_id.clone(),
            kind: entry.kind.clone(),
            timestamp: entry.timestamp,
        };
        // The store keeps one of the two, so one of them cannot be there.
        if f64::from_bits(known.value) != entry.value {
            if !std::mem::replace(&mut known.conflicting, true) {
                let (one, other) = (f64::from_bits(known.value), entry.value);
                let detail = format!("{one} in the ledger, and {other} in another line of it");
                self.proof.counts.conflicts += 1;
                self.proof
                    .find(Kind::Conflict, || Finding::of(&reading(), detail));
            }
        } else if known.acknowledged_at == at {
            self.proof.counts.repeated += 1;
            let detail = format!(
                "two lines with one acknowledgement, at {}",
                entry.acknowledged_at
            );
            self.proof
                .find(Kind::Repeated, || Finding::of(&reading(), detail));
        }
        false
    }

    async fn look_up(
        &mut self,
        store: &dyn Store,
        batch: &mut Vec<(u128, Entry)>,
        memory: &mut Memory,
        refused: &[(u128, DeadLetterEntry)],
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
        for (((key, entry), reading), stored) in batch.drain(..).zip(keys).zip(stored) {
            let Entry { topic, value, .. } = &entry;
            match stored {
                Some(stored) => {
                    self.proof.counts.stored += 1;
                    if stored == *value || self.is_swapped(key, *value, refused) {
                        continue;
                    }
                    let known = memory.get_mut(&key);
                    if known.is_some_and(|it| std::mem::replace(&mut it.conflicting, true)) {
                        continue;
                    }
                    self.proof.counts.conflicts += 1;
                    let detail =
                        format!("{value} in the ledger, {stored} in the store, on {topic}");
                    self.proof
                        .find(Kind::Conflict, || Finding::of(&reading, detail));
                }
                None => {
                    self.proof.counts.missing += 1;
                    let at = entry.acknowledged_at.as_microsecond();
                    self.proof.timeline.at(at).missing += 1;
                    let detail = format!(
                        "{value} on {topic}, acknowledged at {}",
                        entry.acknowledged_at
                    );
                    self.proof
                        .find(Kind::Missing, || Finding::of(&reading, detail));
                }
            }
        }
        Ok(())
    }

    /// Whether a reading and another value for it, which was published on purpose, have overtaken
    /// each other: then the one is stored, the other a dead letter, and it does not matter which.
    fn is_swapped(&mut self, key: u128, value: f64, refused: &[(u128, DeadLetterEntry)]) -> bool {
        let Some((said, letter)) = self.contradicted.get(&key).copied() else {
            return false;
        };
        let meant = |(of, entry): &(u128, DeadLetterEntry)| {
            *of == key && entry.dead_letter == RejectReason::Conflict
        };
        // The line of the other value may stand further below, and then only the letter tells.
        let swapped = f64::from_bits(said) == value
            && (refused.iter().any(meant) || !refused.iter().any(|(of, _)| *of == key));
        if swapped && let Some(letter) = self.letters.get_mut(&letter) {
            letter.explained = true;
        }
        swapped
    }

    /// A message that had to be refused.
    fn refused(&mut self, key: u128, entry: &DeadLetterEntry, memory: &Memory) {
        let id = self.letter(&entry.topic, &entry.payload_hash);
        let what = || format!("{} on {}", entry.intent, entry.topic);
        if let Some(letter) = self.letters.get_mut(&id) {
            letter.explained = true;
            if letter.reason == Some(entry.dead_letter) {
                self.proof.counts.dead_lettered += 1;
                return;
            }
            let reason = letter.reason.map_or("another reason", RejectReason::as_str);
            let detail = format!("it is a dead letter for {reason}");
            self.proof.counts.not_dead_lettered += 1;
            self.proof.find(Kind::NotDeadLettered, || Finding {
                what: what(),
                detail,
            });
            return;
        }
        // The other of the two became the dead letter.
        let swapped = entry.dead_letter == RejectReason::Conflict
            && self.contradicted.get(&key).is_some_and(|(said, _)| {
                memory.get(&key).is_some_and(|known| known.value == *said)
            });
        if swapped {
            self.proof.counts.dead_lettered += 1;
            return;
        }
        self.proof.counts.not_dead_lettered += 1;
        let detail = format!(
            "acknowledged at {} and no dead letter",
            entry.acknowledged_at
        );
        self.proof.find(Kind::NotDeadLettered, || Finding {
            what: what(),
            detail,
        });
    }

    /// Reads the store for one share of the keys.
    async fn read_store(
        &mut self,
        store: &dyn Store,
        memory: &mut Memory,
        share: u64,
        shares: u64,
    ) -> Result<(), VerifyError> {
        let mut after = None;
        loop {
            let page = store.scan_readings(after, PAGE).await?;
            let last = page.last().map(|last| ReadingKey::of(&last.reading));
            for row in &page {
                let reading = &row.reading;
                let key = self.key(&reading.sensor_id, &reading.kind, reading.timestamp);
                if key % u128::from(shares) == u128::from(share) {
                    self.row(row, key, memory.get_mut(&key));
                }
            }
            // Not the emptiness of a page: where a key is there twice, the pages behind it may never
            // get past it.
            if page.len() < PAGE as usize {
                break;
            }
            after = last;
        }
        for known in memory.values() {
            match (known.status, known.rows) {
                (Status::Open, 0) => self.proof.counts.open_lost += 1,
                (Status::Open, _) => self.proof.counts.open_stored += 1,
                _ => {}
            }
        }
        Ok(())
    }

    fn row(&mut self, row: &StoredReading, key: u128, known: Option<&mut Known>) {
        let received_at = row.received_at.as_microsecond();
        let reading = || ReadingKey::of(&row.reading);
        let value = row.reading.value;
        let Some(known) = known else {
            let series = self.series(&row.reading.sensor_id, &row.reading.kind);
            if self.run.series.contains(&series) && self.is_of_the_run(received_at) {
                self.stray(key, row, "no line of the ledger has it");
            }
            return;
        };
        known.rows = known.rows.saturating_add(1);
        if known.rows == 2 {
            let detail = format!(
                "a second row, with {value}, received at {}",
                row.received_at
            );
            self.proof
                .find(Kind::Duplicate, || Finding::of(&reading(), detail));
        }
        match known.status {
            Status::Withheld if self.is_of_the_run(received_at) => {
                self.stray(key, row, "it was kept back on purpose");
            }
            Status::Acknowledged if known.rows == 1 => {
                if let Some(published) = known.published_at
                    && received_at >= published
                {
                    let micros = received_at - published;
                    let step = self.proof.timeline.at(received_at);
                    step.stored += 1;
                    step.delivered(micros);
                    if let Some(latencies) = &mut self.latencies {
                        latencies.saturating_record(micros.unsigned_abs());
                    }
                }
                let behind = received_at.saturating_sub(known.acknowledged_at);
                if behind > self.late_micros {
                    self.proof.counts.late += 1;
                    let detail = format!("{:.1} s after its acknowledgement", behind as f64 / 1e6);
                    self.proof
                        .find(Kind::Late, || Finding::of(&reading(), detail));
                }
            }
            _ => {}
        }
    }

    fn stray(&mut self, key: u128, row: &StoredReading, why: &str) {
        self.proof.counts.unexplained += 1;
        if self.strays.len() < STRAYS_MAX {
            let detail = format!(
                "{}, received at {}; {why}",
                row.reading.value, row.received_at
            );
            self.strays
                .insert(key, Finding::of(&ReadingKey::of(&row.reading), detail));
        }
    }

    /// Whether something that reached the store then did so in this run.
    fn is_of_the_run(&self, received_at: i64) -> bool {
        let slack = i64::try_from(SLACK.as_micros()).unwrap_or(i64::MAX);
        self.run.began.is_some_and(|began| {
            received_at >= began.saturating_sub(slack) && received_at <= self.now
        })
    }

    /// What was stored before its line was in the ledger has it by now.
    fn explain_strays(&mut self, ledger: &Path) -> Result<(), VerifyError> {
        if self.strays.is_empty() {
            return Ok(());
        }
        let skip = usize::try_from(self.lines).unwrap_or(usize::MAX);
        for line in ledger::read_lines(ledger)?.skip(skip) {
            let key = match line? {
                Line::Acknowledged(it) => self.key(&it.sensor_id, &it.kind, it.timestamp),
                Line::Open(it) => self.key(&it.sensor_id, &it.kind, it.timestamp),
                _ => continue,
            };
            if self.strays.remove(&key).is_some() {
                self.proof.counts.unexplained -= 1;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Proof {
        let mut strays: Vec<_> = std::mem::take(&mut self.strays).into_values().collect();
        strays.sort_by(|one, other| one.what.cmp(&other.what));
        for stray in strays {
            self.proof.find(Kind::Unexplained, || stray);
        }
        let letters = self.letters.values().filter(|letter| {
            !letter.explained
                && self.run.topics.contains(&letter.topic)
                && self.is_of_the_run(letter.received_at)
        });
        let mut unexplained: Vec<_> = letters.copied().collect();
        unexplained.sort_by_key(|letter| letter.received_at);
        for letter in unexplained {
            self.proof.counts.unexplained += 1;
            let at = Timestamp::from_microsecond(letter.received_at).unwrap_or_default();
            let reason = letter.reason.map_or("unknown", RejectReason::as_str);
            self.proof.find(Kind::Unexplained, || Finding {
                what: format!("a dead letter of {at}"),
                detail: format!("{reason}; `fleet dead-letters list` shows it"),
            });
        }
        if let Some(latencies) = self.latencies.as_ref().filter(|it| !it.is_empty()) {
            let at = |quantile| latencies.value_at_quantile(quantile) as f64 / 1_000.0;
            self.proof.delivery = Some(Delivery {
                p50_ms: at(0.5),
                p90_ms: at(0.9),
                p99_ms: at(0.99),
                p999_ms: at(0.999),
                max_ms: latencies.max() as f64 / 1_000.0,
            });
            let classes = latencies.iter_log(100, 1.25);
            self.proof.latencies = classes
                .map(|class| {
                    let upper = class.value_iterated_to() as f64 / 1_000.0;
                    (upper, class.count_since_last_iteration())
                })
                .collect();
        }
        self.proof
    }
}

impl Known {
    fn acknowledged(entry: &Entry) -> Self {
        Self {
            value: entry.value.to_bits(),
            acknowledged_at: entry.acknowledged_at.as_microsecond(),
            published_at: entry.published_at.map(|at| at.as_microsecond()),
            status: Status::Acknowledged,
            rows: 0,
            conflicting: false,
        }
    }

    fn open(entry: &OpenEntry) -> Self {
        Self {
            value: entry.value.to_bits(),
            acknowledged_at: 0,
            published_at: None,
            status: Status::Open,
            rows: 0,
            conflicting: false,
        }
    }

    fn withheld() -> Self {
        Self {
            value: 0,
            acknowledged_at: 0,
            published_at: None,
            status: Status::Withheld,
            rows: 0,
            conflicting: false,
        }
    }
}
