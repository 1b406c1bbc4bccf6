//! Logs of what the tests start, shown when a test fails.

use std::path::Path;

/// Bytes of a log that are shown: the end is where the reason stands.
const SHOWN_BYTES: usize = 8 * 1024;

/// The end of a log file, at most [`SHOWN_BYTES`], or why it cannot be read.
pub(crate) fn tail(path: &Path) -> String {
    match std::fs::read(path) {
        Ok(bytes) => {
            let start = bytes.len().saturating_sub(SHOWN_BYTES);
            String::from_utf8_lossy(&bytes[start..]).into_owned()
        }
        Err(error) => format!("({} cannot be read: {error})", path.display()),
    }
}

/// Prints the ends of `logs` if the current test is failing.
#[expect(
    clippy::print_stderr,
    reason = "the test runner shows it with the failed test"
)]
pub(crate) fn show_on_failure<'a>(name: &str, logs: impl IntoIterator<Item = &'a Path>) {
    if std::thread::panicking() {
        for path in logs {
            let text = tail(path);
            if !text.is_empty() {
                let file = path.file_name().unwrap_or_default().display();
                eprintln!("---- {name}: {file} ----\n{text}");
            }
        }
    }
}
