//! Writing a ledger without holding the simulator up.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;

use super::{Course, LedgerError, NewEntry, Whole};

/// An entry waits at most so long before it is written.
const FLUSH_AFTER: Duration = Duration::from_millis(100);
/// Bytes after which the writer does not wait any longer: some 300 entries a write.
const FLUSH_BYTES: usize = 64 * 1024;
/// Bytes that wait at most; an append beyond waits for the disk. At 200 bytes an entry and 20,000
/// readings a second a disk may stand still for two seconds before that happens.
const WAITING_MAX: usize = 8 * 1024 * 1024;
/// No entry is longer: its topic and names are short.
const ENTRY_MAX: u64 = 64 * 1024;

/// An open ledger. Cheap to clone; any thread may append.
///
/// A thread of its own writes what was appended, in one write each time. A process that is killed
/// loses at most what was appended in the last 100 ms: those readings are in the store and not in
/// the ledger, which is no loss. [`Ledger::close`] writes the rest and syncs the file.
#[derive(Clone, Debug)]
pub struct Ledger {
    shared: Arc<Shared>,
    writer: Arc<Mutex<Option<Writer>>>,
}

/// The thread that writes; it ends with the first error or when the ledger is closed.
type Writer = JoinHandle<std::io::Result<()>>;

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    state: Mutex<State>,
    /// Something was appended, or the ledger is being closed.
    appended: Condvar,
    /// What was appended is being written.
    taken: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    closing: bool,
    failed: bool,
}

impl Ledger {
    /// Opens a ledger for appending and creates it, and its folder, when it is not there.
    ///
    /// A torn last line is cut off, so that every line in the file is whole.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, LedgerError> {
        let path = path.into();
        let opened = open(&path).and_then(|file| {
            let shared = Arc::new(Shared {
                path: path.clone(),
                state: Mutex::default(),
                appended: Condvar::new(),
                taken: Condvar::new(),
            });
            let writer = std::thread::Builder::new()
                .name("ledger".to_owned())
                .spawn({
                    let shared = Arc::clone(&shared);
                    move || shared.write_all(file)
                })?;
            Ok(Self {
                shared,
                writer: Arc::new(Mutex::new(Some(writer))),
            })
        });
        opened.map_err(|source| LedgerError::Open { path, source })
    }

    /// Appends an entry, which is in the file within 100 ms.
    ///
    /// Waits for the disk only when it is more than 8 MiB behind. After a failed write or
    /// [`Ledger::close`] it does nothing: [`Ledger::has_failed`] and `close` tell.
    pub fn append(&self, entry: &NewEntry<'_>) -> serde_json::Result<()> {
        self.append_line(entry)
    }

    /// As [`Ledger::append`], with what else is known of the publish.
    pub fn append_with(&self, entry: &NewEntry<'_>, course: &Course) -> serde_json::Result<()> {
        self.append_line(&Whole::new(entry, course))
    }

    /// As [`Ledger::append`] for a line that is no acknowledged reading.
    pub(crate) fn append_other(&self, line: &impl Serialize) -> serde_json::Result<()> {
        self.append_line(line)
    }

    fn append_line(&self, line: &impl Serialize) -> serde_json::Result<()> {
        let mut state = self.shared.lock();
        while state.waiting.len() >= WAITING_MAX && !state.failed && !state.closing {
            state = self
                .shared
                .taken
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.failed || state.closing {
            return Ok(());
        }
        let before = state.waiting.len();
        if let Err(error) = serde_json::to_writer(&mut state.waiting, line) {
            state.waiting.truncate(before);
            return Err(error);
        }
        state.waiting.push(b'\n');
        let after = state.waiting.len();
        if before == 0 || (before < FLUSH_BYTES && after >= FLUSH_BYTES) {
            self.shared.appended.notify_one();
        }
        Ok(())
    }

    /// Whether a write has failed, so that entries are missing.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.shared.lock().failed
    }

    /// Writes what waits and syncs the file. A second call does nothing.
    pub fn close(&self) -> Result<(), LedgerError> {
        self.shared.lock().closing = true;
        self.shared.appended.notify_one();
        self.shared.taken.notify_all();
        let writer = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(writer) = writer else {
            return Ok(());
        };
        let written = writer
            .join()
            .unwrap_or_else(|_| Err(std::io::Error::other("the writer panicked")));
        written.map_err(|source| LedgerError::Write {
            path: self.shared.path.clone(),
            source,
        })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer's thread: two buffers change places, one is filled while the other is written.
    fn write_all(&self, mut file: File) -> Result<(), std::io::Error> {
        let mut batch = Vec::with_capacity(FLUSH_BYTES);
        loop {
            let closing = self.take(&mut batch);
            if let Err(error) = file.write_all(&batch) {
                self.lock().failed = true;
                self.taken.notify_all();
                return Err(error);
            }
            batch.clear();
            if closing {
                return file.sync_data();
            }
        }
    }

    /// Waits until there is a batch worth a write, and takes it. True when it is the last one.
    fn take(&self, batch: &mut Vec<u8>) -> bool {
        let idle = |state: &mut State| state.waiting.is_empty() && !state.closing;
        let short = |state: &mut State| state.waiting.len() < FLUSH_BYTES && !state.closing;
        let state = self.appended.wait_while(self.lock(), idle);
        let state = state.unwrap_or_else(PoisonError::into_inner);
        let state = self.appended.wait_timeout_while(state, FLUSH_AFTER, short);
        let mut state = state.unwrap_or_else(PoisonError::into_inner).0;
        std::mem::swap(&mut state.waiting, batch);
        self.taken.notify_all();
        state.closing
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)?;
    let length = file.metadata()?.len();
    let torn = torn_bytes(&mut file, length)?;
    if torn > 0 {
        tracing::warn!(ledger = %path.display(), torn, "cut off the torn last line of the ledger");
        file.set_len(length - torn)?;
    }
    Ok(file)
}

/// Bytes after the last line feed. What cannot be the start of an entry is refused rather than
/// cut off: somebody named a file that is no ledger.
fn torn_bytes(file: &mut File, length: u64) -> std::io::Result<u64> {
    file.seek(SeekFrom::Start(length.saturating_sub(ENTRY_MAX)))?;
    let mut end = Vec::new();
    file.take(ENTRY_MAX).read_to_end(&mut end)?;
    let whole = end
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |last| last + 1);
    let torn = &end[whole..];
    if torn.is_empty() || (torn[0] == b'{' && (torn.len() as u64) < ENTRY_MAX) {
        Ok(torn.len() as u64)
    } else {
        Err(std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            "the end of the file is not that of a ledger; name another file",
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use fleet_shared::session::QoS;
    use jiff::Timestamp;

    use super::super::{Entry, read};
    use super::*;

    fn append(ledger: &Ledger, second: i64) {
        let entry = NewEntry {
            sensor_id: "temp-sensor-001",
            kind: "temperature",
            timestamp: Timestamp::from_second(second).unwrap(),
            value: 21.5,
            qos: QoS::AtLeastOnce,
            topic: "sensors/bedroom/temperature",
            acknowledged_at: Timestamp::from_second(second + 1).unwrap(),
        };
        ledger.append(&entry).unwrap();
    }

    fn entries(path: &Path) -> Vec<Entry> {
        read(path).unwrap().collect::<Result<_, _>>().unwrap()
    }

    fn seconds(path: &Path) -> Vec<i64> {
        entries(path)
            .iter()
            .map(|entry| entry.timestamp.as_second())
            .collect()
    }

    #[test]
    fn entries_come_back_as_they_were_appended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/ledger.jsonl");
        let ledger = Ledger::open(&path).unwrap();
        append(&ledger, 1);
        append(&ledger, 2);
        ledger.close().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        insta::assert_snapshot!(text.lines().next().unwrap(), @r#"{"sensor_id":"temp-sensor-001","type":"temperature","timestamp":"1970-01-01T00:00:01Z","value":21.5,"qos":1,"topic":"sensors/bedroom/temperature","acknowledged_at":"1970-01-01T00:00:02Z"}"#);
        let first = entries(&path).remove(0);
        assert_eq!(
            (first.kind.as_str(), first.qos),
            ("temperature", QoS::AtLeastOnce)
        );
        assert_eq!(seconds(&path), [1, 2]);
    }

    #[test]
    fn an_entry_is_in_the_file_soon_without_a_close() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        let ledger = Ledger::open(&path).unwrap();
        append(&ledger, 1);
        let deadline = Instant::now() + Duration::from_secs(10);
        while seconds(&path).is_empty() {
            assert!(Instant::now() < deadline, "not written within 10 s");
            std::thread::yield_now();
        }
        ledger.close().unwrap();
    }

    #[test]
    fn a_torn_last_line_is_left_out_and_then_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        let ledger = Ledger::open(&path).unwrap();
        append(&ledger, 1);
        ledger.close().unwrap();
        let torn = format!(
            "{}{{\"sensor_id\":\"te",
            std::fs::read_to_string(&path).unwrap()
        );
        std::fs::write(&path, torn).unwrap();
        assert_eq!(seconds(&path), [1]);

        let ledger = Ledger::open(&path).unwrap();
        append(&ledger, 2);
        ledger.close().unwrap();
        assert_eq!(seconds(&path), [1, 2]);
    }

    #[test]
    fn a_file_that_is_no_ledger_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("photograph.jpg");
        for content in [vec![b'x'; 10], vec![b'{'; 100_000]] {
            std::fs::write(&path, &content).unwrap();
            let error = Ledger::open(&path).unwrap_err();
            assert!(matches!(error, LedgerError::Open { .. }), "{error}");
            assert_eq!(std::fs::read(&path).unwrap(), content);
        }
    }

    #[test]
    fn a_whole_line_that_is_no_entry_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        let ledger = Ledger::open(&path).unwrap();
        append(&ledger, 1);
        ledger.close().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}rubbish\n{text}")).unwrap();
        let read: Vec<_> = read(&path).unwrap().collect();
        assert_eq!(read.len(), 2);
        assert!(
            read[1]
                .as_ref()
                .unwrap_err()
                .to_string()
                .starts_with("line 2 of the ledger")
        );
    }

    #[test]
    fn appends_of_several_threads_are_all_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        let ledger = Ledger::open(&path).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let ledger = ledger.clone();
                scope.spawn(move || (0..2_500).for_each(|n| append(&ledger, thread * 10_000 + n)));
            }
        });
        ledger.close().unwrap();
        let mut seconds = seconds(&path);
        assert_eq!(seconds.len(), 10_000);
        seconds.sort_unstable();
        seconds.dedup();
        assert_eq!(seconds.len(), 10_000);
        append(&ledger, 1);
        ledger.close().unwrap();
    }
}
