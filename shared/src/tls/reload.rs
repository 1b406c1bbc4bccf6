//! A value made from files, made again when they change.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Files are looked at most so often: a handshake costs more than a look, but thousands of them
/// in a second need not look each.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What tells one content of a file from another. Links are followed: Kubernetes renews mounted
/// secrets by turning a link to another folder, which gives other inodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// None while the file is not there.
    fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|found| Self {
            device: found.dev(),
            inode: found.ino(),
            length: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
        })
    }
}

/// Files that are looked at for changes.
#[derive(Debug)]
pub struct WatchedFiles {
    files: Vec<PathBuf>,
    stamps: Vec<Option<Stamp>>,
}

impl WatchedFiles {
    /// Begins with the files as they are now. Do so before they are read: a change in between is
    /// then seen as one.
    #[must_use]
    pub fn new(files: Vec<PathBuf>) -> Self {
        Self {
            stamps: stamps(&files),
            files,
        }
    }

    /// Whether one of them has changed, come or gone since the last look.
    pub fn changed(&mut self) -> bool {
        let stamps = stamps(&self.files);
        let changed = stamps != self.stamps;
        self.stamps = stamps;
        changed
    }

    /// The files.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    files.iter().map(|file| Stamp::of(file)).collect()
}

/// Makes a `T` from files, and keeps it until they change.
///
/// Files that cannot be used after a change leave the old value in force: a certificate that is
/// being replaced may for a moment not fit its key.
#[derive(Debug)]
pub(crate) struct Reloading<T, F> {
    load: F,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    value: Arc<T>,
    watched: WatchedFiles,
    looked: Instant,
}

impl<T, E, F> Reloading<T, F>
where
    E: std::error::Error,
    F: Fn() -> Result<T, E>,
{
    /// The first value.
    ///
    /// # Errors
    /// Those of `load`.
    pub(crate) fn new(files: Vec<PathBuf>, load: F) -> Result<Self, E> {
        let watched = WatchedFiles::new(files);
        let value = Arc::new(load()?);
        let looked = Instant::now();
        Ok(Self {
            load,
            state: Mutex::new(State {
                value,
                watched,
                looked,
            }),
        })
    }

    /// The value of the files as they are now, or were at most half a second ago.
    pub(crate) fn current(&self) -> Arc<T> {
        self.at(Instant::now())
    }

    /// The value of the last look, without another.
    pub(crate) fn latest(&self) -> Arc<T> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&state.value)
    }

    fn at(&self, now: Instant) -> Arc<T> {
        // Nothing below leaves the state half changed.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(state.looked) < LOOK_EVERY {
            return Arc::clone(&state.value);
        }
        state.looked = now;
        if state.watched.changed() {
            match (self.load)() {
                Ok(value) => {
                    state.value = Arc::new(value);
                    tracing::info!(files = ?state.watched.files(), "certificates were read again");
                }
                Err(error) => {
                    tracing::warn!(%error, "changed certificates cannot be used; the old ones stay in force");
                }
            }
        }
        Arc::clone(&state.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reloading(
        file: PathBuf,
    ) -> Reloading<u32, impl Fn() -> Result<u32, std::num::ParseIntError>> {
        let read = file.clone();
        let load = move || fs::read_to_string(&read).unwrap_or_default().parse();
        Reloading::new(vec![file], load).unwrap()
    }

    #[test]
    fn a_changed_file_is_read_and_one_that_cannot_be_used_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("number");
        fs::write(&file, "1").unwrap();
        let value = reloading(file.clone());
        let mut now = Instant::now();
        let mut later = || {
            now += LOOK_EVERY;
            now
        };
        assert_eq!(*value.at(later()), 1);
        fs::write(&file, "22").unwrap();
        assert_eq!(*value.at(later()), 22);
        fs::write(&file, "nothing").unwrap();
        assert_eq!(*value.at(later()), 22);
        fs::remove_file(&file).unwrap();
        assert_eq!(*value.at(later()), 22);
        fs::write(&file, "333").unwrap();
        assert_eq!(*value.at(later()), 333);
    }

    /// As Kubernetes does it: `..data` is a link to a folder with the time in its name, and the
    /// file a link through it.
    #[test]
    fn a_turned_link_is_a_change() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (version, content) in [("..v1", "1"), ("..v2", "2")] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("number"), content).unwrap();
        }
        symlink("..v1", at("..data")).unwrap();
        symlink("..data/number", at("number")).unwrap();
        let value = reloading(at("number"));
        let now = Instant::now();
        assert_eq!(*value.at(now + LOOK_EVERY), 1);
        symlink("..v2", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        assert_eq!(*value.at(now + LOOK_EVERY), 1, "it was looked at just now");
        assert_eq!(*value.at(now + LOOK_EVERY * 2), 2);
    }
}
