//! One `fleet up` a data folder: two would take each other's place at store and ledger for ever.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

use fleet_shared::config::ConfigError;

/// Locked for as long as a run lasts, and holds the number of its process. It stays when the run ends:
/// to delete it would let two others lock two different files of this name.
const FILE: &str = "fleet-up.lock";

/// A folder that is ours. The operating system gives it back with the process, however that ends.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// # Errors
    /// When another process has the folder, or it cannot be locked.
    pub(super) fn take(data_dir: &Path) -> Result<Self, ConfigError> {
        let wrong =
            |remedy| ConfigError::value("--data-dir (FLEET_DATA_DIR)", data_dir.display(), remedy);
        let unusable = |error| {
            wrong(format!(
                "cannot lock {FILE} in it ({error}); choose another folder"
            ))
        };
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            // The number in it belongs to whoever has the lock.
            .truncate(false)
            .open(data_dir.join(FILE));
        let mut file = opened.map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = holder(&mut file);
                return Err(wrong(format!(
                    "another `fleet up`{holder} has it; stop that one, or choose another folder with --data-dir"
                )));
            }
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(unusable)?;
        Ok(Self { _file: file })
    }
}

/// Which process has the lock; nothing of one that has not written it yet.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.take(32).read_to_string(&mut text);
    match (read, text.trim().parse::<u32>()) {
        (Ok(_), Ok(pid)) => format!(" (process {pid})"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_s_until_it_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let lock = Lock::take(folder.path()).unwrap();
        let error = Lock::take(folder.path()).unwrap_err().to_string();
        let pid = format!("(process {})", std::process::id());
        let path = folder.path().display().to_string();
        for part in [&pid, &path, "--data-dir"] {
            assert!(error.contains(part), "{error}");
        }
        drop(lock);
        Lock::take(folder.path()).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_locked_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(FILE)).unwrap();
        let error = Lock::take(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("cannot lock") && error.contains("--data-dir"),
            "{error}"
        );
    }
}
