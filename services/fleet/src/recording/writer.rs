//! The end of a recording file, to which lines are appended.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use super::format::Line;

/// No line is longer; see the reader.
const TAIL_MAX: u64 = 4 * 1024 * 1024;
/// With this a recording begins.
const START: &[u8] = b"{\"recording\":";

/// Appends lines. What [`Writer::append`] has returned for survives a kill of the process; what was
/// written before [`Writer::sync`] survives a power cut.
#[derive(Debug)]
pub(super) struct Writer {
    file: File,
    /// Bytes appended.
    pub(super) bytes: u64,
}

impl Writer {
    /// Opens a file for appending, or creates it. A torn last line is cut off.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            std::fs::create_dir_all(folder)?;
        }
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).open(path)?;
        let length = file.metadata()?.len();
        check_start(&mut file)?;
        let whole = whole_lines(&mut file, length)?;
        if whole < length {
            file.set_len(whole)?;
        }
        Ok(Self { file, bytes: 0 })
    }

    /// Appends lines, in one write.
    pub(super) fn append(&mut self, lines: &[Line]) -> io::Result<()> {
        let mut text = Vec::with_capacity(256 * lines.len());
        for line in lines {
            serde_json::to_writer(&mut text, line)?;
            text.push(b'\n');
        }
        self.file.write_all(&text)?;
        self.bytes += text.len() as u64;
        Ok(())
    }

    /// Waits until all of it is on the disk.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// A file of something else must not be written to.
fn check_start(file: &mut File) -> io::Result<()> {
    let mut start = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(START.len() as u64).read_to_end(&mut start)?;
    if START.starts_with(&start) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "there is something in it that is no recording; give another file",
    ))
}

/// Length of the file without a torn last line.
fn whole_lines(file: &mut File, length: u64) -> io::Result<u64> {
    let start = length.saturating_sub(TAIL_MAX);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.take(length - start).read_to_end(&mut tail)?;
    match tail.iter().rposition(|byte| *byte == b'\n') {
        Some(at) => Ok(start + at as u64 + 1),
        None if start == 0 => Ok(0),
        None => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it does not end like a recording; give another file",
        )),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::recording::{Header, Lines};

    #[test]
    fn a_torn_line_is_cut_off_before_more_is_appended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b.jsonl");
        let header = |broker: &str| {
            Line::Header(Header::new(
                broker.to_owned(),
                Vec::new(),
                Timestamp::UNIX_EPOCH,
            ))
        };
        Writer::open(&path)
            .unwrap()
            .append(&[header("one")])
            .unwrap();
        let mut text = std::fs::read(&path).unwrap();
        text.extend_from_slice(b"{\"at\":\"2026-");
        std::fs::write(&path, &text).unwrap();
        let mut writer = Writer::open(&path).unwrap();
        writer.append(&[header("two"), header("three")]).unwrap();
        writer.sync().unwrap();
        let lines: Vec<Line> = Lines::open(&path).unwrap().map(Result::unwrap).collect();
        assert_eq!(lines, [header("one"), header("two"), header("three")]);
    }

    #[test]
    fn a_file_of_something_else_is_not_touched() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for text in ["my diary", "{\"at\":1}\n{"] {
            std::fs::write(file.path(), text).unwrap();
            assert!(Writer::open(file.path()).is_err(), "{text}");
            assert_eq!(std::fs::read_to_string(file.path()).unwrap(), text);
        }
    }
}
