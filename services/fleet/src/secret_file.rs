//! Files that only their owner may read, replaced as a whole.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// For the owner only.
const SECRET: u32 = 0o600;
/// For everybody.
const PUBLIC: u32 = 0o644;

/// Writes a file that only its owner may read. Whoever reads it meanwhile sees the old content or
/// the new one; a file that has the content already is left as it is, but for its permissions.
pub(crate) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    replace(path, content, SECRET)
}

/// The same for a file that is no secret.
pub(crate) fn write_public(path: &Path, content: &[u8]) -> io::Result<()> {
    replace(path, content, PUBLIC)
}

fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    if fs::read(path).is_ok_and(|there| there == content) {
        return fs::set_permissions(path, fs::Permissions::from_mode(mode));
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = path.with_file_name(name);
    // One that a killed process left could have other permissions.
    if let Err(error) = fs::remove_file(&beside)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    match written.and_then(|()| fs::rename(&beside, path)) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
        Err(error) => {
            // The reason is told; that the rest of it stays as well would add nothing.
            fs::remove_file(&beside).ok();
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_for_its_owner_only_also_when_it_was_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deep/key.pem");
        let mode = || fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        write_public(&file, b"one").unwrap();
        assert_eq!(mode(), 0o644);
        write(&file, b"one").unwrap();
        assert_eq!(mode(), 0o600);
        write(&file, b"two").unwrap();
        assert_eq!(
            (fs::read(&file).unwrap().as_slice(), mode()),
            (&b"two"[..], 0o600)
        );
        let left = fs::read_dir(file.parent().unwrap()).unwrap().count();
        assert_eq!(left, 1, "nothing is left beside it");
    }
}
